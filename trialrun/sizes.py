"""Whether the data of a pack's trials fits into memory, checked before it is stacked."""

from trialrun.arrays import leaves
from trialrun.datasets import PARTS, Splits
from trialrun.errors import OutOfMemory
from trialrun.host import available_memory_bytes


def splits_bytes(splits: Splits) -> int:
    """The bytes of all arrays of a trial's data."""
    arrays = (
        pair for part in PARTS for structure in splits.part(part) for pair in leaves(structure)
    )
    return sum(int(array.nbytes) for _, array in arrays)


def require_memory(splits: Splits, num_trials: int, free_bytes: int | None = None) -> None:
    """Raises OutOfMemory unless the data of a number of trials fits into memory.

    Args:
        splits: The data of the first trial, which is already in memory.
        num_trials: How many trials have data of their own; 1 if all share it.
        free_bytes: The free memory; absent: that of this machine.

    Raises:
        OutOfMemory: The data of the other trials, and the device's copy of all data, need more.
    """
    own = splits_bytes(splits)
    needed = own * (2 * num_trials - 1)
    free = available_memory_bytes() if free_bytes is None else free_bytes
    if needed > free:
        raise OutOfMemory(
            f"the data of one trial takes {own / 2**20:,.0f} MiB; {num_trials} trials, with the"
            f" device's copy, need {needed / 2**20:,.0f} MiB more, but only"
            f" {free / 2**20:,.0f} MiB are free. With a fixed data.seed all trials share one copy"
        )
