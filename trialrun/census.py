"""What the parts of a data set hold: rows, rows of each class, and rows that are in two of them.

Rows of the validation or test part that were trained on make a model look better than it is. Some
repeat by nature, though: ages of a thousand people have a hundred values. A repeated row counts as
a copy, and is warned of, where chance cannot explain it:

- The part holds more of the training rows than these repeat among themselves. Were all rows drawn
  alike, a validation row would be found among the training rows as often as a training row is found
  again among the others; more than that by the Chernoff bound at one in a thousand is no chance.
- Or rows repeat although what they are made of is too rich for it, as when a file was appended to
  itself or a rare class was repeated before the split. Were features independent, two rows would
  agree in several of them with the product of the chances to agree in each. Many times as many
  equal pairs as that, by the four features that tell rows apart best, are copies, if at least three
  rows and a twentieth of the part are shared. (Features that all follow from one, such as a zip
  code, its city and its state alone, are taken for copies wrongly.)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.arrays import Array, is_text, leaves
from trialrun.errors import InputError
from trialrun.holdout import show_counts

PARTS = ("train", "validation", "test")
_PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"))
_WORDS = {"train": "training", "validation": "validation", "test": "test"}

_CHERNOFF = math.log(1e3)
_NUM_DEVIATIONS = 3.0
_MANY_TIMES = 50.0
_MIN_COPIES, _MIN_SHARE_OF_COPIES = 3, 0.05
_NUM_TELLING_FEATURES = 4
_ROWS_AT_A_TIME = 1 << 14
_MAX_CLASSES_SHOWN = 5
# More than these tell no more: of an image every so many pixels are looked at.
_MAX_FEATURES = 64


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows of one part that another one holds too.

    Attributes:
        part, other: `validation` or `test`, and the part that holds them too.
        num_shared: How many rows of `part`.
        num_rows: Of `part`.
        are_copies: Whether chance does not explain it.
    """

    part: str
    other: str
    num_shared: int
    num_rows: int
    are_copies: bool

    def __str__(self) -> str:
        rows = f"{self.num_shared} of {self.num_rows} {_WORDS[self.part]} rows"
        verb = "is" if self.num_shared == 1 else "are"
        return f"{rows} {verb} among the {_WORDS[self.other]} rows too"


