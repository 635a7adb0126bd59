"""Signals, poisonous trials, full disks and memory, with a real Ray and made-up training."""

import os
import re
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import call
from durable_runs import JOB, DurableRun
from made_up_driver import ENDS_EARLY, KILLS_ITS_WORKER, RAISES, TOO_LARGE
from made_up_export import MadeUpExport
from ray_nodes import RayNodes

import trialrun.cluster
import trialrun.driver.run
from trialrun import open_run
from trialrun.driver.interrupts import Interrupts

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def nodes():
    """As many nodes of one core as a test asks for."""
    with RayNodes(1) as nodes:
        yield nodes


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(KILLS_ITS_WORKER, "WorkerCrashed"), (RAISES, "ZeroDivisionError: the layer of patient 1")],
)
def test_a_poisonous_trial_is_reported_alone_and_its_neighbors_complete(
    tmp_path, nodes, trouble, error
):
    nodes.make_whole(1)
    job = JOB.replace("max_trials_per_pack: 2", "max_trials_per_pack: 8, max_retries: 0")
    job = job.replace("seeds: 6", "seeds: 2")
    job += f"data: {{args: {{num_test_older_with: {trouble}}}}}\n"
    run = DurableRun(tmp_path / "home", job)
    finished = run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish()
    assert finished.code == 1, finished
    trials = pd.concat(map(pd.read_parquet, (run.folder / "trials").iterdir()))
    assert len(trials) == 4
    failed = trials[trials["status"] == "failed"]
    assert sorted(failed["variant_id"]) == ["v00", "v01"]
    assert set(failed["seed"]) == {1}
    assert all(error in text for text in failed["error"])
    logs = {log.stem: log.read_text() for log in (run.folder / "logs").iterdir()}
    alone = [logs[pack_id] for pack_id in failed["pack_id"]]
    if trouble == RAISES:
        calls = "made_up_driver.py:"
        assert all(calls in text for text in failed["error"])
        assert all("Traceback (most recent call last)" in text for text in alone)
    else:
        assert all("--- The end of Ray's worker-" in text for text in alone)


def test_a_pack_that_does_not_fit_into_memory_is_halved_and_the_size_is_kept(tmp_path, nodes):
    nodes.make_whole(1)
    job = JOB.replace("max_trials_per_pack: 2", "max_trials_per_pack: 12")
    job += f"data: {{args: {{num_test_older_with: {TOO_LARGE}}}}}\n"
    run = DurableRun(tmp_path / "home", job)
    finished = run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish()
    assert finished.code == 0, finished
    run.assert_whole()
    sizes = [pq.read_table(part).num_rows for part in (run.folder / "trials").iterdir()]
    assert sorted(sizes) == [3, 3, 3, 3]
    assert "is out of memory" in (run.folder / "run.log").read_text()


def test_a_signal_leaves_checkpoints_and_a_run_that_is_finished_later(tmp_path, nodes):
    nodes.make_whole(1)
    run = DurableRun(tmp_path / "home", JOB.replace("checkpoint_every: 1, ", ""))
    start = run.begin
    for number, code in ((None, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130)):
        # The driver looks for a request to stop every 2 s; until then no pack may end.
        seconds = "2" if number is None else "1"
        command = start(nodes.address, MADE_UP_SECONDS_PER_EPOCH=seconds)
        command.wait_for(lambda: run.has_reached("while packs run"))
        if number is None:
            assert call("stop", run.folder).code == 0
        else:
            os.kill(command.process.pid, number)
        finished = command.finish()
        assert finished.code == code, finished
        assert f"Warning: the Ray at {nodes.address} answers clients that have" in finished.stderr
        assert re.search(r"Kept of trials in training: p\d+: epoch \d of 5", finished.stderr)
        assert f"To continue: trialrun resume {run.folder}" in finished.stderr
        assert list((run.folder / "checkpoints").iterdir())
        start = run.resume
        if code == 75:  # the next one is to leave checkpoints of its own
            shutil.rmtree(run.folder / "checkpoints")
    finished = run.resume(nodes.address).finish()
    assert finished.code == 0, finished
    run.assert_whole()


