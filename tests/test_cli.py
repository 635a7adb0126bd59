"""The command line without Ray: exit codes, messages, and what a plan says."""

import re
from pathlib import Path

import pytest
from commands import ROOT, Finished, call
from made_up_runs import finish, learning_rates, write_run

from trialrun.driver.interrupts import Interrupted
from trialrun.job import dump_job, load_job
from trialrun.store import RunFolder
from trialrun.store.lease import hold

REFERENCE_JOB = ROOT / "jobs" / "medical_trial.yaml"
SWEEP_JOB = ROOT / "jobs" / "medical_trial_sweep.yaml"

GENERATORS = """
import numpy as np


def _ages(num_rows, num_classes=2):
    return np.arange(num_rows, dtype=float)[:, None], np.arange(num_rows) % num_classes


def good(seed):
    return {"train": _ages(40), "test": _ages(10)}


def with_value(seed, value):
    return good(seed)


def with_nan(seed):
    x, y = _ages(40)
    x[7] = np.nan
    return {"train": (x, y), "test": _ages(10)}


def of_two_lengths(seed):
    return {"train": (_ages(40)[0], _ages(39)[1]), "test": _ages(10)}


def outside_the_classes(seed):
    return {"train": _ages(40), "test": _ages(10, 3), "class_names": ["no", "yes"]}


def raising(seed):
    raise RuntimeError("the file server is away")


def of_nothing(seed):
    return None
"""


@pytest.fixture
def job(tmp_path: Path):
    """Writes a job file of the given lines, beside a file of generators."""
    (tmp_path / "data.py").write_text(GENERATORS)

    def write(*lines: str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text("\n".join(("name: small", *lines)) + "\n")
        return path

    return write


def assert_refused(finished: Finished, *parts: str) -> None:
    """Exit code 2 and one message on standard error, which says all of `parts`."""
    assert finished.code == 2, finished
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\nError: ") == 0
    assert "Traceback" not in finished.stderr
    for part in parts:
        assert part in finished.stderr


# Wrong input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trainig: {epochs: 3}", "unknown key 'trainig'; did you mean 'training'?"),
        ("training: {epoch: 3}", "unknown key 'epoch' in training; did you mean 'epochs'?"),
        ("training: {epochs: many}", "training.epochs must be an integer, got 'many'"),
        ("training: {learning_rate: -1}", "training.learning_rate must be greater than 0, got -1"),
        ("training: {learning_rate: [1]}", "training.learning_rate must be a number, got [1]"),
        ("seeds: 0", "seeds must be at least 1"),
        ("seeds: [3, 4, 3]", "seeds must be distinct, got 3 twice"),
        ("search: {parameters: {training.learning_rate: {values: []}}}", "values"),
        ("search: {parameters: {training.learning_rates: {values: [1]}}}", "learning_rates"),
        ("search: {parameters: {training.learning_rate: {values: [0.1, -1]}}}", "got -1"),
        ("model: {builder: nets.py:build}", "nets.py; known: data.py"),
        ("model: {builder: data.py:build}", "model.builder: data.py has no function 'build'"),
        ("model: {builder: no_such_module:build}", "no_such_module"),
        ("model: {builder: trialrun.models:mpl}", "did you mean 'mlp'?"),
        ("data: {generator: data.py:god}", "data.generator: data.py has no function 'god'"),
        ("select: {metric: test_accuracy}", "select.metric must be a validation metric"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(job, tmp_path, command, line, message):
    path = job("# a comment", line)
    options = ["--runs-dir", tmp_path / "runs"] if command == "run" else []
    assert_refused(call(command, path, *options), f"{path}:3: ", message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ("with_nan", "train x holds NaN or infinity, first in row 7"),
        ("of_two_lengths", "train x has 40, train y has 39"),
        ("outside_the_classes", "test y must hold labels from 0 to 1"),
        ("raising", "it raised RuntimeError: the file server is away"),
        ("of_nothing", "expected a dict with 'train' and 'test', got a NoneType"),
    ],
)
def test_wrong_data_is_found_before_anything_is_started(job, tmp_path, generator, message):
    path = job(f"data: {{generator: 'data.py:{generator}'}}")
    finished = call("run", path, "--runs-dir", tmp_path / "runs")
    assert_refused(finished, "data.generator", f"data.py:{generator}", "(seed 0)", message)
    assert not (tmp_path / "runs").exists()


def test_every_wrong_field_of_a_file_is_in_the_one_message(job):
    path = job("seeds: 0", "training: {epochs: 0}")
    assert_refused(call("plan", path), f"{path}:2: seeds", f"{path}:3: training.epochs")


def test_a_missing_job_file_is_named(tmp_path):
    missing = tmp_path / "job.yaml"
    assert_refused(call("run", missing), f"{missing}: there is no such file")


def test_a_file_that_is_no_yaml_is_named_with_its_line(job):
    path = job("seeds: [1")
    assert_refused(call("plan", path), f"{path}:", "not YAML")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.epoch=3", ["--set training.epoch=3", "'epoch'", "did you mean 'epochs'?"]),
        ("training.epochs=three", ["--set training.epochs=three", "must be an integer"]),
        ("training.epochs", ["--set training.epochs"]),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(override, parts):
    assert_refused(call("plan", REFERENCE_JOB, "--set", override), *parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "jobs/medical_trial.yaml"], "No such command 'rnu'"),
        (["run"], "Missing argument 'JOB'"),
        (["plan", "a.yaml", "--sets", "seeds=2"], "No such option"),
        (["predict", "runs"], "Missing option '--input'"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_usage(arguments, message):
    finished = call(*arguments)
    assert finished.code == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Usage: ")
    assert message in finished.stderr


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["report"], ["predict"]])
def test_a_folder_that_is_no_run_is_refused(tmp_path, command):
    options = ["--input", tmp_path / "ages.csv"] if command == ["predict"] else []
    empty, missing = tmp_path / "empty", tmp_path / "missing"
    empty.mkdir()
    assert_refused(
        call(*command, empty, *options), f"{empty}: is not a run folder: it holds no job.yaml"
    )
    assert_refused(
        call(*command, missing, *options), f"{missing}: is not a run folder: it does not exist"
    )


