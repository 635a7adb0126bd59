"""Splits that hold rows out of training: first for testing, then for validation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trialrun.errors import InputError

Rows = npt.NDArray[np.int64]

_MAX_CLASSES_SHOWN = 10
# Together with the trial's seed, these give both splits other random numbers than each other's and
# a generator's.
_STREAMS = {"data.test_split": 0x7E57, "data.validation_split": 0x5B117}


@dataclass(frozen=True, slots=True, eq=False)
class ClassLabels:
    """The classes of all rows, for a split that keeps the share of each class.

    Attributes:
        labels: The class of each row of the whole data set, int64 (rows,).
        names: The name of each class.
    """

    labels: npt.NDArray[np.int64]
    names: Sequence[str]


def hold_out(
    rows: Rows,
    share: float,
    seed: int,
    field: str,
    classes: ClassLabels | None,
    *,
    num_kept_parts: int = 1,
) -> tuple[Rows, Rows]:
    """The rows that are kept and those held out, both shuffled.

    As many are held out as by Keras's `validation_split`.

    Args:
        rows: Row numbers to choose from.
        share: The share of rows to hold out, above 0 and below 1.
        seed: Decides the choice.
        field: The job's field that gives the share.
        classes: If given, both results have the same share of each class and at least one row of
            each.
        num_kept_parts: Into how many parts the kept rows will be split later; at least this many
            rows of each class are kept.

    Raises:
        InputError: There are too few rows, or too few of a class.
    """
    from sklearn.model_selection import train_test_split

    num_kept = math.floor(len(rows) * (1.0 - share))
    num_held_out = len(rows) - num_kept
    if not num_kept or not num_held_out:
        raise InputError(
            f"{field} {share} of {len(rows)} rows splits them into {num_kept} and {num_held_out};"
            " each part needs at least one"
        )
    if classes is not None:
        sizes = (num_kept // num_kept_parts, num_held_out)
        _check_counts(classes, rows, min(sizes), num_kept_parts + 1, f"{field} {share}")
    kept, held_out = train_test_split(
        rows,
        test_size=num_held_out,
        random_state=int(_rng(seed, field).integers(2**32)),
        stratify=None if classes is None else classes.labels[rows],
    )
    if classes is None:
        return kept, held_out
    return with_every_class(classes.labels, kept, held_out, num_kept_parts=num_kept_parts)


def _rng(seed: int, field: str) -> np.random.Generator:
    """The random numbers of the split that a job's field gives, for a trial's seed."""
    return np.random.default_rng([seed, _STREAMS[field]])


def with_every_class(
    labels: npt.NDArray[np.int64], kept: Rows, held_out: Rows, *, num_kept_parts: int = 1
) -> tuple[Rows, Rows]:
    """The kept and the held out rows, with as few exchanged as gives both rows of every class.

    scikit-learn rounds the share of a class, so that a rare class may get no row at all. A class
    with too few rows for all parts stays among the kept rows.

    Args:
        labels: The class of each row of the whole data set, int64 (rows,).
        kept, held_out: Row numbers; both have at least as many rows as there are classes.
        num_kept_parts: How many rows of each class must be kept.
    """
    kept, held_out = kept.copy(), held_out.copy()
    counts = {
        id(part): np.bincount(labels[part], minlength=int(labels.max()) + 1)
        for part in (kept, held_out)
    }
    in_kept, in_held_out = counts[id(kept)], counts[id(held_out)]
    for label in np.flatnonzero(in_kept + in_held_out):
        while in_kept[label] < num_kept_parts and in_held_out[label]:
            _exchange(labels, label, (held_out, in_held_out), (kept, in_kept))
        if not in_held_out[label] and in_kept[label] > num_kept_parts:
            _exchange(labels, label, (kept, in_kept), (held_out, in_held_out))
    return kept, held_out


def _exchange(
    labels: npt.NDArray[np.int64],
    label: np.intp,
    source: tuple[Rows, npt.NDArray[np.int64]],
    target: tuple[Rows, npt.NDArray[np.int64]],
) -> None:
    """Exchanges the source's last row of a class for the last row of the target's largest class."""
    (rows, counts), (others, other_counts) = source, target
    largest = other_counts.argmax()
    here = np.flatnonzero(labels[rows] == label)[-1]
    there = np.flatnonzero(labels[others] == largest)[-1]
    rows[here], others[there] = others[there], rows[here]
    for moved, change in ((label, -1), (largest, 1)):
        counts[moved] += change
        other_counts[moved] -= change


def _check_counts(
    classes: ClassLabels, rows: Rows, num_smallest: int, num_parts: int, where: str
) -> None:
    counts = np.bincount(classes.labels[rows], minlength=len(classes.names))
    present = np.flatnonzero(counts)
    rarest = present[counts[present].argmin()]
    if counts[rarest] < num_parts:
        num_rare = f"{counts[rarest]} row" + ("s" if counts[rarest] > 1 else "")
        raise InputError(
            f"{where}: class {classes.names[rarest]!r} has {num_rare} for {num_parts} parts, but"
            f" each part needs one of every class ({class_counts_text(classes.names, counts)});"
            " give more rows, leave the class out, or give data.stratify: false"
        )
    if num_smallest < len(present):
        raise InputError(
            f"{where}: the smallest part has {num_smallest} rows for {len(present)} classes; give"
            " more rows, another share, or data.stratify: false"
        )


def class_counts_text(names: Sequence[str], counts: Sequence[int] | npt.NDArray[np.int64]) -> str:
    """How many rows each class has, as text; only the first classes if there are many.

    >>> class_counts_text(["no", "yes"], [3, 1])
    "3 of 'no', 1 of 'yes'"
    """
    shown = [f"{n} of {name!r}" for name, n in zip(names, counts, strict=True)]
    more = ", ..." if len(shown) > _MAX_CLASSES_SHOWN else ""
    return ", ".join(shown[:_MAX_CLASSES_SHOWN]) + more


def split_rows(
    num_rows: int, validation_split: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Shuffled row numbers of both parts; the arithmetic is Keras's `train_validation_split`."""
    split_at = math.floor(num_rows * (1.0 - validation_split))
    if split_at in (0, num_rows):
        raise InputError(
            f"data.validation_split {validation_split} of {num_rows} training rows leaves"
            f" {split_at} for training and {num_rows - split_at} for validation; each needs at"
            " least one"
        )
    rows = _rng(seed, "data.validation_split").permutation(num_rows)
    return rows[:split_at], rows[split_at:]
