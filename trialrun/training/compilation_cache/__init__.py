"""What XLA has compiled, kept in the user's cache folder for later processes.

`folder` decides where that is and whether it can be trusted, `entries` reads and writes its files,
and `cached_function` is what a program calls. TensorFlow itself sees none of these files: it is
given what was verified, in memory, and what it compiles is taken from there. So nothing that may
be wrong with a file or a disk reaches it. `measured` keeps how long steps took. `folder` and
`entries` import no TensorFlow, because the driver and the doctor use them too.
"""
