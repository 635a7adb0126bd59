"""What `trialrun doctor` finds: one look at a time, by real means where they exist here."""

import errno
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.specifiers import SpecifierSet

from trialrun.cluster.sockets import Listening, listening_sockets
from trialrun.doctor.check import Check, worst
from trialrun.doctor.clock import ClockSpan, check_jump, check_offset, clock_offset
from trialrun.doctor.gpus import (
    Driver,
    Gpu,
    ask_driver,
    check_cuda,
    check_driver,
    check_given,
    check_ray_gpus,
    visible_gpus,
)
from trialrun.doctor.machine import (
    check_cpus,
    check_loopback,
    check_memory,
    check_shared_memory,
    check_temporary_folder,
)
from trialrun.doctor.ray_view import check_ports
from trialrun.doctor.report import NodeReport, compare_nodes
from trialrun.doctor.storage import MARK, check_storage, mount_of
from trialrun.doctor.tensorflow_view import TensorflowView, check_devices
from trialrun.doctor.token import check_token
from trialrun.doctor.versions import check_slurm, check_version, check_versions
from trialrun.host import Limits, read_limits
from trialrun.messages import bytes_text

NO_LIMITS = Limits(None, None)
SECRET = "5ec7e7" * 10


def assert_check(check: Check, status: str, *parts: str) -> None:
    """The status, and what is said of it; advice exactly where something is to be done."""
    assert check.status == status, check
    assert bool(check.advice) == (status != "ok"), check
    for part in parts:
        assert part in check.found + check.advice, check


