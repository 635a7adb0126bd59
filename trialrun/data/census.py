"""What the parts of a data set hold: rows, rows of each class, and rows that are in two parts.

If validation or test rows are also training rows, a model looks better than it is. Some rows repeat
by nature, though: the ages of a thousand people have about a hundred values. Repeated rows count as
copies, and cause a warning, if chance does not explain them. There are two such cases:

- More rows are shared than the training rows repeat among themselves. If all rows were drawn from
  one distribution, a validation row would be found among the training rows as often as a training
  row is found again among the others. By the Chernoff bound, chance exceeds this less than once in
  a thousand cases.
- Rows repeat although they have too many possible values to do so by chance, as when a file was
  appended to itself or a rare class was repeated before the split. If features were independent,
  the chance that two rows are equal would be at most the product of the chances for the four
  features that tell rows apart best. If many times as many pairs are equal, and at least three rows
  and a twentieth of the part are shared, they are copies. (This is wrong where all features follow
  from one, such as a zip code with its city and state.)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.data.arrays import Array, is_text, leaves
from trialrun.data.holdout import class_counts_text
from trialrun.errors import InputError

_PARTS = ("train", "validation", "test")
_PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"))
_WORDS = {"train": "training", "validation": "validation", "test": "test"}

_CHERNOFF = math.log(1e3)
_NUM_DEVIATIONS = 3.0
_MANY_TIMES = 50.0
_MIN_COPIES, _MIN_SHARE_OF_COPIES = 3, 0.05
_NUM_TELLING_FEATURES = 4
_ROWS_AT_A_TIME = 1 << 14
_MAX_CLASSES_SHOWN = 5
# More features than these add nothing: of an image, only evenly spaced pixels are looked at.
_MAX_FEATURES = 64


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Rows of one part that another part holds too.

    Attributes:
        part, other: `validation` or `test`, and the part that holds the same rows.
        num_shared: How many rows of `part` are also in `other`.
        num_rows: How many rows `part` has.
        are_copies: Whether there are more than chance explains.
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
        class_names: Names of the classes, or their numbers if the data gives no names; empty
            without classes.
        class_counts: Part -> rows of each class; empty without classes.
        shared: One entry for each two parts that share rows.
    """

    num_rows: Mapping[str, int]
    class_names: tuple[str, ...]
    class_counts: Mapping[str, tuple[int, ...]]
    shared: tuple[SharedRows, ...]

    @property
    def notes(self) -> list[str]:
        """What is probably harmless: rows that may be shared by chance."""
        return [f"{shared}, which may be chance" for shared in self.shared if not shared.are_copies]

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results must know: copied rows, classes that a part lacks."""
        copied = [
            f"{shared}, more than chance explains: with copies, a model looks better than it is"
            for shared in self.shared
            if shared.are_copies
        ]
        has_numbers = self.class_names == tuple(map(str, range(len(self.class_names))))
        lacking = [  # classes without names may be counts, which a part may well lack
            f"the {_WORDS[part]} part has no row of {_named(missing, len(counts))}"
            f" ({class_counts_text(self.class_names, counts)})"
            for part, counts in self.class_counts.items()
            if part == "train" or not has_numbers
            if (
                missing := [
                    n for n, count in zip(self.class_names, counts, strict=True) if not count
                ]
            )
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
                    "part": shared.part,
                    "other": shared.other,
                    "num_shared": shared.num_shared,
                    "num_rows": shared.num_rows,
                    "are_copies": shared.are_copies,
                }
                for shared in self.shared
            ],
            "warnings": self.warnings,
        }


def _named(classes: Sequence[str], num_classes: int) -> str:
    """`class 'a'`, or `2 of 5 classes, 'a', 'b'`; at most the first few are listed."""
    if len(classes) == 1:
        return f"class {classes[0]!r}"
    listed = ", ".join(map(repr, classes[:_MAX_CLASSES_SHOWN]))
    more = ", ..." if len(classes) > _MAX_CLASSES_SHOWN else ""
    return f"{len(classes)} of {num_classes} classes, {listed}{more}"


def take_census(output: Mapping[str, Any]) -> Census:
    """The census of a data set in three parts, in time proportional to its bytes.

    Args:
        output: What a generator returns, after its checks; a part may be absent.
    """
    parts = [part for part in _PARTS if part in output]
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


def integer_classes(y: Any) -> npt.NDArray[np.int64] | None:
    """The class of each row if y holds integers, zeros and ones, or one-hot columns; else None."""
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

    Integers are classes if the data names classes, or if each from 0 to the highest occurs.
    """
    found = {part: integer_classes(output[part][1]) for part in _PARTS if part in output}
    labels = {part: numbers for part, numbers in found.items() if numbers is not None}
    if len(labels) < len(found):
        return {}
    highest = max(int(numbers.max()) for numbers in labels.values())
    num_named = len(output.get("class_names", ()))
    num_classes = max(highest + 1, num_named)
    if num_classes > sum(map(len, labels.values())):
        return {}
    counts = {part: np.bincount(numbers, minlength=num_classes) for part, numbers in labels.items()}
    is_whole = bool(np.sum(list(counts.values()), axis=0).all())
    return counts if num_named or (is_whole and num_classes > 1) else {}


