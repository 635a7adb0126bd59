"""The story of a run: what is trained, written and told, and in which order.

`run` tells it. Refuses to import TensorFlow in this process; Ray only starts when trials are
missing.
"""
