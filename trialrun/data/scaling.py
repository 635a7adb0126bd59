"""Scalers of a model's inputs, fitted on the training part only.

They are fitted after the validation part was taken away, and the same fitted scaler is applied to
validation and test. Fitting it again on the test set, as some tutorials do, would let the test
set's own range into the model's input, and the same raw value (an age of 40) would mean something
else at test time than it did in training: it would no longer be the trained model that is tested.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trialrun.data.arrays import Array, Arrays, is_text, leaves, map_leaves
from trialrun.errors import InputError
from trialrun.host import imported_late

Scaling = Literal["minmax", "standard", "none"]


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """The affine map `x * scale + offset` per feature; features are the last axis.

    Attributes:
        kind: `none` does not change values but may narrow their type, see `transform`.
        scale: float64 (features,).
        offset: float64 (features,).
    """

    kind: Scaling
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]

    def transform(self, x: Array) -> Array:
        """The model's input, in the shape of `x`.

        Returns:
            float32; for kind `none`, integers stay integers (int64 becomes int32 if the values fit)
            and texts stay texts.

        Raises:
            InputError: A scaled value is beyond float32.
        """
        if self.kind == "none":
            return _narrow(x)
        try:
            with np.errstate(over="raise"):
                return (np.asarray(x, np.float64) * self.scale + self.offset).astype(np.float32)
        except FloatingPointError as error:
            raise InputError(
                f"data.scaling {self.kind}: a value is so far from those of the training part that"
                " it does not fit in float32 after scaling; remove or correct such rows"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Plain values from which `from_json` restores exactly the same scaler."""
        return {"kind": self.kind, "scale": self.scale.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scaler":
        """The scaler that `to_json` wrote."""
        scale, offset = (np.asarray(value[name], np.float64) for name in ("scale", "offset"))
        return cls(kind=value["kind"], scale=scale, offset=offset)


Scalers = Scaler | Mapping[str, Scaler] | tuple[Scaler, ...]


# Takes unscaled inputs (rows, ...); returns per array, bool (features,): whether the model looks
# the feature up, as an Embedding does.
LookedUp = Callable[[Arrays], Sequence[npt.NDArray[np.bool_]]]


def check_scaling(x: Arrays, scaling: Scaling | Mapping[str, Scaling]) -> None:
    """Raises InputError if `scaling` is a mapping whose keys are not exactly the inputs."""
    if not isinstance(scaling, Mapping):
        return
    if not isinstance(x, Mapping):
        raise InputError("data.scaling is a mapping of input names, but the data's x has no names")
    for name in (*scaling, *x):
        if name not in x or name not in scaling:
            what = "names no" if name in x else f"names {name!r}, which is no"
            shown = f"input {name!r}" if name in x else "input"
            raise InputError(f"data.scaling {what} {shown}; the inputs are {', '.join(x)}")


def fit_scaler(x: Array, scaling: Scaling, codes: Sequence[bool] = ()) -> Scaler:
    """The scaler of one array, fitted by scikit-learn."""
    rows = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
    num_features = rows.shape[1]
    if scaling == "none" or is_text(x):
        return Scaler("none", np.ones(num_features), np.zeros(num_features))
    with imported_late("scipy.stats"):  # most of the import, and neither scaler uses it
        import sklearn
        from sklearn.preprocessing import MinMaxScaler, StandardScaler

    rows = rows.astype(np.float64)
    # The arrays were checked before; for a small data set a second check would double the time.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        if scaling == "minmax":
            fitted = MinMaxScaler().fit(rows)
            scale, offset = fitted.scale_, fitted.min_
        else:
            fitted = StandardScaler().fit(rows)
            scale, offset = 1 / fitted.scale_, -fitted.mean_ / fitted.scale_
    if any(codes):
        scale, offset = np.where(codes, 1.0, scale), np.where(codes, 0.0, offset)
    return Scaler(scaling, scale, offset)


def without_looked_up(scalers: Any, parts: Sequence[Arrays], looked_up: LookedUp) -> Any:
    """The scalers, changed so that features that the model looks up are not scaled.

    Args:
        scalers: One per array of x.
        parts: x of the training part, then x of the other parts.
        looked_up: See `load_splits`.
    """
    arrays = [array for _, array in leaves(parts[0])]
    if not any(map(_has_whole_feature, arrays)):
        return scalers
    ready = []
    for (where, scaler), features in zip(leaves(scalers), looked_up(parts[0]), strict=True):
        part_arrays = [array for x in parts for path, array in leaves(x) if path == where]
        for array in part_arrays:
            _require_whole(f"x{where}", array, features)
        ready.append(_leave_out(scaler, features) if features.any() else scaler)
    remaining = iter(ready)
    return map_leaves(lambda _: next(remaining), scalers)


_MAX_AXES_OF_WHOLE_NUMBERS = 3  # rows, steps, features; float arrays with more are images


def _has_whole_feature(array: Array) -> bool:
    """Whether some feature holds only whole numbers, so that a model could look it up."""
    if array.dtype.kind != "f":
        return not is_text(array)
    if array.ndim > _MAX_AXES_OF_WHOLE_NUMBERS:
        return False
    rows = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
    return bool((rows == np.floor(rows)).all(0).any())


def _require_whole(shown: str, array: Array, features: npt.NDArray[np.bool_]) -> None:
    if array.dtype.kind != "f" or not features.any():
        return
    own = array.reshape(-1, len(features))[:, features]
    is_whole = own == np.floor(own)
    if not is_whole.all():
        raise InputError(
            f"{shown} holds {own[~is_whole][0]:g}, but the model takes it as a whole number (in an"
            " integer Input or an Embedding); give whole numbers, or change the model's input"
        )


def _leave_out(scaler: Scaler, features: npt.NDArray[np.bool_]) -> Scaler:
    if features.all():
        return Scaler("none", np.ones(len(features)), np.zeros(len(features)))
    scale, offset = np.where(features, 1.0, scaler.scale), np.where(features, 0.0, scaler.offset)
    return Scaler(scaler.kind, scale, offset)


def _narrow(array: Array) -> Array:
    """Floats as float32, and integers that fit as int32: the types that TensorFlow is made for."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    wide = array.dtype in (np.int64, np.uint64, np.uint32)
    limits = np.iinfo(np.int32)
    if wide and limits.min <= array.min() and array.max() <= limits.max:
        return array.astype(np.int32)
    return array


def transform(scalers: Any, value: Arrays) -> Any:
    """Each array scaled by its own scaler."""
    if isinstance(value, Mapping):
        return {key: scalers[key].transform(leaf) for key, leaf in value.items()}
    if isinstance(value, tuple):
        return tuple(scaler.transform(leaf) for scaler, leaf in zip(scalers, value, strict=True))
    return scalers.transform(value)


def scalers_to_json(scalers: Scalers) -> Any:
    """The scalers as plain values, in the structure of x; a tuple becomes a list."""
    if isinstance(scalers, Mapping):
        return {key: scaler.to_json() for key, scaler in scalers.items()}
    if isinstance(scalers, tuple):
        return [scaler.to_json() for scaler in scalers]
    return scalers.to_json()
