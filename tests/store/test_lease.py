"""One driver per run folder, whatever dies, stops or is told a wrong time."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import trialrun.store.lease
from trialrun.errors import InputError, RunLost
from trialrun.store.files import write_json
from trialrun.store.lease import hold, request_stop

HOLDER = """
import sys, time
from pathlib import Path
from trialrun.store.lease import hold, request_stop

with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "lease"


@pytest.fixture
def holder(folder):
    """Another process that holds the lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def change(folder, **fields):
    """Rewrites what the newest lease says, as another machine would have written it: at once."""
    path = max(folder.glob("*.json"))
    write_json(path, json.loads(path.read_text()) | fields)


@pytest.fixture
def quick(monkeypatch):
    """Waits of tenths of a second instead of many seconds."""
    monkeypatch.setattr(trialrun.store.lease, "_HEARTBEAT_S", 0.05)
    monkeypatch.setattr(trialrun.store.lease, "_SILENCE_S", 0.6)
    monkeypatch.setattr(trialrun.store.lease, "_POLL_S", 0.05)


def test_a_lease_is_held_and_given_back(folder):
    for number in (1, 2, 3):
        with hold(folder) as lease:
            lease.check()
            assert [path.name for path in folder.glob("*.json")] == [f"00000{number}.json"]


def test_a_driver_at_work_keeps_others_out(folder, holder):
    message = rf"a driver is at work on this run \(process {holder.pid} on "
    with pytest.raises(InputError, match=message), hold(folder):
        pass
    holder.communicate()
    with hold(folder):
        pass


def test_a_killed_driver_is_followed_at_once(folder, holder):
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with hold(folder) as lease:
        lease.check()
    assert time.monotonic() - started < 5


def test_a_process_number_that_was_used_again_is_no_driver(folder, holder):
    holder.kill()
    holder.wait()
    change(folder, pid=os.getpid())  # lives, but began at another time
    with hold(folder):
        pass


@pytest.mark.parametrize("fields", [{"pid": 2**30, "started": None}, {"pid": "self"}])
def test_a_lease_that_names_no_process_is_no_drivers(folder, holder, fields):
    holder.kill()
    holder.communicate()
    change(folder, **fields)
    with hold(folder):
        pass


def test_a_silent_driver_on_another_machine_is_waited_for_and_then_followed(folder, quick):
    with hold(folder):
        pass
    change(folder, released=False, machine="another", host="node7", pid=77)
    said = []
    with hold(folder, said.append) as lease:
        lease.check()
    assert len(said) == 1
    assert "process 77 on node7" in said[0]


def test_a_driver_on_another_machine_that_beats_keeps_others_out(folder, quick):
    with hold(folder):
        pass
    change(folder, released=False, machine="another", beat=1)
    beats = hold(folder, lambda text: change(folder, beat=2))
    with pytest.raises(InputError, match="a driver is at work"), beats:
        pass


def test_the_holder_beats(folder, quick):
    with hold(folder):
        path = folder / "000001.json"
        beats = set()
        deadline = time.monotonic() + 5
        while len(beats) < 3 and time.monotonic() < deadline:
            beats.add(json.loads(path.read_text())["beat"])
            time.sleep(0.02)
        assert len(beats) == 3


def test_a_driver_that_slept_too_long_gives_way(folder, monkeypatch):
    """Two hold it for a moment; the first notices before it writes anything that counts."""
    with hold(folder) as sleeper:
        change(folder, machine="another")
        monkeypatch.setattr(trialrun.store.lease, "_SILENCE_S", 0.0)
        with hold(folder) as successor:
            with pytest.raises(RunLost, match="another driver has taken over this run"):
                sleeper.check()
            successor.check()
            monkeypatch.undo()
    assert [path.name for path in folder.glob("*.json")] == ["000002.json"]


def test_of_many_successors_one_gets_it(folder, holder):
    holder.kill()
    holder.wait()
    start = threading.Barrier(8)
    end = threading.Barrier(8)

    def try_it(_):
        start.wait()
        try:
            with hold(folder):
                end.wait()
                return 1
        except InputError:
            end.wait()
            return 0

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_it, range(8))) == 1


def test_a_file_that_says_nothing_holds_nothing_for_long(folder, quick):
    folder.mkdir(parents=True)
    (folder / "000004.json").write_text("{")
    with hold(folder) as lease:
        lease.check()
    assert [path.name for path in folder.glob("*.json")] == ["000005.json"]


def test_a_full_disk_does_not_hide_why_a_run_ended(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def end_on_a_full_disk():
        with hold(folder):
            resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))  # no file may grow beyond
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            end_on_a_full_disk()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    [lease] = folder.glob("*.json")
    assert not json.loads(lease.read_text())["released"]


# Requests to stop --------------------------------------------------------------------------------


def test_a_driver_sees_that_it_is_asked_to_stop_however_often(folder):
    with hold(folder) as lease:
        assert lease.stop_request() is None
        for _ in range(2):
            assert request_stop(folder).startswith(f"process {os.getpid()} on ")
        assert lease.stop_request() == os.uname().nodename


def test_a_request_means_no_later_driver(folder):
    with hold(folder):
        request_stop(folder)
    with hold(folder) as lease:
        assert lease.stop_request() is None
        assert [path.name for path in folder.iterdir()] == ["000002.json"]


def test_where_no_driver_is_at_work_a_request_is_refused(folder, holder):
    with pytest.raises(InputError, match=r"no driver is at work on this run$"):
        request_stop(folder.with_name("other"))
    holder.kill()
    holder.wait()
    with pytest.raises(InputError, match=rf"; the last was process {holder.pid} on "):
        request_stop(folder)
    with hold(folder):
        pass
    with pytest.raises(InputError, match="no driver is at work on this run"):
        request_stop(folder)
    assert not list(folder.glob("*.stop"))


def test_a_driver_on_another_machine_is_asked_when_it_beats_and_not_if_it_is_silent(folder, quick):
    with hold(folder):
        pass
    change(folder, released=False, machine="another", host="node7\x1b[2J", beat=1)
    said = []
    with pytest.raises(InputError, match="no driver is at work"):
        request_stop(folder, said.append)
    assert "on node7␛[2J" in said[0]
    assert "on node7" in request_stop(folder, lambda text: change(folder, beat=2))
    assert (folder / "000001.stop").exists()
