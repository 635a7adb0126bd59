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
# Their results have as many rows as the values say: XLA pads them, and may read what it padded.
_OF_UNKNOWN_SIZE = frozenset(("Where", "DynamicPartition"))


def refuse_other_numbers(operations: Collection[str]) -> None:
    """Raises CannotFuse for an operation whose numbers would be others in a compiled program.

    Args:
        operations: The types of all operations of a graph.
    """
    for operation in sorted(operations):
        if operation.startswith("Stateless") and operation not in _REPLACED:
            raise CannotFuse(f"XLA draws other random numbers than TensorFlow for {operation}")
        if operation in _OF_UNKNOWN_SIZE:
            raise CannotFuse(f"the size of what {operation} gives depends on the values")
