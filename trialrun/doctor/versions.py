"""Versions: Python and packages against the ranges of trialrun's own metadata, and SLURM's."""

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from trialrun.doctor.check import Check, ok, problem, warning

# Their versions decide what a run computes; of the others only what is wrong is told.
_TOLD = ("tensorflow", "keras", "ray")
_INSTALL = "install trialrun again into an environment of its own: `pip install trialrun`"
_ASK = "if you mean to use it: is this a node of the cluster? Ask who looks after it"
_SRUN_TIMEOUT_S = 10


def check_versions() -> tuple[Check, ...]:
    """One check for Python, each of the big packages, and all others together."""
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:
        found = "runs from a folder of sources: the versions it needs are not known here"
        return (warning("trialrun", found, "install it on this node: `pip install trialrun`"),)
    python = SpecifierSet(metadata.metadata("trialrun")["Requires-Python"])
    others = [
        check
        for name, wanted in requirements.items()
        if name not in _TOLD and (check := check_version(name, wanted)).status != "ok"
    ]
    if not others:
        num_others = len(requirements) - len(_TOLD)
        others = [ok("other packages", f"all {num_others} are in the range that trialrun needs")]
    return (
        ok("trialrun", metadata.version("trialrun")),
        _in_range("Python", platform.python_version(), python),
        *(check_version(name, requirements[name]) for name in _TOLD),
        *others,
    )


def check_version(name: str, wanted: SpecifierSet) -> Check:
    """Whether an installed package is of a version that trialrun was proved with.

    Args:
        name: Of the package.
        wanted: The range, e.g. `>=2.21,<2.22`.
    """
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return problem(name, f"not installed; trialrun needs {_range_text(wanted)}", _INSTALL)
    return _in_range(name, version, wanted)


def _in_range(name: str, version: str, wanted: SpecifierSet) -> Check:
    if not wanted.contains(version, prereleases=True):
        return problem(name, f"{version}; trialrun needs {_range_text(wanted)}", _INSTALL)
    return ok(name, f"{version} (needs {_range_text(wanted)})")


def _range_text(wanted: SpecifierSet) -> str:
    """`>=2.21,<2.22`, the lower bound first."""
    return ",".join(sorted((str(one) for one in wanted), reverse=True))


def _requirements() -> dict[str, SpecifierSet]:
    parsed = [Requirement(text) for text in metadata.requires("trialrun") or ()]
    return {
        one.name: one.specifier
        for one in parsed
        if one.marker is None or one.marker.evaluate({"extra": ""})
    }


def versions_here() -> dict[str, str]:
    """What must be the same on all nodes of a cluster: name -> version; `none` if missing."""
    versions = {"Python": platform.python_version()}
    for name in ("trialrun", *_TOLD):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


def check_slurm(environment: Mapping[str, str]) -> Check:
    """SLURM's version, and the job that this process is in."""
    job_id = environment.get("SLURM_JOB_ID")
    job = f"job {job_id} on {environment.get('SLURM_JOB_NODELIST', '?')}" if job_id else ""
    if not shutil.which("srun", path=environment.get("PATH")):
        if not job:
            return ok("SLURM", "not on this machine")
        return warning(
            "SLURM",
            f"{job}, but srun is not on the PATH",
            "in a container: bind the host's SLURM programs and /run/munge into it",
        )
    try:
        told = subprocess.run(
            ["srun", "--version"],
            capture_output=True,
            text=True,
            timeout=_SRUN_TIMEOUT_S,
            check=False,
            env=dict(environment),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return warning("SLURM", f"srun does not run: {error}", _ASK)
    if told.returncode:
        lines = told.stderr.strip().splitlines() or [f"exit code {told.returncode}"]
        return warning("SLURM", f"srun --version fails: {lines[-1]}", _ASK)
    return ok("SLURM", f"{told.stdout.strip()}; {job or 'not inside a job'}")
