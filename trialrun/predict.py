"""Raw rows of a CSV file through the saved preprocessing and the best model of a run."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.arrays import join_outputs
from trialrun.datasets import Scaler
from trialrun.errors import InputError
from trialrun.files import reading
from trialrun.store import BestFiles, RunFolder

if TYPE_CHECKING:
    import keras
    import pandas as pd


def predict_csv(run: RunFolder, input_file: Path) -> "pd.DataFrame":
    """The input's columns, then the model's predictions for each row.

    Args:
        run: A run with a best model.
        input_file: CSV with a header. The columns of the model's features are found by name when
            the generator named its features; otherwise every column is a feature, in order.

    Returns:
        A classifier adds a column `probability_<class>` per class and `class`, the most probable;
        any other model `prediction` (or `prediction_0`, ...).

    Raises:
        InputError: The run has no best model, or the file does not hold what the model needs.
    """
    files = _best_files(run)
    preprocessing = _read_preprocessing(files)
    table = _read_table(input_file)
    raw = _features(table, input_file, preprocessing["feature_names"])
    try:
        predictions = predict_raw(run, raw)
    except InputError as error:
        found = ", ".join(map(str, table.columns))
        raise InputError(f"{input_file}: {error}; found the columns {found}") from error
    return _with_predictions(table, predictions, preprocessing["class_names"])


def predict_raw(run: RunFolder, raw: Any) -> npt.NDArray[np.floating[Any]]:
    """Predictions (rows, outputs) of a run's best model for raw inputs (rows, features).

    Raises:
        InputError: The run has no best model, or the inputs have another number of features.
    """
    files = _best_files(run)
    scaler = Scaler.from_json(_read_preprocessing(files)["scalers"])
    raw = np.asarray(raw)
    num_features = raw.shape[-1] if raw.ndim > 1 else 1
    if num_features != len(scaler.scale):
        raise InputError(f"the model takes {len(scaler.scale)} feature(s), got {num_features}")
    model = load_best_model(files)
    predictions: npt.NDArray[np.floating[Any]] = join_outputs(
        model.predict(scaler.transform(raw), verbose=0)
    )
    return predictions.reshape(len(predictions), -1)


def _best_files(run: RunFolder) -> BestFiles:
    files = run.best(run.read_job()["name"])
    if not files.preprocessing.is_file():
        raise InputError(f"{run.path}: has no best model: the run did not end with a winner")
    return files


def load_best_model(files: BestFiles) -> "keras.Model":
    """The whole model in Keras's native format, compiled, ready to go on training."""
    with _quiet_stderr():
        import keras  # noqa: F401
    from trialrun.models import load_model

    return load_model(files.model_keras)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hides what TensorFlow's C++ writes while it is imported, before it reads its log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _read_preprocessing(files: BestFiles) -> dict[str, Any]:
    with reading(files.preprocessing):
        preprocessing: dict[str, Any] = json.loads(files.preprocessing.read_text())
    if "scale" not in preprocessing["scalers"]:
        raise InputError(
            f"{files.folder}: the model takes several inputs; a CSV file cannot hold them."
            " Load the model in Python instead"
        )
    return preprocessing


def _read_table(input_file: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(input_file)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{input_file}: cannot be read as CSV: {error}") from error
    if table.empty:
        raise InputError(f"{input_file}: holds no rows below its header")
    return table


def _features(
    table: "pd.DataFrame", input_file: Path, feature_names: list[str]
) -> npt.NDArray[np.float64]:
    missing = [name for name in feature_names if name not in table.columns]
    if missing:
        raise InputError(
            f"{input_file}: column {missing[0]!r} is missing; found"
            f" {', '.join(map(str, table.columns))}; the first line must name the columns"
        )
    columns = table[feature_names] if feature_names else table
    for name, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise InputError(f"{input_file}: column {name!r} must hold numbers, found text")
        if not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0]) + 2
            raise InputError(
                f"{input_file}:{row}: column {name!r} must hold a finite number, found"
                f" {'nothing' if np.isnan(column[row - 2]) else column[row - 2]}"
            )
    return columns.to_numpy(np.float64)


def _with_predictions(
    table: "pd.DataFrame", predictions: npt.NDArray[np.floating[Any]], class_names: list[str]
) -> "pd.DataFrame":
    if class_names and predictions.shape[1] == 1 and len(class_names) == 2:
        predictions = np.hstack([1 - predictions, predictions])
    if class_names and predictions.shape[1] == len(class_names):
        probabilities = {
            f"probability_{name}": predictions[:, index] for index, name in enumerate(class_names)
        }
        classes = [class_names[index] for index in predictions.argmax(1)]
        return table.assign(**probabilities, **{"class": classes})
    if predictions.shape[1] == 1:
        return table.assign(prediction=predictions[:, 0])
    columns = {f"prediction_{index}": column for index, column in enumerate(predictions.T)}
    return table.assign(**columns)
