"""Writes tensorboard/ of a run folder: scalars of every epoch, and the data of the HParams page.

It uses TensorBoard's own messages and records, but not its summary writers: these import TensorFlow
if it is installed, which takes longer than everything that is written here.
"""

import json
import logging
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialrun.job.keras_api.arguments import is_real
from trialrun.store import RunFolder
from trialrun.trackers.series import (
    Series,
    VariantRow,
    ended_summary,
    trial_series,
    variant_rows_of,
    variant_series,
)

_log = logging.getLogger(__name__)

# TensorBoard reads one folder per line and lists all of them; with thousands it becomes useless.
MAX_FOLDERS = 1000
_MAX_BOXES = 50
_ORDER = ("val", "test", "train")
_EPOCH, _FINAL = "epoch/", "final/"
_FILE = "events.out.tfevents.trialrun"  # TensorBoard reads what has `tfevents` in its name


def write_tensorboard(run: RunFolder, max_folders: int = MAX_FOLDERS) -> None:
    """Writes `tensorboard/` of a run that has ended, replacing what was there.

    Each trial is a TensorBoard run `<variant>/seed_<seed>` with scalars `epoch/<log>`, one step per
    epoch, and `final/<metric>`. On the HParams page a trial is a session, and a variant is the
    group of its sessions. If there are more trials than `max_folders`, each variant is one run with
    the means over its completed trials. If there are more variants than that, the best are written.

    Args:
        run: The run folder.
        max_folders: The most TensorBoard runs that are written.
    """
    rows = variant_rows_of(run)
    shown = rows[:max_folders]
    num_trials = ended_summary(run)["counts"]["trials"]
    if num_trials <= max_folders:
        series: Iterable[Series] = trial_series(run, [row.variant_id for row in shown])
    else:
        series = variant_series(run, shown)
        _log.info(
            "tensorboard/ shows the means over seeds of %s, because there are %d trials (limit %d)",
            f"the best {len(shown)} of {len(rows)} variants" if rows[len(shown) :] else "variants",
            num_trials,
            max_folders,
        )
    draft = run.path / f".tensorboard-{secrets.token_hex(4)}"
    try:
        _write_all(draft, series, _Session.of(run, shown))
        shutil.rmtree(run.tensorboard_dir, ignore_errors=True)
        draft.rename(run.tensorboard_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Session:
    """What the HParams page shows of trials: their hyperparameters, and the names of their groups.

    Attributes:
        hparams: variant_id -> dotted path -> a boolean, a number or text; one type for each path.
            A parameter that a variant does not have is absent.
        of_run: The run's name, which keeps the variants of several runs in one TensorBoard apart.
        wall_time_s: When the run ended, in seconds since 1970; the time of everything written.
    """

    hparams: Mapping[str, Mapping[str, Any]]
    of_run: str
    wall_time_s: float

    @classmethod
    def of(cls, run: RunFolder, rows: Sequence[VariantRow]) -> "_Session":
        return cls(
            hparams=_hparams(sorted(rows, key=lambda row: row.variant_id)),
            of_run=f"{run.read_job()['name']}/{run.path.resolve().name}",
            wall_time_s=run.summary_file.stat().st_mtime,
        )


def _hparams(rows: Sequence[VariantRow]) -> dict[str, dict[str, Any]]:
    paths = dict.fromkeys(path for row in rows for path in row.parameters)
    hparams: dict[str, dict[str, Any]] = {row.variant_id: {} for row in rows}
    for path in paths:
        having = [row for row in rows if path in row.parameters]
        values = [row.parameters[path] for row in having]
        for row, value in zip(having, _of_one_type(values), strict=True):
            hparams[row.variant_id][path] = value
    return hparams


def _of_one_type(values: Sequence[Any]) -> Sequence[Any]:
    """The values unchanged if HParams has a common type for them, or else as text."""
    types = {type(value) for value in values}
    if types == {bool} or types <= {int, float} or types == {str}:
        return values
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def _write_all(folder: Path, series: Iterable[Series], session: _Session) -> None:
    metrics: dict[str, None] = {}
    for line in series:
        metrics |= dict.fromkeys(line.finals)
        path = folder / line.name
        path.mkdir(parents=True)
        _write_events(path / _FILE, _session_events(line, session), session.wall_time_s)
    experiment = _experiment(session, list(metrics))
    _write_events(folder / _FILE, [(0, [experiment])], session.wall_time_s)


def _write_events(path: Path, steps: Iterable[tuple[int, list[Any]]], wall_time_s: float) -> None:
    """Writes one file of events: first the file version, then one event for each step's values."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("wb") as file:
        writer = RecordWriter(file)
        version = Event(wall_time=wall_time_s, file_version="brain.Event:2")
        writer.write(version.SerializeToString())
        for step, values in steps:
            event = Event(wall_time=wall_time_s, step=step, summary=Summary(value=values))
            writer.write(event.SerializeToString())


def _session_events(series: Series, session: _Session) -> Iterable[tuple[int, list[Any]]]:
    """Each step with its values: the session's start, its epochs, its end."""
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import (
        HParamsPluginData,
        SessionEndInfo,
        SessionStartInfo,
    )

    start = SessionStartInfo(
        # The variant comes first, because TensorBoard's table shows only the beginning of the name.
        group_name=f"{series.variant_id}/{session.of_run}",
        start_time_secs=session.wall_time_s,
    )
    for path, value in session.hparams[series.variant_id].items():
        _set_value(start.hparams[path], value)
    yield 0, [_hparams_value(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))]
    for index, epoch in enumerate(series.epochs.tolist()):
        yield epoch, _scalars(_EPOCH, {name: x[index] for name, x in series.curves.items()})
    last = int(series.epochs.max(initial=0))
    yield last, _scalars(_FINAL, series.finals)
    status = "STATUS_SUCCESS" if series.is_completed else "STATUS_FAILURE"
    end = SessionEndInfo(status=Status.Value(status), end_time_secs=session.wall_time_s)
    yield last, [_hparams_value(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))]


