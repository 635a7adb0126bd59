"""Whether the data of a pack's trials fits into memory, before anything of it is stacked."""

from trialrun.arrays import leaves
from trialrun.datasets import PARTS, Splits
from trialrun.errors import OutOfMemory
from trialrun.host import available_memory_bytes


def splits_bytes(splits: Splits) -> int:
    """Bytes of all arrays of a trial's data."""
    arrays = (one for part in PARTS for structure in splits.part(part) for one in leaves(structure))
    return sum(int(array.nbytes) for _, array in arrays)


def require_memory(splits: Splits, num_trials: int, free_bytes: int | None = None) -> None:
    """Refuses data of so many trials that cannot be held.

    Args:
        splits: The data of the first of them, which is held already.
        num_trials: Trials with data of their own; 1 where all share it.
        free_bytes: Memory that is left; absent, what this machine says.

    Raises:
        OutOfMemory: The arrays of the other trials, and the device's copy of all, need more. Fewer
            trials at a time may do.
    """
    own = splits_bytes(splits)
    needed = own * (2 * num_trials - 1)
    free = available_memory_bytes() if free_bytes is None else free_bytes
    if needed > free:
        raise OutOfMemory(
            f"the data of one trial takes {own / 2**20:,.0f} MiB, and of {num_trials} trials, with"
            f" the device's copy, {needed / 2**20:,.0f} MiB more; {free / 2**20:,.0f} MiB are free."
            " A fixed data.seed lets all trials share one copy"
        )
