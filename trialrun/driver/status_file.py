"""status.json, which a driver writes every few seconds: how far its run is, for who looks at it."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trialrun.driver.interrupts import Interrupted
from trialrun.driver.prometheus import write_metrics
from trialrun.driver.work import Work
from trialrun.errors import RunLost, TrialrunError
from trialrun.messages import in_short
from trialrun.store.costs import write_costs
from trialrun.store.run_state import write_status

_log = logging.getLogger(__name__)

_EVERY_S = 1.5
# Writing what very many variants have cost may take this share of the time, at most.
_SHARE_OF_TIME = 0.005


class StatusFile:
    """Writes status.json and costs.json of a run until it ends; see `writing_status`.

    Args:
        work: The work on the run.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._ended = threading.Event()
        self._num_written = 0
        self._has_failed = False
        self._next_costs_s = 0.0
        self._thread = threading.Thread(target=self._keep_writing, name="status", daemon=True)
        self._thread.start()

    def end(self, state: str, reason: str) -> None:
        """Writes it for the last time."""
        self._ended.set()
        self._thread.join()
        self._work.progress.course.close()
        self._next_costs_s = 0.0
        self._write(state, reason)

    def _keep_writing(self) -> None:
        self._write("running", "")
        while not self._ended.wait(_EVERY_S):
            self._write("running", "")
            self._work.progress.tick()

    def _write(self, state: str, reason: str) -> None:
        """Writes the file; that a disk is full must not end the run, and is said once."""
        self._num_written += 1
        content = {
            "state": state,
            "reason": reason,
            "job": self._work.loaded.spec.name,
            "heartbeat": self._num_written,
            **self._work.progress.course.content(),
        }
        try:
            self._work.lease.check()
            write_status(self._work.run, content)
            self._write_costs(is_last=state != "running")
            if (metrics_file := self._work.loaded.spec.output.prometheus) is not None:
                write_metrics(Path(metrics_file), content, self._work.run.path)
        except RunLost:  # the file is another driver's now; the main thread finds out by itself
            self._ended.set()
        except TrialrunError as error:
            if not self._has_failed:
                _log.warning("%s", error)
            self._has_failed = True

    def _write_costs(self, *, is_last: bool) -> None:
        if time.monotonic() < self._next_costs_s:
            return
        began_s = time.thread_time()  # a busy machine or disk takes none of the driver's time
        write_costs(self._work.run, self._work.progress.course.costs(), flush=is_last)
        took_s = time.thread_time() - began_s
        self._next_costs_s = time.monotonic() + took_s / _SHARE_OF_TIME


@dataclass(slots=True)
class Ending:
    """How a run ends, as far as its driver knows.

    Attributes:
        interrupted: What ended it early; None if nothing did.
    """

    interrupted: Interrupted | None = None


@contextlib.contextmanager
def writing_status(work: Work) -> Iterator[Ending]:
    """Writes status.json every few seconds as long as the context lasts, and then how it ended."""
    file, ending = StatusFile(work), Ending()
    try:
        yield ending
    except KeyboardInterrupt as interrupted:
        told = interrupted.reason if isinstance(interrupted, Interrupted) else "Interrupted"
        file.end("interrupted", told)
        raise
    except BaseException as error:
        said = str(error) if isinstance(error, TrialrunError) else in_short(error)
        file.end("failed", said)
        raise
    if ending.interrupted is None:
        file.end("ended", "")
    else:
        file.end("interrupted", ending.interrupted.reason)
