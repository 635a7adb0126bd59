"""What Ray's errors are taken for, and what the driver does when a task says so."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import (
    NodeDiedError,
    ObjectStoreFullError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from test_fault_rules import task_of

from trialrun.cluster import tasks
from trialrun.cluster.diagnosis import diagnose
from trialrun.cluster.output import CaughtOutput, OutputPlace, new_name
from trialrun.cluster.worker import Started, WrongProcess
from trialrun.errors import InputError, ModelError, OutOfMemory
from trialrun.job import ResourcesSpec
from trialrun.trials.results import Output, PackStart


def raised(cause):
    return RayTaskError("train", "a traceback", cause)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (WorkerCrashedError(), "worker"),
        (TaskCancelledError(), "worker"),
        (NodeDiedError("the node of the task is gone"), "node"),
        (OutOfMemoryError("killed by the memory monitor"), "memory"),
        (ObjectStoreFullError("the store is full"), "memory"),
        (raised(ObjectStoreFullError("the store is full")), "memory"),
        (raised(OutOfMemory("GPU 0 is out of memory")), "memory"),
        (raised(MemoryError()), "memory"),
        (raised(ModelError("no such layer")), "model"),
        (raised(InputError("labels")), "error"),
        (raised(ZeroDivisionError()), "error"),
    ],
)
def test_a_fault_is_told_by_its_error(error, fault):
    found, cause = diagnose(error)
    assert found == fault
    assert isinstance(cause, BaseException)


class Told:
    """A listener that writes down what it is told."""

    def __init__(self):
        self.told, self.outputs = [], []

    def on_begin(self, pack, start):
        self.told.append(start)

    def on_leave(self, pack_id):
        self.told.append(f"{pack_id} leaves")

    def on_retry(self, pack_id, why):
        self.told.append(f"{pack_id}: {why}")

    def on_output(self, output):
        self.outputs.append(output.text)

    def should_stop(self):
        return False


@pytest.fixture
def run_of_none(monkeypatch):
    """A run without packs as yet; what it does to Ray is written down, for Ray is not there."""
    calls = []
    monkeypatch.setattr(tasks.ray, "cancel", lambda stream, force=False: calls.append(force))
    monkeypatch.setattr(tasks.ray, "get", lambda message: message)
    monkeypatch.setattr(tasks, "require_own_node", lambda error: None)
    monkeypatch.setattr(tasks, "stop_key", lambda pack_id: pack_id.encode())
    monkeypatch.setattr(
        tasks.internal_kv, "_internal_kv_del", lambda key: calls.append(key.decode())
    )
    cluster = SimpleNamespace(num_devices=1)
    run = tasks._Run([], cluster, ResourcesSpec(max_retries=2), Told(), None)
    return run, calls


def give(run, task, *messages, is_splitting=False, output_name=""):
    """Puts a task into Ray's hands whose stream says these messages, and listens to them."""

    def say():
        for message in messages:
            if isinstance(message, Exception):
                raise message
            yield message

    stream = say()
    run._running[stream] = tasks._Running(task, 0.0, node_id="n1", is_splitting=is_splitting)
    run._running[stream].output_name = output_name
    return [result for _ in messages for result in run._listen(stream)]


def waiting(run):
    return [(one.pack.pack_id, len(one.pack.trials), one.attempt) for one in run._waiting[::-1]]


def test_a_process_with_another_gpu_is_killed_and_its_pack_waits_untried(run_of_none):
    run, calls = run_of_none
    task = task_of(4)
    assert give(run, task, Started("n1", "node1", "GPU 0"), WrongProcess()) == []
    assert calls == [True]
    start = PackStart("p003", 4, task.last_epoch, 0, "node1", "GPU 0", 0, {"v00": 4})
    assert run._listener.told == [start, "p003 leaves"]
    assert run._waiting == [task]
    assert run._running == {}


