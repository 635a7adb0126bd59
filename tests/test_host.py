"""What this machine lets a process use."""

import gc
import os

import pytest

from trialrun.host import importing, num_local_cpus


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
