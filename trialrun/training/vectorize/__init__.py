"""A function of one trial becomes one of all trials, by operations that TensorFlow lacks."""
