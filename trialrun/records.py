"""What is recorded of a trial: the columns of `trials/` and `history/`, the arrays of its state.

Converts the results of a pack to tables and named arrays, and back. `store` decides to which paths
they are written. pandas and pyarrow are imported inside the functions that need them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from trialrun.plan import Variant
from trialrun.results import STATE_GROUPS, Checkpoint, PackResult, TrialResult, TrialState

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ParameterKind = Literal["bool", "int", "float", "text", "json"]

IDENTITY_COLUMNS = {
    "trial_id": "string",
    "variant_id": "string",
    "seed": "int64",
    "status": "string",
    "engine": "string",
    "pack_id": "string",
    "attempt": "int64",
    "epochs": "int64",
    "duration_s": "float64",
    "device": "string",
    "node": "string",
    "error": "string",
}
# The column for the best epoch, if the pack's trials keep it; older runs lack this column.
BEST_EPOCH = "best_epoch"
HISTORY_IDENTITY = ("trial_id", "variant_id", "seed", "epoch")
PARAMETER_PREFIX = "param."
METRIC_PREFIXES = ("train_", "val_", "test_")
CONFUSION_MATRIX_COLUMNS = ("val_confusion_matrix", "test_confusion_matrix")
RELIABILITY_COLUMN = "test_reliability"
# Columns of arrays, flattened in row-major order. Other columns with a metric's prefix are numbers.
ARRAY_COLUMNS = {
    **dict.fromkeys(CONFUSION_MATRIX_COLUMNS, "int64"),
    RELIABILITY_COLUMN: "float64",
}

TrialColumns = Literal["all", "results", "numbers", "identity", "reliability", "places", "curves"]

# Key of a column's metadata in a Parquet file. It tells JSON from plain text, which may also read
# "[1]".
_KIND_KEY = b"trialrun.kind"


def parameter_kinds(variants: Sequence[Variant]) -> dict[str, ParameterKind]:
    """How each searched parameter is stored: one column type for the whole job.

    A parameter whose values are all numbers, all booleans or all strings is stored as such. Lists,
    mappings, None and mixtures of types are stored as JSON text. The decision depends on all
    variants of the job, so that all files of a run have the same parameter columns.

    Args:
        variants: All variants of the job.

    Returns:
        Searched dotted path -> kind, in the order of the search.
    """
    paths = variants[0].parameters if variants else ()
    return {path: _kind_of([variant.parameters[path] for variant in variants]) for path in paths}


def _kind_of(values: Sequence[Any]) -> ParameterKind:
    types = {type(value) for value in values}
    if types == {bool}:
        return "bool"
    if types == {int} and all(-(2**63) <= value < 2**63 for value in values):
        return "int"
    if types <= {int, float} and float in types:
        return "float"
    if types == {str}:
        return "text"
    return "json"


def trial_table(result: PackResult, kinds: Mapping[str, ParameterKind]) -> "pa.Table":
    """One row per trial of a pack, with columns in the order that users rely on.

    Args:
        result: The result of the pack.
        kinds: From `parameter_kinds`.

    Returns:
        A table with (trials,) rows. Numbers that a trial lacks, because it failed, are null.
    """
    import pyarrow as pa

    trials = result.trials
    identity = [_identity(trial) for trial in trials]
    columns = {
        name: pa.array([row[name] for row in identity], getattr(pa, kind)())
        for name, kind in IDENTITY_COLUMNS.items()
    }
    if any(trial.best_epoch is not None for trial in trials):
        columns[BEST_EPOCH] = pa.array([trial.best_epoch for trial in trials], pa.int64())
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    for path, kind in kinds.items():
        name = PARAMETER_PREFIX + path
        values = [trial.trial.variant.parameters[path] for trial in trials]
        columns[name] = _parameter_array(values, kind)
        fields.append(pa.field(name, columns[name].type, metadata={_KIND_KEY: kind.encode()}))
    for name in metric_names([name for trial in trials for name in trial.metrics]):
        columns[name] = pa.array([trial.metrics.get(name) for trial in trials], pa.float64())
        fields.append(pa.field(name, pa.float64()))
    for name, dtype in ARRAY_COLUMNS.items():
        arrays = [getattr(trial, name) for trial in trials]
        if any(array is not None for array in arrays):
            flat = [None if array is None else array.ravel() for array in arrays]
            columns[name] = pa.array(flat, pa.list_(getattr(pa, dtype)()))
            fields.append(pa.field(name, columns[name].type))
    return pa.table(columns, schema=pa.schema(fields))


def _identity(result: TrialResult) -> dict[str, Any]:
    trial = result.trial
    trial_columns = {
        "trial_id": trial.trial_id,
        "variant_id": trial.variant.variant_id,
        "seed": trial.seed,
    }
    return trial_columns | {
        name: getattr(result, name) for name in IDENTITY_COLUMNS if name not in trial_columns
    }


def _parameter_array(values: Sequence[Any], kind: ParameterKind) -> "pa.Array":
    import pyarrow as pa

    if kind == "json":
        return pa.array([json.dumps(value) for value in values], pa.string())
    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}
    return pa.array(values, types[kind])


def metric_names(columns: Sequence[str]) -> list[str]:
    """The metric columns among `columns`: training, then validation, then test.

    Args:
        columns: Names of columns or metrics, repeated or not.

    Returns:
        Each metric once; within training, validation and test in the given order.
    """
    names = [name for name in dict.fromkeys(columns) if name not in ARRAY_COLUMNS]
    return [name for prefix in METRIC_PREFIXES for name in names if name.startswith(prefix)]


def columns_of(names: Sequence[str], wanted: TrialColumns) -> list[str]:
    """The columns of a Parquet file to read.

    Args:
        names: All columns of the file.
        wanted: `results` are identity, metrics and confusion matrices; `numbers` are these without
            the matrices; `identity` also leaves out the metrics. `reliability` is identity and the
            column of reliability curves. `places` are the variants, their parameters and the seeds.
            `curves` are the columns of a file of `history/` that curves need.
    """
    identity = list(IDENTITY_COLUMNS)
    matrices = [name for name in CONFUSION_MATRIX_COLUMNS if name in names]
    parameters = [name for name in names if name.startswith(PARAMETER_PREFIX)]
    match wanted:
        case "identity":
            return identity
        case "numbers":
            return identity + metric_names(names)
        case "results":
            return identity + metric_names(names) + matrices
        case "reliability":
            return identity + [name for name in names if name == RELIABILITY_COLUMN]
        case "places":
            return ["variant_id", "seed", *parameters]
        case "curves":
            return [name for name in names if name not in ("trial_id", "variant_id")]
    return list(names)


def history_table(result: PackResult) -> "pa.Table":
    """One row per trial and epoch of a pack: `trial_id, variant_id, seed, epoch, loss, ...`.

    Epochs count from 1. A trial that failed has no rows.
    """
    import pyarrow as pa

    trials = [trial for trial in result.trials if trial.history]
    logs = _log_names(name for trial in trials for name in trial.history)
    epochs = [len(next(iter(trial.history.values()))) for trial in trials]
    rows = np.repeat(np.arange(len(trials), dtype=np.int32), epochs)
    columns = {
        "trial_id": _repeated([trial.trial.trial_id for trial in trials], rows),
        "variant_id": _repeated([trial.trial.variant.variant_id for trial in trials], rows),
        "seed": pa.array(np.repeat([trial.trial.seed for trial in trials], epochs), pa.int64()),
        "epoch": pa.array([epoch for num in epochs for epoch in range(1, num + 1)], pa.int64()),
    }
    for name in logs:
        columns[name] = _log_column([trial.history.get(name) for trial in trials], epochs)
    return pa.table(columns)


def _repeated(texts: Sequence[str], rows: npt.NDArray[np.int32]) -> "pa.Array":
    """A text per row, where each row has the index of its trial."""
    import pyarrow as pa

    return pa.array(texts, pa.string()).take(pa.array(rows))


def _log_column(
    values: Sequence[npt.NDArray[np.float32] | None], epochs: Sequence[int]
) -> "pa.Array":
    """The values of all trials, one after the other; null for a trial that has none."""
    import pyarrow as pa

    filled = [
        np.zeros(num, np.float32) if value is None else np.asarray(value, np.float32)
        for value, num in zip(values, epochs, strict=True)
    ]
    is_null = np.repeat([value is None for value in values], epochs)
    flat = np.concatenate([np.zeros(0, np.float32), *filled])
    return pa.array(flat, pa.float32(), mask=np.asarray(is_null, bool))


def _log_names(names: Iterable[str]) -> list[str]:
    """Each name once: training before validation, otherwise in the given order."""
    return sorted(dict.fromkeys(names), key=lambda name: name.startswith("val_"))


def latest_trials(tables: Sequence["pa.Table"], metrics: Sequence[str] = ()) -> "pd.DataFrame":
    """One row per trial of a run, sorted by variant and seed.

    If a trial has several rows, because it was trained more than once, the latest that did not fail
    counts, or the latest if all failed. Packs are numbered in the order of time, and so are
    attempts within a pack.

    Args:
        tables: Tables from `trial_table`; one whose trials all failed lacks metrics.
        metrics: Columns that the result has in any case.

    Returns:
        A frame with all columns of the tables; without tables, identity columns and no rows.
    """
    import pyarrow as pa

    kinds = IDENTITY_COLUMNS | dict.fromkeys(metrics, "float64")
    empty = pa.schema([(name, getattr(pa, kind)()) for name, kind in kinds.items()])
    table = pa.concat_tables([empty.empty_table(), *tables], promote_options="default")
    names = table.column_names
    parameters = [name for name in names if name.startswith(PARAMETER_PREFIX)]
    arrays = [name for name in ARRAY_COLUMNS if name in names]
    best = [name for name in (BEST_EPOCH,) if name in names]
    order = [*IDENTITY_COLUMNS, *best, *parameters, *metric_names(names), *arrays]
    trials: pd.DataFrame = table.select(order).to_pandas()
    if trials["trial_id"].duplicated().any():
        trials = (
            trials.assign(
                trained=trials["status"] != "failed",
                pack_number=trials["pack_id"].str.extract(r"(\d+)", expand=False).astype("int64"),
            )
            .sort_values(["trained", "pack_number", "attempt", "pack_id"])
            .drop_duplicates("trial_id", keep="last")
            .drop(columns=["trained", "pack_number"])
        )
    return trials.sort_values(["variant_id", "seed"], ignore_index=True)


def unite_history(tables: Sequence["pa.Table"]) -> "pd.DataFrame":
    """The epochs of all trials, sorted by variant, seed and epoch.

    Args:
        tables: Tables from `history_table`; no trial is in two of them.

    Returns:
        A frame with identity columns and all logs; without tables, no rows and no logs.
    """
    import pyarrow as pa

    empty = history_table(PackResult(pack_id="", trials=()))
    table = pa.concat_tables([empty, *tables], promote_options="default")
    identity = empty.column_names
    logs = _log_names(table.column_names[len(identity) :])
    history: pd.DataFrame = table.select([*identity, *logs]).to_pandas()
    return history.sort_values(["variant_id", "seed", "epoch"], ignore_index=True)


def parameters_by_variant(tables: Iterable["pa.Table"]) -> dict[str, dict[str, Any]]:
    """The searched parameters of every variant that has a trial, as they were before storing.

    Args:
        tables: Tables from `trial_table`.

    Returns:
        variant_id -> searched dotted path -> value, variants sorted by id.
    """
    found: dict[str, dict[str, Any]] = {}
    for table in tables:
        fields = [field for field in table.schema if field.name.startswith(PARAMETER_PREFIX)]
        variant_ids = table["variant_id"].to_numpy()
        _, first_rows = np.unique(variant_ids.astype(str), return_index=True)
        for row in table.take(first_rows).to_pylist():
            found[row["variant_id"]] = {
                field.name.removeprefix(PARAMETER_PREFIX): _value(row[field.name], field)
                for field in fields
            }
    return dict(sorted(found.items()))


def _value(stored: Any, field: "pa.Field") -> Any:
    is_json = (field.metadata or {}).get(_KIND_KEY) == b"json"
    return json.loads(stored) if is_json else stored


def state_arrays(states: Iterable[TrialState]) -> dict[str, npt.NDArray[Any]]:
    """The states of trials as arrays named `<trial_id>/<group>/<number>`, for one .npz file."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for state in states:
        arrays[f"{state.trial_id}/seed"] = np.array(state.seed)
        groups = {name: getattr(state, name) for name in STATE_GROUPS}
        for name, values in {**groups, "test_predictions": (state.test_predictions,)}.items():
            prefix = f"{state.trial_id}/{name}"
            arrays |= _group_arrays(prefix, values)
    return arrays


