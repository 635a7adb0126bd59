"""What a run ran on, written into its folder: versions, source files, machine and Ray.

Of the environment variables only those are written that the job forwards to its workers, because
any of the others may be a password.
"""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from trialrun.driver.forwarded import recorded_variables
from trialrun.driver.resume import source_digests
from trialrun.driver.work import Work
from trialrun.job import LoadedJob
from trialrun.store import RunFolder
from trialrun.store.files import write_json

_PACKAGES = ("trialrun", "tensorflow", "keras", "ray", "numpy", "scikit-learn", "pandas", "pyarrow")


def write_environment(work: Work, ray: Mapping[str, Any], command: Sequence[str]) -> None:
    """Writes environment.json; what it held before a resume moves to its list `earlier`.

    Args:
        work: The work on the run.
        ray: The nodes and devices that Ray offers.
        command: The command line.
    """
    run, loaded = work.run, work.loaded
    git = subprocess.run(
        ["git", "-C", str(loaded.folder), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    content = {
        "job_file": str(loaded.path),
        "command": list(command),
        "git_revision": git.stdout.strip() or None,
        "sources": source_digests(loaded),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "node": platform.node(),
        "packages": {name: metadata.version(name) for name in _packages(loaded)},
        "env": recorded_variables(work.variables),
        "ray": dict(ray),
        "earlier": _earlier(run),
    }
    write_json(run.environment_file, content)


def _packages(loaded: LoadedJob) -> tuple[str, ...]:
    """The packages on which results may depend."""
    return (*_PACKAGES, "optuna") if loaded.spec.search.method == "tpe" else _PACKAGES


def _earlier(run: RunFolder) -> list[Any]:
    before = run.read_environment()
    return [] if before is None else [*before.pop("earlier", []), before]