@dataclass(frozen=True, slots=True)
class Census:
    """What the parts of a data set hold.

    Attributes:
        num_rows: Part -> rows.
        class_names: Of the classes; their numbers where the data names none. Empty without classes.
        class_counts: Part -> rows of each class; empty without classes.
        shared: Of each two parts that share rows.
    """

    num_rows: Mapping[str, int]
    class_names: tuple[str, ...]
    class_counts: Mapping[str, tuple[int, ...]]
    shared: tuple[SharedRows, ...]

    @property
    def notes(self) -> list[str]:
        """What is likely no reason to worry: rows that may repeat by chance."""
        return [f"{one}, which may be chance" for one in self.shared if not one.are_copies]

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results has to know: copied rows, classes that a part lacks."""
        copied = [
            f"{shared}, more than chance explains: with copies, a model looks better than it is"
            for shared in self.shared
            if shared.are_copies
        ]
        has_numbers = self.class_names == tuple(map(str, range(len(self.class_names))))
        lacking = [  # a number may count something: that a part lacks it need not mean much
            f"the {_WORDS[part]} part has no row of {_named(missing, len(counts))}"
            f" ({show_counts(self.class_names, counts)})"
            for part, counts in self.class_counts.items()
            if part == "train" or not has_numbers
            if (missing := [n for n, of in zip(self.class_names, counts, strict=True) if not of])
        ]
        return copied + lacking

    def to_json(self) -> dict[str, Any]:
        """Plain values, for summary.json."""
        return {
            "num_rows": dict(self.num_rows),
            "class_names": list(self.class_names),
            "class_counts": {part: list(counts) for part, counts in self.class_counts.items()},
            "shared_rows": [
                {
                    "part": one.part,
                    "other": one.other,
                    "num_shared": one.num_shared,
                    "num_rows": one.num_rows,
                    "are_copies": one.are_copies,
                }
                for one in self.shared
            ],
            "warnings": self.warnings,
        }


def _named(classes: Sequence[str], num_classes: int) -> str:
    """`class 'a'`, or how many classes of all and the first of them."""
    if len(classes) == 1:
        return f"class {classes[0]!r}"
    listed = ", ".join(map(repr, classes[:_MAX_CLASSES_SHOWN]))
    more = ", ..." if len(classes) > _MAX_CLASSES_SHOWN else ""
    return f"{len(classes)} of {num_classes} classes, {listed}{more}"


def take_census(output: Mapping[str, Any]) -> Census:
    """The census of a data set in three parts, in time that grows with its bytes.

    Args:
        output: What a generator returns, checked; parts that are not there are left out.
    """
    parts = [part for part in PARTS if part in output]
    x = {part: output[part][0] for part in parts}
    counts = class_counts(output)
    num_classes = len(next(iter(counts.values()))) if counts else 0
    names = tuple(output.get("class_names", ())) or tuple(map(str, range(num_classes)))
    return Census(
        num_rows={part: len(next(leaves(x[part]))[1]) for part in parts},
        class_names=names if counts else (),
        class_counts={part: tuple(own.tolist()) for part, own in counts.items()},
        shared=shared_rows(x),
    )


# Classes -----------------------------------------------------------------------------------------


def class_numbers(y: Any) -> npt.NDArray[np.int64] | None:
    """The class of each row: of integers, zeros and ones, or one column per class; else None."""
    if not isinstance(y, np.ndarray):
        return None
    if y.size == len(y) and (y.dtype.kind in "iub" or ((y == 0) | (y == 1)).all()):
        return y.ravel().astype(np.int64)
    is_table = y.ndim == 2 and y.shape[1] > 1
    if is_table and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        numbers: npt.NDArray[np.int64] = y.argmax(1).astype(np.int64)
        return numbers
    return None


def class_counts(output: Mapping[str, Any]) -> dict[str, npt.NDArray[np.int64]]:
    """Part -> rows of each class; empty unless the labels are classes.

    Integers are classes where the data names classes, or where all from 0 to the highest are there.
    """
    labels = {part: class_numbers(output[part][1]) for part in PARTS if part in output}
    if any(of is None for of in labels.values()):
        return {}
    highest = max(int(of.max()) for of in labels.values() if of is not None)
    num_named = len(output.get("class_names", ()))
    num_classes = max(highest + 1, num_named)
    if num_classes > sum(len(of) for of in labels.values() if of is not None):
        return {}
    counts = {
        part: np.bincount(of, minlength=num_classes)
        for part, of in labels.items()
        if of is not None
    }
    is_whole = bool(np.sum(list(counts.values()), axis=0).all())
    return counts if num_named or (is_whole and num_classes > 1) else {}


def check_classes(output: Mapping[str, Any]) -> None:
    """Raises InputError where a named class is judged by and was never trained on.

    Args:
        output: What a generator returns, in three parts.
    """
    if not output.get("class_names"):
        return
    names, counts = output["class_names"], class_counts(output)
    for part in PARTS[1:]:
        if part not in counts:
            continue
        untrained = np.flatnonzero((counts["train"] == 0) & (counts[part] > 0))
        if untrained.size:
            shown = "; ".join(f"{of}: {show_counts(names, own)}" for of, own in counts.items())
            raise InputError(
                f"class {names[untrained[0]]!r} has rows in the {_WORDS[part]} part and none in"
                f" training ({shown}); give training rows of it, or leave the class out"
            )


# Rows that two parts share -----------------------------------------------------------------------


def shared_rows(x: Mapping[str, Any]) -> tuple[SharedRows, ...]:
    """Rows that two parts share, of all pairs that share some.

    Args:
        x: Part -> its inputs, in one structure and of the same types.
    """
    hashes = {part: row_hashes(own) for part, own in x.items()}
    counted = []
    for part, other in _PAIRS:
        if part in hashes and other in hashes:
            num_shared = int(np.isin(hashes[part], hashes[other]).sum())
            if num_shared:
                counted.append((part, other, num_shared))
    if not counted:
        return ()
    are_rich = _repeat_though_rich(x, hashes)
    return tuple(
        SharedRows(
            part,
            other,
            num_shared,
            len(hashes[part]),
            _is_more_than_repeats(num_shared, hashes[part], hashes[other])
            or (
                are_rich
                and num_shared >= max(_MIN_COPIES, _MIN_SHARE_OF_COPIES * len(hashes[part]))
            ),
        )
        for part, other, num_shared in counted
    )


def row_hashes(x: Any) -> npt.NDArray[np.int64]:
    """A number per row (rows,) int64: equal rows have equal ones, and others as good as never.

    It is another one in another process.

    Args:
        x: An array, or a dict or tuple of arrays: of numbers, or of texts.
    """
    of_leaves = [_hashes_of(array) for _, array in leaves(x)]
    if len(of_leaves) == 1:
        return of_leaves[0]
    return np.fromiter(map(hash, zip(*(of.tolist() for of in of_leaves), strict=True)), np.int64)


def _hashes_of(array: Array) -> npt.NDArray[np.int64]:
    rows = array.reshape(len(array), -1)
    if is_text(array):
        return np.fromiter((hash(tuple(row)) for row in rows.tolist()), np.int64, len(rows))
    width = rows.shape[1] * rows.itemsize
    chunks = (
        rows[start : start + _ROWS_AT_A_TIME] for start in range(0, len(rows), _ROWS_AT_A_TIME)
    )
    if array.dtype.kind == "f":
        chunks = (chunk + 0.0 for chunk in chunks)  # no negative zero
    memories = (chunk.tobytes() for chunk in chunks)
    of_rows = (
        hash(memory[at : at + width]) for memory in memories for at in range(0, len(memory), width)
    )
    return np.fromiter(of_rows, np.int64, len(rows))


def _is_more_than_repeats(
    num_shared: int, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> bool:
    """Whether more rows are shared than the other part's own rows repeat; a Chernoff bound.

    Equal rows are shared together: what is drawn by chance are the different ones.
    """
    _, counts = np.unique(others, return_counts=True)
    num_repeated = int(counts[counts > 1].sum())
    expected = (num_repeated + 1) / (len(others) + 2)  # Laplace's rule: never 0 or 1
    expected += _NUM_DEVIATIONS * math.sqrt(expected * (1 - expected) / len(counts))
    found = num_shared / len(rows)
    if found <= expected:
        return False
    divergence = found * math.log(found / expected)
    if found < 1:
        divergence += (1 - found) * math.log((1 - found) / (1 - expected))
    return len(np.unique(rows)) * divergence > _CHERNOFF


def _repeat_though_rich(x: Mapping[str, Any], hashes: Mapping[str, npt.NDArray[np.int64]]) -> bool:
    """Whether far more pairs of rows are equal than features that were independent would make."""
    features = [
        np.concatenate([_features(array)[place] for array in arrays])
        for arrays in _same_leaves(list(x.values()))
        for place in range(len(_features(arrays[0])))
    ]
    chances = sorted(map(_chance_to_agree, features))[:_NUM_TELLING_FEATURES]
    if len(chances) < 2:
        return False
    equal = _chance_to_agree(np.concatenate(list(hashes.values())))
    return equal > _MANY_TIMES * math.prod(chances)


def _same_leaves(structures: Sequence[Any]) -> list[tuple[Array, ...]]:
    """Of each array of a structure, that of all parts."""
    return list(zip(*([array for _, array in leaves(one)] for one in structures), strict=True))


def _features(array: Array) -> list[Array]:
    columns = array.reshape(len(array), -1).T
    step = -(-len(columns) // _MAX_FEATURES)
    return list(columns[::step])


def _chance_to_agree(values: Array) -> float:
    """The share of pairs of different rows that agree."""
    if values.dtype == object:
        values = np.fromiter(map(hash, values), np.int64, len(values))
    _, counts = np.unique(values, return_counts=True)
    num_rows = len(values)
    agreeing = float((counts.astype(np.float64) * (counts - 1)).sum())
    return agreeing / max(1, num_rows * (num_rows - 1))
