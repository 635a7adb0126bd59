"""A whole run through the command line, with a real Ray, real workers, real files: 12 trials."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import keras
import nbformat
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, Command, call
from durable_runs import PROGRAM
from nbclient import NotebookClient
from sklearn.preprocessing import MinMaxScaler
from whole_runs import FinishedRun, run_to_its_end

import trialrun
from trialrun.data.load import load_splits
from trialrun.job import load_job, settings_of
from trialrun.trials.plan import plan_trials

pytestmark = pytest.mark.cluster

REFERENCE_JOB = ROOT / "jobs" / "medical_trial.yaml"

# Runs the command line, and writes down what cannot be seen from outside.
_OBSERVED = """
import atexit, json, os, secrets, sys
from pathlib import Path

def make_token(num_bytes):
    tokens.append(make(num_bytes))
    return tokens[-1]

tokens, make = [], secrets.token_hex
secrets.token_hex = make_token

def note():
    heavy = sorted({"tensorflow", "keras"} & sys.modules.keys())
    seen = {"heavy": heavy, "token": max(tokens, key=len)}
    Path(os.environ["HOME"], "observed.json").write_text(json.dumps(seen))

atexit.register(note)
from trialrun.cli import main
main()
"""


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The reference job, shortened: three learning rates x four seeds, two epochs."""
    home = tmp_path_factory.mktemp("small")
    overrides = ["--set", "seeds=4", "--set", "training.epochs=2"]
    arguments = ["run", REFERENCE_JOB, *overrides, "--runs-dir", home / "runs"]
    program = home / "observed.py"
    program.write_text(_OBSERVED)
    return run_to_its_end(Command(home, *arguments, program=(str(program),), is_warm=True))


@pytest.fixture(scope="session")
def best_files(small_run: FinishedRun) -> dict[str, Path]:
    """The four model files by kind."""
    best = small_run.folder / "best"
    return {
        "h5": best / "medical_trial_model.h5",
        "json": best / "medical_trial_architecture.json",
        "weights": best / "medical_trial.weights.h5",
        "keras": best / "medical_trial_model.keras",
    }


@pytest.fixture(scope="session")
def best_splits(small_run: FinishedRun) -> Any:
    """The data of the best trial: its inputs as the model takes them, and raw."""
    best = small_run.api.best
    job = load_job(small_run.folder / "job.yaml")
    data = settings_of(job.spec, best.parameters).data
    raw = data.model_copy(update={"scaling": "none"})
    return load_splits(data, job.folder, best.seed), load_splits(raw, job.folder, best.seed)


def raw_test_ages(best_splits: Any) -> np.ndarray:
    return best_splits[1].x_test


# The run and its folder -------------------------------------------------------------------------


def test_a_run_ends_well_and_says_where_its_folder_is(small_run):
    finished = small_run.finished
    assert finished.code == 0, finished
    assert str(small_run.folder) in finished.stdout.replace("\n", "")
    assert "Traceback" not in finished.stderr


def test_without_a_terminal_standard_error_says_where_the_run_is_and_which_packs_ended(small_run):
    lines = small_run.finished.stderr.splitlines()
    assert lines[0] == f"Run folder: {small_run.folder}"
    assert lines[-1].startswith("p000 has ended: 12 completed. 12 of 12 trials, best val_loss 0.")
    stages = ("starting Ray (", "training (")  # a line a minute, where the machine is slow
    assert [line for line in lines[1:-1] if not line.startswith(stages)] == []
    assert "p000: fused" in (small_run.folder / "run.log").read_text()


def test_a_run_that_has_ended_has_a_status(small_run):
    status = json.loads((small_run.folder / "status.json").read_text())
    assert (status["state"], status["trials"]) == (
        "ended",
        {"done": 12, "total": 12, "completed": 12},
    )
    cost = json.loads((small_run.folder / "summary.json").read_text())["cost"]
    assert cost == status["cost"]
    assert 0 < cost["compile_s"] < cost["device_s"]
    assert cost["lost_s"] == 0
    of_variants = json.loads((small_run.folder / "costs.json").read_text())
    assert list(of_variants) == ["v00", "v01", "v02"]
    for name, seconds in cost.items():
        assert sum(one[name] for one in of_variants.values()) == pytest.approx(seconds, abs=1e-5)
    assert small_run.api.variants["device_s"].sum() == pytest.approx(cost["device_s"])
    best = small_run.api.trials["val_loss"].min()
    assert status["best"]["value"] == pytest.approx(best, rel=1e-6)
    shown = call("status", small_run.home / "runs")
    assert shown.code == 0, shown
    assert "12 of 12 have ended" in shown.stdout


