"""The checks of what a generator returns, with messages that name the array."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trialrun.data.arrays import Array, is_text, leaves
from trialrun.errors import InputError
from trialrun.job.table_spelling import same_name
from trialrun.messages import suggest

_PARTS = ("train", "test", "validation")
_FIELDS = ("x", "y", "sample_weight")
_NAME_LISTS = ("class_names", "feature_names")
# The largest rounding error that a column may suffer, relative to its range.
_MAX_SHARE_LOST = 1e-3
# The difference that float64 may make between values that should be equal, relative to the values.
_NOISE = 1e-12


def check_generated(output: Any, *, source: str) -> None:
    """Raises InputError unless a generator's output can be split, scaled and given to a model.

    Args:
        output: `{"train": (x, y), "test": (x, y)}`, optionally `validation`, `class_names` and
            `feature_names`.
        source: How messages name the generator.

    Raises:
        InputError: The output is wrong. The message says what is wrong and in which array.
    """
    try:
        _check_output(output)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None


def _check_output(output: Any) -> None:
    known = (*_PARTS, *_NAME_LISTS)
    if not isinstance(output, Mapping):
        kind = type(output).__name__
        raise ValueError(f"expected a dict with 'train' and 'test', got a {kind}")
    for key in output:
        if key not in known:
            raise ValueError(f"unknown key {key!r}; {suggest(str(key), known)}")
    for key in ("train", "test"):
        if key not in output:
            raise ValueError(f"the key {key!r} is missing; got {', '.join(map(repr, output))}")
    for key in _NAME_LISTS:
        _check_names(key, output.get(key, ()))
    parts = [part for part in _PARTS if part in output]
    for part in parts:
        _check_part(part, output[part], num_classes=len(output.get("class_names", ())))
    for part in parts[1:]:
        for position, name in enumerate("xy"):
            _check_same_form(name, part, output["train"][position], output[part][position])
    _check_feature_names(output)


def _check_names(key: str, names: Any) -> None:
    is_list = isinstance(names, list | tuple)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} must be a list of texts, got {names!r}")
    if twice := same_name(names):
        raise ValueError(f"{key} must be distinct, but {twice} are the same name")


def _check_part(part: str, value: Any, *, num_classes: int) -> None:
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        hint = ""
        if not isinstance(value, tuple | list) or len(value) == 1:
            hint = (
                "; for an autoencoder give (x, x), and for a model that needs no y give anything,"
                " such as (x, np.zeros(len(x)))"
            )
        raise ValueError(
            f"{part} must be a pair (x, y), or (x, y, sample_weight), got a {type(value).__name__}"
            + hint
        )
    num_rows: dict[int, str] = {}
    for name, arrays in zip(_FIELDS, value, strict=False):
        if not list(leaves(arrays)):
            raise ValueError(f"{part} {name} holds no arrays")
        for where, array in leaves(arrays):
            shown = f"{part} {name}{where}"
            _check_array(shown, array, may_be_text=name == "x")
            num_rows.setdefault(len(array), shown)
    if len(num_rows) > 1:
        lengths = ", ".join(f"{shown} has {rows}" for rows, shown in num_rows.items())
        raise ValueError(f"x and y must have the same number of rows, but {lengths}")
    for where, weights in leaves(value[2]) if len(value) == 3 else ():
        if weights.min() < 0:
            shown = f"{part} sample_weight{where}"
            raise ValueError(f"{shown} must hold weights of at least 0, got {weights.min()}")
    for where, labels in leaves(value[1]):
        _check_labels(f"{part} y{where}", labels, num_classes)
        if part == "train":
            check_differences(f"{part} y{where}", labels)


def _check_array(shown: str, array: Any, *, may_be_text: bool) -> None:
    if not isinstance(array, np.ndarray):
        kind = type(array).__name__
        hint = "; make it one with np.array(...)" if isinstance(array, list) else ""
        raise ValueError(
            f"{shown} must be a NumPy array (or a dict or tuple of them), got a {kind}{hint}"
        )
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{shown} is empty: its shape is {array.shape}")
    if may_be_text and is_text(array) and isinstance(array.flat[0], str):
        return
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{shown} must hold numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f":
        check_float32(shown, array)


def check_float32(shown: str, array: Array) -> None:
    """Raises ValueError unless all numbers are finite in float32, the type that models compute in.

    Args:
        shown: How the message names the array.
        array: An array of floats.
    """
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(array.astype(np.float32, copy=False))
    if is_finite.all():
        return
    row, *rest = (int(index) for index in np.argwhere(~is_finite)[0])
    value = array[(row, *rest)]
    if not np.isfinite(value):
        raise ValueError(f"{shown} holds NaN or infinity, first in row {row}")
    raise ValueError(
        f"{shown} holds {value:.6g} in row {row}, but float32 holds no number beyond"
        f" {np.finfo(np.float32).max:.2g}; give it in another unit, or give its logarithm"
    )


def check_unscaled(output: Mapping[str, Any], scaling: str | Mapping[str, str]) -> None:
    """Raises ValueError if float32 cannot tell apart the floats of an input that is not scaled.

    Args:
        output: What a generator returned, checked.
        scaling: See `trialrun.data.splits.make_splits`.
    """
    x = output["train"][0]
    named = scaling if isinstance(scaling, Mapping) else {}
    kinds = {f"[{name!r}]": kind for name, kind in named.items()}
    for where, array in leaves(x):
        if kinds.get(where, scaling) == "none" and array.dtype.kind == "f":
            names = () if where else output.get("feature_names", ())
            check_differences(f"train x{where}", array, names)


def check_weights(output: Mapping[str, Any]) -> None:
    """Raises ValueError if all weights of a part are 0: its loss would be 0, the best possible.

    Args:
        output: What a generator returned, checked, in three parts.
    """
    for part in _PARTS:
        own = output.get(part, ())
        weights = [array for _, array in leaves(own[2])] if len(own) > 2 else []
        if weights and not any(array.any() for array in weights):
            raise ValueError(
                f"{part} sample_weight is 0 in each of its {len(weights[0])} rows; give some of"
                " them a weight above 0"
            )


def check_differences(shown: str, array: Array, names: Sequence[str] = ()) -> None:
    """Raises ValueError if float32 rounds away the differences between the rows of a column.

    An example are times in seconds since 1970, of which float32 holds only every 128th.

    Args:
        shown: How the message names the array.
        array: Unscaled numbers (rows, ...); its columns are checked one by one.
        names: Names of its columns; empty if they have none.
    """
    if np.can_cast(array.dtype, np.float32) or array.dtype.kind not in "iuf":
        return
    columns = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1).astype(np.float64)
    lost = np.abs(columns - columns.astype(np.float32)).max(0)
    spread = columns.max(0) - columns.min(0)
    is_constant = spread <= _NOISE * np.abs(columns).max(0)
    wrong = np.flatnonzero(~is_constant & (lost > _MAX_SHARE_LOST * spread))
    if not wrong.size:
        return
    index = int(wrong[0])
    shown = f"{shown} column {names[index]!r}" if names else shown
    low, high = columns[:, index].min(), columns[:, index].max()
    raise ValueError(
        f"{shown} holds numbers from {low:.17g} to {high:.17g}, whose differences float32 cannot"
        " hold; subtract the smallest of them from all, or give them in another unit"
    )


def _check_labels(shown: str, labels: Array, num_classes: int) -> None:
    if labels.dtype.kind not in "iu":
        return
    lowest, highest = int(labels.min()), int(labels.max())
    if num_classes and not 0 <= lowest <= highest < num_classes:
        raise ValueError(
            f"{shown} must hold labels from 0 to {num_classes - 1} for {num_classes} class_names,"
            f" got {lowest if lowest < 0 else highest}"
        )
    if highest > np.iinfo(np.int32).max:
        raise ValueError(f"{shown} must fit in 32 bits, got {highest}; give such targets as floats")
    if lowest < 0:
        raise ValueError(
            f"{shown} must hold integer labels from 0, got {lowest}; give other targets as floats"
        )


def _check_same_form(name: str, part: str, train: Any, other: Any) -> None:
    """Raises ValueError unless the arrays of two parts differ only in their number of rows."""
    train_form = {where: array.shape[1:] for where, array in leaves(train)}
    other_form = {where: array.shape[1:] for where, array in leaves(other)}
    if type(train) is not type(other) or train_form != other_form:
        raise ValueError(
            f"{part} {name} must have the same shape per row as train {name},"
            f" {_show_form(train_form)}, got {_show_form(other_form)}"
        )


def _show_form(form: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{where}: {shape}" if where else str(shape) for where, shape in form.items())


def _check_feature_names(output: Mapping[str, Any]) -> None:
    names, x = output.get("feature_names", ()), output["train"][0]
    if not names or not isinstance(x, np.ndarray):
        return
    num_features = x.shape[-1] if x.ndim > 1 else 1
    if len(names) != num_features:
        raise ValueError(f"there are {len(names)} feature_names for {num_features} features of x")
