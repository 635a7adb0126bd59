"""An .npz file as the data of a trial: arrays by name, never pickled objects."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.data.arrays import Array, leaves, map_leaves
from trialrun.data.generator import check_generated
from trialrun.data.generator_arrays import as_arrays
from trialrun.data.holdout import ClassLabels, hold_out
from trialrun.data.labels import class_numbers
from trialrun.errors import InputError
from trialrun.job import DataSpec
from trialrun.job.data_files import array_names
from trialrun.job.data_spec import DEFAULT_TEST_SPLIT
from trialrun.job.user_code.own_files import moved_path
from trialrun.messages import said_by

_MAX_FILES_KEPT = 2
_PARTS = {"train": "train", "validation": "val", "test": "test"}


def load_archive(data: DataSpec, seed: int, source: str) -> dict[str, Any]:
    """The arrays of a job's .npz file in three parts, as a generator returns them.

    The file holds `x` and `y`, which are split here, or `x_train`, `y_train`, `x_test`, `y_test`
    and perhaps `x_val`, `y_val`. Several inputs are named after a dot: `x.age`, `x.dose`.

    Args:
        data: The section `data` of the job.
        seed: Decides the splits.
        source: How messages name the file.

    Raises:
        InputError: An array is wrong; the message says which.
    """
    assert data.npz is not None
    path = moved_path(Path(data.npz))
    try:
        stat = path.stat()
        arrays = _read_once(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {said_by(error)}") from error
    output: dict[str, Any] = {
        name: [str(text) for text in arrays[name]]
        for name in ("class_names", "feature_names")
        if name in arrays
    }
    if "x" in arrays:
        whole = dict.fromkeys(("train", "test"), (arrays["x"], arrays["y"]))
        return _checked_and_split(output | whole, data, seed, source)
    for part, suffix in _PARTS.items():
        if f"x_{suffix}" in arrays:
            output[part] = (arrays[f"x_{suffix}"], arrays[f"y_{suffix}"])
    output = as_arrays(output, source=source)
    if data.test_split is not None:
        raise InputError(
            f"data.test_split: {path.name} already holds x_test; leave data.test_split out"
        )
    if "validation" not in output and data.stratify is True:
        check_generated(output, source=source)
        x, y = output["train"]
        classes = _classes(y, output.get("class_names", ()), must_be=True)
        rows, val_rows = hold_out(
            np.arange(_num_rows(x)), data.validation_split, seed, "data.validation_split", classes
        )
        output |= {"train": _take(x, y, rows), "validation": _take(x, y, val_rows)}
    return output


@functools.lru_cache(maxsize=_MAX_FILES_KEPT)
def _read_once(path: Path, modified_ns: int, size: int) -> Mapping[str, Any]:
    """Part -> array, or part -> (name -> array); shared by all callers, who must not change it.

    The file is read again when its time or size has changed.
    """
    parts = array_names(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for names in parts.values() for name in names}
    except ValueError as error:
        raise InputError(f"{path.name}: {said_by(error)}; arrays of objects are refused") from error
    return {
        part: arrays[part]
        if names == (part,)
        else {name.partition(".")[2]: arrays[name] for name in names}
        for part, names in parts.items()
    }


def _checked_and_split(
    output: dict[str, Any], data: DataSpec, seed: int, source: str
) -> dict[str, Any]:
    """Splits rows that are given as both parts; checked before, so that messages name them."""
    whole = as_arrays(output, source=source)
    check_generated(whole, source=source)
    x, y = whole["train"]
    return {**whole, **_split(data, x, y, seed, whole.get("class_names", ()))}


def _split(
    data: DataSpec, x: Any, y: Any, seed: int, class_names: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    classes = None
    if data.stratify is not False:
        classes = _classes(y, class_names, must_be=data.stratify is True)
    share = DEFAULT_TEST_SPLIT if data.test_split is None else data.test_split
    rows, test = hold_out(
        np.arange(_num_rows(x)), share, seed, "data.test_split", classes, num_kept_parts=2
    )
    rows, val = hold_out(rows, data.validation_split, seed, "data.validation_split", classes)
    return {"train": _take(x, y, rows), "validation": _take(x, y, val), "test": _take(x, y, test)}


def _classes(y: Any, class_names: Sequence[str], *, must_be: bool) -> ClassLabels | None:
    """The classes of labels 0, 1, ... without a gap, or of one-hot columns; None for other targets.

    Floats count as classes if `must_be`, or if each of them occurs at least twice on average.
    """
    num_classes = _num_classes(y)
    labels = class_numbers(y, num_classes)
    is_float = isinstance(y, np.ndarray) and y.size == len(y) and y.dtype.kind == "f"
    if is_float and not must_be and 2 * num_classes > len(y):
        labels = None
    if labels is not None and len(np.unique(labels)) == labels.max() + 1:
        return ClassLabels(labels, class_names or [str(n) for n in range(labels.max() + 1)])
    if must_be:
        raise InputError(
            "data.stratify: true needs one array y of labels 0, 1, 2, ... or of one-hot columns"
        )
    return None


def _num_classes(y: Any) -> int:
    """How many classes there are if the target of each row is its class."""
    if not isinstance(y, np.ndarray):
        return 0
    return y.shape[1] if y.ndim == 2 and y.shape[1] > 1 else len(np.unique(y))


def _num_rows(x: Any) -> int:
    return len(next(leaves(x))[1])


def _take(x: Any, y: Any, rows: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    def take(array: Array) -> Array:
        taken: Array = array[rows]
        return taken

    return map_leaves(take, x), map_leaves(take, y)
