"""Refuses a generator that gives other data when it is called again with the same seed.

Such a generator draws from a stream of its own file, for example. Each process, and each pack,
would get other data, and variants would be compared on different rows.
"""

import time
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from trialrun.data.load import load_splits
from trialrun.data.scaling import LookedUp
from trialrun.data.splits import PARTS, Splits
from trialrun.errors import InputError
from trialrun.job import DataSpec
from trialrun.job.user_code.functions import portable_reference

_QUICK_S = 1.0  # a generator that takes longer is compared only when it is called again anyway
_NUM_ROWS_KEPT = 64

_Rows = list[npt.NDArray[np.generic]]
# (Data settings, job folder) -> the first seed that this process generated data for, and some rows.
_FIRST: dict[tuple[str, str], tuple[int, _Rows]] = {}


def load_repeatable(data: DataSpec, job_folder: Path, seed: int, looked_up: LookedUp) -> Splits:
    """The data of one trial, as `load_splits` gives them.

    Raises:
        InputError: They cannot be loaded, or differ when they are generated again.
    """
    start = time.perf_counter()
    splits = load_splits(data, job_folder, seed, looked_up)
    if data.generator is None:
        return splits
    data_seed = seed if data.seed == "per_trial" else int(data.seed)
    key = (repr(data), str(job_folder))
    if key not in _FIRST:
        _FIRST[key] = (data_seed, _some_rows(splits))
        if time.perf_counter() - start < _QUICK_S:
            _require_same(_FIRST[key][1], load_splits(data, job_folder, seed, looked_up), data)
    elif _FIRST[key][0] == data_seed:
        _require_same(_FIRST[key][1], splits, data)
    return splits


def _require_same(before: _Rows, splits: Splits, data: DataSpec) -> None:
    again = _some_rows(splits)
    if len(again) != len(before) or not all(map(_are_same, again, before)):
        raise InputError(
            f"data.generator {portable_reference(str(data.generator))}: called again with the same"
            " seed and arguments it gave other data, so trials would be compared on different"
            " rows; let it draw from np.random.default_rng(seed), and keep nothing between calls"
        )


def _some_rows(splits: Splits) -> _Rows:
    """Evenly spaced rows of every array, and its last row."""
    arrays = keras.tree.flatten([splits.part(part) for part in PARTS])
    return [np.concatenate([a[:: 1 + len(a) // _NUM_ROWS_KEPT], a[-1:]]) for a in arrays]


def _are_same(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> bool:
    if one.shape != other.shape or one.dtype == object:
        return np.array_equal(one, other)
    return np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