def test_a_fault_of_a_pack_that_is_asked_to_halve_takes_the_request_back(run_of_none):
    """Its next try has the same name: it would stop at once, if the request stayed."""
    run, calls = run_of_none
    assert give(run, task_of(4), WorkerCrashedError(), is_splitting=True) == []
    assert calls == ["p003"]
    assert waiting(run) == [("p003", 4, 1)]


def test_a_fault_of_a_pack_that_is_not_asked_to_halve_takes_nothing_back(run_of_none):
    run, calls = run_of_none
    assert give(run, task_of(4), WorkerCrashedError()) == []
    assert calls == []
    assert waiting(run) == [("p003", 4, 1)]
    [why, leaves] = run._listener.told
    assert leaves == "p003 leaves"
    assert why.startswith("p003: WorkerCrashedError: ")
    assert why.endswith("; trying again")


def test_what_a_dead_process_wrote_is_read_with_rays_logs_about_it(run_of_none, tmp_path):
    run, _ = run_of_none
    file = tmp_path / "trialrun-p003-abcd.log"
    file.write_text("its last words\n")
    (tmp_path / "worker-ab-01-4711.err").write_text("Fatal Python error: Segmentation fault\n")
    (tmp_path / "worker-ab-01-14711.err").write_text("another process\n")
    place = OutputPlace(str(file), 4711)
    assert (
        give(
            run,
            task_of(4),
            Started("n1", "node1", "CPU", place),
            WorkerCrashedError(),
            output_name="x",
        )
        == []
    )
    [text] = run._listener.outputs
    assert text.startswith("its last words\n--- The end of Ray's worker-ab-01-4711.err ---\nFatal")
    assert "another process" not in text
    assert not file.exists()


def test_what_a_process_sent_is_not_read_again(run_of_none, tmp_path):
    run, _ = run_of_none
    place = OutputPlace(str(tmp_path / "trialrun-p003-abcd.log"), 4711)
    said = Output("p003", 0, "a traceback")
    give(
        run,
        task_of(4),
        Started("n1", "node1", "CPU", place),
        said,
        raised(ZeroDivisionError()),
        output_name="x",
    )
    assert run._listener.outputs == ["a traceback"]


def test_a_process_that_died_before_it_said_anything_is_found_by_its_name(run_of_none, tmp_path):
    run, _ = run_of_none
    name = new_name("p003")
    place = OutputPlace.of(name)
    Path(place.path).write_text("built, then killed\n")
    assert give(run, task_of(4), WorkerCrashedError(), output_name=name) == []
    assert run._listener.outputs[0].startswith("built, then killed")
    assert not Path(place.path).exists()
    assert give(run, task_of(2), WorkerCrashedError(), output_name=name) == []
    assert "died before it said" in run._listener.outputs[1]


def test_what_was_lost_with_its_node_is_said_to_be(run_of_none, tmp_path):
    run, _ = run_of_none
    place = OutputPlace(str(tmp_path / "trialrun-p003-abcd.log"), 4711)
    give(
        run,
        task_of(4),
        Started("n1", "node1", "CPU", place),
        NodeDiedError("the node is gone"),
        output_name="x",
    )
    assert run._listener.outputs == ["Its node was lost, and with it what the process wrote."]


def test_output_is_caught_below_python_and_bounded(capfd):
    with CaughtOutput(new_name("p003")) as output:
        os.write(1, b"from Python\n")
        os.write(2, b"from C++\n")
        assert output.text() == "from Python\nfrom C++\n"
        os.write(1, b"x" * (5 << 20))
        os.write(1, b"the end")
        output.trim()
        text = output.text()
        assert text.startswith("from Python\nfrom C++\nxxx")
        assert text.endswith("xxxthe end")
        assert "4.9 MiB are left out" in text
        assert Path(output.place.path).stat().st_size < 1 << 20
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "")
    assert not Path(output.place.path).exists()