def check_classes(output: Mapping[str, Any]) -> None:
    """Raises InputError if a named class has validation or test rows but no training rows.

    Args:
        output: What a generator returns, in three parts.
    """
    if not output.get("class_names"):
        return
    names, counts = output["class_names"], class_counts(output)
    for part in _PARTS[1:]:
        if part not in counts:
            continue
        untrained = np.flatnonzero((counts["train"] == 0) & (counts[part] > 0))
        if untrained.size:
            shown = "; ".join(
                f"{part_name}: {class_counts_text(names, own)}" for part_name, own in counts.items()
            )
            raise InputError(
                f"class {names[untrained[0]]!r} has rows in the {_WORDS[part]} part and none in"
                f" training ({shown}); add training rows of this class, or leave it out"
            )


# Rows that two parts share -----------------------------------------------------------------------


def shared_rows(x: Mapping[str, Any]) -> tuple[SharedRows, ...]:
    """The rows that two parts share, for each two parts that share some.

    Args:
        x: Part -> its inputs; all in the same structure and of the same types.
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
    """A hash per row, int64 (rows,): equal for equal rows, and practically never for others.

    The hashes of the same rows differ between processes.

    Args:
        x: An array, or a dict or tuple of arrays, of numbers or of texts.
    """
    leaf_hashes = [_hashes_of(array) for _, array in leaves(x)]
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    return np.fromiter(
        map(hash, zip(*(hashes.tolist() for hashes in leaf_hashes), strict=True)), np.int64
    )


def _hashes_of(array: Array) -> npt.NDArray[np.int64]:
    rows = array.reshape(len(array), -1)
    if is_text(array):
        return np.fromiter((hash(tuple(row)) for row in rows.tolist()), np.int64, len(rows))
    width = rows.shape[1] * rows.itemsize
    chunks = (
        rows[start : start + _ROWS_AT_A_TIME] for start in range(0, len(rows), _ROWS_AT_A_TIME)
    )
    if array.dtype.kind == "f":
        chunks = (chunk + 0.0 for chunk in chunks)  # turns -0.0 into 0.0
    memories = (chunk.tobytes() for chunk in chunks)
    hashes = (
        hash(memory[start_byte : start_byte + width])
        for memory in memories
        for start_byte in range(0, len(memory), width)
    )
    return np.fromiter(hashes, np.int64, len(rows))


def _is_more_than_repeats(
    num_shared: int, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> bool:
    """Whether more rows are shared than the other part's repetitions explain, by a Chernoff bound.

    Equal rows are shared together, so that only distinct rows count as independent draws.
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
    """Whether far more pairs of rows are equal than there would be with independent features."""
    features = [
        np.concatenate([_features(array)[index] for array in arrays])
        for arrays in _same_leaves(list(x.values()))
        for index in range(len(_features(arrays[0])))
    ]
    chances = sorted(map(_chance_to_agree, features))[:_NUM_TELLING_FEATURES]
    if len(chances) < 2:
        return False
    equal = _chance_to_agree(np.concatenate(list(hashes.values())))
    return equal > _MANY_TIMES * math.prod(chances)


def _same_leaves(structures: Sequence[Any]) -> list[tuple[Array, ...]]:
    """For each array of the structure, this array of every part."""
    return list(
        zip(*([array for _, array in leaves(structure)] for structure in structures), strict=True)
    )


def _features(array: Array) -> list[Array]:
    columns = array.reshape(len(array), -1).T
    step = -(-len(columns) // _MAX_FEATURES)
    return list(columns[::step])


def _chance_to_agree(values: Array) -> float:
    """The share of all pairs of two rows whose values are equal."""
    if values.dtype == object:
        values = np.fromiter(map(hash, values), np.int64, len(values))
    _, counts = np.unique(values, return_counts=True)
    num_rows = len(values)
    agreeing = float((counts.astype(np.float64) * (counts - 1)).sum())
    return agreeing / max(1, num_rows * (num_rows - 1))
