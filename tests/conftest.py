"""Settings of TensorFlow that must be made before it is imported, and what tests may not leave."""

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trialrun.training.compilation_cache.folder import VARIABLE, turn_on

pytest.register_assert_rewrite("durable_runs", "slurm_hosts", "slurm_jobs", "strangers")

# As trialrun's own workers do: quiet, and one thread per program, so that slices share the cores.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

# Models and graphs are hundreds of thousands of objects, and nearly all of them stay: with Python's
# own threshold, looking for garbage takes a twentieth of the time.
gc.set_threshold(50_000, 20, 50)

# What XLA compiles for one test is loaded by others, in all processes of this session, and nothing
# of the user's cache is used or changed.
_CACHE = "COMPILED_FOR_TESTS"
_IS_FIRST = _CACHE not in os.environ
if _IS_FIRST:
    os.environ[_CACHE] = tempfile.mkdtemp(prefix="trialrun-test-cache-")
os.environ[VARIABLE] = os.environ[_CACHE]
turn_on(os.environ)


def pytest_collection_finish():
    """TensorFlow's own rewriting of graphs (Grappler) is off in the tests' processes.

    XLA's programs do not pass through it. Plain Keras does, in each test anew, and gains nothing in
    a training of a few steps: an eighth of the time of the tests that train. Commands and workers
    that tests start have it, as users have.
    """
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def pytest_unconfigure():
    if _IS_FIRST:
        shutil.rmtree(os.environ[_CACHE], ignore_errors=True)


# What a file or a test needs that takes long.
MARKERS = {
    "slurm": "waits for a real SLURM",
    "cluster": "starts Rays, and whole runs on them",
    "tensorflow": "imports TensorFlow; most of them build, compile and train models",
    "browser": "opens a page in a real browser",
}
_LONG = "long"  # one of the other files that take half a minute or more


def pytest_addoption(parser):
    without = "without a cluster, SLURM, a browser and TensorFlow"
    parser.addoption("--quick", action="store_true", help=f"run the tests {without} only")


def pytest_configure(config):
    for name, need in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {need}; left out with --quick")
    config.addinivalue_line("markers", f"{_LONG}: takes half a minute, so that it begins early")


def pytest_ignore_collect(collection_path, config):
    """Of what is left out with --quick nothing is imported: TensorFlow alone takes seconds."""
    if config.option.quick and collection_path.name.startswith("test_"):
        _, _, marks = collection_path.read_text().partition("\npytestmark = ")
        return _are_left_out(re.findall(r"mark\.(\w+)", marks.partition("\n\n")[0])) or None
    return None


def _are_left_out(marks):
    return not MARKERS.keys().isdisjoint(marks)


def pytest_collection_modifyitems(config, items):
    """In several processes (scripts/test), the longest files begin first."""
    if config.option.quick:
        left_out = [
            item for item in items if _are_left_out(mark.name for mark in item.iter_markers())
        ]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    kinds = ("slurm", "cluster", _LONG, "tensorflow")

    def place(item):
        needs = {mark.name for mark in item.getparent(pytest.Module).own_markers}
        return next((number for number, kind in enumerate(kinds) if kind in needs), len(kinds))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files that wait for real programs and files that compute run beside each other.

    Three processes that wait keep one core busy by what they started. With fewer or more of them,
    a core is idle, now or in the end.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from mixed_files import MixedFiles

    return MixedFiles(config, log)


@pytest.fixture(autouse=True)
def no_tensorflow_in_quick_tests(pytestconfig):
    yield
    if pytestconfig.option.quick and "tensorflow" in sys.modules:
        pytest.exit("this test needs the mark `tensorflow`: it imports TensorFlow")


@pytest.fixture(autouse=True, scope="module")
def own_import_path():
    """A job's folder that a test or a fixture puts on the import path is gone for the next file."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="module")
def slurm_hosts(tmp_path_factory):
    """A real SLURM of two hosts, which see this checkout and this Python."""
    from commands import ROOT
    from slurm_hosts import SlurmHosts

    shared = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
    with SlurmHosts(tmp_path_factory.mktemp("slurm") / "hosts", shared) as hosts:
        yield hosts


@pytest.fixture
def slurm_user(slurm_hosts, tmp_path):
    """Somebody with a home on those hosts, and a job whose training is made up."""
    from slurm_jobs import User

    return User.with_home(slurm_hosts, tmp_path.name)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.getuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a file system needs root")
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not allowed in this container")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
