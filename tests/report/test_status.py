"""What `status`, `list` and `show` print of runs, also of those whose folder somebody else made."""

import io
import json
import os
import re
import shlex
import signal
import subprocess

import pytest
from commands import call
from made_up_runs import finish, learning_rates, write_run
from rich.console import Console

from trialrun.cli import console as plain_console
from trialrun.cli.on_end import OnEnd
from trialrun.host import machine_id, process_started
from trialrun.report.status import status_renderables, training_renderables
from trialrun.store import RunFolder
from trialrun.store.costs import Cost, write_costs
from trialrun.store.files import write_json
from trialrun.store.run_state import states_of, write_status

EVIL = "\x1b[2J\x1b]0;title\x07\r\u202e"
STATUS = {
    "state": "running",
    "job": "medical_trial",
    "stage": "training, round 2",
    "stage_s": 75.2,
    "elapsed_s": 190.0,
    "trials": {"done": 1_200, "total": 3_000, "completed": 1_190, "diverged": 10},
    "packs": {"done": 3, "running": 2, "waiting": 1, "retries": 1},
    "trials_per_s": 12.345,
    "left_s": {"expected_s": 146.0, "low_s": 130.0, "high_s": 170.0},
    "cost": {"device_s": 4_000.0, "lost_s": 75.0, "compile_s": 20.0},
    "best": {"metric": "val_loss", "goal": "minimize", "value": 0.23456},
    "running": [
        {
            **{"pack": "p003", "node": "node7", "device": "GPU 0", "engine": "fused", "attempt": 1},
            **{"trials": 512, "epoch": 12, "epochs": 30, "for_s": 61.0, "heard_s": 0.2},
        },
        {"pack": "p004", "node": "node8", "device": "GPU 1", "trials": 288, "epochs": 30},
    ],
    "variants": {
        "metric": "val_loss",
        "count": 2,
        "shown": [
            {
                **{"variant": "v01", "parameters": {"training.learning_rate": 0.01}},
                **{"trials": 20, "epoch": 12.5, "mean": 0.31},
            },
            {"variant": "v00", "parameters": {}, "trials": 20, "epoch": 11, "mean": None},
        ],
    },
}


def all_evil(value):
    """The same content with control characters in every text, keys of parameters too."""
    if isinstance(value, dict):
        return {f"{k}{EVIL}" if "." in k else k: all_evil(v) for k, v in value.items()}
    if isinstance(value, list):
        return [all_evil(item) for item in value]
    return f"{value}{EVIL}" if isinstance(value, str) else value


def hold(run, released=False):
    """This process holds the run."""
    about = {"host": os.uname().nodename, "machine": machine_id(), "pid": os.getpid(), "beat": 1}
    started = process_started(os.getpid())
    write_json(run.lease_dir / "000001.json", {**about, "started": started, "released": released})


@pytest.fixture
def run(tmp_path):
    """A run in training, of which some trials have ended."""
    run = write_run(tmp_path, learning_rates(0.1, 0.2), [0, 1, 2])
    write_status(run, STATUS)
    write_costs(run, {"v00": Cost(1_000), "v01": Cost(2_500, 75), "v02": Cost(500, 0, 20)})
    hold(run)
    return run


def printed(renderables, width):
    console = Console(width=width, record=True, file=io.StringIO())
    for renderable in renderables:
        console.print(renderable)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 200])
def test_a_running_run_is_told_at_any_width(run, width):
    [state] = states_of([run])
    text = printed(status_renderables(state, width=width), width)
    assert max(map(len, text.splitlines())) <= width
    words = re.sub(r"\s+", " ", text)
    for part in (
        "medical_trial running",
        f"process {os.getpid()} on {os.uname().nodename}, last sign 0 s ago",
        "training, round 2 (1:15; the command 3:10)",
        "1,200 of 3,000 have ended, 10 diverged",
        "3 have ended, 2 in training, 1 waiting, 1 tried again",
        "12.3 trials/s, 2:26 left (2:10 to 2:50)",
        "1:06:40 of devices, of which 1:15 in failed tries, 0:20 in compiling",
        "costliest v01 41:40, v00 16:40, v02 8:20",
        "val_loss 0.2346, of one trial after one of its epochs",
        "p003, try 2 node7 GPU 0 fused 512 12 of 30",
        "p004 node8 GPU 1 starting 288 0 of 30",
    ):
        assert part in words, text


