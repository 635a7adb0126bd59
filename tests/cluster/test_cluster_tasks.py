"""What Ray's errors are taken for, and what the driver does when a task says so."""

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
from trialrun.cluster.worker import Started, WrongProcess
from trialrun.errors import InputError, ModelError, OutOfMemory
from trialrun.job import ResourcesSpec


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


class Silent:
    """A listener that wants nothing."""

    def should_stop(self):
        return False

    def on_begin(self, pack):
        pass


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
    run = tasks._Run([], cluster, ResourcesSpec(max_retries=2), Silent(), None)
    return run, calls


def give(run, task, *messages, is_splitting=False):
    """Puts a task into Ray's hands whose stream says these messages, and listens to them."""

    def say():
        for message in messages:
            if isinstance(message, Exception):
                raise message
            yield message

    stream = say()
    run._running[stream] = tasks._Running(task, 0.0, node_id="n1", is_splitting=is_splitting)
    return [result for _ in messages for result in run._listen(stream)]


def waiting(run):
    return [(one.pack.pack_id, len(one.pack.trials), one.attempt) for one in run._waiting[::-1]]


def test_a_process_with_another_gpu_is_killed_and_its_pack_waits_untried(run_of_none):
    run, calls = run_of_none
    task = task_of(4)
    assert give(run, task, Started("n1"), WrongProcess()) == []
    assert calls == [True]
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
