"""One program of many trials: a Keras model as pure functions, and the numbers that differ."""
