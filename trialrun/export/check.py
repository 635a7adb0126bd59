"""Saves a model in each format, loads it again and proves that it equals the trained model.

A format is proved if the loaded model has the trained trial's predictions and metrics on the test
set and its optimizer's state. Formats are independent: a problem with one is reported and does not
affect the others.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.data.arrays import Array, Arrays, join_outputs
from trialrun.data.splits import Splits
from trialrun.errors import ExportError
from trialrun.export.formats import (
    FormatName,
    Serialized,
    serialize,
    write_architecture,
    write_h5,
    write_keras,
    write_weights,
)
from trialrun.job.user_code.frames import told
from trialrun.store.best_files import BestFiles
from trialrun.training.model.inputs import with_text_tensors

if TYPE_CHECKING:
    import keras

# Saving and loading change no bit of a weight, but sums in another batch may have another order.
# The tolerances are absolute for numbers up to 1 and relative for larger ones.
_PREDICTION_TOLERANCE = 1e-5
_METRIC_TOLERANCE = 1e-4
_ROWS_PER_CALL = 1024
_NUM_TRAINED_ON = 10


@dataclass(frozen=True, slots=True)
class SavedFormat:
    """The result of saving one format.

    Attributes:
        name: `.weights.h5`, `.json`, `.keras` or `.h5`.
        file: Name of its file.
        is_proved: Whether the file was saved, loaded again, and gave the trained model.
        note: If not proved, the reason; else what the file leaves out, or what is needed to load
            it, if anything. Lines below tell where in the user's own code an error was raised.
    """

    name: FormatName
    file: str
    is_proved: bool
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What a loaded model must give.

    Attributes:
        x: Inputs.
        predictions: Outputs (rows, ...) of the trained model for the first rows of `x`.
        weights: Compared instead of the predictions if these are random; else None.
        logs: Metric -> value of the trained model on the test part; empty if it is random.
        optimizer: The optimizer's arrays; None if they are not compared.
        splits: The data of `logs`, and rows with which training is continued; None to do neither.
        batch_size: The batch size with which `logs` were computed.
    """

    x: Arrays
    predictions: Array
    weights: Sequence[Array] | None = None
    logs: Mapping[str, float] = field(default_factory=dict)
    optimizer: Sequence[Array] | None = None
    splits: Splits | None = None
    batch_size: int = 32


def what_will_be_missing(formats: Sequence[SavedFormat]) -> list[str]:
    """Lines about formats that are incomplete or fail: why, and what is saved instead."""
    by_reason: dict[str, list[str]] = {}
    for saved in formats:
        if saved.note and saved.name != ".weights.h5":
            by_reason.setdefault(saved.note, []).append(saved.name)
    lost = [saved for saved in formats if saved.name == ".weights.h5" and not saved.is_proved]
    proved = {saved.name for saved in formats if saved.is_proved}
    lines = []
    for note, names in by_reason.items():
        listed = ", ".join(names)
        reason, *where = note.splitlines()
        if names[0] in proved:
            line = f"the model will be saved as {listed} {reason}"
        else:
            instead = "" if lost else "; its weights and builder will be saved"
            line = f"the model cannot be saved as {listed}: {reason}{instead}"
        lines.append("\n".join([line, *where]))
    return lines + [f"the model's weights cannot be saved: {saved.note}" for saved in lost]


def save_and_prove(
    model: "keras.Model",
    files: BestFiles,
    expected: Expected,
    rebuild: Callable[[], "keras.Model"] | None,
) -> Iterator[SavedFormat]:
    """Writes each format, loads it again and compares; a file that is not proved is removed.

    Args:
        model: The trained model; it is not changed.
        files: The paths to write to.
        expected: What each file must give.
        rebuild: Makes the model with the job's builder and loads the file of weights. It proves
            that file if the architecture cannot be saved; None not to prove it then.
    """
    serialized = serialize(model)
    yield from _save_parts(model, serialized, files, expected, rebuild)

    def save_keras() -> None:
        write_keras(model, serialized, files.model_keras)
        _check_whole(files.model_keras, serialized, expected)

    def save_h5() -> None:
        write_h5(model, serialized, files.model_h5)
        _check_whole(files.model_h5, serialized, expected)
        _check_that_it_goes_on(files.model_h5, serialized, expected)

    left_out = serialized.compile_problem
    note = f"without loss, metrics and optimizer: {left_out}" if left_out else ""
    problem = serialized.problem
    yield _attempt(".keras", files.model_keras, save_keras, problem=problem, note=note)
    yield _attempt(".h5", files.model_h5, save_h5, problem=problem, note=note)


