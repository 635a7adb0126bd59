"""Writes a run to MLflow: the run as a parent run, its variants as children.

If MLflow holds something other than the run folder, all of it is deleted and written again, because
the parameters of MLflow's runs cannot be changed and its metric values can only be added.
"""

import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from trialrun.job.tracking_uri import sqlite_file
from trialrun.store import RunFolder
from trialrun.store.files import reading, write_json
from trialrun.trackers.series import (
    Series,
    VariantRow,
    ended_summary,
    variant_rows_of,
    variant_series,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# Each child takes a few requests, and a row in MLflow's table of runs.
MAX_CHILDREN = 1000
# MLflow's servers take at most 1,000 metrics, parameters and tags together in a call.
_METRICS_PER_CALL, _PARAMETERS_PER_CALL = 900, 100
_MAX_PARAMETER = 500  # characters; older servers do not take more
_MAX_NOTE = 5000
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]", re.ASCII)
_RUN_TAG, _DIGEST_TAG, _VARIANT_TAG = "trialrun.run", "trialrun.digest", "trialrun.variant_id"
_PARENT_TAG, _NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for the leaderboard
}
# Loggers that report each table made in a new database, and each retry of a server.
_TALKATIVE = ("mlflow.store.db.utils", "urllib3.connectionpool")
# A server that does not answer is given up after a minute or two, instead of seven.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


def write_mlflow(run: RunFolder, uri: str, max_children: int = MAX_CHILDREN) -> None:
    """Logs a run that has ended, unless MLflow holds all of it; files are always written again.

    The parent has the job's fields as parameters, the winner's statistics and the counts as
    metrics, and the report, the figures and the best model as artifacts. A child has a variant's
    parameters, its statistics from variants.csv, and for every log a metric `epoch/<log>`: the mean
    over the variant's completed seeds, with one step per epoch.

    Args:
        run: The run folder.
        uri: Where MLflow keeps runs.
        max_children: The most variants that are logged; the best are chosen if there are more.

    Raises:
        Exception: Whatever MLflow, its database or the connection to its server raises.
    """
    rows = variant_rows_of(run)
    if rows[max_children:]:
        text = "MLflow gets the best %d of %d variants; variants.csv, which it gets too, has all"
        _log.info(text, max_children, len(rows))
    summary = ended_summary(run)
    parent = _parent_of(run, summary, rows)
    shown = rows[:max_children]
    digest = _digest(chain([parent], _children_of(run, shown)))
    with _client(uri) as client:
        experiment_id = _experiment_id(client, uri, run.read_job()["name"])
        writer = _Writer(client, experiment_id, _tracking_id(run), *_moments_ms(run, summary))
        parent_id = writer.find_parent(digest)
        if parent_id is None:
            writer.delete_all()
            parent_id = writer.write(parent)
            for child in _children_of(run, shown):
                writer.write(child, {_PARENT_TAG: parent_id})
        _log_files(client, parent_id, run)
        client.set_tag(parent_id, _DIGEST_TAG, digest)  # last, because it marks a complete run


