"""What MLflow holds of a run, in a real SQLite store, is what the run folder's tables say."""

import contextlib
import json
import logging
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from commands import call
from durable_runs import DurableRun
from made_up_runs import broken, completed, finish, learning_rates, make_variants, write_run

from trialrun.job.keras_api.logs import natural_goal
from trialrun.report import build_report
from trialrun.store.files import write_text
from trialrun.trackers.mlflow import write_mlflow

# MLflow 3.17 builds its tables with an option that SQLAlchemy 2.1 is about to drop.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

SEEDS = (0, 3, 7)
VARIANTS = make_variants(
    [
        {"model.args.units": [16, 32], "training.learning_rate": 1e-3, "training.loss": "mse"},
        {"model.args.units": [32, 64], "training.learning_rate": 3e-4, "training.loss": "mae"},
        {"model.args.units": [64, 64], "training.learning_rate": 1e-4, "training.loss": "mae"},
    ]
)


def trained(variant, seed):
    """Unequal lengths; one trial diverged, and all of one variant failed."""
    if variant.variant_id == "v02":
        return broken(variant, seed, error="out of luck")
    whole = completed(variant, seed, epochs=3 + seed)
    if (variant.variant_id, seed) == ("v01", 3):
        history = {name: np.full(6, math.nan, np.float32) for name in whole.history}
        return replace(whole, status="diverged", history=history)
    return whole


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The file of a SQLite store; it takes MLflow two seconds to make its tables."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture(scope="module")
def uri(database):
    return f"sqlite:///{database}"


@pytest.fixture(scope="module")
def run(tmp_path_factory, uri):
    runs_dir = tmp_path_factory.mktemp("runs")
    folder = finish(write_run(runs_dir, VARIANTS, SEEDS, result_of=trained))
    build_report(folder)
    write_text(folder.best("medical_trial").readme, "how to load it")
    write_mlflow(folder, uri)
    return folder


@pytest.fixture(scope="module")
def client(run, uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(client, name):
    """The parents and the children of an experiment."""
    experiment = client.get_experiment_by_name(name)
    found = client.search_runs([experiment.experiment_id])
    parents = [one for one in found if "mlflow.parentRunId" not in one.data.tags]
    children = [one for one in found if "mlflow.parentRunId" in one.data.tags]
    return parents, sorted(children, key=lambda one: one.data.tags["trialrun.variant_id"])


def ids(found):
    return [one.info.run_id for part in found for one in part]


def set_output(folder, output):
    """Gives the job in a run folder a section `output`."""
    text = folder.job_file.read_text().partition("output:")[0]
    folder.job_file.write_text(f"{text}output: {json.dumps(output)}\n")


def select_by(run, metric):
    job = yaml.safe_load(run.job_file.read_text())
    job["select"] = {"metric": metric, "goal": natural_goal(metric)}
    run.job_file.write_text(yaml.safe_dump(job))
    finish(run)


def test_a_run_is_a_parent_and_its_variants_are_its_children(run, client):
    [parent], children = runs_of(client, "medical_trial")
    assert parent.info.run_name == run.path.name
    assert [child.info.run_name for child in children] == ["v00", "v01", "v02"]
    parents_of = {child.data.tags["mlflow.parentRunId"] for child in children}
    assert parents_of == {parent.info.run_id}
    statuses = [one.info.status for one in (parent, *children)]
    assert statuses == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]
    assert parent.info.end_time - parent.info.start_time == 14_250


def test_a_child_has_the_parameters_of_its_variant(client):
    _, children = runs_of(client, "medical_trial")
    for variant, child in zip(VARIANTS, children, strict=True):
        units = json.dumps(variant.parameters["model.args.units"])
        rate = json.dumps(variant.parameters["training.learning_rate"])
        of_text = {"model.args.units": units, "training.learning_rate": rate}
        assert child.data.params == {**variant.parameters, **of_text}


def test_the_metrics_of_a_child_are_the_numbers_of_variants_csv(run, client):
    _, children = runs_of(client, "medical_trial")
    variants = pd.read_csv(run.variants_file).set_index("variant_id")
    columns = [name for name in variants if name != "rank" and not name.startswith("param.")]
    for child in children:
        row = variants.loc[child.info.run_name, columns].dropna().astype(float).to_dict()
        metrics = {n: v for n, v in child.data.metrics.items() if not n.startswith("epoch/")}
        assert metrics == row
    assert {"val_loss_mean", "val_loss_sd", "test_accuracy_mean", "n"} <= set(columns)


