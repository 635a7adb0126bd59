"""Settings of TensorFlow that must be made before it is imported, and what tests may not leave."""

import os
import sys

import pytest

pytest.register_assert_rewrite("durable_runs")

# As trialrun's own workers do: quiet, and one thread per program, so that slices share the cores.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")


# These wait longest, for a real Ray or SLURM: with several processes (scripts/test) they begin first.
SLOWEST = ("test_slurm", "test_run", "test_ray_jobs", "test_fault_matrix", "test_doctor_command")
SLOWEST += ("test_durability", "test_embedded_ray", "test_shards", "test_gpu_pinning")


def pytest_collection_modifyitems(items):
    ranks = {name: rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(autouse=True, scope="module")
def own_import_path():
    """A job's folder that a test or a fixture puts on the import path is gone for the next file."""
    before = list(sys.path)
    yield
    sys.path[:] = before