def program(folder: Path, name: str, *lines: str) -> dict[str, str]:
    """An environment whose PATH begins with a stand-in for a program: a shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    file.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


# Versions ---------------------------------------------------------------------------------------


def test_what_is_installed_here_is_in_the_ranges_of_the_metadata():
    checks = check_versions()
    assert [check.name for check in checks] == [
        *("trialrun", "Python", "tensorflow", "keras", "ray", "other packages")
    ]
    assert worst(checks) == "ok"


def test_a_package_of_another_version_or_none_is_a_problem():
    assert_check(check_version("numpy", SpecifierSet(">=1,<2")), "problem", "trialrun needs >=1,<2")
    assert_check(check_version("no-such-package", SpecifierSet(">1")), "problem", "not installed")


def test_slurm_is_named_with_its_version_and_job(tmp_path):
    """A stand-in for srun: its version is all that is asked."""
    environment = program(tmp_path, "srun", "echo slurm-wlm 22.05.8")
    assert_check(check_slurm(environment), "ok", "slurm-wlm 22.05.8; not inside a job")
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert_check(check_slurm(environment), "ok", "slurm-wlm 22.05.8; job 7 on n[1-2]")


def test_slurm_that_fails_or_is_hidden_from_its_job_is_a_warning(tmp_path):
    failing = program(tmp_path, "srun", "echo no configuration >&2", "exit 1")
    assert_check(check_slurm(failing), "warning", "srun --version fails: no configuration")
    hidden = {"PATH": str(tmp_path / "empty"), "SLURM_JOB_ID": "7"}
    assert_check(check_slurm(hidden), "warning", "srun is not on the PATH")
    assert_check(check_slurm({"PATH": str(tmp_path / "empty")}), "ok", "not on this machine")


# Machine ----------------------------------------------------------------------------------------


def test_limits_of_control_groups_of_version_2_are_read_up_to_the_root(tmp_path):
    group = tmp_path / "sys/fs/cgroup/job_7/step_0"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job_7/step_0\n")
    (group / "cpu.max").write_text("max 100000\n")
    (group / "memory.max").write_text("8589934592\n")
    (group.parent / "cpu.max").write_text("150000 100000\n")
    (group.parent / "memory.max").write_text("4294967296\n")
    assert read_limits(tmp_path) == Limits(1.5, 4 << 30)


def test_limits_of_control_groups_of_version_1_are_read(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/job_7\n3:cpu:/\n2:cpuset:/\n0::/\n")
    for name in ("cpu", "memory/job_7"):
        (tmp_path / "sys/fs/cgroup" / name).mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "sys/fs/cgroup/cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "sys/fs/cgroup/memory/job_7/memory.limit_in_bytes").write_text("1073741824\n")
    assert read_limits(tmp_path) == Limits(None, 1 << 30)


def test_limits_of_this_machine_can_be_read():
    limits = read_limits()
    assert limits.cpus is None or limits.cpus > 0
    assert limits.memory_bytes is None or limits.memory_bytes > 0


def test_ray_that_takes_more_cores_than_are_allowed_is_a_warning():
    assert_check(check_cpus({}, NO_LIMITS), "ok")
    quota = check_cpus({}, Limits(0.5, None))
    assert_check(quota, "warning", "the control group allows only 0.5", "--num-cpus=1")
    given = check_cpus({"SLURM_CPUS_ON_NODE": "3"}, NO_LIMITS, ray_cpus=64)
    usable = min(3, len(os.sched_getaffinity(0)))
    assert_check(given, "warning", "Ray takes 64 of", f"--num-cpus={usable}")
    assert_check(check_cpus({"SLURM_CPUS_ON_NODE": "3"}, NO_LIMITS, ray_cpus=1), "ok")


def test_ray_that_counts_on_more_memory_than_is_allowed_is_a_warning():
    assert_check(check_memory({}, NO_LIMITS, ray_bytes=1 << 20), "ok", "free")
    group = check_memory({}, Limits(None, 64 << 20))
    assert_check(group, "warning", "but 64.0 MiB is allowed here", "processes are killed")
    given = check_memory({"SLURM_MEM_PER_NODE": "512"}, NO_LIMITS, ray_bytes=1 << 30)
    assert_check(given, "warning", "Ray counts on 1.0 GiB, but 512.0 MiB is allowed here")
    each_core = {"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "2"}
    check = check_memory(each_core, NO_LIMITS, ray_bytes=1 << 30)
    assert_check(check, "warning", "but 200.0 MiB is allowed here")
    each_gpu = {"SLURM_MEM_PER_GPU": "300", "SLURM_GPUS_ON_NODE": "2"}
    check = check_memory(each_gpu, NO_LIMITS, ray_bytes=1 << 30)
    assert_check(check, "warning", "but 600.0 MiB is allowed here")
    assert_check(check_memory({"SLURM_MEM_PER_NODE": "0"}, NO_LIMITS, ray_bytes=1 << 20), "ok")


def test_little_shared_memory_is_a_warning_and_none_a_problem(small_disk, tmp_path):
    assert_check(check_shared_memory(small_disk), "warning", "1.0 MiB free", "--shm-size")
    assert_check(check_shared_memory(tmp_path / "none"), "problem", "cannot be used")


def test_a_temporary_folder_is_too_long_exactly_when_a_socket_there_is(tmp_path):
    """The limit is tried with a socket where Ray makes its longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for length, status in ((39, "ok"), (40, "warning")):
            folder = Path("/tmp") / ("x" * (length - len("/tmp/")))
            folder.mkdir()
            try:
                check = check_temporary_folder({"RAY_TMPDIR": str(folder)})
                deep = folder / "ray/session_2026-11-25_02-00-05_123456_1234567/sockets"
                deep.mkdir(parents=True)
                with socket.socket(socket.AF_UNIX) as listener:
                    if status == "ok":
                        listener.bind(str(deep / "plasma_store"))
                    else:
                        with pytest.raises(OSError, match="path too long"):
                            listener.bind(str(deep / "plasma_store"))
            finally:
                shutil.rmtree(folder)
            assert_check(check, status)
    assert_check(check, "warning", "RAY_TMPDIR has 40 bytes", "to at most 39 bytes")


def test_a_temporary_folder_that_is_missing_or_full_is_a_problem(tmp_path, small_disk):
    assert_check(check_temporary_folder({"TMPDIR": "/tmp/no/such"}), "problem", "No such file")
    (small_disk / "big").write_bytes(b"0" * (1_000_000))
    link = Path(f"/tmp/full{os.getpid()}")  # pytest's own folder is too long for Ray
    link.symlink_to(small_disk)
    try:
        check = check_temporary_folder({"TMPDIR": str(link)})
    finally:
        link.unlink()
    assert_check(check, "problem", "less than 5%")


