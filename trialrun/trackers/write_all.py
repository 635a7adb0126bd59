"""A run that ended is shown by the trackers that its job asks for."""

import logging
from collections.abc import Callable
from importlib.util import find_spec

from trialrun.errors import InputError, TrackerError
from trialrun.job import OutputSpec
from trialrun.job.tracking_uri import is_database
from trialrun.messages import said_by
from trialrun.store import RunFolder

_log = logging.getLogger(__name__)

_MAX_REASON = 300  # characters


def require_packages(output: OutputSpec) -> None:
    """Raises InputError unless the packages of the trackers that a job asks for are installed.

    Raises:
        InputError: A package is missing; the message says what to install.
    """
    needs: dict[str, list[str]] = {}
    if output.tensorboard:
        needs["tensorboard"] = ["tensorboard"]
    if output.mlflow is not None:
        for_database = ["sqlalchemy", "alembic"] if is_database(output.mlflow) else []
        needs["mlflow"] = ["mlflow", *for_database]
    for extra, packages in needs.items():
        missing = [name for name in packages if find_spec(name) is None]
        if missing:
            raise InputError(
                f"output.{extra} needs {' and '.join(missing)}, not installed here:"
                f" pip install 'trialrun[{extra}]'"
            )


def show_in_trackers(run: RunFolder, output: OutputSpec) -> list[TrackerError]:
    """Writes a run to the trackers that its job asks for, replacing what they held of it.

    A run that has not ended is not written, nor one whose trials are paused, which are no results
    yet, nor a shard: the run that is merged from all shards is the one to show.

    Args:
        run: The run folder.
        output: What the job asks for; see `require_packages`.

    Returns:
        One error per tracker that could not be written, with the reason in one line.
    """
    summary = run.read_summary()
    if summary is None or run.read_job().get("resources", {}).get("shard") is not None:
        return []
    if summary.get("rounds", {}).get("epochs") is not None:
        _log.info("no tracker gets this run while its trials are paused")
        return []
    problems = []
    if output.tensorboard:
        problems += _attempt("tensorboard/", lambda: _write_tensorboard(run))
    if (uri := output.mlflow) is not None:
        problems += _attempt(f"MLflow at {uri}", lambda: _write_mlflow(run, uri))
    return problems


def _attempt(target: str, write: Callable[[], None]) -> list[TrackerError]:
    try:
        write()
    except Exception as error:  # a server, a database or a disk may raise anything
        _log.exception("%s could not be written", target)
        reason = said_by(error)[:_MAX_REASON]
        return [TrackerError(f"{target} could not be written: {reason}")]
    _log.info("%s is written", target)
    return []


def _write_tensorboard(run: RunFolder) -> None:
    from trialrun.trackers.tensorboard import write_tensorboard

    write_tensorboard(run)


def _write_mlflow(run: RunFolder, uri: str) -> None:
    from trialrun.trackers.mlflow import write_mlflow

    write_mlflow(run, uri)
