"""Raw rows of a CSV file through the saved preprocessing and the best model of a run."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.arrays import join_outputs
from trialrun.datasets import Scaler
from trialrun.encoding import TableEncoder, is_number
from trialrun.errors import InputError
from trialrun.files import reading
from trialrun.modeltask import Kind, ModelTask
from trialrun.rebuild import load_best_model
from trialrun.store import BestFiles, RunFolder

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


def predict_csv(
    run: RunFolder, input_file: Path, warn: Callable[[str], None] = _log.warning
) -> "pd.DataFrame":
    """The input's columns, then the model's predictions for each row.

    Args:
        run: A run with a best model.
        input_file: CSV with a header. The columns of the model's features are found by name when
            the generator named its features or the data was a table, whose columns are given as
            they were there; otherwise every column is a feature, in order.
        warn: Told of categories that the model has not seen.

    Returns:
        A classifier with named classes adds a column `probability_<class>` per class (`score...`
        where its outputs are no probabilities) and `class`, the most probable; a model of named
        labels that are each there or not, the probabilities alone; any other model `prediction`
        (or `prediction_0`, ...).

    Raises:
        InputError: The run has no best model, or the file does not hold what the model needs.
    """
    files = _best_files(run)
    preprocessing = _read_preprocessing(files)
    task = _task(files, preprocessing)
    if "scale" not in preprocessing["scalers"]:
        raise InputError(
            f"{files.folder}: the model takes several inputs; a CSV file cannot hold them."
            " Use trialrun.open_run(...).best.predict in Python instead"
        )
    encoder = _encoder(preprocessing)
    table = _read_table(input_file, () if encoder is None else encoder.text_columns)
    if encoder is None:
        raw = _features(table, input_file, preprocessing["feature_names"])
    else:
        raw = _encoded(table, encoder, str(input_file), warn)
    try:
        predictions = _predict(files, preprocessing, raw)
    except InputError as error:
        found = ", ".join(map(str, table.columns))
        raise InputError(f"{input_file}: {error}; found the columns {found}") from error
    return with_predictions(table, predictions, preprocessing["class_names"], task)


def predict_raw(run: RunFolder, raw: Any) -> npt.NDArray[np.floating[Any]]:
    """Predictions (rows, outputs) of a run's best model for raw inputs; of logits, probabilities.

    Args:
        run: A run with a best model.
        raw: As the data was before it was scaled: (rows, features), or a dict or tuple of such
            arrays. Where the data was a table, a DataFrame or a dict of its columns, or rows whose
            values are in their order.

    Raises:
        InputError: The run has no best model, or the inputs are not those of the model.
    """
    files = _best_files(run)
    preprocessing = _read_preprocessing(files)
    encoder = _encoder(preprocessing)
    if encoder is not None:
        raw = _encoded(_as_table(raw, encoder), encoder, "the input", _log.warning)
    return _predict(files, preprocessing, raw)


def _predict(
    files: BestFiles, preprocessing: Mapping[str, Any], raw: Any
) -> npt.NDArray[np.floating[Any]]:
    x = _scaled(preprocessing["scalers"], raw)
    model = load_best_model(files, compiled=False)
    predictions: npt.NDArray[np.floating[Any]] = join_outputs(model.predict(x, verbose=0))
    predictions = predictions.reshape(len(predictions), -1)
    task = _task(files, preprocessing)
    return predictions if task is None else task.probabilities(predictions)


def _scaled(scalers: Any, raw: Any) -> Any:
    """The model's input: each array through its own scaler."""
    if isinstance(scalers, list):
        if not isinstance(raw, tuple | list) or len(raw) != len(scalers):
            raise InputError(f"the model takes a tuple of {len(scalers)} inputs")
        return tuple(_scaled(scaler, one) for scaler, one in zip(scalers, raw, strict=True))
    if "scale" not in scalers:
        if not isinstance(raw, Mapping) or raw.keys() != scalers.keys():
            raise InputError(f"the model takes a dict of the inputs {', '.join(scalers)}")
        return {name: _scaled(scaler, raw[name]) for name, scaler in scalers.items()}
    scaler, raw = Scaler.from_json(scalers), np.asarray(raw)
    num_features = raw.shape[-1] if raw.ndim > 1 else 1
    if num_features != len(scaler.scale):
        raise InputError(f"the model takes {len(scaler.scale)} feature(s), got {num_features}")
    return scaler.transform(raw)


def _best_files(run: RunFolder) -> BestFiles:
    files = run.best(run.read_job()["name"])
    if not files.preprocessing.is_file():
        raise InputError(f"{run.path}: has no best model: the run did not end with a winner")
    return files


def _read_preprocessing(files: BestFiles) -> dict[str, Any]:
    with reading(files.preprocessing):
        preprocessing: dict[str, Any] = json.loads(files.preprocessing.read_text())
    return preprocessing


def _task(files: BestFiles, preprocessing: Mapping[str, Any]) -> ModelTask | None:
    """What the model is; None where an older run does not say."""
    if "task" not in preprocessing:
        return None
    try:
        return ModelTask.from_json(preprocessing["task"])
    except ValueError as error:
        raise InputError(f"{files.preprocessing}: task {error}") from error


