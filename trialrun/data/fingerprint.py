"""What a generator gave, in short: so that other data for the same seed is noticed and described.

Machines may round differently, so floats count as equal if they are close; all else must be the
same to the last bit.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.data.arrays import Array, is_text, leaves

_NUM_ROWS, _MAX_BYTES = 64, 1 << 16
_CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # as in `trialrun.training.repeatable`
_NUM_BLOCKS = 256
_ROUNDING = 64  # how many units in the last place processors and libraries may differ by
_FIELDS = ("x", "y", "sample_weight")


@dataclass(frozen=True, slots=True, eq=False)
class ArraySample:
    """An array in short.

    Attributes:
        shape, dtype: Those of the array.
        digest: A hash of its bytes, 16 hex digits.
        rows: Evenly spaced rows and the last one.
        step: How many rows of the array lie between two of them.
        sums: For blocks of rows, the sum of the numbers and that of their sizes (blocks, 2); only
            zeros for other arrays than those of floats.
    """

    shape: tuple[int, ...]
    dtype: str
    digest: str
    rows: npt.NDArray[Any]
    step: int
    sums: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DataSample:
    """What a generator gave for a seed, in short.

    Attributes:
        data: The settings of the data, as text.
        seed: The seed that the generator was given.
        arrays: `train x`, `test y`, ... -> the array in short.
        names: `class_names` and `feature_names`, if there are any.
        fingerprint: A hash of all of it, 16 hex digits.
    """

    data: str
    seed: int
    arrays: Mapping[str, ArraySample]
    names: Mapping[str, tuple[str, ...]]
    fingerprint: str


def take_sample(data: str, seed: int, output: Mapping[str, Any]) -> DataSample:
    """A generator's output in short.

    Args:
        data: The settings of the data, as text.
        seed: The seed that the generator was given.
        output: See `trialrun.data.load.RawData`.
    """
    arrays = {name: _sample_of(array) for name, array in _arrays_of(output)}
    names = {key: tuple(output[key]) for key in ("class_names", "feature_names") if key in output}
    parts = [(name, one.shape, one.dtype, one.digest) for name, one in sorted(arrays.items())]
    digest = hashlib.blake2b(repr((parts, sorted(names.items()))).encode(), digest_size=8)
    return DataSample(data, seed, arrays, names, digest.hexdigest())


def _arrays_of(output: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    for part in ("train", "validation", "test"):
        for field, structure in zip(_FIELDS, output.get(part, ()), strict=False):
            for where, array in leaves(structure):
                yield f"{part} {field}{where}", array


def _sample_of(array: Array) -> ArraySample:
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = 1 + len(array) // max(1, min(_NUM_ROWS, _MAX_BYTES // row_bytes))
    return ArraySample(
        shape=array.shape,
        dtype=str(array.dtype),
        digest=_digest(array),
        rows=np.concatenate([array[::step], array[-1:]]),
        step=step,
        sums=_sums(array) if array.dtype.kind == "f" else np.zeros((1, 2)),
    )


def _digest(array: Array) -> str:
    if is_text(array):
        return hashlib.blake2b(repr(array.tolist()).encode(), digest_size=8).hexdigest()
    content = np.ascontiguousarray(array).data.cast("B")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _sums(array: Array) -> npt.NDArray[np.float64]:
    blocks = np.array_split(array, min(_NUM_BLOCKS, len(array)))
    return np.array([[b.sum(dtype=np.float64), np.abs(b).sum(dtype=np.float64)] for b in blocks])


def difference(there: DataSample, here: DataSample) -> str:
    """The first difference between what a generator gave on two machines; empty if it is the same.

    Args:
        there: What it gave where the run was started.
        here: What it gave on this machine, for the same settings and seed.
    """
    if there.fingerprint == here.fingerprint:
        return ""
    if there.arrays.keys() != here.arrays.keys():
        return f"it gave {', '.join(there.arrays)} there and {', '.join(here.arrays)} here"
    for key in dict.fromkeys([*there.names, *here.names]):
        one, other = (", ".join(sample.names.get(key, ())) or "none" for sample in (there, here))
        if one != other:
            return f"{key} are {one} there and {other} here"
    texts = (_array_difference(name, there.arrays[name], here.arrays[name]) for name in here.arrays)
    return next(filter(None, texts), "")


def _array_difference(name: str, there: ArraySample, here: ArraySample) -> str:
    for what in ("shape", "dtype"):
        one, other = getattr(there, what), getattr(here, what)
        if one != other:
            return f"{name} has the {what} {one} there and {other} here"
    if there.digest == here.digest:
        return ""
    is_float = here.rows.dtype.kind == "f"
    same = there.rows == here.rows
    if is_float:
        same = np.isclose(there.rows, here.rows, **_CLOSE, equal_nan=True)
    if not same.all():
        return _first_difference(name, there, here, same)
    if is_float and _are_rounded(there.sums, here.sums, here.rows.dtype):
        return ""
    return f"{name} differs in some of its {here.shape[0]} rows"


def _are_rounded(
    there: npt.NDArray[np.float64], here: npt.NDArray[np.float64], dtype: np.dtype[Any]
) -> bool:
    """Whether all differences between two arrays may come from rounding, by their sums."""
    allowed = _ROUNDING * np.finfo(dtype).eps * here[:, 1:]
    return bool((np.abs(there - here) <= allowed).all())


def _first_difference(
    name: str, there: ArraySample, here: ArraySample, same: npt.NDArray[np.bool_]
) -> str:
    index = tuple(int(i) for i in np.argwhere(~same)[0])
    row = min(index[0] * here.step, here.shape[0] - 1)
    where = f"[{', '.join(map(str, (row, *index[1:])))}]"
    return f"{name}{where} is {_show(there.rows[index])} there and {_show(here.rows[index])} here"


def _show(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value:.6g}"
