"""Predictions of a run's best model for raw rows, which first pass its saved preprocessing."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.data.arrays import join_outputs
from trialrun.data.model_task import ModelTask, TaskKind
from trialrun.data.table.cells import cells_of
from trialrun.data.table.encoding import Column, TableEncoder
from trialrun.data.table.raw import RawTable, from_frame, read_raw
from trialrun.data.table.target import text_counts
from trialrun.errors import InputError
from trialrun.export.raw_input import scaled_input
from trialrun.export.rebuild import load_best_model
from trialrun.host import stdout_for_results
from trialrun.job.table_dialect import Dialect
from trialrun.job.table_spelling import clean_text
from trialrun.messages import said_by
from trialrun.store import RunFolder
from trialrun.store.best_files import BestFiles
from trialrun.store.files import reading
from trialrun.store.foreign import neutral, read_mapping
from trialrun.training.model.inputs import with_text_tensors

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


class Predicted(NamedTuple):
    """Predictions beside their input.

    Attributes:
        table: The columns of the input, then those of the predictions.
        num_given: How many columns belong to the input.
    """

    table: "pd.DataFrame"
    num_given: int


def predict_file(run: RunFolder, input_file: Path, warn: Callable[[str], None]) -> Predicted:
    """The input's columns, then the model's predictions for each row.

    Args:
        run: A run with a best model.
        input_file: A Parquet file, or a CSV file with a header that is written like the training
            file. If the training data was a table, or its generator named the features, columns are
            found by name. Otherwise every column is a feature, in order.
        warn: Called with a message about categories that the model has not seen.

    Returns:
        A classifier with named classes adds a column `probability_<class>` per class (`score_...`
        if its outputs are not probabilities) and `class`, the most probable one. A model with
        several named labels that are each present or not adds only the probabilities. Any other
        model adds `prediction` (or `prediction_0`, ...). If the file already has a column of such a
        name, the new one is called `predicted_<name>`.

    Raises:
        InputError: The run has no best model, or the file lacks what the model needs.
    """
    files = _best_files(run)
    preprocessing = _read_preprocessing(files)
    task = _task(files, preprocessing)
    if "scale" not in preprocessing["scalers"]:
        raise InputError(
            f"{files.folder}: the model takes several inputs, which one table cannot hold;"
            " use trialrun.open_run(...).best.predict in Python instead"
        )
    table = read_raw(input_file, _dialect(preprocessing), str(input_file))
    raw = _features(table, preprocessing, warn)
    try:
        with stdout_for_results():
            predictions = _predict(files, preprocessing, raw)
    except InputError as error:
        found = ", ".join(table.names)
        raise InputError(f"{input_file}: {error}; found the columns {found}") from error
    given = table.as_written()
    names = preprocessing["class_names"]
    names = [neutral(name) for name in names]
    return Predicted(with_predictions(given, predictions, names, task), len(given.columns))


def predict_raw(run: RunFolder, raw: Any) -> npt.NDArray[np.floating[Any]]:
    """Predictions (rows, outputs) of a run's best model for raw inputs; logits as probabilities.

    Args:
        run: A run with a best model.
        raw: Unscaled inputs (rows, features), or a dict or tuple of such arrays. If the training
            data was a table: a DataFrame, a dict of columns, or rows with values in the order of
            the columns.

    Raises:
        InputError: The run has no best model, or the model does not take such inputs.
    """
    files = _best_files(run)
    preprocessing = _read_preprocessing(files)
    encoder = _encoder(preprocessing)
    if encoder is not None:
        names = {column.name for column in encoder.columns}
        table = from_frame(_as_frame(raw, encoder), "the input", names)
        raw = _encoded(table, encoder, _dialect(preprocessing), _log.warning)
    return _predict(files, preprocessing, raw)


def _predict(
    files: BestFiles, preprocessing: Mapping[str, Any], raw: Any
) -> npt.NDArray[np.floating[Any]]:
    x = scaled_input(preprocessing["scalers"], raw, preprocessing["feature_names"])
    model = load_best_model(files, compiled=False)
    predictions: npt.NDArray[np.floating[Any]] = join_outputs(
        model.predict(with_text_tensors(x), verbose=0)
    )
    predictions = predictions.reshape(len(predictions), -1)
    task = _task(files, preprocessing)
    return predictions if task is None else task.probabilities(predictions)


def _best_files(run: RunFolder) -> BestFiles:
    files = run.best(run.read_job()["name"])
    if not files.preprocessing.is_file():
        raise InputError(
            f"{run.path}: has no best model, because the run did not end with a winner"
        )
    return files


def _read_preprocessing(files: BestFiles) -> dict[str, Any]:
    content = read_mapping(files.preprocessing)
    with reading(files.preprocessing):
        for name in ("class_names", "feature_names"):
            if not all(isinstance(one, str) for one in content[name]):
                raise ValueError(f"{name} must be a list of texts")
        if not isinstance(content["scalers"], dict):
            raise ValueError("scalers must be a mapping")
        _encoder(content)
        _dialect(content)
    return content


def _task(files: BestFiles, preprocessing: Mapping[str, Any]) -> ModelTask | None:
    """The task of the model; None if the run is of an older version, which does not store it."""
    if "task" not in preprocessing:
        return None
    try:
        return ModelTask.from_json(preprocessing["task"])
    except ValueError as error:
        raise InputError(f"{files.preprocessing}: task {error}") from None


def _encoder(preprocessing: Mapping[str, Any]) -> TableEncoder | None:
    columns = preprocessing.get("columns")
    return None if columns is None else TableEncoder.from_json(columns)


def _dialect(preprocessing: Mapping[str, Any]) -> Dialect:
    """How the training file was written, and how the input file must be."""
    return Dialect.from_json(preprocessing.get("dialect", {}))


def _as_frame(raw: Any, encoder: TableEncoder) -> "pd.DataFrame":
    import pandas as pd

    names = [column.name for column in encoder.columns]
    try:
        if isinstance(raw, pd.DataFrame | Mapping):
            return pd.DataFrame(raw)
        return pd.DataFrame(raw, columns=names).infer_objects()
    except ValueError as error:
        raise InputError(
            f"the model takes rows with the columns {', '.join(names)}; {said_by(error)}"
        ) from error


def _features(
    table: RawTable, preprocessing: Mapping[str, Any], warn: Callable[[str], None]
) -> npt.NDArray[np.float64]:
    """The features of a table: from the columns that the model names, or else from all in order."""
    dialect, encoder = _dialect(preprocessing), _encoder(preprocessing)
    if encoder is not None:
        return _encoded(table, encoder, dialect, warn)
    names = preprocessing["feature_names"] or table.names
    columns = (Column(clean_text(name), "number") for name in names)
    return _encoded(table, TableEncoder(tuple(columns)), dialect, warn)


def _encoded(
    table: RawTable, encoder: TableEncoder, dialect: Dialect, warn: Callable[[str], None]
) -> npt.NDArray[np.float64]:
    """The features that an encoder makes from a table, float64 (rows, features)."""
    import pandas as pd

    missing = [column.name for column in encoder.columns if column.name not in table.names]
    if missing:
        hint = (
            "; the first line must name the columns as in the training file, separated by"
            f" {dialect.separator!r}"
        )
        raise InputError(
            f"{table.shown}: column {missing[0]!r} is missing; found {', '.join(table.names)}"
            f"{hint if table.is_csv else ''}"
        )
    columns = {}
    for column in encoder.columns:
        cells = cells_of(table, column.name, dialect)
        if not column.may_miss and cells.is_missing.any():
            row = int(np.flatnonzero(cells.is_missing)[0])
            what = "must hold a number, but is empty"
            raise InputError(
                f"{cells.at(row)} {what if column.kind == 'number' else 'lacks a value'}"
            )
        values = cells.numbers() if column.kind == "number" else cells.texts()
        columns[column.name] = values
        if unknown := column.unknown(values):
            warn(
                f"{table.shown}: column {column.name!r} holds {text_counts(unknown)}, on which the"
                " model was not trained; they are treated as unknown"
            )
    return encoder.transform(pd.DataFrame(columns))


def with_predictions(
    table: "pd.DataFrame",
    predictions: npt.NDArray[np.floating[Any]],
    names: Sequence[str],
    task: ModelTask | None,
) -> "pd.DataFrame":
    """The table with columns for the model's predictions, as `predict_file` describes them.

    Args:
        table: The input, with as many rows as there are predictions.
        predictions: (rows, outputs), with probabilities instead of logits.
        names: Names of the classes or labels; empty if they have none.
        task: The task of the model; None if an older run does not store it.
    """
    num_outputs = predictions.shape[1]
    task = task or _task_by_names(num_outputs, len(names))
    num_names = num_outputs if task.kind == "multilabel" else task.num_classes
    if not names or len(names) != num_names or task.num_outputs != num_outputs:
        if num_outputs == 1:
            return _beside(table, {"prediction": predictions[:, 0]})
        return _beside(table, {f"prediction_{i}": column for i, column in enumerate(predictions.T)})
    columns = _class_columns(predictions, names, task)
    if task.kind == "multilabel":
        return _beside(table, columns)
    threshold = task.threshold if task.outputs == "scores" else 0.5
    binary = (predictions[:, 0] > threshold).astype(int)
    numbers = binary if task.kind == "binary" else predictions.argmax(1)
    return _beside(table, {**columns, "class": [names[number] for number in numbers]})


def _class_columns(
    predictions: npt.NDArray[np.floating[Any]], names: Sequence[str], task: ModelTask
) -> dict[str, Any]:
    """Name -> column of probabilities, or of scores if the outputs are not probabilities."""
    kind = "score" if task.outputs == "scores" else "probability"
    if task.kind == "binary" and kind == "score":
        return {f"score_{names[1]}": predictions[:, 0]}
    if task.kind == "binary":
        predictions = np.hstack([1 - predictions, predictions])
    return {f"{kind}_{name}": predictions[:, i] for i, name in enumerate(names)}


def _task_by_names(num_outputs: int, num_names: int) -> ModelTask:
    """The probable task of the model of an older run, which does not store it."""
    is_single = num_outputs == 1 and num_names == 2
    kind: TaskKind = (
        "binary" if is_single else "multiclass" if num_names == num_outputs else "other"
    )
    return ModelTask(kind, "probabilities", num_outputs, 0.5, "")


def _beside(table: "pd.DataFrame", columns: Mapping[str, Any]) -> "pd.DataFrame":
    """The table with columns added; a name that the table already has becomes `predicted_...`."""
    names = {name: name for name in columns}
    while any(name in table.columns for name in names.values()):
        names = {
            name: f"predicted_{free}" if free in table.columns else free
            for name, free in names.items()
        }
    return table.assign(**{names[name]: values for name, values in columns.items()})