DAMAGED_JOBS = {
    "torn": (b"name: a\nselect: {metric: [1", ":2: not YAML: expected ',' or ']'"),
    "a tab": (b"name: a\n\tb: c", ":2: not YAML: found character"),
    "bytes": (bytes(range(256)), ": not UTF-8 text (byte 128)"),
    "latin-1": ("name: gr\xf6\xdfe".encode("latin-1"), ": not UTF-8 text (byte 8)"),
    "a null byte": (b"name: \0", ": not YAML: unacceptable character #x0000: special characters"),
    "empty": (b"", ": the file is empty"),
    "a list": (b"- a\n", ": expected a mapping of keys to values, got ['a']"),
    "no name": (b"seeds: 3\n", ": name is missing"),
    "a list as name": (b"name: [1]\n", ":1: name must be text, got [1]"),
    "a list as section": (b"name: a\nselect: [1]\n", ":2: select must be a mapping, got [1]"),
    "no section": (b"name: a\nselect:\n", ":2: select must be a mapping, got nothing"),
    "resources": (b"name: a\nresources: 2\n", ":2: resources must be a mapping, got 2"),
    "a tag": (b"name: !!python/object:os.system a\n", ":1: the tag !!python/object:os.system is"),
    "a key twice": (b"name: a\nname: b\n", ":2: the key 'name' was already given at"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED_JOBS.values(), ids=DAMAGED_JOBS)
def test_a_damaged_job_of_a_run_is_one_message_in_every_command(tmp_path, content, message):
    run = finish(write_run(tmp_path, learning_rates(0.1, 0.2), [0, 1, 2]))
    run.job_file.write_bytes(content)
    rows = tmp_path / "ages.csv"
    rows.write_text("age\n70\n")
    told = set()
    for command, *options in (
        ["show", run.path],
        ["show", run.path, "--json"],
        ["show", run.path, "--csv"],
        ["compare", run.path, "v00", "v01"],
        ["report", run.path],
        ["predict", run.path, "--input", rows],
        ["resume", run.path],
        ["merge", run.path, "--run-folder", tmp_path / "merged"],
    ):
        finished = call(command, *options)
        assert_refused(finished, f"{run.job_file}{message}")
        assert len(finished.stderr.splitlines()) == 1
        told.add(finished.stderr)
    assert len(told) == 1


def test_the_folder_of_several_runs_is_answered_with_their_names(tmp_path):
    for name in ("20260101T000000Z-aaaaaa", "20260102T000000Z-bbbbbb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.yaml").write_text("name: small\n")
    assert_refused(call("show", tmp_path), "it holds 2 runs", "20260102T000000Z-bbbbbb")


def test_a_runs_dir_that_cannot_be_made_is_refused_before_ray_starts(job, tmp_path):
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    path = job("data: {generator: 'data.py:good'}")
    assert_refused(call("run", path, "--runs-dir", occupied), str(occupied), "--runs-dir")


# The plan ---------------------------------------------------------------------------------------


def test_a_plan_names_variants_trials_packs_engine_and_memory():
    finished = call("plan", REFERENCE_JOB)
    assert (finished.code, finished.stderr) == (0, "")
    words = re.sub(r"\s+", " ", finished.stdout)
    for part in (
        "v00 0.0001",
        "v02 0.001",
        "3 variants x 20 seeds = 60 trials of 30 epochs; packs: 1, signatures: 1",
        "Engine fused",
        "Data memory",
        "p000",
        "training.learning_rate",
    ):
        assert part in words, finished.stdout


def test_a_plan_shows_values_as_a_job_file_has_them(job):
    values = "search: {parameters: {data.args.value: {values: [null, '[/red]', [1, a]]}}}"
    finished = call("plan", job(f"data: {{generator: 'data.py:with_value'}}\n{values}\nseeds: 1"))
    assert (finished.code, finished.stderr) == (0, "")
    words = re.sub(r"\s+", " ", finished.stdout)
    assert "v00 null v01 [/red] v02 [1, a]" in words
    assert "3 variants x 1 seed = 3 trials of" in words


def test_a_plan_counts_what_the_sweep_would_train():
    words = re.sub(r"\s+", " ", call("plan", SWEEP_JOB).stdout)
    assert "30 variants x 35 seeds = 1,050 trials" in words
    assert "signatures: 6" in words


def test_a_plan_follows_the_overrides():
    options = ["--set", "seeds=7", "--set", "training.epochs=2", "--set", "training.engine=keras"]
    words = re.sub(r"\s+", " ", call("plan", REFERENCE_JOB, *options).stdout)
    assert "3 variants x 7 seeds = 21 trials of 2 epochs" in words
    assert "Engine keras" in words


def test_a_plan_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("plan", REFERENCE_JOB).code == 0
    assert list(tmp_path.iterdir()) == []


# Width ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["predict", "--help"],
        ["plan", REFERENCE_JOB],
        ["plan", SWEEP_JOB],
        ["plan", SWEEP_JOB, "--set", f"model.args.activation={'x' * 200}"],
    ],
)
def test_no_line_is_wider_than_the_terminal(arguments):
    finished = call(*arguments)
    assert finished.code == 0, finished
    assert [line for line in finished.stdout.splitlines() if len(line) > 80] == []


