"""When a SLURM job that was interrupted starts again, and when not; no SLURM is needed for that."""

import importlib.util
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from commands import ROOT
from made_up_runs import broken, learning_rates, write_run

from trialrun.trials.results import Checkpoint


@pytest.fixture(scope="module")
def check_progress():
    path = ROOT / "scripts" / "slurm" / "check_progress.py"
    spec = importlib.util.spec_from_file_location("check_progress", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def write_checkpoint(run, epoch):
    run.kept.write_checkpoint(
        Checkpoint("p009", ("0" * 16,), np.array([epoch]), {}, (), (), (np.zeros((1, 1)),))
    )


def test_a_job_ends_after_two_starts_that_added_nothing(tmp_path, check_progress, capsys):
    """The first starts did not even come to make the run folder."""
    folder = tmp_path / "slurm-7"
    assert check_progress(folder, "7") == 0
    assert capsys.readouterr().err == ""
    assert check_progress(folder, "7") == 1
    said = capsys.readouterr().err
    assert "the last 2 starts have ended no trial and left no later checkpoint in" in said
    assert "resources.grace_s, give more of it" in said
    assert check_progress(folder, "8") == 0  # another job for the same run


def test_a_trial_or_a_later_checkpoint_is_enough_to_go_on(tmp_path, check_progress):
    run = write_run(tmp_path, learning_rates(1e-3), [0])
    assert [check_progress(run.path, "7"), check_progress(run.path, "7")] == [0, 0]
    write_checkpoint(run, 3)
    assert [check_progress(run.path, "7"), check_progress(run.path, "7")] == [0, 0]
    write_checkpoint(run, 4)
    assert check_progress(run.path, "7") == 0
    write_checkpoint(run, 4)  # as a pack does that is stopped before its first epoch has ended
    assert [check_progress(run.path, "7"), check_progress(run.path, "7")] == [0, 1]


def test_a_failed_trial_that_fails_again_adds_nothing(tmp_path, check_progress):
    run = write_run(tmp_path, learning_rates(1e-3), [0], result_of=broken)
    assert [check_progress(run.path, "7"), check_progress(run.path, "7")] == [0, 1]


def test_what_is_damaged_is_left_to_the_driver(tmp_path, check_progress, capsys):
    run = write_run(tmp_path, learning_rates(1e-3), [0])
    (run.trials_dir / "part-p000.parquet").write_bytes(b"PAR1")
    assert check_progress(run.path, "7") == 0
    assert "Whether this job adds something is not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "before", "expected"),
    [
        (75, "", "requeue 7\n"),
        (1, "", ""),
        (1, "warned=yes", "requeue 7\n"),
        (75, "ended=yes", ""),
        (75, "idle=yes", ""),
        (75, "mkdir lease; touch lease/000001.stop", ""),
    ],
)
def test_the_script_requeues_what_was_interrupted_and_not_what_was_stopped(
    tmp_path, code, before, expected
):
    script = (ROOT / "scripts" / "slurm" / "trialrun.sbatch").read_text()
    [function] = re.findall(
        r"^requeue_if_interrupted\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE
    )
    around = (
        "set -euo pipefail; run=. ended= idle= warned= SLURM_JOB_ID=7 max_restarts=50\n"
        'preempted() { :; }; scontrol() { echo "$@"; }\n'
    )
    program = f"{around}{function}\n{before}\nrequeue_if_interrupted {code}"
    done = subprocess.run(
        ["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == expected
    assert ("not requeued" in done.stderr) == ("stop" in before)


# The batch script with stubs for SLURM, Ray and trialrun, which write down how they were called.
_STUB = """#!/bin/sh
env | grep -q ^PATH= || echo "no PATH" >>"{calls}"
echo "$(basename "$0") $*" >>"{calls}"
case "$(basename "$0") $*" in
  scontrol*hostnames*) echo n1 ;;
  scontrol*show*job*) echo PreemptTime=None ;;
  trialrun*) exit 75 ;;
  *check_progress.py*) exit {progress} ;;
esac
"""


class Started(NamedTuple):
    """What a start of the batch script gave: its exit code, the calls of programs, its output."""

    code: int
    calls: str
    said: str


@pytest.fixture
def start(tmp_path):
    """Starts the batch script as SLURM does, in a project of its own."""

    def start_script(*arguments: object, progress: int = 0, **environment: str) -> Started:
        calls, programs = tmp_path / "calls.txt", tmp_path / ".venv" / "bin"
        calls.write_text("")
        programs.mkdir(parents=True, exist_ok=True)
        for name in ("scontrol", "srun", "python", "ray", "trialrun"):
            (programs / name).write_text(_STUB.format(calls=calls, progress=progress))
            (programs / name).chmod(0o755)
        # As where SLURM exports nothing: bash has a PATH, and does not pass it on.
        (tmp_path / "path.sh").write_text(f"PATH={programs}:$PATH; export -n PATH\n")
        given = {
            "BASH_ENV": str(tmp_path / "path.sh"),
            "TRIALRUN_PROJECT": str(tmp_path),
            "SLURM_JOB_ID": str(10**9 + secrets.randbelow(10**9)),
            "SLURM_JOB_NODELIST": "n1",
            "SLURMD_NODENAME": "localhost",
            **environment,
        }
        script = ROOT / "scripts" / "slurm" / "trialrun.sbatch"
        done = subprocess.run(
            [shutil.which("bash"), script, *map(str, arguments)],
            env=given,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not list(Path("/tmp").glob(f"trialrun-{given['SLURM_JOB_ID']}-*"))
        called = calls.read_text().replace(given["SLURM_JOB_ID"], "7")
        return Started(done.returncode, called, done.stderr)

    return start_script


@pytest.mark.parametrize("is_array", [False, True])
def test_the_script_asks_at_a_restart_whether_to_go_on(tmp_path, start, check_progress, is_array):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    environment = array if is_array else {}
    run = tmp_path / "runs" / "job" / "slurm-7" / ("shard-1" if is_array else "")
    first = start("job.yaml", **environment)
    assert first.code == 75
    assert "check_progress" not in first.calls
    assert "no PATH" not in first.calls
    assert f"trialrun run job.yaml --run-folder {run}" in first.calls
    requeued = "scontrol requeue 7_1\n" if is_array else "scontrol requeue 7\n"
    assert first.calls.endswith(requeued)

    again = start("job.yaml", **environment, SLURM_RESTART_COUNT="1")
    assert "trialrun run job.yaml" in again.calls
    assert again.calls.endswith(requeued)
    asked, _, _ = again.calls.partition("\n")
    program, *arguments = asked.removeprefix("python ").split()
    assert (ROOT / Path(program).relative_to(tmp_path)).is_file()
    assert arguments == [str(run), "7"]
    assert check_progress(Path(arguments[0]), arguments[1]) == 0

    idle = start("job.yaml", progress=1, **environment, SLURM_RESTART_COUNT="2")
    assert idle[:2] == (75, again.calls.partition("\n")[0] + "\n")


@pytest.mark.parametrize(("first", "last", "count"), [(0, 1, 2), (3, 3, 1), (1, 7, 4)])
def test_an_array_whose_tasks_are_no_shards_trains_nothing(start, first, last, count):
    """`--array=0-1`, `--array=3` and `--array=1-7:2`."""
    numbers = {"ID": first, "MIN": first, "MAX": last, "COUNT": count}
    environment = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in numbers.items()}
    refused = start("job.yaml", SLURM_ARRAY_JOB_ID="7", **environment)
    assert refused.code == 2
    assert "Give --array=1-N, such as 1-8, for a shard of the trials per task." in refused.said
    assert f"{count} tasks, numbered from {first} to {last}." in refused.said
    assert "trialrun" not in refused.calls
