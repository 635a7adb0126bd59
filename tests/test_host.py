"""What this machine lets a process use."""

import gc
import importlib
import os
import subprocess
import sys

import pytest

from trialrun.host import imported_late, importing, num_local_cpus, process_started


@pytest.mark.parametrize(
    ("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
)
def test_the_quota_of_a_control_group_counts(tmp_path, quota, expected):
    group = tmp_path / "sys" / "fs" / "cgroup" / "job"
    group.mkdir(parents=True)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/job\n")
    (group / "cpu.max").write_text(quota)
    assert num_local_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


def test_garbage_is_looked_for_again_after_an_import():
    frozen = gc.get_freeze_count()
    try:
        with importing("pytest"):
            assert gc.isenabled()
        assert gc.get_freeze_count() == frozen  # it was imported before
        with importing("no_module"):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_a_module_is_imported_late_by_the_library_and_at_once_by_others(tmp_path, monkeypatch):
    package = tmp_path / "late_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "heavy.py").write_text(
        "import late_package as p\np.times = 1 + getattr(p, 'times', 0)\n"
    )
    (package / "user.py").write_text("import late_package.heavy\nfrom late_package import heavy\n")
    monkeypatch.syspath_prepend(tmp_path)
    with imported_late("late_package.heavy"):
        user = importlib.import_module("late_package.user")
        assert not hasattr(user.late_package, "times")
        with pytest.raises(AttributeError, match="nothing"):
            _ = user.heavy.nothing
    assert user.late_package.times == 1
    assert user.late_package.heavy is sys.modules["late_package.heavy"] is not user.heavy
    assert user.heavy.p is user.late_package
    with imported_late("late_package.heavy"):
        assert importlib.import_module("late_package.heavy") is user.late_package.heavy
    assert user.late_package.times == 1


def test_a_process_that_has_ended_does_not_run_although_its_parent_has_not_asked():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process_started(process.pid).isdigit()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_started(process.pid) is None