def test_a_run_prints_the_leaderboard_and_the_pooled_confusion_matrix(small_run):
    out = small_run.finished.stdout
    for part in ("v00", "v01", "v02", "no_side_effects", "had_side_effects"):
        assert part in out
    lines = [line for line in out.splitlines() if "Run folder" not in line]
    assert [line for line in lines if len(line) > 80] == []


def test_a_run_leaves_every_file_of_the_contract_and_no_other(small_run):
    folder = small_run.folder
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {
        "job.yaml",
        "environment.json",
        "trials/part-p000.parquet",
        "history/part-p000.parquet",
        "variants.csv",
        "summary.json",
        "confusion_matrices.json",
        "report.html",
        "run.log",
        "status.json",
        "costs.json",
        "lease/000001.json",
        "states/part-p000.npz",
        "best/medical_trial_model.h5",
        "best/medical_trial_architecture.json",
        "best/medical_trial.weights.h5",
        "best/medical_trial_model.keras",
        "best/preprocessing.json",
        "best/builder.json",
        "best/README.md",
    }
    figures = {
        name for name in found if name.startswith("figures/") and name.endswith((".png", ".svg"))
    }
    assert figures
    assert found - figures == expected


def test_a_run_is_named_by_job_time_and_a_short_id(small_run):
    assert small_run.folder.parent == small_run.home / "runs" / "medical_trial"
    time, short_id = small_run.folder.name.split("-")
    assert pd.Timestamp(time) > pd.Timestamp("2025-01-01", tz="UTC")
    assert int(short_id, 16) >= 0


def test_the_trials_have_the_columns_of_the_contract_in_its_order(small_run):
    table = pd.concat(map(pd.read_parquet, (small_run.folder / "trials").glob("part-*.parquet")))
    assert list(table.columns) == [
        *("trial_id", "variant_id", "seed", "status", "engine", "pack_id", "attempt"),
        *("epochs", "duration_s", "device", "node", "error"),
        "param.training.learning_rate",
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("test_loss", "test_accuracy", "test_roc_auc", "test_average_precision"),
        *("test_calibration_error", "test_brier_score"),
        *("val_confusion_matrix", "test_confusion_matrix", "test_reliability"),
        *("data_fingerprint", "tensorflow_version", "keras_version", "numpy_version"),
        "trialrun_version",
    ]
    assert len(table) == 12
    assert set(table["status"]) == {"completed"}
    assert set(table["engine"]) == {"fused"}
    assert set(table["attempt"]) == {0}
    assert set(table["device"]) == {"CPU"}
    assert set(table["epochs"]) == {2}
    assert sorted(set(table["param.training.learning_rate"])) == [1e-4, 3e-4, 1e-3]
    assert table["trial_id"].is_unique


def test_the_history_has_a_row_per_trial_and_epoch_and_ends_in_the_trial_row(small_run):
    history = small_run.api.folder.read_history()
    trials = small_run.api.trials.set_index("trial_id")
    assert len(history) == 12 * 2
    last = history[history["epoch"] == 2].set_index("trial_id").loc[trials.index]
    for name, column in {"loss": "train_loss", "val_accuracy": "val_accuracy"}.items():
        np.testing.assert_allclose(last[name], trials[column], rtol=1e-6)


def test_accuracy_is_what_the_confusion_matrix_counts(small_run):
    trials = small_run.api.trials
    for part, num_rows in (("val", 210), ("test", 420)):
        matrices = np.stack(trials[f"{part}_confusion_matrix"]).reshape(-1, 2, 2)
        assert (matrices.sum((1, 2)) == num_rows).all()
        correct = matrices.trace(axis1=1, axis2=2)
        np.testing.assert_allclose(correct / num_rows, trials[f"{part}_accuracy"], atol=1e-6)


