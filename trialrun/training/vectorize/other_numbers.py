"""Refuses operations that give other results inside XLA than outside of it."""

from typing import Any

from trialrun.errors import CannotFuse
from trialrun.training.internals.tensorflow_graph import operations_needed, operations_within

# They draw nothing. Every other stateless operation draws random numbers.
_CONTROL = frozenset(("StatelessWhile", "StatelessIf", "StatelessCase"))
# They draw from a state of TensorFlow's process, which trials would share.
_STATEFUL_RANDOM = frozenset(
    (
        *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal"),
        *("ParameterizedTruncatedNormal", "Multinomial", "RandomGamma", "RandomPoisson"),
        *("RandomPoissonV2", "RandomShuffle", "NonDeterministicInts"),
    )
)
# XLA compiles these to nothing, or cannot compile them at all.
_LEFT_OUT = frozenset(
    (
        *("Assert", "CheckNumerics", "CheckNumericsV2", "Print", "PrintV2"),
        *("EagerPyFunc", "PyFunc", "PyFuncStateless", "Timestamp"),
    )
)
# Their results have as many rows as the values say: XLA pads them, and may read what it padded.
_OF_UNKNOWN_SIZE = frozenset(("Where", "DynamicPartition", "Unique", "UniqueV2"))


def refuse_operations(graph: Any, *, left_out: bool) -> None:
    """Raises CannotFuse for an operation that a compiled program would not compute as plain Keras.

    Stateless draws are replaced by `draws` and `converters`, but a graph still lists what was
    replaced. So only those are refused that a result depends on.

    Args:
        graph: The graph of a concrete function.
        left_out: Whether operations that a program would leave out are refused too. Keras's own
            code has some, which check what it computes.
    """
    if others := graph.variables:  # all trials, and all packs of this process, would share it
        raise CannotFuse(f"{others[0].name!r} is not among the model's own variables")
    within = operations_within(graph)
    draws = {name for name in within - _CONTROL if name.startswith("Stateless")}
    for operation in sorted(draws & operations_needed(graph) if draws else ()):
        raise CannotFuse(f"XLA draws other random numbers than TensorFlow for {operation}")
    for operation in sorted(within):
        if operation in _STATEFUL_RANDOM:
            raise CannotFuse(
                f"it draws from TensorFlow's own random stream ({operation}); draw with"
                " keras.random and a seed generator that the model holds"
            )
        if operation in _OF_UNKNOWN_SIZE:
            raise CannotFuse(f"the size of what {operation} gives depends on the values")
        if left_out and operation in _LEFT_OUT:
            raise CannotFuse(f"a program would leave out its operation {operation}")
