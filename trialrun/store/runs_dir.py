"""The folder in which run folders are made; it outlives the process that makes them.

A Ray job that brings its own files runs in a copy of them, which Ray unpacks into its temporary
folder and deletes at any time. Whatever is written there is lost sooner or later.
"""

import itertools
import os
from pathlib import Path

from trialrun.errors import InputError
from trialrun.host import path_from

_NUM_RUNS_SHOWN = 5
# Without any of these, a job.yaml is a job that somebody wrote, and not that of a run.
_OF_A_RUN = ("lease", "environment.json", "trials", "status.json", "summary.json")
_MAX_DEPTH = 3  # of run folders in a folder of runs
_RUNS_DIR_VARIABLE = "TRIALRUN_RUNS_DIR"
_RAY_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_UNPACKED_BY_RAY = ("runtime_resources", "working_dir_files")


def default_runs_dir() -> Path:
    """TRIALRUN_RUNS_DIR, else `runs` here, or `~/trialrun-runs` if Ray will delete this folder."""
    if chosen := os.environ.get(_RUNS_DIR_VARIABLE):
        return path_from(chosen)
    return Path("~/trialrun-runs").expanduser() if _is_passing(Path()) else Path("runs")


def require_lasting(folder: Path) -> None:
    """Raises InputError if a folder lies in Ray's copy of a job's files."""
    if _is_passing(folder):
        raise InputError(
            f"{folder}: lies in the copy of this Ray job's files, which Ray deletes; give"
            f" --runs-dir, --run-folder or {_RUNS_DIR_VARIABLE} an absolute path on"
            f" {os.uname().nodename} or on shared storage"
        )


def location_text(folder: Path) -> str:
    """The location of a folder for somebody who wants to fetch it; in a Ray job with its host."""
    if _RAY_JOB_VARIABLE in os.environ:
        return f"{folder.resolve()} on {os.uname().nodename}"
    return str(folder)


def run_paths(folder: Path) -> list[Path]:
    """The run folders in a folder of runs, or the folder itself if it is one.

    They are `<job>/<run>` there, or `<job>/<array of shards>/<run>`. Each is given once, whatever
    links lead to it.
    """
    if _is_run(folder):
        return [folder]
    found: list[Path] = []
    level = [folder]
    for _ in range(_MAX_DEPTH):
        inner = [path for one in level for path in _folders_in(one)]
        found += [path for path in inner if _is_run(path)]
        level = [path for path in inner if not _is_run(path)]
    return list({path.resolve(): path for path in sorted(found, reverse=True)}.values())[::-1]


def _is_run(folder: Path) -> bool:
    is_job = (folder / "job.yaml").is_file()
    return is_job and any((folder / name).exists() for name in _OF_A_RUN)


def _folders_in(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:  # gone meanwhile, or not for us to read
        return []


def what_is_at(path: Path) -> str:
    """What is at a path that is no run folder, for the user who gave it."""
    if not path.exists():
        return "it does not exist"
    if not path.is_dir():
        return "it is a file; give the folder that holds job.yaml"
    if (path / "job.yaml").is_file():
        return "its job.yaml is a job, of which no run is here"
    runs = sorted((job.parent for job in path.glob("*/job.yaml")), reverse=True)
    if not runs:
        return "it holds no job.yaml"
    shown = ", ".join(str(run) for run in runs[:_NUM_RUNS_SHOWN])
    more = f" and {len(runs) - _NUM_RUNS_SHOWN} older" if len(runs) > _NUM_RUNS_SHOWN else ""
    return f"it holds {len(runs)} run{'s'[: len(runs) > 1]}; give one of them: {shown}{more}"


def _is_passing(folder: Path) -> bool:
    return _UNPACKED_BY_RAY in itertools.pairwise(folder.resolve().parts)