def test_a_wide_search_still_fits_the_terminal(job):
    paths = [f"model.args.a_rather_long_name_{i}" for i in range(5)]
    search = ", ".join(f"{path}: {{values: [{'1' * 20}, 2]}}" for path in paths)
    # **kwargs: the builder takes any argument, so that none of these names is wrong.
    (job().parent / "nets.py").write_text("def build(**sizes): ...\n")
    path = job("model: {builder: 'nets.py:build'}", f"search: {{parameters: {{{search}}}}}")
    finished = call("plan", path)
    assert finished.code == 0, finished
    assert [line for line in finished.stdout.splitlines() if len(line) > 80] == []
    assert "32 variants x 5 seeds = 160 trials" in finished.stdout


def test_a_run_that_finished_no_trial_yet_is_shown(tmp_path):
    (tmp_path / "job.yaml").write_text("name: small\n")
    shown = call("show", tmp_path)
    assert (shown.code, shown.stderr) == (0, "")
    assert shown.stdout.strip()
    assert call("show", tmp_path, "--json").code == 0


def test_a_run_folder_that_takes_no_log_is_told_of(tmp_path):
    folder = RunFolder.create(tmp_path, "small")
    folder.write_job("name: small\n")
    folder.lease_dir.mkdir()
    folder.log_file.mkdir()  # what a file system without permission does to anyone but root
    finished = call("resume", folder.path)
    assert finished.code == 1
    assert f"Error: {folder.log_file}: cannot be written: Is a directory" in finished.stderr