def _experiment(session: _Session, metrics: Sequence[str]) -> Any:
    """The message that lists the hyperparameters and metrics of the HParams page."""
    from tensorboard.plugins.hparams.api_pb2 import Experiment, HParamInfo, MetricInfo, MetricName
    from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    experiment = Experiment(time_created_secs=session.wall_time_s)
    by_path: dict[str, list[Any]] = {}
    for hparams in session.hparams.values():
        for path, value in hparams.items():
            by_path.setdefault(path, []).append(value)
    for path, values in by_path.items():
        info = HParamInfo(name=path, type=_type_of(values[0]))
        distinct = dict.fromkeys(values)
        # A checkbox for each value. Without these TensorBoard filters numbers by an interval, and
        # texts by a pattern.
        if not is_real(values[0]) and len(distinct) <= _MAX_BOXES:
            for value in distinct:
                _set_value(info.domain_discrete.values.add(), value)
        experiment.hparam_infos.append(info)
    # TensorBoard shows only the first five metrics until the user selects more.
    for name in sorted(metrics, key=lambda name: _ORDER.index(name.partition("_")[0])):
        metric = MetricName(tag=f"{_FINAL}{name}")
        experiment.metric_infos.append(MetricInfo(name=metric, display_name=name))
    return _hparams_value(EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))


def _type_of(value: Any) -> Any:
    from tensorboard.plugins.hparams.api_pb2 import DataType

    if isinstance(value, bool):
        return DataType.Value("DATA_TYPE_BOOL")
    return DataType.Value("DATA_TYPE_FLOAT64" if is_real(value) else "DATA_TYPE_STRING")


def _set_value(target: Any, value: Any) -> None:
    """Gives a `google.protobuf.Value` a boolean, a number or text."""
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    else:
        target.number_value = value


def _scalars(prefix: str, numbers: Mapping[str, float]) -> list[Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return [
        Summary.Value(tag=f"{prefix}{name}", simple_value=value) for name, value in numbers.items()
    ]


def _hparams_value(tag: str, content: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

    return Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)
