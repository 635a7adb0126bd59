"""`ray job submit` on a real Ray of two nodes with a token: sent, refused, stopped, resumed."""

import os
import re
import runpy
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from commands import ROOT, Command, Finished, call
from durable_runs import JOB, PROGRAM, DurableRun
from ray_heads import RAY, TOKEN, RayHead, free_ports

import trialrun

pytestmark = pytest.mark.cluster

SUBMIT = str(ROOT / "scripts" / "submit_ray.py")
_DEADLINE_S = 120
_AT_ONCE_S = 15  # 10 s on a machine that does nothing else

# What stands for `trialrun` on the cluster: training is made up unless the job file is `real.yaml`.
# Ray gives a stopped job 3 s: `steady.yaml` can end in that time, `slow.yaml` cannot.
TRIALRUN = f"""#!/bin/sh
case "$2" in
  real.yaml) export MADE_UP_BUT_FOR_TRAINING=yes ;;
  steady.yaml) export MADE_UP_SECONDS_PER_EPOCH=1 ;;
  slow.yaml) export MADE_UP_SECONDS_PER_EPOCH=5 MADE_UP_EPOCHS_FILE="$HOME/epochs.txt" ;;
esac
exec {RAY.parent}/python {PROGRAM} "$HOME/driver.pid" "$@"
"""

REAL_JOB = """
name: real
data: {generator: "numbers_to_add.py:numbers", args: {num_rows: 60}}
model: {builder: "nets.py:build"}
training: {engine: keras, epochs: 2, batch_size: 20, loss: mse, metrics: [], optimizer: sgd}
seeds: 1
search: {parameters: {training.learning_rate: {values: [0.1, 0.01]}}}
resources: {max_trials_per_pack: 2}
"""
NUMBERS = """
import numpy as np


def numbers(seed, num_rows):
    rows = np.random.default_rng(seed).normal(size=(num_rows, 3)).astype("float32")
    sums = rows.sum(1, keepdims=True)
    return {"train": (rows, sums), "test": (rows[:20], sums[:20])}
"""
NETS = """
import keras
from widths import WIDTH


def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(WIDTH), keras.layers.Dense(1)])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """That of whoever started Ray."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def ray(home):
    """Two nodes with one core each, on whose PATH is trialrun."""
    program = home / "bin" / "trialrun"
    program.parent.mkdir()
    program.write_text(TRIALRUN)
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    with RayHead(2, environment={"HOME": str(home), "PATH": path}) as ray:
        yield ray


def submit(ray: RayHead, home: Path, *arguments: object, **environment: str) -> Command:
    """Begins scripts/submit_ray.py, with the token unless the environment says otherwise."""
    own = {"RAY_ADDRESS": ray.url, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN} | environment
    own = {name: value for name, value in own.items() if value}
    # While it is imported, trialrun sets the mode for whoever gives a token alone.
    gives_a_token_alone = "RAY_AUTH_TOKEN" in own and "RAY_AUTH_MODE" not in own
    is_warm = not gives_a_token_alone and "PYTHONPATH" not in environment
    return Command(home, *arguments, program=(SUBMIT,), environment=own, is_warm=is_warm)


