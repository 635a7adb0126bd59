"""Checks of versions: Python and packages against the ranges that trialrun needs, and SLURM."""

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from trialrun.doctor.check import Check, ok, problem, warning
from trialrun.messages import said_by

# Their versions decide what a run computes. Other packages are only reported if they are wrong.
_TOLD = ("tensorflow", "keras", "ray")
_INSTALL = "install trialrun again into an environment of its own: `pip install trialrun`"
_ASK = "if you want to use SLURM: is this a node of the cluster? Ask its administrators"
_SRUN_TIMEOUT_S = 10


def check_versions() -> tuple[Check, ...]:
    """A check each for trialrun, Python and the main packages, and one for all others together."""
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:
        found = "runs from a source folder, so the versions that it needs are not known here"
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
    """Checks whether an installed package has a version that trialrun supports.

    Args:
        name: The package's name.
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
    """The range as text with the lower bound first: `>=2.21,<2.22`."""
    return ",".join(sorted((str(bound) for bound in wanted), reverse=True))


def _requirements() -> dict[str, SpecifierSet]:
    parsed = [Requirement(text) for text in metadata.requires("trialrun") or ()]
    return {
        requirement.name: requirement.specifier
        for requirement in parsed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def versions_here() -> dict[str, str]:
    """Name -> version of what must be the same on all nodes of a cluster; `none` if missing."""
    versions = {"Python": platform.python_version()}
    for name in ("trialrun", *_TOLD):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


def check_slurm(environment: Mapping[str, str]) -> Check:
    """Checks whether SLURM works here; names its version and the job that this process is in."""
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
        return warning("SLURM", f"srun does not run: {said_by(error)}", _ASK)
    if told.returncode:
        lines = told.stderr.strip().splitlines() or [f"exit code {told.returncode}"]
        return warning("SLURM", f"srun --version fails: {lines[-1]}", _ASK)
    return ok("SLURM", f"{told.stdout.strip()}; {job or 'not inside a job'}")
