"""Operations that give other numbers inside XLA than outside of it, so that no program has them."""

from collections.abc import Collection

from trialrun.errors import CannotFuse

# Those that `converters` and `in_turn` replace; a graph still lists the functions that they stood
# in. The rest control what is computed.
_REPLACED = frozenset(
    (
        *("StatelessRandomGetKeyCounter", "StatelessRandomUniformV2", "StatelessRandomNormalV2"),
        *("StatelessRandomUniformIntV2", "StatelessWhile", "StatelessIf", "StatelessCase"),
    )
)
# They draw from a state of TensorFlow's process, which trials would share.
_STATEFUL_RANDOM = frozenset(
    (
        *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal"),
        *("ParameterizedTruncatedNormal", "Multinomial", "RandomGamma", "RandomPoisson"),
        *("RandomPoissonV2", "RandomShuffle"),
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


def refuse_other_numbers(operations: Collection[str]) -> None:
    """Raises CannotFuse for an operation whose numbers would be others in a compiled program.

    Args:
        operations: The types of all operations of a graph.
    """
    for operation in sorted(operations):
        if operation.startswith("Stateless") and operation not in _REPLACED:
            raise CannotFuse(f"XLA draws other random numbers than TensorFlow for {operation}")
        if operation in _STATEFUL_RANDOM:
            raise CannotFuse(
                f"it draws from TensorFlow's own random stream ({operation}); draw with"
                " keras.random and a seed generator that the model holds"
            )
        if operation in _OF_UNKNOWN_SIZE:
            raise CannotFuse(f"the size of what {operation} gives depends on the values")


def refuse_left_out(operations: Collection[str]) -> None:
    """Raises CannotFuse for an operation in the user's code that a program would leave out.

    Args:
        operations: The types of all operations of a graph.
    """
    for operation in sorted(operations):
        if operation in _LEFT_OUT:
            raise CannotFuse(f"a program would leave out its operation {operation}")