@contextmanager
def _client(uri: str) -> "Iterator[MlflowClient]":
    """MLflow's client, without telemetry and without output.

    On exit MLflow's settings are restored, for a notebook that uses MLflow itself.
    """
    patience = {name: os.environ.get(name, value) for name, value in _PATIENCE.items()}
    with _environment(_ENVIRONMENT | patience), _only_errors_of(*_TALKATIVE):
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=uri)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _only_errors_of(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


# What is logged -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Logged:
    """The content of one of MLflow's runs.

    Attributes:
        name: The name under which MLflow lists it.
        has_result: Whether a trial completed.
        parameters: Name -> text.
        metrics: (Name, value, step) of each value.
        tags: Name -> text.
    """

    name: str
    has_result: bool
    parameters: Mapping[str, str]
    metrics: Sequence[tuple[str, float, int]]
    tags: Mapping[str, str]


def _parent_of(run: RunFolder, summary: Mapping[str, Any], rows: Sequence[VariantRow]) -> _Logged:
    selection = summary["selection"]
    numbers = {f"num_{name}": float(count) for name, count in summary["counts"].items()}
    tags = {_NOTE_TAG: summary["explanation"][:_MAX_NOTE]}
    if selection is not None:
        numbers |= next(r.numbers for r in rows if r.variant_id == selection["variant_id"])
        tags["trialrun.winner"] = selection["variant_id"]
        tags["trialrun.best_trial"] = selection["trial_id"]
    fields = _flat({key: value for key, value in run.read_job().items() if key != "output"})
    if selection is not None:
        fields |= {f"winner.{path}": value for path, value in selection["parameters"].items()}
    return _Logged(
        name=run.path.resolve().name,
        has_result=selection is not None,
        parameters=_texts(fields),
        metrics=[(_name(name), value, 0) for name, value in numbers.items()],
        tags=tags,
    )


def _children_of(run: RunFolder, rows: Sequence[VariantRow]) -> Iterator[_Logged]:
    """The content of the child runs, read from disk as needed; it may not fit into memory."""
    for row, series in zip(rows, variant_series(run, rows), strict=True):
        yield _child_of(row, series)


def _child_of(row: VariantRow, series: Series) -> _Logged:
    assert row.variant_id == series.variant_id
    metrics = [(_name(name), value, 0) for name, value in row.numbers.items()]
    epochs = series.epochs.tolist()
    for log, values in series.curves.items():
        name = _name(f"epoch/{log}")
        metrics += [(name, *pair) for pair in zip(values.tolist(), epochs, strict=True)]
    return _Logged(
        name=row.variant_id,
        has_result=series.is_completed,
        parameters=_texts(row.parameters),
        metrics=metrics,
        tags={_VARIANT_TAG: row.variant_id},
    )


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value, for all values that are not mappings themselves."""
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        path = f"{prefix}{key}"
        is_inner = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{path}.") if is_inner else {path: value}
    return flat


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {_name(path): _text(value) for path, value in values.items()}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_PARAMETER else f"{text[: _MAX_PARAMETER - 3]}..."


def _name(text: str) -> str:
    """The text as a name that MLflow accepts."""
    return _NOT_IN_NAMES.sub("_", text)


def _digest(content: Iterable[_Logged]) -> str:
    """A digest that is equal for equal content; JSON keeps every number exactly."""
    digest = hashlib.sha256()
    for logged in content:
        fields = [logged.name, logged.has_result, logged.parameters, logged.metrics, logged.tags]
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()


def _tracking_id(run: RunFolder) -> str:
    """An id that tells this run from all others, also after its folder was moved."""
    if not run.tracking_file.exists():
        write_json(run.tracking_file, {"run": secrets.token_hex(8)})
    with reading(run.tracking_file):
        return str(json.loads(run.tracking_file.read_text())["run"])


def _moments_ms(run: RunFolder, summary: Mapping[str, Any]) -> tuple[int, int]:
    """When the run began and ended, in milliseconds since 1970."""
    ended_ms = run.summary_file.stat().st_mtime_ns // 1_000_000
    return ended_ms - round(1000 * summary["timings_s"].get("total", 0.0)), ended_ms


# MLflow ---------------------------------------------------------------------------------------


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    # With a SQLite file, MLflow would put artifacts into the current folder. Put them beside it.
    database = sqlite_file(uri)
    location = None if database is None else (database.absolute().parent / "mlruns" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the runs of one run folder.

    Attributes:
        client: MLflow's client.
        experiment_id: The experiment that all of them belong to.
        tracking_id: The tag value that marks MLflow's runs of this run folder.
        started_ms, ended_ms: When the run began and ended, in milliseconds since 1970.
    """

    client: "MlflowClient"
    experiment_id: str
    tracking_id: str
    started_ms: int
    ended_ms: int

    def find_parent(self, digest: str) -> str | None:
        """The id of the parent run whose content has this digest; None if MLflow has none."""
        found = self._find(f"tags.`{_DIGEST_TAG}` = '{digest}'")
        return next((str(parent.info.run_id) for parent in found), None)

    def delete_all(self) -> None:
        """Moves everything that MLflow holds of the run to MLflow's trash."""
        # A parent that is marked as complete goes first, before its children.
        for found in sorted(self._find(), key=lambda old: _DIGEST_TAG not in old.data.tags):
            self.client.delete_run(found.info.run_id)

    def _find(self, condition: str = "") -> "Iterator[MlflowRun]":
        conditions = f"tags.`{_RUN_TAG}` = '{self.tracking_id}'"
        if condition:
            conditions += f" and {condition}"
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs(
                [self.experiment_id], conditions, page_token=token or None
            )
            yield from page
            token = page.token or None

    def write(self, logged: _Logged, tags: Mapping[str, str] | None = None) -> str:
        """Writes a run of MLflow and marks it as ended; returns its id."""
        from mlflow.entities import Metric, Param

        created = self.client.create_run(
            self.experiment_id,
            start_time=self.started_ms,
            run_name=logged.name,
            tags={_RUN_TAG: self.tracking_id, **logged.tags, **(tags or {})},
        )
        run_id = str(created.info.run_id)
        calls = zip_longest(
            _batches(logged.metrics, _METRICS_PER_CALL),
            _batches(list(logged.parameters.items()), _PARAMETERS_PER_CALL),
            fillvalue=(),
        )
        for metrics, parameters in calls:
            self.client.log_batch(
                run_id,
                metrics=[Metric(name, value, self.ended_ms, step) for name, value, step in metrics],
                params=[Param(name, text) for name, text in parameters],
            )
        status = "FINISHED" if logged.has_result else "FAILED"
        self.client.set_terminated(run_id, status, self.ended_ms)
        return run_id


def _batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _log_files(client: "MlflowClient", run_id: str, run: RunFolder) -> None:
    """Uploads the report with the files behind it, the figures, and all files of the best model."""
    files = (run.report_file, run.job_file, run.summary_file, run.variants_file)
    for file in (*files, run.environment_file, run.confusion_matrices_file):
        if file.exists():
            client.log_artifact(run_id, str(file))
    for folder in (run.figures_dir, run.best(run.read_job()["name"]).folder):
        if folder.is_dir():
            client.log_artifacts(run_id, str(folder), folder.name)