def _group_arrays(prefix: str, values: Sequence[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    # NumPy's format loses extension types such as bfloat16, so that their names are stored too.
    dtypes = np.array([value.dtype.name for value in values], np.str_)
    numbered = {f"{prefix}/{number}": value for number, value in enumerate(values)}
    return {f"{prefix}/dtypes": dtypes, **numbered}


def _group_from(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> tuple[Any, ...]:
    return tuple(
        _with_dtype(arrays[f"{prefix}/{number}"], str(dtype))
        for number, dtype in enumerate(arrays[f"{prefix}/dtypes"])
    )


def state_from(arrays: Mapping[str, npt.NDArray[Any]], trial_id: str) -> TrialState:
    """The state of one trial from the arrays that `state_arrays` made."""
    (test_predictions,) = _group_from(arrays, f"{trial_id}/test_predictions")
    return TrialState(
        trial_id=trial_id,
        seed=int(arrays[f"{trial_id}/seed"]),
        test_predictions=test_predictions,
        **{name: _group_from(arrays, f"{trial_id}/{name}") for name in STATE_GROUPS},
    )


def checkpoint_arrays(checkpoint: Checkpoint) -> dict[str, npt.NDArray[Any]]:
    """A checkpoint as named arrays, for one .npz file."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "trial_ids": np.array(checkpoint.trial_ids, np.str_),
        "epochs": checkpoint.epochs,
        "engine": np.array(checkpoint.engine),
    }
    arrays |= {f"history/{name}": values for name, values in checkpoint.history.items()}
    for name in (*STATE_GROUPS, "best"):
        arrays |= _group_arrays(name, getattr(checkpoint, name))
    return arrays if checkpoint.ended is None else arrays | {"ended": checkpoint.ended}


def checkpoint_from(arrays: Mapping[str, npt.NDArray[Any]], pack_id: str) -> Checkpoint:
    """The checkpoint from the arrays that `checkpoint_arrays` made."""
    logs = [name for name in arrays if name.startswith("history/")]
    return Checkpoint(
        pack_id=pack_id,
        trial_ids=tuple(arrays["trial_ids"].tolist()),
        epochs=arrays["epochs"],
        history={name.removeprefix("history/"): arrays[name] for name in logs},
        **{name: _group_from(arrays, name) for name in STATE_GROUPS},
        best=_group_from(arrays, "best") if "best/dtypes" in arrays else (),
        ended=arrays.get("ended"),
        engine=str(arrays.get("engine", "")),
    )


def _with_dtype(array: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    if array.dtype.kind != "V":
        return array
    import ml_dtypes  # a dependency of Keras with bfloat16 and similar types

    return array.view(getattr(ml_dtypes, dtype))


def part_name(pack_id: str, attempt: int) -> str:
    """The name of a pack's files without suffix: `part-p000`, after a retry `part-p000-1`, ..."""
    return f"part-{pack_id}-{attempt}" if attempt else f"part-{pack_id}"