def test_the_curves_of_a_child_are_the_means_of_history_over_completed_seeds(run, client):
    _, children = runs_of(client, "medical_trial")
    trials = run.read_trials("identity")
    completed_ids = trials.loc[trials["status"] == "completed", "trial_id"]
    history = run.read_history()
    history = history[history["trial_id"].isin(completed_ids)]
    for child in children[:2]:
        of_variant = history[history["variant_id"] == child.info.run_name]
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            curves = of_variant.pivot(index="epoch", columns="seed", values=name)
            expected = np.nanmean(curves.to_numpy(np.float64), axis=1)
            points = client.get_metric_history(child.info.run_id, f"epoch/{name}")
            points = sorted(points, key=lambda point: point.step)
            assert [point.step for point in points] == list(curves.index) == list(range(1, 11))
            np.testing.assert_allclose([point.value for point in points], expected, rtol=1e-12)
    assert not any(name.startswith("epoch/") for name in children[2].data.metrics)


def test_the_parent_has_the_job_the_counts_and_the_winner(run, client):
    [parent], _ = runs_of(client, "medical_trial")
    summary = run.read_summary()
    winner = pd.read_csv(run.variants_file).iloc[0]
    assert parent.data.params["select.metric"] == "val_loss"
    rate = summary["selection"]["parameters"]["training.learning_rate"]
    assert parent.data.params["winner.training.learning_rate"] == str(rate)
    assert parent.data.tags["trialrun.winner"] == winner["variant_id"]
    assert parent.data.tags["mlflow.note.content"] == summary["explanation"]
    for name in ("val_loss_mean", "val_loss_sd", "test_accuracy_mean"):
        assert parent.data.metrics[name] == winner[name]
    counts = {name: parent.data.metrics[f"num_{name}"] for name in summary["counts"]}
    assert counts == {"trials": 9, "completed": 5, "diverged": 1, "failed": 3, "variants": 3}


def test_the_report_the_figures_and_the_model_are_files_of_the_parent(run, client, database):
    [parent], _ = runs_of(client, "medical_trial")
    names = {one.path for one in client.list_artifacts(parent.info.run_id)}
    files = {"report.html", "job.yaml", "summary.json", "variants.csv"}
    assert names == files | {"figures", "best"}
    local = Path(client.download_artifacts(parent.info.run_id, "report.html"))
    assert local.read_bytes() == run.report_file.read_bytes()
    beside = (database.parent / "mlruns" / "medical_trial").as_uri()
    assert parent.info.artifact_uri.startswith(beside)
    for folder in ("figures", "best"):
        shown = {Path(one.path).name for one in client.list_artifacts(parent.info.run_id, folder)}
        assert shown == {path.name for path in (run.path / folder).iterdir()}


def test_written_again_nothing_is_doubled_and_files_are_new(run, client, uri):
    before = ids(runs_of(client, "medical_trial"))
    select_by(run, "val_accuracy")
    write_mlflow(run, uri)  # the job is another, and so is the parent
    changed = ids(runs_of(client, "medical_trial"))
    write_text(run.report_file, "<html>new</html>")
    set_output(run, {"mlflow": uri, "tensorboard": True})  # tells nothing of what was trained
    write_mlflow(run, uri)
    found = runs_of(client, "medical_trial")
    assert ids(found) == changed
    assert not set(before) & set(changed)
    assert [len(part) for part in found] == [1, 3]
    [parent], _ = found
    local = Path(client.download_artifacts(parent.info.run_id, "report.html"))
    assert local.read_text() == "<html>new</html>"
    points = client.get_metric_history(found[1][0].info.run_id, "val_loss_mean")
    assert len(points) == 1