def test_the_states_say_what_happened_and_what_to_do(run):
    hold(run, released=True)
    write_status(run, {**STATUS, "state": "interrupted", "reason": "Ray was lost"})
    text = call("status", run.path).stdout
    assert "medical_trial  interrupted" in text
    assert "2 in training then, 1 waited" in text
    assert "left" not in text
    assert "Ray was lost" in text
    assert f"trialrun resume {run.path}" in re.sub(r"\s", "", text).replace("resume", " resume ")
    write_status(run, {**STATUS, "state": "failed", "reason": "no space left"})
    assert "no space left" in call("status", run.path).stdout
    write_status(run, {**STATUS, "state": "failed", "reason": "no such backbone " * 20})
    assert len(call("list", run.path.parent).stdout.splitlines()) < 7
    write_json(run.summary_file, {})
    assert "medical_trial  ended" in call("status", run.path).stdout


def test_a_folder_of_runs_shows_the_most_recent_one(run, tmp_path):
    older = finish(write_run(tmp_path, learning_rates(0.1), [0, 1]))
    os.utime(older.job_file, (0, 0))
    as_json = json.loads(call("status", tmp_path, "--json").stdout)
    assert (as_json["folder"], as_json["state"]) == (str(run.path), "running")
    assert as_json["status"]["trials"]["done"] == 1_200
    listed = call("list", tmp_path).stdout
    assert re.search(rf"{run.path.name} +running .* training, round 2", listed)
    assert re.search(rf"{older.path.name} +ended .* v00, val_loss 0\.", listed)
    assert max(map(len, listed.splitlines())) <= 80
    older.summary_file.write_text("{torn")
    assert re.search(rf"{older.path.name} +ended .* summary", call("list", tmp_path).stdout)
    assert {one["state"] for one in json.loads(call("list", tmp_path, "--json").stdout)} == {
        "running",
        "ended",
    }


@pytest.mark.parametrize("command", ["status", "list"])
def test_a_folder_without_runs_is_refused(tmp_path, command):
    for folder, why in ((tmp_path, "it holds no job.yaml"), (tmp_path / "x", "it does not exist")):
        finished = call(command, folder)
        assert finished.code == 2
        assert finished.stderr == f"Error: {folder}: holds no run: {why}\n"


def test_the_job_file_of_a_user_is_no_run_and_hides_none(run, tmp_path):
    (tmp_path / "job.yaml").write_text("name: mine\n")
    assert json.loads(call("status", tmp_path, "--json").stdout)["folder"] == str(run.path)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "job.yaml").write_text("name: mine\n")
    finished = call("list", alone)
    assert finished.code == 2
    assert "its job.yaml is a job, of which no run is here" in finished.stderr


def test_watching_ends_with_the_run(run):
    hold(run, released=True)
    write_json(run.summary_file, {})
    watched = call("status", "--watch", run.path)
    assert watched.code == 0
    assert watched.stdout.count("medical_trial  ended") == 1
    assert watched.stdout.endswith("\n")
    assert call("status", "--watch", "--json", run.path).code == 2


def test_a_running_run_shows_its_variants_so_far(run):
    shown = call("show", run.path)
    assert shown.code == 0, shown
    words = re.sub(r"\s+", " ", shown.stdout)
    assert "6 trials: 6 completed This run has not ended" in words
    assert (
        "In training: 2 variants, each trial at its newest epoch, and so not its result." in words
    )
    assert "v01 0.01 20 12.5 0.31 v00 - 20 11 n/a" in words
    as_json = json.loads(call("show", run.path, "--json").stdout)
    assert as_json["in_training"]["shown"][0]["mean"] == 0.31
    hold(run, released=True)
    assert "In training" not in call("show", run.path).stdout


