"""The compiled engines: one XLA program trains all trials of a pack.

`train` tells the story, from the program in `prepare` to the slices that threads train.
"""
