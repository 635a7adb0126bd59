"""The data of a trial: loaded from a generator or a file, split and scaled.

Scalers are fitted on the training part only, after the validation part was taken away, and the same
fitted scaler is applied to validation and test data. Some tutorials fit a scaler again on the test
set. The test set's own range would then change the model's input: the same raw value (an age of 40)
would mean something else at test time than in training, and what is tested would no longer be the
trained model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from trialrun.archives import load_archive
from trialrun.arrays import Array, Arrays, is_text, leaves, map_leaves
from trialrun.census import Census, check_classes, class_numbers, take_census
from trialrun.encoding import TableEncoder
from trialrun.errors import InputError
from trialrun.generated import check_generated, check_unscaled, check_weights
from trialrun.given import as_arrays
from trialrun.holdout import with_every_class
from trialrun.job import DataSpec
from trialrun.references import load_function, portable_reference
from trialrun.seeding import streams_seeded
from trialrun.streamed import Stream, check_streams, read_streams
from trialrun.tabledata import load_table
from trialrun.tablerows import TableSummary

Scaling = Literal["minmax", "standard", "none"]
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

# Seeds the shuffle before the split together with the trial's seed, so that it does not use the
# same random numbers as the generator.
_SPLIT_STREAM = 0x5B117


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


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The data of a trial, ready for its model.

    Attributes:
        x_train, x_val, x_test: Scaled inputs (rows, ...): an array, or a dict or tuple of arrays;
            texts are object arrays of `str`.
        y_train, y_val, y_test: Labels (rows, ...): int32 for integers and booleans, else float32.
        class_names: Empty if the generator names no classes.
        feature_names: Empty if the generator names no features.
        scalers: One per array of x, in the same structure: raw input -> model input.
        w_train, w_val, w_test: float32 weights of the rows, one array or one per output; None if
            the generator gives none.
        encoder: Makes the raw input from a table's columns; None for other sources.
        streams: The parts that do not fit into memory; the arrays hold only their first rows.
    """

    x_train: Arrays
    y_train: Arrays
    x_val: Arrays
    y_val: Arrays
    x_test: Arrays
    y_test: Arrays
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    scalers: Scalers
    w_train: Arrays | None = None
    w_val: Arrays | None = None
    w_test: Arrays | None = None
    encoder: TableEncoder | None = None
    streams: Mapping[Part, Stream] = field(default_factory=dict)

    def part(self, name: Part) -> tuple[Any, ...]:
        """Inputs and labels of a part, and its weights if it has some."""
        kinds = ("x", "y") if getattr(self, f"w_{name}") is None else ("x", "y", "w")
        return tuple(getattr(self, f"{kind}_{name}") for kind in kinds)


@dataclass(frozen=True, slots=True, eq=False)
class RawData:
    """The data of a trial in three parts, checked but not yet scaled.

    Attributes:
        output: What a generator returns, or the same made from a file; always in three parts.
        encoder: How a table was encoded; None for other sources.
        streams: Name in `output` -> a part that does not fit into memory; `output` holds only its
            first rows.
        summary: What was done with the rows of a table; None for other sources.
    """

    output: Mapping[str, Any]
    encoder: TableEncoder | None
    streams: Mapping[str, Stream]
    summary: TableSummary | None = None


def first_rows(splits: Splits, num_rows: int) -> Splits:
    """The same with at most this number of rows in each part, without streams."""
    arrays = {
        name: map_leaves(lambda array: array[:num_rows], value)
        for name in (f"{kind}_{part}" for kind in "xyw" for part in PARTS)
        if (value := getattr(splits, name)) is not None
    }
    return replace(splits, **arrays, streams={})


def steps_per_epoch(splits: Splits, batch_size: int) -> int:
    """The number of batches in an epoch, including a partial one."""
    stream = splits.streams.get("train")
    num_rows = len(next(leaves(splits.y_train))[1]) if stream is None else stream.num_rows
    return math.ceil(num_rows / batch_size)


# Takes unscaled inputs (rows, ...); returns per array, bool (features,): whether the model looks
# the feature up, as an Embedding does.
LookedUp = Callable[[Arrays], Sequence[npt.NDArray[np.bool_]]]


def load_splits(
    data: DataSpec, job_folder: Path, seed: int, looked_up: LookedUp | None = None
) -> Splits:
    """The data of one trial: generated or read, checked, split and scaled.

    Args:
        data: The section `data` of the job.
        job_folder: The folder to which the path of a generator's file is relative.
        seed: The trial's seed; it decides the generated data and the split unless `data.seed` is
            fixed.
        looked_up: Tells which features of x the model takes as whole numbers (see
            `trialrun.lookups`), which are not scaled. Absent: none.

    Raises:
        InputError: The data cannot be loaded, or no model could be given such data.
    """
    raw = check_data(data, job_folder, seed)
    encoder = raw.encoder
    splits = make_splits(
        raw.output,
        scaling=data.scaling,
        validation_split=data.validation_split,
        seed=_data_seed(data, seed),
        codes=() if encoder is None else encoder.codes,
        looked_up=looked_up,
    )
    streams = {_PART_OF[name]: stream for name, stream in raw.streams.items()}
    return replace(splits, encoder=encoder, streams=streams)