def test_the_variants_are_means_over_seeds_ranked_by_validation_loss(small_run):
    variants = small_run.api.variants
    by_variant = small_run.api.trials.groupby("variant_id")
    assert list(variants["rank"]) == [1, 2, 3]
    assert variants["val_loss_mean"].is_monotonic_increasing
    ids = list(variants["variant_id"])
    for metric in ("val_loss", "test_accuracy", "train_loss"):
        for statistic, ours in (("mean", "mean"), ("std", "sd"), ("min", "min"), ("max", "max")):
            expected = by_variant[metric].agg(statistic).loc[ids]
            np.testing.assert_allclose(variants[f"{metric}_{ours}"], expected, rtol=1e-9)


def test_the_best_model_is_the_winners_best_seed_on_validation(small_run):
    run = small_run.api
    winner = run.trials[run.trials["variant_id"] == run.variants["variant_id"][0]]
    expected = winner.loc[winner["val_loss"].idxmin()]
    best = run.best
    assert (best.trial_id, best.seed) == (expected["trial_id"], expected["seed"])
    assert best.parameters == {"training.learning_rate": expected["param.training.learning_rate"]}


def test_the_environment_says_what_the_run_ran_on(small_run):
    environment = json.loads((small_run.folder / "environment.json").read_text())
    assert {"tensorflow", "keras", "ray", "trialrun"} <= environment["packages"].keys()
    assert "--set" in environment["command"]
    assert environment["ray"]["address"] == "local"


def test_the_confusion_matrices_pool_the_seeds(small_run):
    content = json.loads((small_run.folder / "confusion_matrices.json").read_text())
    assert content["class_names"] == ["no_side_effects", "had_side_effects"]
    assert len(content["variants"]) == 3
    for variant in content["variants"].values():
        per_seed = np.array(list(variant["test"]["per_seed"].values()))
        assert per_seed.shape == (4, 2, 2)
        assert (per_seed.sum(0) == variant["test"]["pooled"]).all()


def test_the_resolved_job_plans_the_same_trials_again(small_run, tmp_path):
    copy = shutil.copy(small_run.folder / "job.yaml", tmp_path)
    planned = {trial.trial_id for trial in plan_trials(load_job(copy).spec)}
    assert planned == set(small_run.api.trials["trial_id"])


def test_the_driver_of_a_run_needs_no_tensorflow(small_run):
    observed = json.loads((small_run.home / "observed.json").read_text())
    assert observed["heavy"] == []


def test_the_token_of_ray_is_written_nowhere(small_run):
    token = json.loads((small_run.home / "observed.json").read_text())["token"]
    assert len(token) >= 32
    kept = [path for path in small_run.home.rglob("*") if path.is_file()]
    holders = [p for p in kept if token.encode() in p.read_bytes() and p.name != "observed.json"]
    assert holders == []
    assert not (small_run.home / ".ray").exists()


def test_no_process_outlives_the_run(small_run):
    assert small_run.survivors == {}


# The best model ---------------------------------------------------------------------------------


def load_as_a_stranger(files: dict[str, Path]) -> dict[str, keras.Model]:
    """Each format with nothing but Keras."""
    rebuilt = keras.models.model_from_json(files["json"].read_text())
    rebuilt.load_weights(files["weights"])
    return {
        "h5": keras.models.load_model(files["h5"], compile=False),
        "json": rebuilt,
        "keras": keras.models.load_model(files["keras"]),
    }


def test_every_format_gives_the_same_predictions_and_the_accuracy_of_the_trial(
    small_run, best_files, best_splits
):
    splits, _ = best_splits
    trials = small_run.api.trials.set_index("trial_id")
    row = trials.loc[small_run.api.best.trial_id]
    predictions = {
        name: model.predict(splits.x_test, verbose=0)
        for name, model in load_as_a_stranger(best_files).items()
    }
    for of_format in predictions.values():
        np.testing.assert_allclose(of_format, predictions["keras"], atol=1e-6)
        accuracy = np.mean(of_format.argmax(1) == splits.y_test)
        assert accuracy == pytest.approx(row["test_accuracy"], abs=1e-6)


