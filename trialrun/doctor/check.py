"""The result of one check: ok, a warning or a problem, and what to do about it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

CheckStatus = Literal["ok", "warning", "problem"]
_WORST_FIRST: tuple[CheckStatus, ...] = ("problem", "warning", "ok")


@dataclass(frozen=True, slots=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: The thing, e.g. `/dev/shm`.
        status: `problem` if it does not work, `warning` if it may not work, or not well.
        found: What was found. Never a secret.
        advice: What to do; empty if all is well.
    """

    name: str
    status: CheckStatus
    found: str
    advice: str = ""

    def as_plain_values(self) -> dict[str, str]:
        """The check as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_plain_values(cls, values: Mapping[str, Any]) -> "Check":
        """The check that `as_plain_values` gave these values for."""
        return cls(**values)


def ok(name: str, found: str) -> Check:
    """A check of something that works."""
    return Check(name, "ok", found)


def warning(name: str, found: str, advice: str) -> Check:
    """A check of something that may not work, or not well."""
    return Check(name, "warning", found, advice)


def problem(name: str, found: str, advice: str) -> Check:
    """A check of something that does not work."""
    return Check(name, "problem", found, advice)


def worst(checks: Iterable[Check]) -> CheckStatus:
    """The worst status of some checks; `ok` if there are none."""
    found = {check.status for check in checks}
    return next((status for status in _WORST_FIRST if status in found), "ok")
