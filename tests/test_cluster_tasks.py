"""What Ray's errors are taken for."""

import pytest
from ray.exceptions import (
    NodeDiedError,
    ObjectStoreFullError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from trialrun.cluster.tasks import _diagnose
from trialrun.errors import InputError, ModelError, OutOfMemory


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
    found, cause = _diagnose(error)
    assert found == fault
    assert isinstance(cause, BaseException)