def _encoder(preprocessing: Mapping[str, Any]) -> TableEncoder | None:
    columns = preprocessing.get("columns")
    return None if columns is None else TableEncoder.from_json(columns)


def _read_table(input_file: Path, text_columns: Sequence[str] = ()) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(input_file, dtype=dict.fromkeys(text_columns, str))
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{input_file}: cannot be read as CSV: {error}") from error
    if table.empty:
        raise InputError(f"{input_file}: holds no rows below its header")
    return table


def _as_table(raw: Any, encoder: TableEncoder) -> "pd.DataFrame":
    import pandas as pd

    if isinstance(raw, pd.DataFrame | Mapping):
        return pd.DataFrame(raw)
    names = [column.name for column in encoder.columns]
    try:
        table = pd.DataFrame(raw, columns=names)
    except ValueError as error:
        raise InputError(f"the model takes the columns {', '.join(names)}; {error}") from error
    return table.infer_objects()


def _encoded(
    table: "pd.DataFrame", encoder: TableEncoder, where: str, warn: Callable[[str], None]
) -> npt.NDArray[np.float64]:
    """The features of a table's raw columns."""
    _require_columns(table, [column.name for column in encoder.columns], where)
    for column in encoder.columns:
        values = table[column.name]
        if column.kind == "number":
            _check_numbers(column.name, values, where, may_miss=column.may_miss)
        elif not column.may_miss and values.isna().any():
            row = int(np.flatnonzero(values.isna())[0]) + 2
            raise InputError(f"{where}:{row}: column {column.name!r} lacks a value")
        if unknown := column.unknown(values):
            shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            warn(
                f"{where}: column {column.name!r} holds {shown}, which the model was not trained"
                " on: taken as unknown"
            )
    return encoder.transform(table)


def _features(
    table: "pd.DataFrame", input_file: Path, feature_names: list[str]
) -> npt.NDArray[np.float64]:
    _require_columns(table, feature_names, str(input_file))
    columns = table[feature_names] if feature_names else table
    for name, column in columns.items():
        _check_numbers(str(name), column, str(input_file))
    return columns.to_numpy(np.float64)


def _require_columns(table: "pd.DataFrame", names: Sequence[str], where: str) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(
            f"{where}: column {missing[0]!r} is missing; found"
            f" {', '.join(map(str, table.columns))}; the first line must name the columns"
        )


def _check_numbers(
    name: str, column: "pd.Series[Any]", where: str, *, may_miss: bool = False
) -> None:
    if not is_number(column):
        raise InputError(f"{where}: column {name!r} must hold numbers, found text")
    values = column.to_numpy(np.float64, na_value=np.nan)
    is_wrong = np.isinf(values) if may_miss else ~np.isfinite(values)
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        raise InputError(
            f"{where}:{row + 2}: column {name!r} must hold a finite number, found"
            f" {'nothing' if np.isnan(values[row]) else values[row]}"
        )


def with_predictions(
    table: "pd.DataFrame",
    predictions: npt.NDArray[np.floating[Any]],
    names: Sequence[str],
    task: ModelTask | None,
) -> "pd.DataFrame":
    """The table with columns for the model's predictions, as `predict_csv` describes them.

    Args:
        table: Of so many rows.
        predictions: (rows, outputs), probabilities in the place of logits.
        names: Of the classes, or of the labels; empty if they have none.
        task: What the model is; None where an older run does not say.
    """
    num_outputs = predictions.shape[1]
    task = task or _task_by_names(num_outputs, len(names))
    num_names = num_outputs if task.kind == "multilabel" else task.num_classes
    if not names or len(names) != num_names or task.num_outputs != num_outputs:
        if num_outputs == 1:
            return table.assign(prediction=predictions[:, 0])
        return table.assign(**{f"prediction_{i}": of for i, of in enumerate(predictions.T)})
    columns = _class_columns(predictions, names, task)
    if task.kind == "multilabel":
        return table.assign(**columns)
    threshold = task.threshold if task.outputs == "scores" else 0.5
    binary = (predictions[:, 0] > threshold).astype(int)
    numbers = binary if task.kind == "binary" else predictions.argmax(1)
    return table.assign(**columns, **{"class": [names[number] for number in numbers]})


def _class_columns(
    predictions: npt.NDArray[np.floating[Any]], names: Sequence[str], task: ModelTask
) -> dict[str, Any]:
    """Name -> column, of probabilities or, where there are none, of scores."""
    kind = "score" if task.outputs == "scores" else "probability"
    if task.kind == "binary" and kind == "score":
        return {f"score_{names[1]}": predictions[:, 0]}
    if task.kind == "binary":
        predictions = np.hstack([1 - predictions, predictions])
    return {f"{kind}_{name}": predictions[:, i] for i, name in enumerate(names)}


def _task_by_names(num_outputs: int, num_names: int) -> ModelTask:
    """What the model of an older run is taken for."""
    is_single = num_outputs == 1 and num_names == 2
    kind: Kind = "binary" if is_single else "multiclass" if num_names == num_outputs else "other"
    return ModelTask(kind, "probabilities", num_outputs, 0.5, "")
