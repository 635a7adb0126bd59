"""Where a run is shown beside its folder: what a job may say of it, and what it changes."""

from dataclasses import replace

import pytest
from commands import call
from made_up_runs import completed, finish, learning_rates, write_run

from trialrun.driver.resume import missing_trials, only_output_differs
from trialrun.job import dump_job, load_job
from trialrun.store import RunFolder
from trialrun.store.files import write_text
from trialrun.trials.plan import plan_trials
from trialrun.trials.results import PackResult


@pytest.mark.parametrize(
    ("extra", "value", "missing"),
    [
        ("tensorboard", "true", "tensorboard"),
        ("mlflow", "http://localhost:5000", "mlflow"),
        ("mlflow", "sqlite:///a.db", "mlflow and sqlalchemy and alembic"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_trained(
    tmp_path, monkeypatch, extra, value, missing
):
    job = tmp_path / "job.yaml"
    job.write_text(f"name: a\noutput:\n  {extra}: {value}\n")
    monkeypatch.setattr("trialrun.trackers.write_all.find_spec", lambda name: None)
    finished = call("run", job, "--runs-dir", tmp_path / "runs")
    assert finished.code == 2
    expected = f"Error: {job}:3: output.{extra} needs {missing}, not installed here: "
    assert finished.stderr == f"{expected}pip install 'trialrun[{extra}]'\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("{mlflow: here}", "3: output.mlflow must be the address of an MLflow server, such as"),
        ("{mlflow: 'file:///tmp/mlruns'}", "3: output.mlflow must be the address of"),
        ("{mlflow: 'sqlite:///'}", "3: output.mlflow must be the address of"),
        ("{mlflow: 'https://'}", "3: output.mlflow must be the address of"),
        ("{mlflow: 'http://me:secret@host'}", "3: output.mlflow must not hold a password"),
        ("{mlflow: 'ftp://me:secret@host'}", "got 'ftp://me:...@host'"),
        ("{mlflow: 5000}", "3: output.mlflow must be text, got 5000"),
        ("{tensorboard: here}", "3: output.tensorboard must be true or false, got 'here'"),
        ("{mlfow: null}", "3: unknown key 'mlfow' in output; did you mean 'mlflow'?"),
        ("yes please", "3: output must be a mapping"),
    ],
)
def test_a_wrong_output_is_refused(tmp_path, output, message):
    job = tmp_path / "job.yaml"
    job.write_text(f"name: a\nseeds: 2\noutput: {output}\n")
    finished = call("plan", job)
    assert finished.code == 2
    assert message in finished.stderr
    assert "secret" not in finished.stderr
    edited = finish(write_run(tmp_path / "runs", learning_rates(0.1), (0,)))
    edited.job_file.write_text(f"{edited.job_file.read_text()}output: {output}\n")
    finished = call("report", edited.path)
    assert finished.code == 2
    assert message.removeprefix("3: ") in finished.stderr


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("sqlite:///a.db", "sqlite:///{folder}/a.db"),
        ("sqlite:////data/a.db?timeout=9", "sqlite:////data/a.db?timeout=9"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("postgresql+psycopg2://me@host/runs", "postgresql+psycopg2://me@host/runs"),
    ],
)
def test_a_database_lies_beside_the_job_file(tmp_path, written, read):
    job = tmp_path / "job.yaml"
    job.write_text(f"name: a\noutput: {{mlflow: '{written}'}}\n")
    spec = load_job(job).spec
    assert spec.output.mlflow == read.format(folder=tmp_path)
    copy = tmp_path / "elsewhere" / "job.yaml"
    write_text(copy, dump_job(spec))
    assert load_job(copy).spec == spec


def test_where_a_run_is_shown_makes_no_other_trials_and_no_other_job(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("name: medical_trial\nseeds: 3\n")
    shown = ["output.tensorboard=true", "output.mlflow=http://localhost:5000"]
    before, after = load_job(job), load_job(job, shown)
    trials = plan_trials(before.spec)
    assert [t.trial_id for t in trials] == [t.trial_id for t in plan_trials(after.spec)]
    folder = RunFolder.create(tmp_path, "medical_trial")
    folder.write_job(dump_job(before.spec))
    result = replace(completed(*learning_rates(0.1), 0), trial=trials[0])
    folder.write_pack(PackResult("p000", (result,)), {})
    assert missing_trials(folder, after, trials) == list(trials[1:])
    assert only_output_differs(folder, after)
    assert not only_output_differs(folder, load_job(job, [*shown, "seeds=4"]))


def test_where_a_run_is_shown_cannot_be_searched(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("name: a\nsearch: {parameters: {output.tensorboard: {values: [true, false]}}}\n")
    finished = call("plan", job)
    assert finished.code == 2
    assert "'output.tensorboard' cannot be searched" in finished.stderr
