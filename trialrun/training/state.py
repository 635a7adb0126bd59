"""The state of a model in training: the arrays of its variables."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class ModelState(NamedTuple):
    """All variables of a model by kind, each a list in Keras's order, and its hyperparameters.

    The lists hold `keras.Variable`s, or tensors of one trial, or tensors stacked over trials on
    axis 0. The hyperparameters are float64 scalars per trial that no step changes. Of a model with
    steps of its own, the optimizer's list ends with variables of further optimizers and metrics.
    """

    trainable: list[Any]
    non_trainable: list[Any]
    optimizer: list[Any]
    hyperparameters: Sequence[Any] = ()

    def with_values(self, values: "ModelState") -> Iterator[tuple[Any, Any]]:
        """Each of these variables with what stands in its place in another state of the model."""
        for own, others in zip(self[:3], values[:3], strict=True):
            yield from zip(own, others, strict=True)
