"""Where run folders are kept: somewhere that outlives whoever makes them.

A Ray job that brings its files runs in a copy of them that Ray unpacked into its temporary folder,
and deletes when it likes. What is written there is lost sooner or later.
"""

import itertools
import os
from pathlib import Path

from trialrun.errors import InputError

_RUNS_DIR_VARIABLE = "TRIALRUN_RUNS_DIR"
_RAY_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_UNPACKED_BY_RAY = ("runtime_resources", "working_dir_files")


def default_runs_dir() -> Path:
    """TRIALRUN_RUNS_DIR, else `runs` here; `~/trialrun-runs` in a copy that Ray will delete."""
    if chosen := os.environ.get(_RUNS_DIR_VARIABLE):
        return Path(chosen).expanduser()
    return Path("~/trialrun-runs").expanduser() if _is_passing(Path()) else Path("runs")


def require_lasting(folder: Path) -> None:
    """Raises InputError for a folder in a copy of a Ray job's files."""
    if _is_passing(folder):
        raise InputError(
            f"{folder}: lies in the copy of this Ray job's files, which Ray deletes; give an"
            f" absolute path on {os.uname().nodename} or on shared storage, to --runs-dir or"
            f" --run-folder or in {_RUNS_DIR_VARIABLE}"
        )


def describe_place(folder: Path) -> str:
    """Where a folder is, for whoever wants to fetch it: with its host, inside a Ray job."""
    if _RAY_JOB_VARIABLE in os.environ:
        return f"{folder.resolve()} on {os.uname().nodename}"
    return str(folder)


def _is_passing(folder: Path) -> bool:
    return _UNPACKED_BY_RAY in itertools.pairwise(folder.resolve().parts)
