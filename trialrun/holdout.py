"""Rows that are kept back: for testing, then for validation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trialrun.errors import InputError

Rows = npt.NDArray[np.int64]

# Keys the two splits apart, and apart from a generator's own stream of the same seed.
_STREAMS = {"data.test_split": 0x7E57, "data.validation_split": 0x5B117}


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The classes of rows, whose shares a stratified split keeps.

    Attributes:
        labels: int64 (rows of the whole data set,).
        names: One per class.
    """

    labels: npt.NDArray[np.int64]
    names: Sequence[str]


def hold_out(
    rows: Rows, share: float, seed: int, field: str, classes: Classes | None
) -> tuple[Rows, Rows]:
    """The rows that stay, and as many as Keras's `validation_split` takes away; both shuffled.

    Args:
        rows: Row numbers to choose from.
        share: Above 0 and below 1.
        seed: Keys the choice.
        field: The job's field that gives the share.
        classes: Given, both parts get the same share of each class.

    Raises:
        InputError: There are too few rows, or too few of a class.
    """
    from sklearn.model_selection import train_test_split

    num_kept = math.floor(len(rows) * (1.0 - share))
    num_held_out = len(rows) - num_kept
    if not num_kept or not num_held_out:
        raise InputError(
            f"{field} {share} of {len(rows)} rows leaves {num_kept} and {num_held_out}; both parts"
            " need one"
        )
    if classes is not None:
        _check_counts(classes, rows, min(num_kept, num_held_out), f"{field} {share}")
    kept, held_out = train_test_split(
        rows,
        test_size=num_held_out,
        random_state=int(np.random.default_rng([seed, _STREAMS[field]]).integers(2**32)),
        stratify=None if classes is None else classes.labels[rows],
    )
    return kept, held_out


def _check_counts(classes: Classes, rows: Rows, num_smaller: int, where: str) -> None:
    counts = np.bincount(classes.labels[rows], minlength=len(classes.names))
    present = np.flatnonzero(counts)
    rarest = present[counts[present].argmin()]
    if counts[rarest] < 2:
        raise InputError(
            f"{where}: class {classes.names[rarest]!r} has one row left, and each part needs one of"
            " every class; give more rows, or data.stratify: false"
        )
    if num_smaller < len(present):
        raise InputError(
            f"{where}: the smaller part has {num_smaller} rows for {len(present)} classes; give"
            " more rows, another share, or data.stratify: false"
        )
