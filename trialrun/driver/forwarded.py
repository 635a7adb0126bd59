"""Environment variables that a job's code reads: taken here, given to workers, and recorded."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping

from trialrun.errors import InputError
from trialrun.job import LoadedJob
from trialrun.store import RunFolder

_SECRET_NAME = re.compile(
    "TOKEN|KEY|SECRET|PASS|PWD|CREDENTIAL|AUTH|COOKIE|SIGNATURE|WEBHOOK|DSN|PRIVATE|CONN|_PAT$",
    re.I,
)
# A user, and perhaps a password, before an address, or a secret among its parameters.
_SECRET_VALUE = re.compile(
    r"://[^/\s]*@|^[^/\s]+:[^/\s]+@|[?&;](sig|signature|token|key|password|pwd|secret)=", re.I
)
_ROUNDS = 100_000  # so that trying out values takes long


def forwarded_variables(loaded: LoadedJob) -> dict[str, str]:
    """Name -> value of each variable in the job's `resources.env`.

    Raises:
        InputError: One is not set here.
    """
    missing = [name for name in loaded.spec.resources.env if name not in os.environ]
    if missing:
        text = (
            f"resources.env: {', '.join(missing)} must be set where the job is started, to be given"
            " to workers; set it, or leave it out of the list"
        )
        raise InputError(loaded.locate(text))
    return {name: os.environ[name] for name in loaded.spec.resources.env}


def recorded_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Name -> what environment.json holds: the value, or a hash where it may be a secret."""
    return {
        name: _hash(name, value) if _may_be_secret(name, value) else value
        for name, value in variables.items()
    }


def _may_be_secret(name: str, value: str) -> bool:
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))


def _hash(name: str, value: str) -> str:
    digest = hashlib.pbkdf2_hmac("sha256", value.encode(), name.encode(), _ROUNDS, 8)
    return f"hash {digest.hex()}"


def changed_variables(run: RunFolder, variables: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable whose value differs from that of the run's last start."""
    before = (run.read_environment() or {}).get("env", {})
    for name, value in recorded_variables(variables).items():
        if before.get(name, value) != value:
            yield (
                f"{name} was {before[name]} when the run was started before, and is {value} now:"
                " trials may differ"
            )
