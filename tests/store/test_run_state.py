"""Whether a run is at work, has ended, or died, as any machine that sees its folder can tell."""

import json
import os
import time

import pytest

import trialrun.store.run_state
from trialrun.host import machine_id, process_started
from trialrun.store import RunFolder
from trialrun.store.files import write_json
from trialrun.store.run_state import Fields, read_status, states_of, status_of_running, write_status
from trialrun.store.runs_dir import run_paths


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(trialrun.store.run_state, "_WATCH_S", 0.1)
    monkeypatch.setattr(trialrun.store.run_state, "_POLL_S", 0.01)
    run = RunFolder.create(tmp_path, "small")
    run.write_job("name: small\n")
    return run


def lease(run, *, age_s=0.0, number=1, **fields):
    """A lease that another driver on another machine wrote, but for `fields`."""
    path = run.lease_dir / f"{number:06d}.json"
    about = {"host": "node7", "machine": "another", "pid": 4242, "started": "1"}
    write_json(path, {**about, "beat": 3, "released": False, **fields})
    then = time.time() - age_s
    os.utime(path, (then, then))


def here(started):
    return {"machine": machine_id(), "pid": os.getpid(), "started": started, "host": "here"}


def state(run, say=lambda text: None):
    [found] = states_of([run], say)
    return found.state


OWN = process_started(os.getpid())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (here(OWN), "running"),
        ({**here(OWN), "age_s": 3600}, "running"),  # stopped, perhaps, but alive
        (here("before this boot"), "dead"),
        ({"age_s": 5}, "running"),
        ({"age_s": 3600}, "dead"),
        ({"released": True}, "interrupted"),
        ({"age_s": 100}, "dead"),  # watched in vain
        ({"age_s": -3600}, "dead"),  # the same, by a clock that is ahead
    ],
)
def test_a_run_without_a_summary_is_what_its_lease_says(run, fields, expected):
    lease(run, **fields)
    assert state(run) == expected


def test_a_heartbeat_that_comes_while_it_is_watched_is_of_a_living_driver(run):
    lease(run, age_s=100)
    said = []

    def beat(text):
        said.append(text)
        lease(run, age_s=100, beat=4)

    assert state(run, beat) == "running"
    assert said == [f"watching {run.path} for up to 0.1 s, to see whether a driver lives"]


def test_a_driver_that_gives_the_lease_back_while_it_is_watched_has_not_died(run):
    lease(run, age_s=100)
    assert state(run, lambda text: lease(run, beat=4, released=True)) == "interrupted"


def test_a_run_with_a_summary_has_ended_unless_a_driver_goes_on_with_it(run):
    lease(run, released=True)
    write_json(run.summary_file, {"counts": {"trials": 2}})
    assert state(run) == "ended"
    lease(run, number=2)
    assert state(run) == "running"


def test_a_run_of_an_older_version_has_a_state_without_a_status(run):
    assert state(run) == "interrupted"
    write_json(run.summary_file, {})
    [found] = states_of([run])
    assert (found.state, found.status.content, found.holder) == ("ended", {}, None)


def test_what_an_error_ended_has_failed(run):
    write_status(run, {"state": "failed", "reason": "no space"})
    lease(run, released=True)
    [found] = states_of([run])
    assert (found.state, found.status.text("reason")) == ("failed", "no space")


def test_the_status_of_the_driver_before_is_not_taken_for_that_of_this_one(run):
    write_status(run, {"state": "running", "stage": "training"})
    lease(run)
    assert states_of([run])[0].status.content == {}
    assert status_of_running(run).content == {}
    lease(run, pid=os.getpid(), host=os.uname().nodename)
    assert status_of_running(run).text("stage") == "training"


@pytest.mark.parametrize(
    "content",
    [b"", b"[1, 2]", b"{", b"\xff\xfe", b'{"format": 2}', b"[" * 100_000, b'{"format": NaN}'],
)
def test_a_status_that_is_none_is_as_good_as_no_status(run, content):
    run.status_file.write_bytes(content)
    assert read_status(run).content == {}
    lease(run, released=True)
    (run.lease_dir / "000002.json").write_bytes(content)
    (run.lease_dir / "9x.json").write_bytes(b"{}")
    assert state(run) in ("running", "interrupted")


def test_nobody_waits_for_a_pipe_or_reads_a_huge_file(run):
    os.mkfifo(run.status_file)
    assert read_status(run).content == {}
    run.status_file.unlink()
    with run.status_file.open("wb") as file:
        file.truncate(1 << 33)
    assert read_status(run).content == {}


def test_fields_have_the_right_type_or_are_absent():
    fields = Fields({"a": "x\x1b[2J\a", "b": [1, {"c": 2}], "d": True, "e": 1e400, "f": -3})
    assert fields.text("a") == "x␛[2J␇"
    assert [part.number("c") for part in fields.parts("b")] == [2]
    assert (fields.number("d"), fields.number("e"), fields.count("f")) == (None, None, 0)
    assert (fields.text("b"), fields.part("a").content, fields.parts("d")) == ("", {}, [])


def test_a_status_says_who_wrote_it(run):
    write_status(run, {"state": "running"})
    content = json.loads(run.status_file.read_text())
    assert (content["format"], content["pid"]) == (1, os.getpid())
    assert content["host"] == os.uname().nodename


def test_runs_are_found_beneath_a_folder_each_once(tmp_path):
    runs = ["job/a", "job/slurm-1/shard-1", "job/slurm-1/merged"]
    for name in (*runs, "job/a/inner", "too/far/down/here"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "job.yaml").touch()
        (tmp_path / name / "lease").mkdir()
    (tmp_path / "job.yaml").touch()  # the user's own
    (tmp_path / "job" / "latest").symlink_to(tmp_path / "job" / "a")
    assert run_paths(tmp_path) == sorted(tmp_path / name for name in runs)
    assert run_paths(tmp_path / "job" / "a") == [tmp_path / "job" / "a"]
    assert run_paths(tmp_path / "nothing") == []
