"""Times as users write them: `2h`, `90m`, `1h 30m`."""

import re
from typing import NamedTuple

from trialrun.messages import show

_FORM = re.compile(r"(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s)?")


class Duration(NamedTuple):
    """A time that is longer than zero.

    Attributes:
        text: As it was written.
        seconds: The same in seconds.
    """

    text: str
    seconds: float


def read_duration(value: object) -> Duration:
    """The time that a user wrote.

    Raises:
        ValueError: It is no time in hours, minutes and seconds.

    >>> read_duration("1h 30m").seconds
    5400.0
    """
    found = _FORM.fullmatch(value.strip()) if isinstance(value, str) else None
    hours, minutes, seconds = (int(n or 0) for n in found.groups()) if found else (0, 0, 0)
    total = 3600.0 * hours + 60 * minutes + seconds
    if not total:
        raise ValueError(
            "must be a time in hours, minutes or seconds, such as 2h, 90m or 1h 30m, got"
            f" {show(value)}"
        )
    return Duration(str(value).strip(), total)