_PART_OF: Mapping[str, Part] = {"train": "train", "validation": "val", "test": "test"}


def check_data(data: DataSpec, job_folder: Path, seed: int) -> RawData:
    """The data of a trial in three parts, checked but not yet scaled; see `load_splits`."""
    data_seed, encoder, summary = _data_seed(data, seed), None, None
    streams: Mapping[str, Stream] = {}
    if data.generator is not None:
        source = f"data.generator {portable_reference(data.generator)} (seed {data_seed})"
        generator = load_function(data.generator, job_folder)
        output = _generate(generator, data_seed, data.args, source=source)
        output, streams = read_streams(output, source=source)
        output = as_arrays(output, source=source)
    elif data.npz is not None:
        source = f"data.npz {Path(data.npz).name}"
        output = load_archive(data, data_seed, source)
    else:
        source = f"data.{data.source} {Path(str(data.table)).name}"
        table = load_table(data, data_seed)
        output, encoder, summary = table.output, table.encoder, table.summary
    check_generated(output, source=source)
    check_scaling(output["train"][0], data.scaling)
    check_streams(streams, output, data.scaling)
    output = with_validation(output, data.validation_split, data_seed)
    try:
        check_classes(output)
        check_unscaled(output, data.scaling)
        check_weights({part: arrays for part, arrays in output.items() if part not in streams})
    except (InputError, ValueError) as error:
        raise InputError(f"{source}: {error}") from None
    return RawData(output, encoder, streams, summary)


def census_of(raw: RawData) -> Census:
    """What the parts of a trial's data hold; streamed parts are left out."""
    return take_census(
        {part: arrays for part, arrays in raw.output.items() if part not in raw.streams}
    )


def _data_seed(data: DataSpec, seed: int) -> int:
    return seed if data.seed == "per_trial" else int(data.seed)


def _generate(
    generator: Callable[..., Any], seed: int, args: Mapping[str, Any], *, source: str
) -> Any:
    try:
        with streams_seeded(seed):  # the same data whatever the process did before
            return generator(seed=seed, **args)
    except Exception as error:
        given = ", ".join(["seed", *args])
        raise InputError(
            f"{source}: when called with {given}, it raised {type(error).__name__}: {error}"
        ) from error


def medical_trial(
    seed: int,
    *,
    num_train_younger_with: int = 50,
    num_train_older_without: int = 50,
    num_train_younger_without: int = 1000,
    num_train_older_with: int = 1000,
    num_test_younger_with: int = 10,
    num_test_older_without: int = 10,
    num_test_younger_without: int = 200,
    num_test_older_with: int = 200,
) -> dict[str, Any]:
    """Ages of a drug trial's participants and whether they had side effects.

    Younger participants are 13 to 64 years old, older ones 65 to 100, both ends included. By
    default about one in twenty of the younger had side effects and about one in twenty of the older
    had none, so that no model can be right for more than 2000/2100 = 95.24% of them.

    Args:
        seed: Decides all ages and the order of the rows.
        num_train_younger_with: How many younger participants with side effects the training set
            has; the other counts are named in the same way.
        num_train_older_without: See above.
        num_train_younger_without: See above.
        num_train_older_with: See above.
        num_test_younger_with: See above.
        num_test_older_without: See above.
        num_test_younger_without: See above.
        num_test_older_with: See above.

    Returns:
        `train` and `test`, each a pair of ages, int64 (participants, 1), and labels, int32
        (participants,), 1 for those who had side effects, in random order; `class_names`;
        `feature_names`.
    """
    rng = np.random.default_rng(seed)
    train = _draw_participants(
        rng,
        num_younger=(num_train_younger_without, num_train_younger_with),
        num_older=(num_train_older_without, num_train_older_with),
    )
    test = _draw_participants(
        rng,
        num_younger=(num_test_younger_without, num_test_younger_with),
        num_older=(num_test_older_without, num_test_older_with),
    )
    return {
        "train": train,
        "test": test,
        "class_names": ["no_side_effects", "had_side_effects"],
        "feature_names": ["age"],
    }


