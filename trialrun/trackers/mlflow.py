"""A run in MLflow: the run as a parent, its variants as children.

What MLflow holds is what the run folder holds, or it is written anew: parameters of MLflow's runs
cannot be changed, and values of a metric are only ever added.
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

from trialrun.files import reading, write_json
from trialrun.store import RunFolder
from trialrun.trackers.series import (
    Series,
    VariantRow,
    ended_summary,
    variant_rows_of,
    variant_series,
)
from trialrun.tracking import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# Each is a few requests, and a row of the page that compares them.
MAX_CHILDREN = 1000
# Of MLflow's servers: metrics, parameters and tags together are at most 1,000 in a call.
_METRICS_PER_CALL, _PARAMETERS_PER_CALL = 900, 100
_MAX_PARAMETER = 500  # characters, that older servers take too
_MAX_NOTE = 5000
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]", re.ASCII)
_RUN_TAG, _DIGEST_TAG, _VARIANT_TAG = "trialrun.run", "trialrun.digest", "trialrun.variant_id"
_PARENT_TAG, _NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # what is printed is the leaderboard
}
# Of the tables that they make in a new database, and of each time that a server is tried again.
_TALKATIVE = ("mlflow.store.db.utils", "urllib3.connectionpool")
# A server that does not answer is given up within a minute or two, and not seven.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


def write_mlflow(run: RunFolder, uri: str, max_children: int = MAX_CHILDREN) -> None:
    """Logs an ended run, unless MLflow holds all of it; files are written again in any case.

    Parent: the job's fields as parameters, the winner's statistics and the counts as metrics, the
    report, the figures and the best model as artifacts. Child: a variant's parameters, its
    statistics of variants.csv, and the mean over its completed seeds of every log, `epoch/<log>`,
    an epoch per step.

    Args:
        run: The run folder.
        uri: Where MLflow keeps runs.
        max_children: The best variants that are logged, if there are more.

    Raises:
        Exception: What MLflow, its database or the way to its server raises.
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
        client.set_tag(parent_id, _DIGEST_TAG, digest)  # last: until then the run is not whole


@contextmanager
def _client(uri: str) -> "Iterator[MlflowClient]":
    """MLflow's client, which tells nobody of its use and prints nothing.

    A notebook that uses MLflow itself has its own settings back afterwards.
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
    """What MLflow is to hold of one of its runs.

    Attributes:
        name: As MLflow lists it.
        has_result: Whether a trial completed.
        parameters: Name -> text.
        metrics: Name, value, step.
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
    """The variants, read anew each time: all epochs of all of them need not be in memory."""
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
    """Dotted path -> value, of all that is no mapping."""
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
    """A name that MLflow takes."""
    return _NOT_IN_NAMES.sub("_", text)


def _digest(content: Iterable[_Logged]) -> str:
    """Equal for equal content; JSON writes a number so that it is read as the same."""
    digest = hashlib.sha256()
    for one in content:
        fields = [one.name, one.has_result, one.parameters, one.metrics, one.tags]
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()


def _tracking_id(run: RunFolder) -> str:
    """What tells this run from all others, also after its folder was moved."""
    if not run.tracking_file.exists():
        write_json(run.tracking_file, {"run": secrets.token_hex(8)})
    with reading(run.tracking_file):
        return str(json.loads(run.tracking_file.read_text())["run"])


def _moments_ms(run: RunFolder, summary: Mapping[str, Any]) -> tuple[int, int]:
    """When the run began and ended."""
    ended_ms = run.summary_file.stat().st_mtime_ns // 1_000_000
    return ended_ms - round(1000 * summary["timings_s"].get("total", 0.0)), ended_ms


# MLflow ---------------------------------------------------------------------------------------


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    # Files of a run that is in a SQLite file lie beside it, and not where the command was given.
    database = sqlite_file(uri)
    location = None if database is None else (database.absolute().parent / "mlruns" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location))


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the runs of one run folder.

    Attributes:
        client: MLflow.
        experiment_id: Where all of them are.
        tracking_id: Which of MLflow's runs are of this run folder.
        started_ms, ended_ms: When it was.
    """

    client: "MlflowClient"
    experiment_id: str
    tracking_id: str
    started_ms: int
    ended_ms: int

    def find_parent(self, digest: str) -> str | None:
        """The parent that holds what the digest is of, if MLflow has it."""
        found = self._find(f"tags.`{_DIGEST_TAG}` = '{digest}'")
        return next((str(one.info.run_id) for one in found), None)

    def delete_all(self) -> None:
        """What MLflow holds of the run goes to its trash."""
        # A parent that says to be whole goes before its children do.
        for found in sorted(self._find(), key=lambda one: _DIGEST_TAG not in one.data.tags):
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
        """Makes a run that has ended; returns its id."""
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
    """The report and what it rests on, the figures, the best model with all its files."""
    files = (run.report_file, run.job_file, run.summary_file, run.variants_file)
    for file in (*files, run.environment_file, run.confusion_matrices_file):
        if file.exists():
            client.log_artifact(run_id, str(file))
    for folder in (run.figures_dir, run.best(run.read_job()["name"]).folder):
        if folder.is_dir():
            client.log_artifacts(run_id, str(folder), folder.name)
