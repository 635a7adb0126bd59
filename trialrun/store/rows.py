"""The rows of `trials/` and `history/`: results of a pack as tables, and these read back.

Knows no path: `run_folder` decides where they live. pandas and pyarrow are imported inside the
functions that need them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.store.columns import (
    ARRAY_COLUMNS,
    BEST_EPOCH,
    DATA_FINGERPRINT,
    IDENTITY_COLUMNS,
    KIND_KEY,
    ORIGIN_COLUMNS,
    PARAMETER_PREFIX,
    ParameterKind,
    metric_names,
    version_column,
)
from trialrun.trials.results import PackResult, TrialResult
from trialrun.trials.trial import Variant
from trialrun.trials.versions import PACKAGES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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
        columns[name] = _parameter_array([trial.trial.variant for trial in trials], path, kind)
        fields.append(pa.field(name, columns[name].type, metadata={KIND_KEY: kind.encode()}))
    for name in metric_names([name for trial in trials for name in trial.metrics]):
        columns[name] = pa.array([trial.metrics.get(name) for trial in trials], pa.float64())
        fields.append(pa.field(name, pa.float64()))
    for name, dtype in ARRAY_COLUMNS.items():
        arrays = [getattr(trial, name) for trial in trials]
        if any(array is not None for array in arrays):
            flat = [None if array is None else array.ravel() for array in arrays]
            columns[name] = pa.array(flat, pa.list_(getattr(pa, dtype)()))
            fields.append(pa.field(name, columns[name].type))
    for name, texts in _origins(trials).items():
        columns[name] = pa.array(texts, pa.string())
        fields.append(pa.field(name, pa.string()))
    return pa.table(columns, schema=pa.schema(fields))


def _origins(trials: Sequence[TrialResult]) -> dict[str, list[str | None]]:
    """Column -> where the numbers of each trial come from; no columns if no trial says it."""
    if not any(trial.versions for trial in trials):
        return {}
    versions = {
        version_column(package): [trial.versions.get(package) for trial in trials]
        for package in PACKAGES
    }
    return {DATA_FINGERPRINT: [trial.data_fingerprint or None for trial in trials], **versions}


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


def _parameter_array(variants: Sequence[Variant], path: str, kind: ParameterKind) -> "pa.Array":
    """The values of a parameter, null for a variant that does not have it."""
    import pyarrow as pa

    if kind == "json":
        own = [one.parameters for one in variants]
        texts = [json.dumps(values[path]) if path in values else None for values in own]
        return pa.array(texts, pa.string())
    values = [variant.parameters.get(path) for variant in variants]
    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}
    return pa.array(values, types[kind])


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

    If a trial has several rows, because it was trained more than once or was paused, the latest
    that ended well counts, or the latest if none did; of its pauses, only the last counts. Packs
    are numbered in the order of time, and so are attempts within a pack; a pack that goes on has
    the name of the one before and a letter.

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
    origin = [name for name in ORIGIN_COLUMNS if name in names]
    order = [*IDENTITY_COLUMNS, *best, *parameters, *metric_names(names), *arrays, *origin]
    trials: pd.DataFrame = table.select(order).to_pandas()
    if trials["trial_id"].duplicated().any():
        ended = ~trials["status"].isin(["failed", "paused"])
        pauses = trials["epochs"].where(trials["status"] == "paused")
        is_earlier_pause = pauses < pauses.groupby(trials["trial_id"]).transform("max")
        trials = (
            trials.assign(
                standing=ended.astype(int) - is_earlier_pause.astype(int), order=_in_time(trials)
            )
            .sort_values(["standing", "order"])
            .drop_duplicates("trial_id", keep="last")
            .drop(columns=["standing", "order"])
        )
    return trials.sort_values(["variant_id", "seed"], ignore_index=True)


def _in_time(trials: "pd.DataFrame") -> "pd.Series[int]":
    """For each row its place in the order in which the rows were written, see `latest_trials`."""
    numbers = trials["pack_id"].str.extract(r"(\d+)", expand=False).astype("int64")
    keys = trials.assign(pack_number=numbers, pack_length=trials["pack_id"].str.len())
    by_time = keys.sort_values(["pack_number", "pack_length", "attempt", "pack_id"], kind="stable")
    order = by_time.assign(order=np.arange(len(trials)))["order"]
    return order.reindex(trials.index)


def as_if_ended(tables: Sequence["pa.Table"], epochs: int | None) -> "list[pa.Table]":
    """The rows of trials that stand after an epoch, as if all training ended there.

    A trial that was paused then is completed; one that has ended before is as it is. A failure
    stands unless a later attempt succeeded, even if only up to an earlier epoch. At an epoch
    nothing is known of tests and predictions, which a paused trial does not have.

    Args:
        tables: Tables from `trial_table`, with their identity.
        epochs: The epoch; None for the end of the training, so that paused trials are left out.
    """
    import pyarrow as pa

    if not tables:
        return []
    rows = pa.concat_tables(tables, promote_options="default")
    return [_standing_at(rows.filter(pa.array(~_is_made_good(rows))), epochs)]


def _is_made_good(rows: "pa.Table") -> "npt.NDArray[np.bool_]":
    """Which rows (trials,) are failures of trials of which a later attempt succeeded."""
    trials: pd.DataFrame = rows.select(["trial_id", "status", "pack_id", "attempt"]).to_pandas()
    order, has_failed = _in_time(trials), trials["status"] == "failed"
    last_success = order.where(~has_failed).groupby(trials["trial_id"]).transform("max")
    return (has_failed & (order < last_success)).to_numpy()


def _standing_at(rows: "pa.Table", epochs: int | None) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    statuses = rows["status"]
    is_paused = pc.equal(statuses, "paused")
    if epochs is None:
        return rows.filter(pc.invert(is_paused))
    is_at, is_within = pc.equal(rows["epochs"], epochs), pc.less_equal(rows["epochs"], epochs)
    has_ended = pc.or_(is_within, pc.equal(statuses, "failed"))
    stands = pc.if_else(is_paused, is_at, has_ended)
    completed = pc.if_else(is_paused, "completed", statuses).cast(pa.string())
    index = rows.column_names.index("status")
    unknown = [name for name in rows.column_names if name.startswith("test_")]
    unknown += [name for name in ARRAY_COLUMNS if name in rows.column_names and name not in unknown]
    return rows.set_column(index, "status", completed).drop_columns(unknown).filter(stands)


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
        variant_id -> searched dotted path -> value, variants sorted by id. A parameter that a
        variant does not have is absent.
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
                if row[field.name] is not None  # a value of None is the text "null"
            }
    return dict(sorted(found.items()))


def _value(stored: Any, field: "pa.Field") -> Any:
    is_json = (field.metadata or {}).get(KIND_KEY) == b"json"
    return json.loads(stored) if is_json else stored
