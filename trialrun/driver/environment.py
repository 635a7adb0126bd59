"""What a run ran on, written into its folder: versions, source files, machine and Ray.

No environment variable of the process is written, because any of them may be a password.
"""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from trialrun.driver.resume import source_digests
from trialrun.job import LoadedJob
from trialrun.store import RunFolder
from trialrun.store.files import write_json

_PACKAGES = ("trialrun", "tensorflow", "keras", "ray", "numpy", "scikit-learn", "pandas", "pyarrow")


def write_environment(
    run: RunFolder, loaded: LoadedJob, ray: Mapping[str, Any], command: Sequence[str]
) -> None:
    """Writes environment.json; what it held before a resume moves to its list `earlier`.

    Args:
        run: The run folder.
        loaded: The job.
        ray: The nodes and devices that Ray offers.
        command: The command line.
    """
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
