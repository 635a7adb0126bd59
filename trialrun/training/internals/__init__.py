"""Every private name of Keras and TensorFlow that is touched.

Keras's TensorFlow backend keeps its state in `tf.Variable`s and its optimizers go through
`tf.distribute`. To use its layers, losses, metrics and optimizers as pure functions, a handful of
private methods have to be called or, while a program is traced, replaced. Each is named here once,
so that a new Keras or TensorFlow version is checked in one place: versions are pinned in
pyproject.toml and `tests/training/test_fused_oracle.py` compares the result with plain `model.fit`.

The replacements are process-wide while they last. Programs are traced by one thread at a time
(`program.program` holds a lock); running an already traced program needs none of them.
"""
