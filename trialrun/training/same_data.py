"""Refuses to train on a machine whose generator gives other data than where the run was started."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from trialrun.data.fingerprint import DataSample, difference
from trialrun.data.load import sample_data
from trialrun.errors import InputError, ModelError
from trialrun.job import DataSpec
from trialrun.job.user_code.functions import portable_reference
from trialrun.job.user_code.source_hints import hints_of

_same: set[tuple[str, str, int]] = set()  # what this process has found to be the same


def require_same_data(samples: Sequence[DataSample], data: DataSpec, job_folder: Path) -> None:
    """Calls a generator for the seeds of the driver, once per process, and compares.

    Args:
        samples: What it gave where the run was started, and what other settings gave.
        data: The section `data` of the job.
        job_folder: The folder to which the path of a generator's file is relative.

    Raises:
        ModelError: It gives other data here, or raises an error. The message says which, and the
            likely cause.
    """
    for sample in samples:
        key = (sample.data, sample.fingerprint, sample.seed)
        if sample.data != repr(data) or key in _same:
            continue
        here = _sample_here(data, job_folder, sample.seed)
        if text := difference(sample, here):
            cause = _likely_cause(here, data, job_folder)
            raise ModelError(
                f"data.generator {portable_reference(str(data.generator))}: for seed"
                f" {sample.seed} it gives other data on {platform.node()} than where the run was"
                f" started: {text}; {cause}"
            )
        _same.add(key)


def _sample_here(data: DataSpec, job_folder: Path, seed: int) -> DataSample:
    try:
        return sample_data(data, job_folder, seed)
    except InputError as error:
        raise ModelError(
            f"{error}; on {platform.node()}, while it gave data where the run was started:"
            f" {_hint(data)}"
        ) from error


def _likely_cause(here: DataSample, data: DataSpec, job_folder: Path) -> str:
    again = sample_data(data, job_folder, here.seed)
    if difference(here, again):
        return (
            "it gives other data each time that it is called: let it draw from"
            " np.random.default_rng(seed), and keep nothing between calls"
        )
    return _hint(data)


def _hint(data: DataSpec) -> str:
    """What the generator's source code shows that may differ between machines."""
    hints = hints_of(str(data.generator))
    if hints.variables:
        unset = [name for name in hints.variables if name not in os.environ]
        said = f", of which {', '.join(unset)} is not set here" if unset else ""
        return (
            f"it reads the environment variable {', '.join(hints.variables)}{said}: name it in"
            " resources.env, so that workers are given it"
        )
    if hints.reads_files:
        return (
            f"it reads a file ({hints.reads_files}): name that file in data.depends_on, so that"
            " workers are sent it"
        )
    return (
        "it may draw random numbers that do not follow from its seed, or read something of its"
        " machine: let it depend on its arguments alone"
    )
