"""Trains packs: the only room that imports TensorFlow where its modules begin.

`pack` is the entry, `engine_choice` chooses between the engines, and `compiled` and `keras_fit` are
these. `model` builds and compiles a trial's model, `program` and `vectorize` make one program of
many trials, and `internals` holds every private name of Keras and TensorFlow. Which optimizers,
losses and metrics a job can name is not here: see `job.keras_api`. Refuses to know of Ray and of
the run folder.
"""
