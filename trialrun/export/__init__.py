"""The best model's files: saved, proved by loading them again, and used for predictions.

`process` is what the driver talks to. TensorFlow is imported inside functions alone, and those run
in a process of their own, or where the user asked for the model.
"""
