"""Raw input of any kind turned into a model's input: checked, then scaled by the saved scalers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.data.arrays import is_text
from trialrun.data.generator import check_float32
from trialrun.data.generator_arrays import to_array
from trialrun.data.scaling import Scaler
from trialrun.errors import InputError
from trialrun.job.table_spelling import clean_text
from trialrun.messages import said_by


def scaled_input(scalers: Any, raw: Any, feature_names: Sequence[str] = ()) -> Any:
    """The model's input: each array scaled by its own scaler.

    Args:
        scalers: As preprocessing.json holds them.
        raw: Arrays (rows, ...), or what Keras takes as arrays, in the structure of the scalers. The
            columns of a DataFrame are found by name if the features have names.
        feature_names: Names of the features; empty if they have none.

    Raises:
        InputError: The model does not take such input. The message says which input is wrong.
    """
    if isinstance(scalers, list):
        if not isinstance(raw, tuple | list) or len(raw) != len(scalers):
            raise InputError(f"the model takes a tuple of {len(scalers)} inputs")
        pairs = enumerate(zip(scalers, raw, strict=True))
        ready: Any = tuple(_scaled(f"the input {i}", scaler, value) for i, (scaler, value) in pairs)
    elif "scale" not in scalers:
        names = ", ".join(scalers)
        if not isinstance(raw, Mapping) or raw.keys() != scalers.keys():
            raise InputError(f"the model takes a dict of the inputs {names}")
        ready = {
            name: _scaled(f"the input {name!r}", scaler, raw[name])
            for name, scaler in scalers.items()
        }
    else:
        return _scaled("the input", scalers, _in_order(raw, feature_names))
    sizes = {len(array) for array in (ready.values() if isinstance(ready, dict) else ready)}
    if len(sizes) > 1:
        raise InputError(
            "the inputs must have the same number of rows, but have"
            f" {' and '.join(map(str, sorted(sizes)))}"
        )
    return ready


def _in_order(raw: Any, names: Sequence[str]) -> Any:
    """The columns of a DataFrame, or of a dict of columns, in the order of the features."""
    import pandas as pd

    if isinstance(raw, Mapping):
        if not names:
            raise InputError("the model takes one array (rows, features), got a dict")
        try:
            raw = pd.DataFrame(raw)
        except ValueError as error:
            raise InputError(
                f"the model takes rows with the columns {', '.join(names)}; {said_by(error)}"
            ) from error
    if not isinstance(raw, pd.DataFrame) or not names:
        return raw
    raw = raw.rename(columns=lambda name: clean_text(str(name)))
    missing = [name for name in names if clean_text(name) not in raw.columns]
    if missing:
        found = ", ".join(raw.columns) or "none"
        raise InputError(f"the input: column {missing[0]!r} is missing; found {found}")
    return raw[list(map(clean_text, names))]


def _scaled(shown: str, scaler: Mapping[str, Any], raw: Any) -> npt.NDArray[Any]:
    known = Scaler.from_json(scaler)
    array = _checked(shown, raw)
    if is_text(array) and known.kind != "none":
        raise InputError(f"{shown} must hold numbers, got text")
    num_features = array.shape[-1] if array.ndim > 1 else 1
    if num_features != len(known.scale):
        raise InputError(f"the model takes {len(known.scale)} feature(s), got {num_features}")
    return known.transform(array)


def _checked(shown: str, raw: Any) -> npt.NDArray[Any]:
    try:
        array = to_array(shown, np.asarray(raw) if isinstance(raw, list) else raw)
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            kind = type(raw).__name__
            raise ValueError(f"{shown} must be an array with a value per row, got a {kind}")
        if array.size == 0:
            raise ValueError(f"{shown} holds no rows: its shape is {array.shape}")
        if not is_text(array):
            check_float32(shown, array)
    except ValueError as error:
        raise InputError(str(error)) from None
    return array