def test_loopback_is_listened_at_and_an_address_of_others_is_not():
    assert_check(check_loopback(), "ok")
    assert_check(check_loopback("203.0.113.1"), "problem", "Cannot assign requested address")


def test_listening_sockets_of_a_process_are_found_and_loopback_is_told_apart():
    with socket.create_server(("127.0.0.1", 0)) as near, socket.create_server(("", 0)) as far:
        found = listening_sockets(lambda pid, line: pid == os.getpid())
        ports = {one.port: one for one in found}
        assert ports[near.getsockname()[1]].is_loopback
        assert ports[far.getsockname()[1]].address == "*"
        assert not ports[far.getsockname()[1]].is_loopback


# Token ------------------------------------------------------------------------------------------


def test_no_token_is_fine_unless_one_is_wanted(tmp_path):
    assert_check(check_token({}, tmp_path), "ok", "none")
    wanted = check_token({"RAY_AUTH_MODE": "token"}, tmp_path)
    assert_check(wanted, "problem", "RAY_AUTH_MODE is token, but there is none")


@pytest.mark.parametrize(("mode", "status"), [(0o600, "ok"), (0o400, "ok"), (0o644, "warning")])
def test_a_token_that_others_can_read_is_a_warning(tmp_path, mode, status):
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(SECRET)
    file.chmod(mode)
    for environment in ({}, {"RAY_AUTH_TOKEN_PATH": str(file)}):
        check = check_token(environment, tmp_path)
        assert_check(check, status, f"{mode:04o}")
        assert SECRET not in repr(check)
    if status == "warning":
        assert check.advice == f"chmod 600 {file}"


def test_a_token_file_that_is_missing_empty_or_a_folder_is_a_problem(tmp_path):
    named = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    assert_check(check_token(named, tmp_path), "problem", "No such file")
    (tmp_path / "token").touch(0o600)
    assert_check(check_token(named, tmp_path), "problem", "is empty")
    folder = {"RAY_AUTH_TOKEN_PATH": str(tmp_path)}
    assert_check(check_token(folder, tmp_path), "problem", "is not a file")


def test_a_token_in_the_environment_is_not_shown(tmp_path):
    check = check_token({"RAY_AUTH_TOKEN": SECRET}, tmp_path)
    assert_check(check, "ok", "in RAY_AUTH_TOKEN")
    assert SECRET not in repr(check)
    assert_check(check_token({"RAY_AUTH_TOKEN": " "}, tmp_path), "problem", "is empty")


# Runs -------------------------------------------------------------------------------------------