def test_a_second_signal_ends_it_at_once_and_leaves_nothing_running(tmp_path):
    """Embedded Ray: what the driver started ends with it."""
    run = DurableRun(tmp_path / "home")
    command = run.begin(MADE_UP_SECONDS_PER_EPOCH="30")
    command.wait_for(lambda: run.has_reached("before the first pack"))
    time.sleep(1)
    for _ in range(2):
        command.process.terminate()
        time.sleep(0.3)
    began = time.monotonic()
    assert command.finish().code == 75
    assert time.monotonic() - began < 5
    assert command.survivors() == {}
    assert not list(Path("/tmp").glob(f"trialrun-{command.process.pid}-*"))


@pytest.mark.parametrize("how", ["SIGTERM", "--max-time"])
def test_a_signal_while_ray_starts_is_answered_when_it_has_started(tmp_path, monkeypatch, how):
    """A made-up start: in the real one, an exception met the wrong moment once in many runs."""
    reached, asked, ask = [], threading.Event(), Interrupts.ask
    monkeypatch.setattr(Interrupts, "ask", lambda *args: (ask(*args), asked.set()))

    @contextmanager
    def connect(*_):
        if how == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            assert asked.wait(60)
        reached.append("the end of the start")
        yield
        reached.append("not this")

    monkeypatch.setattr(trialrun.cluster, "connect", connect)
    monkeypatch.setattr(trialrun.driver.run, "ExportProcess", MadeUpExport)
    (tmp_path / "job.yaml").write_text(JOB)
    options = ("--max-time", "1s") if how == "--max-time" else ()
    finished = call("run", tmp_path / "job.yaml", "--runs-dir", tmp_path, *options)
    assert finished.code == 75, finished
    why = "by SIGTERM" if how == "SIGTERM" else "after 1s, as --max-time says"
    assert f"Interrupted {why}. Kept: 0 trials with a result\nNot begun: 12 trials\n" in (
        finished.stderr
    )
    assert reached == ["the end of the start"]


def test_when_ray_dies_beneath_the_driver_no_trial_is_blamed(tmp_path, nodes):
    run = DurableRun(tmp_path / "home")
    command = run.begin(MADE_UP_SECONDS_PER_EPOCH="0.3")
    command.wait_for(lambda: run.has_reached("while packs run"))
    [raylet] = [pid for pid, line in command.descendants().items() if "/raylet/raylet" in line]
    os.kill(raylet, signal.SIGKILL)
    finished = command.finish()
    assert finished.code == 75, finished
    assert "Traceback" not in finished.stderr
    assert command.survivors() == {}
    assert [
        part
        for part in (run.folder / "trials").glob("*")
        if "failed" in str(pq.read_table(part)["status"].to_pylist())
    ] == []
    nodes.make_whole(1)
    finished = run.resume(nodes.address).finish()
    assert finished.code == 0, finished
    run.assert_whole()


def test_two_drivers_never_work_on_one_run(tmp_path, nodes):
    nodes.make_whole(1)
    run = DurableRun(tmp_path / "home")
    command = run.begin(nodes.address)
    command.wait_for(lambda: run.has_reached("while packs run"))
    refused = run.resume(nodes.address).finish()
    assert refused.code == 2
    assert f"a driver is at work on this run (process {command.process.pid} on " in refused.stderr
    assert command.finish().code == 0
    run.assert_whole()


def test_a_pack_that_gives_no_sign_of_life_is_tried_again(tmp_path, nodes):
    nodes.make_whole(1)
    job = JOB.replace("grace_s: 10", "stall_timeout_s: 2, max_retries: 0").replace("6", "1")
    run = DurableRun(tmp_path / "home", job)
    finished = run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="60").finish()
    assert finished.code == 1, finished
    trials = pd.concat(map(pd.read_parquet, (run.folder / "trials").iterdir()))
    assert set(trials["error"]) == {"no heartbeat for 2 s"}


def test_a_task_that_ends_without_a_result_is_tried_again(tmp_path, nodes):
    nodes.make_whole(1)
    job = JOB.replace("max_trials_per_pack: 2", "max_trials_per_pack: 12")
    job += f"data: {{args: {{num_test_older_with: {ENDS_EARLY}}}}}"
    run = DurableRun(tmp_path / "home", job)
    finished = run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish()
    assert finished.code == 0, finished
    run.assert_whole()
    assert set(open_run(run.folder).trials["attempt"]) == {1}


