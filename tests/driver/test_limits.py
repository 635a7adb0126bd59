"""Runs that are told to stop, or whose time is over, end as by a signal."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

import trialrun
from trialrun.driver import limits
from trialrun.driver.interrupts import Interrupted, Interrupts
from trialrun.driver.limits import Deadline, limited
from trialrun.errors import InputError
from trialrun.job import read_duration

LEASE = SimpleNamespace(stop_request=lambda: None)
ASKED = SimpleNamespace(stop_request=lambda: "login1")


def wait_for_ever():
    assert not threading.Event().wait(60), "nothing came"


@pytest.mark.parametrize(
    ("lease", "deadline", "reason"),
    [
        (ASKED, None, "Interrupted by `trialrun stop` on login1"),
        (LEASE, Deadline("1h 30m", 0.0), "Interrupted after 1h 30m, as --max-time says"),
    ],
)
def test_what_the_main_thread_waits_for_is_interrupted(monkeypatch, lease, deadline, reason):
    monkeypatch.setattr(limits, "_POLL_S", 0.01)
    before = signal.getsignal(signal.SIGUSR1)
    with (
        pytest.raises(Interrupted) as raised,
        Interrupts() as interrupts,
        limited(lease, interrupts, deadline),
    ):
        wait_for_ever()
    assert (raised.value.exit_code, raised.value.reason) == (75, reason)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_work_ends_gracefully_and_a_signal_afterwards_is_the_first(monkeypatch):
    """The second signal would end this process at once."""
    monkeypatch.setattr(limits, "_POLL_S", 0.01)
    asked = threading.Event()

    def work():
        with (
            Interrupts(asked.set) as interrupts,
            limited(ASKED, interrupts, None),
            interrupts.gracefully(),
        ):
            assert asked.wait(60)
            assert interrupts.requested
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="trialrun stop"):
        work()


def test_a_thread_that_handles_no_signals_is_asked_too(monkeypatch):
    monkeypatch.setattr(limits, "_POLL_S", 0.01)
    asked, raised = threading.Event(), []

    def work():
        with Interrupts(asked.set) as interrupts, limited(ASKED, interrupts, None):
            try:
                with interrupts.gracefully():
                    assert asked.wait(60)
            except Interrupted as error:
                raised.append(error.exit_code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == [75]


def test_a_deadline_is_the_time_from_now():
    assert Deadline.after(None) is None
    before = time.monotonic()
    text, at_s = Deadline.after(read_duration(" 1h 1m "))
    assert text == "1h 1m"
    assert 3660 <= at_s - before < 3720


def test_from_python_a_time_that_is_none_is_refused(tmp_path):
    (tmp_path / "job.yaml").write_text("name: timed\n")
    with pytest.raises(InputError, match="max_time: must be a time in hours, minutes or seconds"):
        trialrun.run(tmp_path / "job.yaml", max_time="soon")