def test_the_json_is_the_architecture_alone(best_files):
    rebuilt = keras.models.model_from_json(best_files["json"].read_text())
    assert rebuilt.count_params() == 642
    before = [weight.copy() for weight in rebuilt.get_weights()]
    assert not rebuilt.compiled
    rebuilt.load_weights(best_files["weights"])
    after = rebuilt.get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_best_model_goes_on_training_where_it_stopped(small_run, best_files, best_splits):
    splits, _ = best_splits
    native = keras.models.load_model(best_files["keras"])
    whole = trialrun.load_model(best_files["h5"])
    assert int(whole.optimizer.iterations) == 2 * 189
    rate = small_run.api.best.parameters["training.learning_rate"]
    assert float(whole.optimizer.learning_rate) == pytest.approx(rate)
    for a, b in zip(whole.optimizer.variables, native.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for model in (whole, native):
        model.fit(splits.x_train, splits.y_train, batch_size=10, shuffle=False, verbose=0)
    assert int(whole.optimizer.iterations) == 3 * 189
    for a, b in zip(whole.get_weights(), native.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_going_on_without_the_optimizers_state_would_be_another_training(best_files, best_splits):
    """What the check above is worth: Adam's slots are not zero, and they matter."""
    splits, _ = best_splits
    whole, fresh = (trialrun.load_model(best_files["h5"]) for _ in range(2))
    rate = float(fresh.optimizer.learning_rate)
    fresh.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    for model in (whole, fresh):
        model.fit(splits.x_train, splits.y_train, batch_size=10, shuffle=False, verbose=0)
    differences = [
        np.abs(a - b).max() for a, b in zip(whole.get_weights(), fresh.get_weights(), strict=True)
    ]
    assert max(differences) > 1e-5


def test_the_code_in_the_readme_of_the_best_model_runs(best_files, monkeypatch):
    monkeypatch.chdir(best_files["h5"].parent)
    code = Path("README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    for step in code.split("\n\n"):
        exec(step, names)
        assert "model" not in names or names["model"].count_params() == 642


def test_the_weights_file_holds_weights_alone(best_files):
    with h5py.File(best_files["weights"]) as file:
        assert set(file) <= {"layers", "vars"}
        arrays: list[int] = []
        file.visititems(lambda _, item: arrays.append(getattr(item, "size", 0)))
    assert sum(filter(None, arrays)) == 642


# Predictions ------------------------------------------------------------------------------------


@pytest.fixture
def ages(tmp_path: Path):
    """Writes a CSV file of the given text."""

    def write(text: str) -> Path:
        path = tmp_path / "ages.csv"
        path.write_text(text)
        return path

    return write


def expected_probabilities(best_files, best_splits, raw: list[float]) -> np.ndarray:
    """By scikit-learn and plain Keras: fitted on the training part, as the trial's model was."""
    scaler = MinMaxScaler().fit(np.asarray(best_splits[1].x_train, np.float64))
    model = keras.models.load_model(best_files["keras"])
    return model.predict(scaler.transform(np.reshape(raw, (-1, 1))), verbose=0)


def test_predictions_are_those_of_scikit_learns_scaling_and_plain_keras(
    small_run, best_files, best_splits, ages
):
    raw = [13, 40, 64.5, 65, 100, 120]
    path = ages("name,age\n" + "".join(f"p{i},{age}\n" for i, age in enumerate(raw)))
    command = Command(small_run.home, "predict", small_run.folder, "--input", path, is_warm=True)
    finished = command.finish()
    assert (finished.code, finished.stderr) == (0, ""), finished
    path.write_text(finished.stdout)
    table = pd.read_csv(path)
    names = ["no_side_effects", "had_side_effects"]
    assert list(table.columns) == ["name", "age", *(f"probability_{n}" for n in names), "class"]
    assert list(table["age"]) == raw
    expected = expected_probabilities(best_files, best_splits, raw)
    np.testing.assert_allclose(table.iloc[:, 2:4], expected, atol=2e-6)
    assert list(table["class"]) == [names[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(
        small_run.api.best.predict(np.reshape(raw, (-1, 1))), expected, atol=1e-6
    )


def test_the_best_model_of_a_run_predicts_what_its_trial_did(small_run, best_splits):
    best = small_run.api.best
    predictions = best.predict(raw_test_ages(best_splits))
    accuracy = np.mean(predictions.argmax(1) == best_splits[0].y_test)
    trials = small_run.api.trials.set_index("trial_id")
    assert accuracy == pytest.approx(trials.loc[best.trial_id, "test_accuracy"], abs=1e-6)
    assert best.load_model().count_params() == 642


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("years\n40\n", "column 'age' is missing; found years"),
        ("age\n40\nold\n", "ages.csv:3: column 'age' must hold numbers, found 'old'"),
        ("age,name\n40,a\n,b\n", "ages.csv:3: column 'age' must hold a number, but is empty"),
        ("age\n40\ninf\n", "ages.csv:3: column 'age' must hold numbers, found 'inf'"),
        ("age\n", "ages.csv: holds no rows"),
        ("", "cannot be read as CSV"),
        ('age\n"40\n', "cannot be read as CSV"),
    ],
)
def test_a_wrong_csv_is_refused_with_one_message(small_run, ages, text, message):
    path = ages(text)
    finished = call("predict", small_run.folder, "--input", path)
    assert (finished.code, finished.stdout) == (2, "")
    assert finished.stderr.startswith(f"Error: {path}")
    assert message in finished.stderr


def test_a_missing_csv_is_refused(small_run, tmp_path):
    finished = call("predict", small_run.folder, "--input", tmp_path / "none.csv")
    assert finished.code == 2
    assert finished.stderr.startswith(f"Error: {tmp_path / 'none.csv'}: ")


# Looking at it ----------------------------------------------------------------------------------


def test_show_prints_what_the_run_printed(small_run):
    finished = call("show", small_run.folder)
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.strip()
    assert finished.stdout.strip() in small_run.finished.stdout
    assert [line for line in finished.stdout.splitlines() if len(line) > 80] == []


def test_show_gives_json_for_machines(small_run):
    finished = call("show", small_run.folder, "--json")
    content = json.loads(finished.stdout)
    assert content["job"] == "medical_trial"
    assert content["counts"] == {"trials": 12, "completed": 12, "diverged": 0, "failed": 0}
    assert content["selection"]["trial_id"] == small_run.api.best.trial_id
    variants = [variant["variant_id"] for variant in content["variants"]]
    assert variants == list(small_run.api.variants["variant_id"])


# In Jupyter -------------------------------------------------------------------------------------

# The notebook's first run is the one of this file, and its second one trains only what it adds.
STAND_INS = """
import sys
sys.path.insert(0, {support!r})
import made_up_driver, ray, trialrun
made_up_driver.make_up()
ray.cloudpickle.register_pickle_by_value(made_up_driver)
run_for_real = trialrun.run

def run(job, overrides, resume=None):
    if resume is None:
        assert (job, overrides) == ("medical_trial.yaml", {{"seeds": 4}})
        return trialrun.open_run({folder!r})
    return run_for_real(job, overrides=overrides, resume=resume)

trialrun.run = run
"""


def test_the_notebook_of_the_reference_job_runs(small_run, tmp_path):
    """As it stands, with fewer seeds and epochs; what it trains later is made up."""
    job = (ROOT / "jobs" / "medical_trial.yaml").read_text()
    assert "epochs: 30" in job
    (tmp_path / "medical_trial.yaml").write_text(job.replace("epochs: 30", "epochs: 2"))
    notebook = nbformat.read(ROOT / "jobs" / "medical_trial.ipynb", as_version=4)
    settings = notebook.cells[1]
    assert "NUM_SEEDS = 20" in settings.source
    settings.source = settings.source.replace("NUM_SEEDS = 20", "NUM_SEEDS = 4")
    folder = shutil.copytree(small_run.folder, tmp_path / "run")
    stand_ins = STAND_INS.format(support=str(Path(PROGRAM).parent), folder=str(folder))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(stand_ins))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.get("data", {}) for of_cell in outputs for output in of_cell]
    assert sum("image/png" in data for data in shown) == 3
    summary = next(data["text/html"] for data in shown if "<h4>" in data.get("text/html", ""))
    assert "4 seeds" in summary
    assert "12 trials: 12 completed" in summary
    more = outputs[-1][-1]["data"]["text/html"]
    assert more.count("<td>6</td>") == 3


# The end ----------------------------------------------------------------------------------------


def test_a_run_leaves_nothing_in_the_temporary_folder(small_run):
    assert list((small_run.home / "tmp").iterdir()) == []