def ray_command(ray: RayHead, home: Path, *arguments: object) -> Finished:
    """Runs a command of Ray's own."""
    own = {"RAY_ADDRESS": ray.url, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return Command(home, *arguments, program=(str(RAY),), environment=own, is_warm=True).finish()


def jobs(ray: RayHead) -> list[dict]:
    """What Ray knows of the jobs that were submitted, the last one first."""
    known = [job for job in ray.ask("/api/jobs/") if job["type"] == "SUBMISSION"]
    return sorted(known, key=lambda job: -job["start_time"])


def last_job(ray: RayHead) -> dict:
    return jobs(ray)[0]


def run_folder(finished: Finished) -> Path:
    """The run folder that the job's output names first."""
    [place, *_] = re.findall(r"^Run folder: (/.*) on (\S+)$", finished.stdout, re.MULTILINE)
    assert place[1] == os.uname().nodename
    return Path(place[0])


def nodes_of_packs(ray: RayHead) -> set[str]:
    """The nodes on which the last job trained."""
    tasks = ray.ask("/api/v0/tasks?limit=1000")["data"]["result"]["result"]
    own = [task for task in tasks if task["job_id"] == last_job(ray)["job_id"]]
    return {task["node_id"] for task in own if task["name"] == "_train"} - {None}  # not begun


def results(folder: Path) -> dict[str, bytes]:
    """The files of results in a run folder."""
    return {path.name: path.read_bytes() for path in (folder / "trials").glob("part-*")}


@pytest.fixture
def made_up(tmp_path):
    """A job whose training is made up, in `job/`; runs are to go to `runs/` beside it."""
    run = DurableRun(tmp_path / "home")
    (run.home / "job").mkdir()
    for name in ("made_up.yaml", "steady.yaml", "slow.yaml"):
        (run.home / "job" / name).write_text(JOB)
    return run


# Sent ---------------------------------------------------------------------------------------------


def test_a_job_with_its_own_files_is_trained_and_its_output_comes_back(ray, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "real.yaml").write_text(REAL_JOB)
    (folder / "numbers_to_add.py").write_text(NUMBERS)
    (folder / "nets.py").write_text(NETS)
    (folder / "widths.py").write_text("WIDTH = 4\n")
    finished = submit(ray, tmp_path / "home", folder / "real.yaml", RAY_AUTH_MODE="").finish()
    assert finished.code == 0, finished
    assert "Submitted raysubmit_" in finished.stderr
    assert "real  2 trials: 2 completed" in finished.stdout
    assert finished.stdout.index("Run folder: ") < finished.stdout.index("2 trials: ")
    assert "\r" not in finished.stdout
    assert "\x1b" not in finished.stdout

    place = run_folder(finished)
    assert place.parts[-3:-1] == ("trialrun-runs", "real")
    assert call("show", place).stdout in finished.stdout
    run = trialrun.open_run(place)
    assert set(run.trials["status"]) == {"completed"}
    assert len(run.trials) == 2

    assert (last_job(ray)["status"], last_job(ray)["driver_exit_code"]) == ("SUCCEEDED", 0)


def test_what_the_job_does_not_need_stays_here_and_no_run_goes_into_the_copy(ray, made_up):
    """Ray deletes the copy of the files. The exit status of what is wrong is that of trialrun."""
    folder = made_up.home / "job"
    (folder / "runs").mkdir()
    for name in ("runs/old.bin", "large.bin"):
        with (folder / name).open("wb") as file:
            file.truncate(101 << 20)
    job, large = folder / "made_up.yaml", "--set=model.depends_on=[large.bin]"
    finished = submit(ray, made_up.home, job, large).finish()
    assert finished.code == 2
    listed, refused = finished.stderr.split("Error: ")
    assert "large.bin" in listed
    assert "runs" not in listed.partition("\n")[2]
    assert "are too large to send" in refused
    assert len(refused.splitlines()) == 1

    (folder / "for_this_test_only.py").write_text("x = 1\n")
    needed = "--set=model.depends_on=[for_this_test_only.py]"
    finished = submit(ray, made_up.home, job, "--runs-dir", "here", needed).finish()
    assert finished.code == 2, finished
    assert (last_job(ray)["status"], last_job(ray)["driver_exit_code"]) == ("FAILED", 2)
    assert "lies in the copy of this Ray job's files, which Ray deletes; give" in finished.stdout
    assert list(ray.folder.glob("**/working_dir_files/*/here")) == []
    [copy] = ray.folder.glob("0/session_2*/**/for_this_test_only.py")
    names = {path.name for path in copy.parent.iterdir()}
    assert names == {"made_up.yaml", "for_this_test_only.py"}


@pytest.mark.parametrize(("code", "goes_on"), [(1, False), (2, False), (75, True), (-9, True)])
def test_the_exit_status_is_that_of_trialrun_and_says_whether_there_is_more(
    code, goes_on, capsys, monkeypatch
):
    """1 is that of failed trials."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    ended = SimpleNamespace(status="FAILED", driver_exit_code=code)
    explain = runpy.run_path(SUBMIT)["explain"]
    assert explain(ended, "Run folder: /runs/a on n1\n") == (code if code >= 0 else 137)
    assert ("run the same command with: --run-folder /runs/a" in capsys.readouterr().err) == goes_on


# Refused ------------------------------------------------------------------------------------------


NO_TOKEN = "RAY_AUTH_MODE is token, but there is none"
GIVE_TOKEN = "give this cluster's token: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, or"


@pytest.mark.parametrize(
    ("environment", "code", "expected"),
    [
        ({"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": ""}, 1, f"requires a token; {GIVE_TOKEN}"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, 1, f"refuses our token; {GIVE_TOKEN}"),
        ({"RAY_AUTH_TOKEN": ""}, 1, NO_TOKEN),
        ({"RAY_ADDRESS": "http://127.0.0.1:{free}"}, 1, "no job server answers at http://127"),
        ({"RAY_ADDRESS": "http://{head}"}, 1, "is not Ray's job server"),
        ({"RAY_ADDRESS": "http://127.0.0.1:{silent}"}, 1, "is not Ray's job server (ReadTimeout;"),
        ({"RAY_ADDRESS": ""}, 2, "must be the address of a job server, but it is not set"),
        ({"RAY_ADDRESS": "{head}"}, 2, "must be the address of a job server, got '127.0.0.1:"),
        (
            {"PYTHONPATH": "{broken}"},
            1,
            "a package for submitting jobs is missing; install it: pip install",
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(ray, tmp_path, environment, code, expected):
    (tmp_path / "aiohttp.py").write_text("raise ImportError('No module named aiohttp')\n")
    silent = socket.create_server(("127.0.0.1", 0))
    values = {"head": ray.address, "free": free_ports(1)[0], "broken": tmp_path}
    values["silent"] = silent.getsockname()[1]
    environment = {name: value.format(**values) for name, value in environment.items()}
    (tmp_path / "job.yaml").write_text(JOB)
    before = len(jobs(ray))
    began = time.monotonic()
    finished = submit(ray, tmp_path / "home", tmp_path / "job.yaml", **environment).finish()
    silent.close()
    assert time.monotonic() - began < _AT_ONCE_S
    assert finished.code == code
    assert expected in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert (finished.stdout, len(jobs(ray))) == ("", before)
    assert TOKEN not in finished.stderr


def test_the_script_sets_itself_up_and_passes_on_what_is_said(ray, tmp_path):
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("scripts/setup has not been run here: the script would download packages")
    done = subprocess.run(
        [ROOT / "scripts" / "submit_ray.sh", tmp_path / "no.yaml"],
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "no.yaml' does not exist" in done.stderr


# Stopped ------------------------------------------------------------------------------------------


def test_a_job_on_all_nodes_that_was_stopped_goes_on_where_it_was(ray, home, made_up):
    """By the plain command too, which does the same; and whoever only watched a job may leave."""
    folder = made_up.home / "job"
    command = submit(ray, made_up.home, folder / "steady.yaml", "--runs-dir", made_up.home / "runs")
    command.wait_for(lambda: made_up.has_reached("while results are written"))
    stop_last_job(ray)
    finished = command.finish()
    assert finished.code == 75, finished
    assert len(nodes_of_packs(ray)) == 2
    place = run_folder(finished)
    assert place == made_up.folder.resolve()
    assert f"To continue, run the same command with: --run-folder {place}\n" in finished.stderr
    before = results(place)
    assert 0 < len(before) < 6
    assert not (place / "summary.json").exists()

    # The driver does not end in time now, and Ray kills it. With another file beside the job, Ray
    # unpacks the folder at another path.
    (folder / "another.py").write_text("x = 1\n")
    options = ["--no-wait", "--working-dir", folder]
    command_line = ["trialrun", "run", "slow.yaml", "--run-folder", place]
    begun = ray_command(ray, made_up.home, "job", "submit", *options, "--", *command_line)
    assert begun.code == 0, begun
    wait_for(lambda: (home / "epochs.txt").exists() or last_job(ray)["status"] == "FAILED")
    assert (home / "epochs.txt").exists(), logs_of_last_job(ray)
    stop_last_job(ray)
    assert f"Run folder: {place} on " in logs_of_last_job(ray)
    assert before.items() <= results(place).items()
    assert not (place / "summary.json").exists()

    command = submit(ray, made_up.home, folder / "made_up.yaml", "--run-folder", place)
    command.wait_for((place / "lease" / "000003.json").exists)
    command.interrupt()
    finished = command.finish()
    assert finished.code == 130, finished
    assert "keeps running. Follow it: ray job logs --follow --address http" in finished.stderr
    wait_for(lambda: last_job(ray)["status"] != "RUNNING")
    assert last_job(ray)["status"] == "SUCCEEDED"
    made_up.assert_whole()
    assert before.items() <= results(place).items()
    log = (place / "run.log").read_text()
    assert "Traceback" not in log
    attempts = pd.concat(map(pd.read_parquet, (place / "trials").iterdir()))["attempt"]
    assert set(attempts) == {0}


def stop_last_job(ray: RayHead) -> None:
    """What `ray job stop` does, whose import takes long."""
    ray.ask(f"/api/jobs/{last_job(ray)['submission_id']}/stop", method="POST")
    wait_for(lambda: last_job(ray)["status"] == "STOPPED")


def logs_of_last_job(ray: RayHead) -> str:
    return str(ray.ask(f"/api/jobs/{last_job(ray)['submission_id']}/logs")["logs"])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