# How runs end -----------------------------------------------------------------------------------


def test_a_wrong_time_is_refused_before_anything_is_read():
    finished = call("run", "no-such-job.yaml", "--max-time", "2x")
    assert finished.code == 2
    assert "'--max-time': must be a time in hours, minutes or seconds, such as 2h" in (
        finished.stderr
    )


def test_only_a_run_with_a_driver_can_be_stopped(tmp_path):
    run = write_run(tmp_path, learning_rates(1e-3), [0])
    message = f"Error: {run.path}: no driver is at work on this run"
    assert_refused(call("stop", run.path), message)
    assert_refused(call("stop", tmp_path), "is not a run folder")
    with hold(run.lease_dir):
        for _ in range(2):
            assert call("stop", run.path).stdout.endswith(") is asked to stop\n")


def test_a_run_at_work_is_refused_before_code_of_the_user_is_executed(job, tmp_path):
    run = RunFolder.create(tmp_path / "runs", "small")
    run.write_job(dump_job(load_job(job("data: {generator: 'data.py:raising'}")).spec))
    with hold(run.lease_dir):
        refused = call("resume", run.path)
    assert_refused(refused, f"{run.path}: a driver is at work on this run")
    assert_refused(call("resume", run.path), "the file server is away")


@pytest.mark.parametrize("code", [75, 130])
def test_what_ends_a_run_before_its_training_is_said_and_has_its_exit_code(
    job, tmp_path, monkeypatch, code
):
    """And how to go on: what is advised must not lead to the job that the folder held before."""

    def run_job(loaded, *, progress, run_folder, **_):
        if run_folder is None:
            run = RunFolder.create(tmp_path / "runs", "small")
            run.write_job(dump_job(loaded.spec))
            progress.course.run_folder = run.path
        raise Interrupted(code, "Interrupted after 1s, as --max-time says")

    monkeypatch.setattr("trialrun.driver.run.run_job", run_job)
    path = job("data: {generator: 'data.py:good'}")
    finished = call("run", path, "--max-time", "1s")
    assert finished.code == code
    assert "Interrupted after 1s, as --max-time says. Nothing was in training" in finished.stderr
    [folder] = (tmp_path / "runs").glob("*/*")
    resume = f"To continue: trialrun resume {folder}\n"
    assert finished.stderr.endswith(resume)
    assert call("resume", folder).stderr.endswith(resume)
    larger = call("run", path, "--resume", folder, "--set", "seeds=9")
    assert larger.stderr.endswith("To begin again, give the same command\n")