def test_nothing_that_others_wrote_controls_the_terminal(tmp_path):
    run = RunFolder(tmp_path / "job" / f"a{EVIL}")
    run.path.mkdir(parents=True)
    run.write_job("name: small\n")
    hold(run)
    write_json(run.status_file, {**all_evil(STATUS), "format": 1, "pid": os.getpid()})
    text = call("status", run.path).stdout + call("list", tmp_path).stdout
    content = json.loads(run.status_file.read_text()) | {"host": os.uname().nodename}
    write_json(run.status_file, content)
    for finished in (call("status", run.path), call("list", tmp_path), call("show", run.path)):
        assert finished.code == 0, finished
        text += finished.stdout + finished.stderr
    assert "p003␛[2J" in text
    assert "v01␛[2J" in text
    assert [c for c in text if not c.isprintable() and c != "\n"] == []


def test_a_path_stands_as_it_is_and_a_command_about_it_can_be_copied(run, tmp_path, capsys):
    odd = tmp_path / "of [old] [/x]" / "it's"
    odd.parent.mkdir(parents=True)
    run.path.rename(odd)
    hold(RunFolder(odd), released=True)
    command = f"trialrun resume {shlex.quote(str(odd))}"
    shown = call("status", odd).stdout
    assert re.sub(r"\s", "", command) in re.sub(r"\s", "", shown)
    plain_console.Console().print(str(odd), soft_wrap=True)
    assert capsys.readouterr().out == f"{odd}\n"


@pytest.mark.parametrize("wrong", [None, 3, "text", [1], {"shown": 3}, {"done": "many"}])
def test_values_of_any_type_are_no_error(run, wrong):
    content = json.loads(run.status_file.read_text())
    for key in STATUS:
        run.status_file.write_text(json.dumps({**content, key: wrong}))
        [state] = states_of([run])
        assert printed(status_renderables(state, width=80), 80)
        printed(training_renderables(run, width=80), 80)


# --on-end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "code", "state"), [("name: a\nseeds: 0\n", 2, "failed"), (None, 2, "failed")]
)
def test_the_command_at_the_end_is_told_also_of_wrong_input(tmp_path, job, code, state):
    path, told = tmp_path / "job.yaml", tmp_path / "told"
    if job is not None:
        path.write_text(job)
    finished = call(
        "run",
        path,
        "--on-end",
        f"env | grep -v ^TRIALRUN_CACHE_DIR | grep ^TRIALRUN_ | sort > {told}; exit 7",
    )
    assert finished.code == code
    assert (
        told.read_text()
        == f"TRIALRUN_EXIT_CODE={code}\nTRIALRUN_RUN_FOLDER=\nTRIALRUN_STATE={state}\n"
    )
    assert finished.stderr.splitlines()[-1].endswith(": exit code 7")


@pytest.mark.parametrize(("code", "state"), [(0, "ended"), (1, "failed"), (75, "interrupted")])
def test_the_command_at_the_end_is_told_how_it_ended(tmp_path, code, state):
    with pytest.raises(SystemExit), OnEnd() as on_end:  # noqa: PT012
        on_end.command = f"echo $TRIALRUN_STATE $TRIALRUN_EXIT_CODE > {tmp_path}/told"
        raise SystemExit(code)
    assert (tmp_path / "told").read_text() == f"{state} {code}\n"


def test_a_signal_ends_the_command_at_the_end_and_the_exit_code_stays(capfd):
    with pytest.raises(SystemExit, match="75"), OnEnd() as on_end:  # noqa: PT012
        on_end.command = "kill -TERM $PPID; exec sleep 600"
        raise SystemExit(75)
    assert "sleep 600': interrupted" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_command_starts_is_not_lost(number, monkeypatch, capfd):
    class Signalled(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Signalled)
    with pytest.raises(SystemExit, match="75"), OnEnd() as on_end:  # noqa: PT012
        on_end.command = "exec sleep 600"
        raise SystemExit(75)
    assert "sleep 600': interrupted" in capfd.readouterr().err