def _save_parts(
    model: "keras.Model",
    serialized: Serialized,
    files: BestFiles,
    expected: Expected,
    rebuild: Callable[[], "keras.Model"] | None,
) -> Iterator[SavedFormat]:
    """Saves weights and architecture, proved together if possible, and else the weights alone."""
    import keras

    def save_both() -> None:
        write_weights(model, files.weights)
        write_architecture(serialized, files.architecture)
        rebuilt = keras.models.model_from_json(files.architecture.read_text())
        rebuilt.load_weights(files.weights)
        _check_predictions(files.weights, rebuilt, expected)

    def save_weights() -> None:
        write_weights(model, files.weights)
        if rebuild is not None:
            _check_predictions(files.weights, rebuild(), expected)

    architecture = _attempt(
        ".json", files.architecture, save_both, problem=serialized.problem, note=""
    )
    if architecture.is_proved:
        yield SavedFormat(".weights.h5", files.weights.name, True)
    else:
        note = "the job's builder makes the model, which loads these weights"
        yield _attempt(".weights.h5", files.weights, save_weights, problem="", note=note)
    yield architecture


def _attempt(
    name: FormatName, path: Path, save: Callable[[], None], *, problem: str, note: str
) -> SavedFormat:
    """Writes and proves one format, unless a problem is already known."""
    if problem:
        return SavedFormat(name, path.name, False, problem)
    try:
        save()
    except Exception as error:  # from Keras, HDF5, the disk or the user's classes; put in the note
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return SavedFormat(name, path.name, False, told(error))
    return SavedFormat(name, path.name, True, note)


# What is compared --------------------------------------------------------------------------------


def expect(
    model: "keras.Model",
    splits: Splits,
    trial_predictions: Array,
    *,
    logs: Mapping[str, float],
    batch_size: int,
) -> Expected:
    """What the saved files of a trained model must give; first the model itself is checked.

    Args:
        model: The trained model, made again by its builder.
        splits: The data of its trial.
        trial_predictions: Predictions on the test set, or on its first rows, by the process that
            trained the model.
        logs: From `evaluate` of the model; without those that a saved model cannot give.
        batch_size: The batch size of `logs`, on which some of Keras's metrics depend.

    Raises:
        ExportError: The model's predictions differ from the trained trial's, although it has the
            same variables.
    """
    predictions = predict_in_batches(model, splits.x_test)
    num_rows = min(len(predictions), len(trial_predictions))
    expected = _expect_predictions(model, splits.x_test, predictions)
    if expected.weights is None:
        difference = _difference(predictions[:num_rows], trial_predictions[:num_rows])
        if difference:
            raise ExportError(
                "the model that the job's builder makes, with the trained variables, has test"
                f" predictions that differ from the trained trial's {difference}: either it holds"
                " state that is not in Keras variables, or its builder makes another model each"
                " time"
            )
    return Expected(
        x=splits.x_test,
        predictions=predictions,
        weights=expected.weights,
        logs=logs if expected.weights is None else {},
        optimizer=[variable.numpy() for variable in model.optimizer.variables],
        splits=splits,
        batch_size=batch_size,
    )


def expect_untrained(model: "keras.Model", x: Arrays) -> Expected:
    """What the saved files of an untrained model must give for a few rows."""
    return _expect_predictions(model, x, predict_in_batches(model, x))


def _expect_predictions(model: "keras.Model", x: Arrays, predictions: Array) -> Expected:
    is_repeatable = not _difference(predict_in_batches(model, x), predictions)
    weights = None if is_repeatable else [np.asarray(weight) for weight in model.get_weights()]
    return Expected(x=x, predictions=predictions, weights=weights)


def _check_predictions(path: Path, model: "keras.Model", expected: Expected) -> None:
    if expected.weights is not None:
        weights = model.get_weights()
        same = len(weights) == len(expected.weights) and all(
            np.array_equal(a, b, equal_nan=np.issubdtype(np.asarray(a).dtype, np.inexact))
            for a, b in zip(weights, expected.weights, strict=True)
        )
        if not same:
            raise ExportError(f"{path.name}: the loaded weights are not the trained model's")
        return
    predictions = predict_in_batches(model, expected.x)
    if difference := _difference(predictions, expected.predictions):
        raise ExportError(
            f"{path.name}: the loaded model's predictions differ from the trained model's"
            f" {difference}"
        )