def test_a_run_whose_logging_was_cut_off_is_logged_whole(run, client, uri, monkeypatch):
    from mlflow import MlflowClient

    select_by(run, "val_loss")
    real = MlflowClient.create_run
    made = []

    def cut_off(self, *arguments, **options):
        made.append(options["run_name"])
        if len(made) == 3:
            raise ConnectionError("the cable\nwas pulled")
        return real(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_run", cut_off)
        with pytest.raises(ConnectionError):
            write_mlflow(run, uri)
    assert [len(part) for part in runs_of(client, "medical_trial")] == [1, 1]
    write_mlflow(run, uri)
    assert [len(part) for part in runs_of(client, "medical_trial")] == [1, 3]


def test_a_run_folder_that_was_moved_is_the_same_run(run, client, uri, tmp_path):
    found = ids(runs_of(client, "medical_trial"))
    moved = tmp_path / run.path.name
    run.path.rename(moved)
    try:
        write_mlflow(replace(run, path=moved), uri)
    finally:
        moved.rename(run.path)
    assert ids(runs_of(client, "medical_trial")) == found


def test_two_runs_of_a_job_are_two_parents(tmp_path, client, uri):
    for _ in range(2):
        write_mlflow(finish(write_run(tmp_path, learning_rates(0.1), (0,), name="twice")), uri)
    parents, children = runs_of(client, "twice")
    assert (len(parents), len(children)) == (2, 2)


def test_many_metrics_and_parameters_go_in_calls_that_servers_take(
    tmp_path, client, uri, monkeypatch
):
    from mlflow import MlflowClient

    calls = []
    real = MlflowClient.log_batch

    def watch(self, run_id, metrics=(), params=(), tags=()):
        calls.append((len(metrics), len(params), len(metrics) + len(params) + len(tags)))
        return real(self, run_id, metrics=metrics, params=params, tags=tags)

    monkeypatch.setattr(MlflowClient, "log_batch", watch)
    parameters = {f"model.args.x{index}": "y" * 700 for index in range(130)}
    variants = make_variants([parameters])
    folder = finish(
        write_run(
            tmp_path, variants, (0,), result_of=lambda v, s: completed(v, s, epochs=700), name="big"
        )
    )
    write_mlflow(folder, uri)
    _, [child] = runs_of(client, "big")
    assert len(child.data.params) == 130
    assert set(child.data.params.values()) == {f"{'y' * 497}..."}
    assert len(client.get_metric_history(child.info.run_id, "epoch/val_loss")) == 700
    assert max(calls) <= (1000, 100, 1000)
    assert all(params <= 100 and entities <= 1000 for _, params, entities in calls)
    of_child = calls[-4:]
    assert sum(metrics for metrics, _, _ in of_child) >= 4 * 700
    assert len(calls) == 2 + 4  # the parent's parameters are more than a hundred too


def test_a_child_lacks_what_its_variant_does_not_have(tmp_path, client, uri):
    parameters = [{"model.args.depth": 1}, {"model.args.depth": 2, "model.args.units_2": 16}]
    folder = finish(write_run(tmp_path, make_variants(parameters), (0,), name="conditions"))
    write_mlflow(folder, uri)
    _, children = runs_of(client, "conditions")
    assert [one.data.params for one in children] == [
        {"model.args.depth": "1"},
        {"model.args.depth": "2", "model.args.units_2": "16"},
    ]


def test_of_many_variants_the_best_are_children_and_that_is_said(tmp_path, client, uri, caplog):
    def later_is_better(variant, seed):
        return completed(variant, seed, val_loss=1 / int(f"1{variant.variant_id[1:]}"))

    rates = learning_rates(0.1, 0.2, 0.3, 0.4)
    folder = finish(write_run(tmp_path, rates, (0, 1), result_of=later_is_better, name="many"))
    with caplog.at_level(logging.INFO, "trialrun"):
        write_mlflow(folder, uri, max_children=2)
    assert "MLflow gets the best 2 of 4 variants" in caplog.text
    _, children = runs_of(client, "many")
    assert [child.info.run_name for child in children] == ["v02", "v03"]
    history = folder.read_history()
    last = history[(history["variant_id"] == "v03") & (history["epoch"] == 4)]
    mean = last["val_loss"].astype(float).mean()
    assert children[1].data.metrics["epoch/val_loss"] == pytest.approx(mean, rel=1e-12)


def test_a_run_of_which_no_trial_completed_is_a_parent_that_failed(tmp_path, client, uri):
    folder = write_run(tmp_path, learning_rates(0.1, 0.2), (0, 1), result_of=broken, name="broken")
    write_mlflow(finish(folder), uri)
    [parent], children = runs_of(client, "broken")
    assert [one.info.status for one in (parent, *children)] == ["FAILED"] * 3
    assert parent.data.metrics["num_failed"] == 4
    assert children[0].data.metrics == {"n": 0, "diverged": 0, "failed": 2}


def test_the_settings_of_a_notebook_are_what_they_were(run, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    before = dict(os.environ)
    write_mlflow(run, uri)
    assert dict(os.environ) == before


# Commands ---------------------------------------------------------------------------------------


def test_a_report_logs_without_tensorflow_and_prints_the_report_alone(tmp_path, run, database):
    """To MLflow, and for TensorBoard."""
    folder = finish(write_run(tmp_path, learning_rates(0.1), (0,), name="reported"))
    shutil.copy(database, folder.path / "here.db")  # it takes MLflow two seconds to make its tables
    set_output(folder, {"mlflow": "sqlite:///here.db", "tensorboard": True})
    (folder.tensorboard_dir / "old").mkdir(parents=True)
    code = "import json, sys; from trialrun.cli import cli\n"
    code += f"report = ['report', {str(folder.path)!r}, '--trackers']\n"
    code += "assert cli(report, standalone_mode=False) is None\n"
    code += "from mlflow.telemetry import get_telemetry_client\n"
    code += "assert get_telemetry_client() is None\n"
    code += "assert not {'tensorflow', 'keras', 'ray'} & sys.modules.keys()"
    # What tells MLflow that it is in a test, and to send nothing for that reason alone.
    told = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "MLFLOW_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in told}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert (done.stdout, done.stderr) == (f"{folder.report_file}\n", "")
    assert has_experiment(folder.path / "here.db", "reported")
    assert not (folder.tensorboard_dir / "old").exists()
    assert (folder.tensorboard_dir / "v00" / "seed_0").exists()


def has_experiment(database, name):
    question = "SELECT count(*) FROM experiments WHERE name = ?"
    with contextlib.closing(sqlite3.connect(database)) as here:
        return here.execute(question, (name,)).fetchall() == [(1,)]


def closed_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_a_server_that_is_not_there_is_one_line_of_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = finish(write_run(tmp_path, learning_rates(0.1), (0,)))
    uri = f"http://127.0.0.1:{closed_port()}"
    set_output(folder, {"mlflow": uri, "tensorboard": True})
    finished = call("report", folder.path, "--trackers")
    assert finished.code == 1
    assert finished.stdout == f"{folder.report_file}\n"
    assert finished.stderr.startswith(f"Error: MLflow at {uri} could not be written: ")
    assert len(finished.stderr.splitlines()) == 1
    assert (folder.tensorboard_dir / "v00").exists()


@pytest.mark.cluster
def test_a_run_ends_as_it_would_and_can_be_shown_afterwards(tmp_path, run, database):
    """A server that is not there is a warning; resume with another place trains nothing."""
    durable = DurableRun(tmp_path / "home")
    job = durable.home / "job.yaml"
    uri = f"http://127.0.0.1:{closed_port()}"
    job.write_text(f"{job.read_text()}output: {{mlflow: '{uri}', tensorboard: true}}\n")
    ended = durable.begin(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0").finish()
    assert ended.code == 0, ended.stderr
    durable.assert_whole()
    [line] = [one for one in ended.stderr.splitlines() if "MLflow" in one]
    assert line.startswith(f"Warning: MLflow at {uri} could not be written: ")
    assert line.endswith(f"trialrun report {durable.folder} --trackers")
    assert len(list((durable.folder / "tensorboard").glob("*/seed_*"))) == 12
    log = (durable.folder / "run.log").read_text()
    assert "Traceback" in log

    before = {path: path.read_bytes() for path in durable.folder.glob("best/*")}
    summary = (durable.folder / "summary.json").read_text()
    shutil.copy(database, durable.home / "now.db")  # its tables are made already
    options = ["--resume", durable.folder, "--set", "output.mlflow=sqlite:///now.db"]
    resumed = durable.begin("127.0.0.1:1", options).finish()  # it needs no Ray
    assert resumed.code == 0, resumed.stderr
    assert "Warning" not in resumed.stderr
    assert has_experiment(durable.home / "now.db", durable.folder.parent.name)
    assert f"sqlite:///{durable.home}/now.db" in (durable.folder / "job.yaml").read_text()
    assert (durable.folder / "summary.json").read_text() == summary
    assert {path: path.read_bytes() for path in durable.folder.glob("best/*")} == before


def test_a_shard_is_not_logged(tmp_path):
    folder = finish(write_run(tmp_path, learning_rates(0.1), (0,)))
    job = folder.job_file.read_text()
    folder.job_file.write_text(f"{job}resources: {{shard: 1/2}}\n")
    set_output(folder, {"mlflow": f"sqlite:///{tmp_path}/none.db", "tensorboard": True})
    assert call("report", folder.path, "--trackers").code == 0
    assert not (tmp_path / "none.db").exists()
    assert not folder.tensorboard_dir.exists()