def test_a_best_trial_that_is_trained_again_may_lose_to_another_that_is_too(tmp_path, nodes):
    """Neither's arrays are kept any more, and the first is worse the second time."""
    nodes.make_whole(1)
    run = DurableRun(tmp_path / "home")
    assert run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish().code == 0
    (run.folder / "summary.json").unlink()
    shutil.rmtree(run.folder / "states")
    finished = run.resume(nodes.address, MADE_UP_MORE_LOSS="0.7").finish()
    assert finished.code == 0, finished
    trials = open_run(run.folder).trials
    assert len(trials) == 12
    again = trials[trials["pack_id"] > "p005"]
    assert {("v00", 5), ("v01", 5)} <= set(zip(again["variant_id"], again["seed"], strict=True))


def test_the_last_pack_is_halved_when_a_device_is_idle(tmp_path, nodes):
    """The halves go on from the checkpoint of the whole, on both nodes."""
    nodes.make_whole(2)
    job = JOB.replace("max_trials_per_pack: 2", "max_trials_per_pack: 12")
    run = DurableRun(tmp_path / "home", job)
    environment = {"MADE_UP_SECONDS_PER_EPOCH": "3", "MADE_UP_WORTH_SPLITTING_S": "1"}
    finished = run.begin(nodes.address, **environment).finish()
    assert finished.code == 0, finished
    run.assert_whole()
    parts = {part.stem: pq.read_table(part) for part in (run.folder / "trials").iterdir()}
    assert len(parts) > 1
    assert all(name.startswith(("part-p000a", "part-p000b")) for name in parts)
    assert {attempt for part in parts.values() for attempt in part["attempt"].to_pylist()} == {0}
    assert "halved, because devices are idle" in (run.folder / "run.log").read_text()


def test_halves_of_a_pack_are_gone_on_with_after_an_interrupt(tmp_path, nodes):
    nodes.make_whole(2)
    job = JOB.replace("max_trials_per_pack: 2", "max_trials_per_pack: 12")
    run = DurableRun(tmp_path / "home", job.replace("epochs: 5", "epochs: 9"))
    environment = {"MADE_UP_SECONDS_PER_EPOCH": "2", "MADE_UP_WORTH_SPLITTING_S": "1"}
    command = run.begin(nodes.address, **environment)
    command.wait_for(lambda: any((run.home / "runs").glob("*/*/checkpoints/p000a*")))
    command.terminate()
    assert command.finish().code == 75
    finished = run.resume(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.1").finish()
    assert finished.code == 0, finished
    trials = open_run(run.folder).trials
    assert len(trials) == 12
    assert set(trials["epochs"]) == {9}
    losses = 1 / (1 + trials["seed"]) + trials["param.training.learning_rate"] + 9 / 1000
    np.testing.assert_allclose(trials["val_loss"], losses, rtol=1e-12)


def test_a_node_that_joins_later_gets_packs(tmp_path, nodes):
    """A node has one core, and so one process that trains."""
    nodes.make_whole(1)
    run = DurableRun(tmp_path / "home")
    command = run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="1")
    command.wait_for(lambda: run.has_reached("while packs run"))
    nodes.make_whole(2)
    finished = command.finish()
    assert finished.code == 0, finished
    run.assert_whole()
    assert open_run(run.folder).trials["node"].nunique() == 2


def test_a_disk_that_is_full_loses_nothing(tmp_path, nodes):
    """No file may grow beyond a few kilobytes: checkpoints fit, parts do not.

    The last one: once a Ray has lost a driver of the warm Python, others wait at each pack.
    """
    nodes.make_whole(1)
    run = DurableRun(tmp_path / "home")
    finished = run.begin(nodes.address, MADE_UP_MAX_FILE_BYTES="3000").finish()
    assert finished.code == 1, finished
    assert re.search(r"part-p\d+.parquet: cannot be written: .*File too large", finished.stderr)
    assert f"trialrun resume {run.folder}" in finished.stderr
    assert "Traceback" not in finished.stderr
    finished = run.resume(nodes.address).finish()
    assert finished.code == 0, finished
    run.assert_whole()
