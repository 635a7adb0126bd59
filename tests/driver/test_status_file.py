"""status.json and the file for Prometheus, which a driver writes while its run goes on."""

import io
import json
import time
from types import SimpleNamespace

import pytest
from made_up_runs import completed, learning_rates, trial_of
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

import trialrun.driver.status_file
from trialrun.driver.interrupts import Interrupted
from trialrun.driver.progress import ProgressLine
from trialrun.driver.prometheus import require_prometheus, write_metrics
from trialrun.driver.status_file import writing_status
from trialrun.errors import FileError, InputError, RunLost
from trialrun.job import OutputSpec, SelectSpec
from trialrun.store import RunFolder
from trialrun.trials.results import PackResult, PackStart

[VARIANT] = learning_rates(0.1)
TRIALS = [trial_of(VARIANT, seed) for seed in range(4)]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """What of the work on a run the status is made of: one of two packs has ended."""
    monkeypatch.setattr(trialrun.driver.status_file, "_EVERY_S", 0.01)
    progress = ProgressLine(Console(file=io.StringIO(), width=200))
    progress.start(TRIALS, SelectSpec(), num_packs=2)
    progress.course.start(PackStart("p001", 2, 30, 0, "node1", "CPU", 0, {"v00": 2}))
    progress.finish(PackResult("p000", tuple(completed(VARIANT, s, val_loss=0.5) for s in (0, 1))))
    spec = SimpleNamespace(name="small", output=OutputSpec(prometheus=str(tmp_path / "small.prom")))
    return SimpleNamespace(
        run=RunFolder.create(tmp_path, "small"),
        progress=progress,
        lease=SimpleNamespace(check=lambda: None),
        loaded=SimpleNamespace(spec=spec),
    )


def status_of(work):
    return json.loads(work.run.status_file.read_text())


def await_heartbeats(work, number):
    before = work.progress.tick
    heard = iter(range(number))
    came = trialrun.driver.status_file.threading.Event()

    def tick():
        before()
        if next(heard, None) is None:
            came.set()

    work.progress.tick = tick
    assert came.wait(60)


def test_it_is_written_again_and_again_and_at_the_end(work):
    with writing_status(work):
        await_heartbeats(work, 2)
        status = status_of(work)
        assert (status["state"], status["job"]) == ("running", "small")
        assert status["heartbeat"] >= 2
        assert [pack["pack"] for pack in status["running"]] == ["p001"]
    status = status_of(work)
    assert (status["state"], status["reason"], status["running"]) == ("ended", "", [])
    assert status["trials"] == {"done": 2, "total": 4, "completed": 2}


def test_an_interrupted_run_says_so(work):
    with writing_status(work) as ending:
        ending.interrupted = Interrupted(75, "Ray was lost")
    assert (status_of(work)["state"], status_of(work)["reason"]) == ("interrupted", "Ray was lost")
    with pytest.raises(KeyboardInterrupt), writing_status(work):
        raise KeyboardInterrupt
    assert status_of(work)["state"] == "interrupted"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileError("no space"), "no space"),
        (ZeroDivisionError("oh\x1b[1m"), "ZeroDivisionError: oh"),
    ],
)
def test_a_failed_run_says_why(work, error, reason):
    with pytest.raises(type(error)), writing_status(work):
        raise error
    assert (status_of(work)["state"], status_of(work)["reason"]) == ("failed", reason)


def test_a_full_disk_does_not_end_the_run_and_is_said_once(work, monkeypatch, caplog):
    def fail(*_):
        raise FileError("status.json: cannot be written: No space left on device")

    monkeypatch.setattr(trialrun.driver.status_file, "write_status", fail)
    with writing_status(work):
        await_heartbeats(work, 3)
    assert caplog.text.count("No space left on device") == 1


def test_what_another_driver_writes_is_not_replaced(work):
    def check():
        raise RunLost("another driver has taken over this run")

    work.lease.check = check
    work.run.status_file.write_text("another's")
    with writing_status(work):
        pass
    assert work.run.status_file.read_text() == "another's"


def test_prometheus_reads_what_is_written_for_it(work, tmp_path):
    with writing_status(work):
        pass
    metrics = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families((tmp_path / "small.prom").read_text())
        for sample in family.samples
    }
    about = (("job_name", "small"), ("run", work.run.path.name))
    assert metrics[("trialrun_running", *about)] == 0
    assert metrics[("trialrun_trials", *about, ("state", "done"))] == 2
    assert metrics[("trialrun_packs", *about, ("state", "done"))] == 1
    best = ("trialrun_best", about[0], ("metric", "val_loss"), about[1])
    assert metrics[best] == 0.5


def test_a_file_for_prometheus_that_cannot_be_is_refused_at_the_beginning(work, tmp_path):
    require_prometheus(None)
    require_prometheus(str(tmp_path / "small.prom"))
    with pytest.raises(InputError, match=r"there is no folder .*/away; make it"):
        require_prometheus(str(tmp_path / "away" / "small.prom"))
    content = {**work.progress.course.content(), "job": "small", "state": "running"}
    with pytest.raises(FileError, match="cannot be written: No such file or directory"):
        write_metrics(tmp_path / "away" / "small.prom", content, work.run.path)


def test_costs_are_written_again_soon_however_slow_the_disk_is(work, monkeypatch):
    """What was written last is all that is known of the costs of a driver that is killed."""
    written = []

    def write_slowly(run, costs, **_):
        time.sleep(0.05)  # ten seconds at the share of the time that writing may take
        written.append(costs)

    monkeypatch.setattr(trialrun.driver.status_file, "write_costs", write_slowly)
    with writing_status(work):
        await_heartbeats(work, 50)
        assert len(written) > 2