def _draw_participants(
    rng: np.random.Generator, *, num_younger: tuple[int, int], num_older: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Ages and labels in random order; each pair is (number without, number with side effects)."""
    ages = np.concatenate(
        [
            rng.integers(13, 64, sum(num_younger), endpoint=True),
            rng.integers(65, 100, sum(num_older), endpoint=True),
        ]
    )
    labels = np.repeat(np.array([0, 1, 0, 1], np.int32), (*num_younger, *num_older))
    order = rng.permutation(len(ages))
    return ages[order, np.newaxis], labels[order]


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


def make_splits(
    output: Mapping[str, Any],
    *,
    scaling: Scaling | Mapping[str, Scaling],
    validation_split: float,
    seed: int,
    codes: Sequence[bool] = (),
    looked_up: LookedUp | None = None,
) -> Splits:
    """Training, validation and test data, scaled by scalers that are fitted on training data only.

    Args:
        output: What a generator returned, checked; see `with_validation`.
        scaling: `minmax` (0 to 1), `standard` (mean 0, standard deviation 1) or `none`; or name of
            an input -> one of these.
        validation_split: Share of the training rows, above 0 and below 1.
        seed: Decides the shuffle.
        codes: For each feature, whether it stands for a category; such features are not scaled.
        looked_up: See `load_splits`.

    Raises:
        InputError: There are too few rows for both parts, or a feature that the model looks up
            holds numbers that are not whole.
    """
    output = with_validation(output, validation_split, seed)
    x_train, y_train, w_train = _with_weights(*output["train"])
    x_val, y_val, w_val = _with_weights(*output["validation"])
    x_test, y_test, w_test = _with_weights(*output["test"])
    if isinstance(scaling, Mapping):
        check_scaling(x_train, scaling)
        scalers: Any = {name: _fit_scaler(x, scaling[name], codes) for name, x in x_train.items()}
    else:
        scalers = map_leaves(lambda x: _fit_scaler(x, scaling, codes), x_train)
    if looked_up is not None and any(scaler.kind != "none" for _, scaler in leaves(scalers)):
        scalers = _without_looked_up(scalers, (x_train, x_val, x_test), looked_up)
    return Splits(
        x_train=_transform(scalers, x_train),
        y_train=map_leaves(_to_labels, y_train),
        x_val=_transform(scalers, x_val),
        y_val=map_leaves(_to_labels, y_val),
        x_test=_transform(scalers, x_test),
        y_test=map_leaves(_to_labels, y_test),
        class_names=tuple(output.get("class_names", ())),
        feature_names=tuple(output.get("feature_names", ())),
        scalers=scalers,
        w_train=w_train,
        w_val=w_val,
        w_test=w_test,
    )


def with_validation(
    output: Mapping[str, Any], validation_split: float, seed: int
) -> Mapping[str, Any]:
    """A generator's output with a `validation` part, if it has none of its own.

    The training rows are shuffled and the last of them become validation data, as many as in
    Keras's `fit(validation_split=...)`. If both parts have room for a row of every class but one
    lacks a class, rows are exchanged, see `with_every_class`.

    Args:
        output: What a generator returned, checked.
        validation_split: Share of the training rows, above 0 and below 1.
        seed: Decides the shuffle.

    Raises:
        InputError: There are too few rows for both parts.
    """
    if "validation" in output:
        return output
    train = output["train"]
    num_rows = len(next(leaves(train[0]))[1])
    rows, val_rows = _split_rows(num_rows, validation_split, seed)
    labels = class_numbers(train[1])
    if labels is not None and labels.min() >= 0 and labels.max() < num_rows:
        num_classes = np.count_nonzero(np.bincount(labels))
        if num_classes <= min(len(rows), len(val_rows)):
            rows, val_rows = with_every_class(labels, rows, val_rows)
    taken = {
        part: tuple(_take(value, own) for value in train)
        for part, own in (("train", rows), ("validation", val_rows))
    }
    return {**output, **taken}


def _split_rows(
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
    rows = np.random.default_rng([seed, _SPLIT_STREAM]).permutation(num_rows)
    return rows[:split_at], rows[split_at:]


def _fit_scaler(x: Array, scaling: Scaling, codes: Sequence[bool] = ()) -> Scaler:
    """The scaler of one array, fitted by scikit-learn."""
    rows = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
    num_features = rows.shape[1]
    if scaling == "none" or is_text(x):
        return Scaler("none", np.ones(num_features), np.zeros(num_features))
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


def _without_looked_up(scalers: Any, parts: Sequence[Arrays], looked_up: LookedUp) -> Any:
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


def _to_labels(array: Array) -> Array:
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _with_weights(x: Arrays, y: Arrays, weights: Arrays | None = None) -> tuple[Any, Any, Any]:
    """x, y and the weights of a part as a generator returned it; weights are float32 or None."""
    if weights is None:
        return x, y, None
    return x, y, map_leaves(lambda array: array.astype(np.float32), weights)


def _take(value: Arrays | None, rows: npt.NDArray[np.int64]) -> Any:
    return None if value is None else map_leaves(lambda leaf: leaf[rows], value)


def _transform(scalers: Any, value: Arrays) -> Any:
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