MOUNTS = r"""overlay / overlay rw,relatime,lowerdir=/a:/b 0 0
/dev/sda2 /var ext4 rw,relatime 0 0
filer:/export/home /home nfs4 rw,vers=4.2,proto=tcp,addr=10.0.0.9 0 0
10.0.0.1@o2ib:10.0.0.2@o2ib:/scratch /scratch lustre rw,flock,lazystatfs 0 0
filer:/old /mnt/my\040data nfs rw,vers=3 0 0
autofs /data autofs rw 0 0
tmpfs /data tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "described"),
    [
        ("/home/ada/runs", "NFS at /home"),
        ("/scratch/ada", "Lustre at /scratch"),
        ("/mnt/my data/runs", "NFS at /mnt/my data"),
        ("/var/runs", "ext4 (local) at /var"),
        ("/data", "tmpfs (in memory) at /data"),
        ("/homework", "overlay (local) at /"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, described):
    assert mount_of(Path(path), MOUNTS).describe() == described


def test_a_folder_on_the_machine_itself_works(tmp_path):
    checks = check_storage(tmp_path / "not" / "yet", {})
    assert [check.name for check in checks] == [
        *("runs folder", "room for runs", "safe writing", "hard links")
    ]
    assert {check.name for check in checks if check.status == "problem"} == set()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_a_problem(tmp_path):
    (tmp_path / "runs").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, what in (("runs", "runs"), ("runs/deeper", "runs"), ("loop", "loop")):
        [check] = check_storage(tmp_path / path, {})
        assert_check(check, "problem", f"{tmp_path / what} is not a folder")


@pytest.mark.parametrize(
    ("mounts", "environment", "status", "part"),
    [
        ("filer:/x / nfs4 rw 0 0", {"SLURM_JOB_ID": "7"}, "ok", "on NFS at /"),
        ("a@tcp:/x / lustre rw 0 0", {"SLURM_JOB_ID": "7"}, "ok", "on Lustre at /"),
        ("/dev/sda / xfs rw 0 0", {}, "ok", "on xfs (local) at /"),
        ("/dev/sda / xfs rw 0 0", {"SLURM_JOB_ID": "7"}, "warning", "other nodes may not"),
        ("none / tmpfs rw 0 0", {}, "warning", "lost when the machine stops"),
        ("overlay / overlay rw 0 0", {}, "warning", "removed with its container"),
    ],
)
def test_the_kind_of_file_system_is_told_by_proc_mounts(
    tmp_path, mounts, environment, status, part
):
    kind, *_ = check_storage(tmp_path, environment, mounts)
    assert_check(kind, status, str(tmp_path), part)


def test_a_node_that_sees_another_folder_than_who_asked_is_a_problem(tmp_path):
    (tmp_path / "mark").touch()
    same, *_ = check_storage(tmp_path, {MARK: str(tmp_path / "mark")}, "/dev/sda / xfs rw 0 0")
    assert_check(same, "ok", "shared with the node that asked")
    for mounts in ("filer:/x / nfs rw 0 0", "none / tmpfs rw 0 0"):
        other, *_ = check_storage(tmp_path, {MARK: str(tmp_path / "none")}, mounts)
        assert_check(other, "problem", "not the folder that the asking node sees", "--runs-dir")


def test_a_disk_without_room_is_a_warning_and_one_that_cannot_be_written_a_problem(small_disk):
    kind, room, writing, links = check_storage(small_disk, {})
    assert_check(kind, "warning", "tmpfs (in memory)")
    assert_check(room, "warning", "1.0 MiB free")
    assert_check(writing, "ok")
    assert_check(links, "ok")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    *_, writing = check_storage(small_disk, {})
    assert_check(writing, "problem", "Read-only file system", "--runs-dir")


def test_a_file_server_that_is_gone_is_a_problem_and_not_waited_for(tmp_path, monkeypatch):
    """A stand-in for one: `os.statvfs` waits as it does on a dead NFS mount."""
    is_over, real = threading.Event(), os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: is_over.wait() and real(path))
    monkeypatch.setattr("trialrun.doctor.storage._LIMIT_S", 0.2)
    try:
        [check] = check_storage(tmp_path, {})
    finally:
        is_over.set()
    assert_check(check, "problem", f"{tmp_path}: no answer within 0.2 s")


def test_what_the_file_system_says_is_told(tmp_path, monkeypatch):
    """A stand-in: `os.statvfs` fails as on an NFS mount whose export was taken away."""

    def stale(_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "statvfs", stale)
    [check] = check_storage(tmp_path, {})
    assert_check(check, "problem", f"{tmp_path}: Stale file handle")


def test_a_file_system_without_hard_links_is_a_problem(tmp_path, monkeypatch):
    """A stand-in for one: `os.link` refuses as FAT and some SMB servers do."""

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    *_, links = check_storage(tmp_path, {})
    assert_check(links, "problem", "Operation not permitted", "the lease")


# GPUs: there is none where the tests run; nvidia-smi and TensorFlow are told what to say ----------

A100 = Gpu("0", "GPU-aaaa1111-0000", "NVIDIA A100-SXM4-40GB", "550.54.15", 40960, 3)
H100 = Gpu("1", "GPU-bbbb2222-0000", "NVIDIA H100 80GB HBM3", "550.54.15", 81559, 70000)
TWO = Driver((A100, H100))


def test_gpus_are_those_that_nvidia_smi_names(tmp_path):
    environment = program(
        tmp_path,
        "nvidia-smi",
        'test "$1" = --query-gpu=index,uuid,name,driver_version,memory.total,memory.used || exit 9',
        'test "$2" = --format=csv,noheader,nounits || exit 9',
        "echo '0, GPU-aaaa1111-0000, NVIDIA A100-SXM4-40GB, 550.54.15, 40960, 3'",
        "echo '1, GPU-bbbb2222-0000, NVIDIA H100 80GB HBM3, 550.54.15, 81559, 70000'",
        "echo '2, GPU-cccc3333-0000, NVIDIA GB10, 550.54.15, [N/A], [N/A]'",
    )
    driver = ask_driver(environment)
    assert driver.gpus[:2] == (A100, H100)
    checks = check_driver(driver)
    assert_check(checks[0], "ok", "550.54.15, 3 GPUs")
    assert_check(checks[1], "ok", "A100-SXM4-40GB, 40960 MiB, 3 MiB in use")
    assert_check(checks[2], "warning", "70000 MiB in use", "others compute on it")
    assert_check(checks[3], "ok", "NVIDIA GB10")


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (
            [
                "echo NVIDIA-SMI has failed because it could not communicate.",
                "exit 9",
            ],
            "nvidia-smi says: NVIDIA-SMI has failed",
        ),
        (["echo Failed to initialize NVML: Driver/library version mismatch", "exit 18"], "NVML"),
        (["exit 3"], "exit code 3"),
        (["echo gibberish"], "nvidia-smi cannot be used"),
    ],
)
def test_a_driver_that_does_not_answer_well_is_a_problem(tmp_path, lines, part):
    [check] = check_driver(ask_driver(program(tmp_path, "nvidia-smi", *lines)))
    assert_check(check, "problem", part, "run nvidia-smi by hand")


def test_a_driver_that_hangs_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr("trialrun.doctor.gpus._TIMEOUT_S", 0.2)
    [check] = check_driver(ask_driver(program(tmp_path, "nvidia-smi", "exec sleep 60")))
    assert_check(check, "problem", "does not answer within 0.2 s")


def test_no_gpu_is_fine(tmp_path):
    none = {"PATH": str(tmp_path)}
    assert ask_driver(none) == Driver(())
    empty = program(tmp_path, "nvidia-smi", "echo No devices were found", "exit 6")
    assert ask_driver(empty) == Driver(())
    assert_check(check_driver(Driver(()))[0], "ok", "the CPU computes")


@pytest.mark.parametrize(
    ("text", "visible"),
    [(None, ("0", "1")), ("", ()), ("1", ("1",)), ("0,-1,1", ("0",)), ("NoDevFiles", ())],
)
def test_visible_gpus_are_read_as_cuda_reads_them(text, visible):
    environment = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    assert visible_gpus(environment, TWO.gpus) == visible


@pytest.mark.parametrize(
    ("environment", "status", "part"),
    [
        ({}, "ok", "2 visible of 2"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, "ok", "1 visible"),
        ({"CUDA_VISIBLE_DEVICES": "0,7"}, "problem", "the driver finds no GPU 7"),
        ({"SLURM_JOB_ID": "7"}, "problem", "SLURM gave 0, 2 visible"),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}, "ok", "SLURM gave 2, 2 visible"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "2-3"}, "ok", "SLURM gave 2, 2 visible"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_GPUS": "3"}, "problem", "GPUs of other users"),
        (
            {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "1"},
            "problem",
            "SLURM gave 2, 1 visible (CUDA_VISIBLE_DEVICES=1)",
        ),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": ""}, "ok", "SLURM gave 0, 0 visible"),
    ],
)
def test_visible_gpus_are_held_against_those_that_slurm_gave(environment, status, part):
    assert_check(check_given(environment, TWO.gpus), status, part)


def test_gpus_of_slurm_that_the_driver_does_not_know_are_a_problem():
    environment = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "0"}
    assert_check(check_given(environment, ()), "problem", "finds none on this node", "--exclude")


@pytest.mark.parametrize(
    ("ray_gpus", "environment", "gpus", "status", "part"),
    [
        (2, {}, TWO.gpus, "ok", "Ray counts on 2, 2 visible"),
        (0, {}, (), "ok", "none"),
        (2, {}, (), "warning", "there is none: packs would compute on the CPU"),
        (1, {}, TWO.gpus, "warning", "--num-gpus=2"),
        (4, {}, TWO.gpus, "problem", "--num-gpus=2"),
        (2, {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "1"}, TWO.gpus, "problem", "SLURM gave 1"),
        (1, {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "1"}, TWO.gpus, "ok", "SLURM gave 1"),
    ],
)
def test_gpus_of_ray_are_held_against_those_that_slurm_gave(
    ray_gpus, environment, gpus, status, part
):
    assert_check(check_ray_gpus(ray_gpus, environment, gpus, len(gpus)), status, part)


def test_a_driver_older_than_the_cuda_of_tensorflow_is_a_problem():
    assert_check(check_cuda(TWO, "12.5.1"), "ok", "550.54.15 is new enough")
    assert_check(check_cuda(TWO, "13.0.0"), "problem", "needs a driver from 580")
    assert_check(check_cuda(TWO, ""), "problem", "without CUDA", "trialrun[gpu]")


# TensorFlow -------------------------------------------------------------------------------------


def view_of(code: str) -> TensorflowView:
    """A program in the place of the one that asks TensorFlow."""
    return TensorflowView(os.environ, Driver(()), ("-c", code))


def test_a_crash_an_error_and_a_hang_of_tensorflow_are_problems():
    with view_of("import os; os.abort()") as view:
        assert_check(*view.checks(), "problem", "ended with signal 6")
    with view_of("raise ImportError('libcudart.so.12 is missing')") as view:
        assert_check(*view.checks(), "problem", "exit code 1: ImportError: libcudart.so.12")
    with view_of("import time; time.sleep(600)") as view:
        assert_check(*view.checks(limit_s=0.2), "problem", "no answer within 0.2 s")


def seen(**changes):
    """What TensorFlow says on a machine where one GPU works; a stand-in, there is none here."""
    right = {"seconds": 0.1, "is_right": True, "error": ""}
    return {
        "device": "GPU 0: NVIDIA A100-SXM4-40GB, 40960 MiB",
        "forced_growth": "",
        "cuda": "12.5.1",
        "memory_growth": {"/physical_device:GPU:0": True},
        "computes": {"/device:GPU:0": right},
    } | changes


NOISE = """I0000 00:00:1795572580.77 1 port.cc:153] oneDNN custom operations are on.
W0000 00:00:1795572580.83 1 gpu_device.cc:2342] Cannot dlopen some GPU libraries.
"""


@pytest.mark.parametrize(
    ("changes", "name", "status", "part"),
    [
        ({}, "TensorFlow's device", "ok", "A100"),
        ({}, "memory growth", "ok", "on"),
        ({}, "compute GPU:0", "ok", "right"),
        ({"memory_growth": {}}, "TensorFlow's device", "problem", "Cannot dlopen some GPU lib"),
        (
            {"memory_growth": {"/physical_device:GPU:0": False}},
            *("memory growth", "problem", "off on /physical_device:GPU:0"),
        ),
        ({"forced_growth": "false"}, "memory growth", "problem", "TF_FORCE_GPU_ALLOW_GROWTH"),
        (
            {"computes": {"/device:GPU:0": {"seconds": 0, "is_right": False, "error": ""}}},
            *("compute GPU:0", "problem", "wrong product"),
        ),
        (
            {"computes": {"/device:GPU:0": {"seconds": 0, "is_right": False, "error": "no ptxas"}}},
            *("compute GPU:0", "problem", "fails: no ptxas"),
        ),
    ],
)
def test_what_tensorflow_says_of_a_gpu_becomes_a_finding(changes, name, status, part):
    found = check_devices(seen(**changes), ["0"], Driver((A100,)), NOISE)
    assert_check({check.name: check for check in found}[name], status, part)


# Clock and nodes --------------------------------------------------------------------------------


def test_a_clock_that_jumps_is_a_warning():
    assert_check(check_jump(10.0, 10.1), "ok")
    assert_check(check_jump(10.0, 3610.0), "warning", "jumped by +3600.0 s")


@pytest.mark.parametrize(
    ("node", "offset_s"),
    [
        (ClockSpan(101, 109), 0),  # within question and answer
        (ClockSpan(95, 103), -5),  # it began to look before it was asked
        (ClockSpan(160, 168), 58),  # it ended after its answer came
    ],
)
def test_the_distance_of_clocks_is_what_question_and_answer_prove(node, offset_s):
    assert clock_offset(ClockSpan(100, 110), node) == offset_s
    assert_check(check_offset(offset_s), "ok" if not offset_s else "warning")


def node_report(name, ray="2.60.0", gpu="A100"):
    check = Check("clock", "ok", "no jump within 1.0 s")
    return NodeReport(name, (check,), {"ray": ray}, {"GPUs": gpu}, ClockSpan(50.0, 55.0))


def test_a_clock_that_is_apart_is_said_in_the_place_of_one_that_does_not_jump():
    report = node_report("n1").with_clock_compared(ClockSpan(100.0, 110.0))
    [check] = report.checks
    assert_check(check, "warning", "-50 s off the clock of the machine that asked")


def test_different_versions_are_a_problem_and_different_gpus_a_warning():
    same = compare_nodes([node_report("n1"), node_report("n2")])
    assert [check.status for check in same] == ["ok"]
    nodes = [node_report("n1"), node_report("n2", "2.60.1"), node_report("n3", gpu="H100")]
    versions, hardware = compare_nodes(nodes)
    assert_check(versions, "problem", "2.60.0 on n1, n3; 2.60.1 on n2")
    assert_check(hardware, "warning", "A100 on n1, n2; H100 on n3")


def test_a_report_comes_back_from_json_as_it_was():
    report = node_report("n1")
    assert NodeReport.from_plain_values(report.as_plain_values()) == report


@pytest.mark.parametrize(
    ("address", "is_open", "status", "part"),
    [
        ("*", False, "ok", "beyond loopback: gcs_server 6379; the head refuses"),
        ("127.0.0.1", False, "ok", "loopback only"),
        ("*", True, "warning", "anybody who reaches them can run programs"),
        ("127.0.0.1", True, "warning", "anybody with an account here can run programs"),
        ("*", None, "warning", "it is not known whether a token is required"),
    ],
)
def test_ports_beyond_loopback_are_named_with_what_protects_them(address, is_open, status, part):
    node = SimpleNamespace(listening=(Listening("gcs_server", address, 6379),))
    assert_check(check_ports(node, is_open), status, part)


def test_sizes_are_written_as_people_write_them():
    sizes = [0, 1023, 64 << 20, 3 << 29, 5 << 40]
    assert [bytes_text(size) for size in sizes] == [
        "0 bytes",
        "1023 bytes",
        "64.0 MiB",
        "1.5 GiB",
        "5.0 TiB",
    ]


@pytest.mark.parametrize("power", [10, 20, 30, 40])
def test_a_size_just_below_a_unit_is_written_in_that_unit(power):
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    unit = 1 << power
    assert bytes_text(unit) == f"1.0 {units[power // 10]}"
    if power > 10:
        assert bytes_text(unit - 1) == f"1.0 {units[power // 10]}"
        assert bytes_text(unit - unit / 1024 / 10) == f"1023.9 {units[power // 10 - 1]}"
    assert bytes_text(unit * 1.5) == f"1.5 {units[power // 10]}"
    for size in range(unit - (unit >> 9), unit + (unit >> 9), max(1, unit >> 14)):
        assert float(bytes_text(size).split()[0]) < 1024
    assert bytes_text(1023.6) == "1.0 KiB"
