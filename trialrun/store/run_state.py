"""The state of a run as its folder tells it: running, ended, interrupted, failed or dead.

A driver tells of itself by its lease, which has a heartbeat, and by status.json, which says how far
the run is. Both may be read from any machine that sees the folder. A driver on this machine is
found by its process. Elsewhere the age of the heartbeat decides; where clocks seem to differ, or
the heartbeat is neither new nor old, it is watched for some seconds. Whatever is in the files is
taken for what somebody else wrote: wrong types are left out, and control characters are replaced.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from trialrun.messages import listed, visible
from trialrun.store.files import read_small_json, write_json
from trialrun.store.lease import Holder, holder_of
from trialrun.store.run_folder import RunFolder

State = Literal["running", "ended", "interrupted", "failed", "dead"]

STATUS_FORMAT = 1
# A lease is renewed every 5 s; see `store.lease`.
_SURELY_NEW_S = 20.0
_SURELY_OLD_S = 600.0
_WATCH_S = 15.0
_MAX_NUMBER = 1e15
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Fields:
    """Values of a file that anybody may have written, given only where they have the right type."""

    content: Mapping[str, Any] = field(default_factory=dict)

    def part(self, key: str) -> "Fields":
        """The fields of a mapping; none if there is no such mapping."""
        value = self.content.get(key)
        return Fields(value if isinstance(value, dict) else {})

    def parts(self, key: str) -> list["Fields"]:
        """The fields of each mapping of a list."""
        value = self.content.get(key)
        items = value if isinstance(value, list) else []
        return [Fields(item) for item in items if isinstance(item, dict)]

    def number(self, key: str) -> float | None:
        """A finite number; None if there is none."""
        value = self.content.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if abs(value) < _MAX_NUMBER else None

    def count(self, key: str) -> int:
        """A number of things; 0 if there is none."""
        value = self.number(key)
        return 0 if value is None else max(0, int(value))

    def text(self, key: str) -> str:
        """A text whose control characters are shown; empty if there is none."""
        value = self.content.get(key)
        return visible(value) if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run.

    Attributes:
        run: The run folder.
        state: `running`; `ended`; `interrupted`, and `resume` finishes it; `failed`, because of an
            error; `dead`, because its driver ended without a word, and `resume` finishes it too.
        holder: The driver that works on it, or did last; None if it is not known.
        status: What status.json says; empty for an older run.
        age_s: Seconds since it began, by the clock of this machine.
        silent_s: Seconds since its last sign of life, by the clocks of this machine and of the file
            system.
    """

    run: RunFolder
    state: State
    holder: Holder | None
    status: Fields
    age_s: float
    silent_s: float


def write_status(run: RunFolder, content: Mapping[str, Any]) -> None:
    """Writes status.json, with its format, the driver's process and the time.

    It does not wait for the disk, which may take seconds: the file would be late.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"format": STATUS_FORMAT, "host": os.uname().nodename, "pid": os.getpid()}
    write_json(run.status_file, {**about, "written": now, **content}, flush=False)


def read_status(run: RunFolder) -> Fields:
    """What status.json says; empty if there is none, or none that this version knows."""
    content = read_small_json(run.status_file)
    is_known = content.get("format") == STATUS_FORMAT
    return Fields(content if is_known else {})


def read_summary(run: RunFolder) -> Fields:
    """What summary.json says; empty if the run has not ended."""
    return Fields(read_small_json(run.summary_file))


def states_of(
    runs: Sequence[RunFolder], say: Callable[[str], None] = lambda text: None
) -> list[RunState]:
    """The state of each run; those in doubt are watched together for some seconds.

    Args:
        runs: Run folders.
        say: Called with a message if that takes a while.
    """
    holders = [holder_of(run.lease_dir) for run in runs]
    lives = [None if holder is None else _lives(holder) for holder in holders]
    doubtful = [n for n, holder in enumerate(holders) if holder and lives[n] is None]
    if doubtful:
        names = listed([str(runs[number].path) for number in doubtful])
        say(visible(f"watching {names} for up to {_WATCH_S:g} s, to see whether a driver lives"))
        watched = _watch([(runs[number], holders[number]) for number in doubtful])
        for number in doubtful:
            lives[number] = watched[runs[number].path]
            holders[number] = holder_of(runs[number].lease_dir)
    return [_state_of(*one) for one in zip(runs, holders, lives, strict=True)]


def status_of_running(run: RunFolder) -> Fields:
    """What status.json says of a run whose driver surely lives; else nothing."""
    holder = holder_of(run.lease_dir)
    if holder is None or not _lives(holder):
        return Fields()
    return _status_by(holder, run)


def _lives(holder: Holder) -> bool | None:
    """Whether a driver is at work; None if only watching its heartbeat can tell."""
    if holder.is_released:
        return False
    if holder.lives_here is not None:
        return holder.lives_here
    age_s = time.time() - holder.written_s
    if 0 <= age_s <= _SURELY_NEW_S:
        return True
    return False if age_s > _SURELY_OLD_S else None


def _watch(doubtful: Sequence[tuple[RunFolder, Holder | None]]) -> dict[Path, bool]:
    """Run folder -> whether a heartbeat came while it was watched."""
    seen: dict[Path, bool] = {}
    deadline = time.monotonic() + _WATCH_S
    while len(seen) < len(doubtful) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        for run, before in doubtful:
            if run.path not in seen and (now := holder_of(run.lease_dir)) != before:
                seen[run.path] = now is not None and not now.is_released
    return {run.path: seen.get(run.path, False) for run, _ in doubtful}


def _state_of(run: RunFolder, holder: Holder | None, lives: bool | None) -> RunState:
    status = read_status(run)
    state: State = "interrupted"
    if lives and holder is not None:
        state, status = "running", _status_by(holder, run)
    elif run.summary_file.is_file():
        state = "ended"
    elif holder is not None and not holder.is_released:
        state = "dead"
    elif status.text("state") == "failed":
        state = "failed"
    signs = [_modified_s(file) for file in (run.job_file, run.status_file, run.summary_file)]
    last_s = max([*signs, 0.0 if holder is None else holder.written_s])
    return RunState(run, state, holder, status, _age_s(run), max(0.0, time.time() - last_s))


def _status_by(holder: Holder, run: RunFolder) -> Fields:
    """What status.json says, if this driver wrote it; else nothing, as it has not written yet."""
    status = read_status(run)
    is_own = (status.number("pid"), status.text("host")) == (holder.pid, holder.host)
    return status if is_own else Fields()


def _modified_s(file: Path) -> float:
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def _age_s(run: RunFolder) -> float:
    """Seconds since a run began, by its folder's name, or else by its oldest file."""
    with suppress(ValueError):
        name = run.path.resolve().name.partition("-")[0]
        began = datetime.strptime(name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return max(0.0, time.time() - began.timestamp())
    known = [_modified_s(file) for file in (run.job_file, run.environment_file)]
    return max(0.0, time.time() - min(filter(None, known), default=time.time()))
