"""The plain engine: `model.fit`, one trial after another.

It is the oracle of the compiled engines, and what trains a model that they cannot.
"""
