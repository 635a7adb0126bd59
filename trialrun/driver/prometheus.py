"""`output.prometheus`: how far a run is, as a text file for Prometheus's node exporter."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trialrun.errors import FileError, InputError
from trialrun.messages import said_by

_PACKS = ("done", "running", "waiting", "retries")


def require_prometheus(file: str | None) -> None:
    """Raises InputError unless a job's `output.prometheus` can be written, if it has one."""
    if file is None:
        return
    if find_spec("prometheus_client") is None:
        raise InputError(
            "output.prometheus needs prometheus-client, not installed here:"
            " pip install 'trialrun[prometheus]'"
        )
    if not Path(file).parent.is_dir():
        raise InputError(f"output.prometheus: there is no folder {Path(file).parent}; make it")


def write_metrics(file: Path, content: Mapping[str, Any], folder: Path) -> None:
    """Writes what status.json says as metrics, atomically.

    Args:
        file: The file; the node exporter takes those that end in `.prom`.
        content: The content of status.json.
        folder: The run folder, for the label `run`.

    Raises:
        FileError: It cannot be written.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    labels = {"job_name": content["job"], "run": folder.name}

    def tell(name: str, what: str, value: float | None, **more: str) -> None:
        if value is not None:
            gauge = known.get(name) or Gauge(name, what, [*labels, *more], registry=registry)
            known[name] = gauge
            gauge.labels(**labels, **more).set(value)

    known: dict[str, Gauge] = {}
    left = content["left_s"] or {}
    tell("trialrun_running", "Whether the run is running.", content["state"] == "running")
    for state, count in content["trials"].items():
        tell("trialrun_trials", "Trials by their state.", count, state=state)
    for state in _PACKS:
        tell("trialrun_packs", "Packs by their state.", content["packs"][state], state=state)
    tell("trialrun_trials_per_second", "Trials that end per second.", content["trials_per_s"])
    tell("trialrun_left_seconds", "How long the rest takes.", left.get("expected_s"))
    best = content["best"]
    what = "The best value of the selection metric so far."
    tell("trialrun_best", what, best["value"], metric=best["metric"])
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise FileError(f"{file}: cannot be written: {error.strerror or said_by(error)}") from error
