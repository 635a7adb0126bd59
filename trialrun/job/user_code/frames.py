"""Where in the user's own code an error was raised: file, line and function of each call.

The user's own is what belongs neither to trialrun, nor to Python, nor to an installed package. An
error that travels between processes loses its traceback, so `note_frames` notes the calls in the
error before it leaves its process, and `told` tells them with what the error says.
"""

import linecache
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from trialrun.errors import TrialrunError
from trialrun.job.user_code.own_files import is_users_own, original_path
from trialrun.messages import in_short, one_line

_MAX_INNER, _MAX_OUTER = 8, 2
_MAX_ERRORS = 4


class Frame(NamedTuple):
    """A call in the user's own code.

    Attributes:
        path: The file.
        line: The line in it, from 1.
        function: The function that the line belongs to.
        source: The line itself; empty if the file is gone.
    """

    path: str
    line: int
    function: str
    source: str

    def __str__(self) -> str:
        code = f": {self.source}" if self.source else ""
        return f"{self.path}:{self.line} in {self.function}{code}"


def told(error: BaseException) -> str:
    """What an error says, and below it where in the user's own code it was raised.

    An error of trialrun says its own words, an error of others is told in short.
    """
    said = str(error) if isinstance(error, TrialrunError) else in_short(error)
    notes = getattr(error, "__notes__", None) or [where_raised(error)]
    return "\n".join(filter(None, [said, *notes]))


def note_frames(error: BaseException, raised: BaseException | None = None) -> None:
    """Notes in an error where in the user's own code it was raised; once, and only if it was.

    Args:
        error: The error that will tell it.
        raised: The error that was raised there; absent: the same.
    """
    if not getattr(error, "__notes__", None) and (where := where_raised(raised or error)):
        error.add_note(where)


def where_raised(error: BaseException) -> str:
    """The user's own calls that led to an error, as lines of text; empty if there are none.

    The calls of an error stand together, the innermost first. They are followed by those of the
    error that was its cause.
    """
    groups: list[tuple[BaseException, list[Frame]]] = []
    for one in _with_causes(error):
        frames = list(_users_frames(one.__traceback__))
        if frames and not any(set(frames) <= set(others) for _, others in groups):
            groups.append((one, frames))
    lines: list[str] = []
    for one, frames in groups[:_MAX_ERRORS]:
        lines += [f"because of {in_short(one)}"] if lines else []
        lines += _lines(frames[::-1])
    return "\n".join(lines)


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the error that it was raised from or because of, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _users_frames(trace: TracebackType | None) -> Iterator[Frame]:
    for frame, line in traceback.walk_tb(trace):
        path = frame.f_code.co_filename
        if _is_users(path):
            source = one_line(linecache.getline(path, line))
            yield Frame(original_path(path), line, frame.f_code.co_name, source)


def _is_users(path: str) -> bool:
    """Whether a file is the user's own; a name such as `<string>` is no file."""
    return Path(path).is_absolute() and is_users_own(Path(path))


def _lines(frames: list[Frame]) -> list[str]:
    """The calls, the innermost first; of very many, as in a recursion, only the outer ones too."""
    lines = [f"  {'called ' * (index > 0)}at {frame}" for index, frame in enumerate(frames)]
    if (num_more := len(lines) - _MAX_INNER - _MAX_OUTER) > 1:
        return [*lines[:_MAX_INNER], f"  ... {num_more:,} more calls ...", *lines[-_MAX_OUTER:]]
    return lines