def _difference(values: Array, expected: Array) -> str:
    """By how much predictions differ; empty if the difference is allowed."""
    if values.shape != expected.shape:
        return f"in shape: {values.shape}, {expected.shape}"
    values, expected = values.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(expected[np.isfinite(expected)])
    allowed = _PREDICTION_TOLERANCE * max(1.0, float(finite.max(initial=0)))
    if np.allclose(values, expected, rtol=0, atol=allowed, equal_nan=True):
        return ""
    is_finite = np.isfinite(values) & np.isfinite(expected)
    largest = np.abs(values[is_finite] - expected[is_finite]).max(initial=0)
    is_alike = np.array_equal(values[~is_finite], expected[~is_finite], equal_nan=True)
    where = "" if is_alike else "; values that are not finite differ"
    return f"by up to {largest:.3g}, allowed is {allowed:.3g}{where}"


def _check_whole(path: Path, serialized: Serialized, expected: Expected) -> None:
    """Loads a whole model as `trialrun.load_model` does, and compares all that it holds."""
    from trialrun.export.load import load_model

    model = load_model(path)
    _check_predictions(path, model, expected)
    if serialized.compiled is None:
        return
    if not model.compiled:
        raise ExportError(f"{path.name}: the loaded model is not compiled")
    if expected.optimizer is not None:
        loaded = [variable.numpy() for variable in model.optimizer.variables]
        if len(loaded) != len(expected.optimizer) or not all(
            map(np.array_equal, loaded, expected.optimizer)
        ):
            raise ExportError(f"{path.name}: the loaded optimizer's state is not the trained one's")
    _check_logs(path, model, expected)


def _check_logs(path: Path, model: "keras.Model", expected: Expected) -> None:
    if expected.splits is None or not expected.logs:
        return
    logs = evaluate(model, expected.splits, expected.batch_size)
    for name, value in expected.logs.items():
        if differs(logs.get(name), value):
            raise ExportError(
                f"{path.name}: on the test set the loaded model has {name} {logs.get(name)}, but"
                f" the trained one has {value}"
            )


def differs(value: float | None, expected: float) -> bool:
    """Whether a metric differs from its expected value; NaN equals NaN."""
    if value is None:
        return True
    allowed = _METRIC_TOLERANCE * max(1.0, abs(expected)) if np.isfinite(expected) else 0.0
    return not np.isclose(value, expected, rtol=0, atol=allowed, equal_nan=True)


def _check_that_it_goes_on(path: Path, serialized: Serialized, expected: Expected) -> None:
    """Checks that the model that plain Keras loads can be trained on a few rows."""
    import keras

    splits = expected.splits
    if serialized.compiled is None or splits is None:
        return
    model = keras.models.load_model(path)
    rows = slice(0, _NUM_TRAINED_ON)
    x, y = keras.tree.map_structure(lambda array: array[rows], (splits.x_train, splits.y_train))
    if not np.isfinite(_loss_of_a_step(model, with_text_tensors(x), y)):
        raise ExportError(f"{path.name}: the training of the model that Keras loads diverges")


def _loss_of_a_step(model: "keras.Model", x: Any, y: Any) -> float:
    """The loss that Keras logs of one step of training; 0 if the model logs none.

    To trace a step takes ten times as long as to execute it, so that it is traced only if the
    user's code cannot be executed without.
    """
    traced = model.run_eagerly
    model.run_eagerly = True
    try:
        history = model.fit(x, y, batch_size=_NUM_TRAINED_ON, verbose=0).history
    except Exception:
        model.run_eagerly = traced
        history = model.fit(x, y, batch_size=_NUM_TRAINED_ON, verbose=0).history
    return float(history.get("loss", [0.0])[-1])


def predict_in_batches(model: "keras.Model", x: Arrays) -> Array:
    """The model's outputs for all rows, a thousand at a time."""
    import keras

    num_rows = len(keras.tree.flatten(x)[0])
    outputs = []
    for start in range(0, num_rows, _ROWS_PER_CALL):
        rows = slice(start, start + _ROWS_PER_CALL)
        batch = keras.tree.map_structure(lambda array: array[rows], x)  # noqa: B023
        outputs.append(join_outputs(model(with_text_tensors(batch), training=False)))
    return np.concatenate(outputs)


def evaluate(model: "keras.Model", splits: Splits, batch_size: int) -> dict[str, float]:
    """Keras's logs on the test part."""
    from trialrun.training.model.batches import batches_like, in_order
    from trialrun.training.model.build import in_order_of_outputs

    stream, part = splits.streams.get("test"), splits.part("test")
    if stream is not None:
        batches = batches_like(stream.rows, part, batch_size, num_rows=stream.num_rows)
        given = {"x": in_order(model, batches)}
    else:
        x, y, *weights = in_order_of_outputs(model, part)
        given = {"x": with_text_tensors(x), "y": y, "batch_size": batch_size}
        given["sample_weight"] = weights[0] if weights else None
    logs: dict[str, float] = model.evaluate(**given, verbose=0, return_dict=True)
    return logs
