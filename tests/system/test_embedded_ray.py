"""Embedded Ray: who can reach it, what it leaves behind, and where it runs."""

import os
import pty
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from commands import Command
from durable_runs import JOB, PROGRAM, DurableRun
from strangers import WRONG, ask, assert_refused

from trialrun.cluster.sockets import listening_sockets

pytestmark = pytest.mark.cluster


def listening(command: Command) -> dict[int, str]:
    """Port -> address of every TCP socket on which a process of a command listens."""
    own = command.descendants()
    return {one.port: one.address for one in listening_sockets(lambda pid, line: pid in own)}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A run on embedded Ray, in the middle of its training."""
    run = DurableRun(tmp_path_factory.mktemp("embedded"))
    command = run.begin(MADE_UP_SECONDS_PER_EPOCH="60")
    command.wait_for(lambda: run.has_reached("before the first pack"))
    command.wait_for(lambda: any("ray::_train" in line for line in command.descendants().values()))
    # The driver, a worker, the head and a node (two).
    command.wait_for(lambda: len(listening(command)) >= 5)
    yield command
    command.process.kill()
    command.finish()
    command.survivors()


def test_nothing_listens_beyond_this_machine(embedded):
    addresses = listening(embedded)
    assert set(addresses.values()) <= {"127.0.0.1", "::1"}
    dispensable = ("dashboard.py", "dashboard/agent.py", "ray::DashboardAgent", "RuntimeEnvAgent")
    lines = embedded.descendants().values()
    assert not any(name in line for line in lines for name in dispensable)


@pytest.mark.parametrize("token", [None, WRONG])
def test_nothing_answers_without_the_token(embedded, token):
    assert_refused(ask("127.0.0.1", listening(embedded), token), agents=False)


def test_its_folder_is_for_its_user_alone_and_holds_no_token(embedded):
    [folder] = Path("/tmp").glob(f"trialrun-{embedded.process.pid}-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    environment = dict(
        entry.split(b"=", 1)
        for pid, line in embedded.descendants().items()
        if "raylet" in line
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if b"=" in entry
    )
    token = environment[b"RAY_AUTH_TOKEN"]
    assert len(token) == 64
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert files
    assert [path for path in files if token in path.read_bytes()] == []
    assert not (embedded.home / ".ray" / "auth_token").exists()


def test_two_runs_side_by_side_do_not_meet(embedded, tmp_path):
    run = DurableRun(tmp_path / "home")
    assert run.begin().finish().code == 0
    run.assert_whole()
    assert embedded.process.poll() is None
    assert any("ray::_train" in line for line in embedded.descendants().values())


def test_a_killed_driver_leaves_no_process_and_no_folder(embedded):
    """The last test of this run, as it ends it."""
    assert list(Path("/tmp").glob(f"trialrun-{embedded.process.pid}-*"))
    os.kill(embedded.process.pid, signal.SIGKILL)
    embedded.finish()
    assert embedded.survivors() == {}
    assert not list(Path("/tmp").glob(f"trialrun-{embedded.process.pid}-*"))


def test_a_terminal_that_closes_interrupts_in_good_order(tmp_path):
    """Its shell may send a second SIGHUP; the first one has had its effect by then."""
    run = DurableRun(tmp_path / "home")
    ours, its = pty.openpty()
    command = run.begin(MADE_UP_SECONDS_PER_EPOCH="1", terminal=its)
    os.close(its)
    command.wait_for(lambda: run.has_reached("while packs run"))
    os.close(ours)
    output = Path(f"/proc/{command.process.pid}/fd/1")
    log = run.folder / "run.log"

    def writes_nowhere():
        assert output.is_symlink(), f"it has ended: {log.read_text()}"
        return str(output.readlink()) == os.devnull

    command.wait_for(writes_nowhere)
    command.process.send_signal(signal.SIGHUP)
    assert command.finish().code == 75
    assert list((run.folder / "checkpoints").iterdir())
    assert command.survivors() == {}
    assert "ERROR" not in log.read_text()  # Ray lived on until the packs had stopped


def test_one_process_may_run_job_after_job(tmp_path):
    """Each with a Ray, and a token, of its own; also where another Ray's job runs it."""
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    tests = str(Path(PROGRAM).parent)
    program = (
        "import json, os, subprocess, sys, trialrun\n"
        "asks = {'runtime_env': {'env_vars': {'TOLD_BY_THE_JOB': '1'}}}\n"
        "os.environ['RAY_JOB_CONFIG_JSON_ENV_VAR'] = json.dumps(asks); before = dict(os.environ)\n"
        f"sys.path.insert(0, {tests!r}); import made_up_driver, ray\n"
        "made_up_driver.make_up(); ray.cloudpickle.register_pickle_by_value(made_up_driver)\n"
        f"runs = [trialrun.run({str(job)!r}, runs_dir={str(tmp_path)!r}) for _ in range(2)]\n"
        "assert len({run.folder.path for run in runs}) == 2 and dict(os.environ) == before\n"
        "for _ in range(100): subprocess.run(['true'], check=True)  # the guardian spares them\n"
    )
    (tmp_path / "program.py").write_text(program)
    command = Command(tmp_path / "home", program=(str(tmp_path / "program.py"),), is_warm=True)
    assert command.finish().code == 0


def test_it_runs_where_dev_shm_is_small(tmp_path):
    """As in a container: Docker gives 64 MiB."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("making a small /dev/shm takes root and unshare")
    small = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "
    probe = ["unshare", "--mount", "sh", "-c", small + "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small /dev/shm")
    run = DurableRun(tmp_path / "home", JOB)
    wrapper = ("unshare", "--mount", "sh", "-c", small + '"$0" "$@"')
    finished = run.begin(wrapper=wrapper).finish()
    assert finished.code == 0, finished
    run.assert_whole()
