"""A run on a CSV file, and predictions for raw rows of such a file."""

import numpy as np
import pandas as pd
import pytest
from commands import call
from run_here import all_in_this_process

import trialrun
from trialrun.data.load import load_splits
from trialrun.job import load_job

pytestmark = pytest.mark.tensorflow

JOB = """
name: clinic
data: {csv: patients.csv, target: outcome, missing: mean, categorical: {zip: ordinal}, seed: 3}
model: {builder: "trialrun.models:mlp", args: {units: [16]}}
training: {epochs: 12, learning_rate: 1e-2, engine: keras}
seeds: 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clinic")
    rng = np.random.default_rng(0)
    num_rows = 240
    table = pd.DataFrame(
        {
            "age": rng.integers(20, 80, num_rows).astype(float),
            "sex": rng.choice(["female", "male"], num_rows),
            "zip": [f"{code:03d}" for code in rng.integers(0, 8, num_rows)],
        }
    )
    is_ill = table["age"] + 25 * (table["sex"] == "male") > 62
    table["outcome"] = np.where(is_ill, "ill", "well")
    table.loc[3, "age"] = np.nan
    table.to_csv(folder / "patients.csv", index=False)
    (folder / "job.yaml").write_text(JOB)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    with all_in_this_process():
        finished = call("run", folder / "job.yaml", "--runs-dir", folder / "runs")
    assert finished.code == 0, finished
    (path,) = (folder / "runs" / "clinic").iterdir()
    return trialrun.open_run(path)


def test_raw_rows_give_what_the_trial_gave_on_its_test_rows(run, folder):
    loaded = load_job(run.folder.job_file)
    splits = load_splits(loaded.spec.data, loaded.folder, run.best.seed)
    raw = pd.read_csv(folder / "patients.csv", dtype={"zip": str})
    predictions = run.best.predict(raw[["zip", "sex", "age"]])
    encoded = splits.scalers.transform(splits.encoder.transform(raw))
    places = [int(np.flatnonzero((encoded == row).all(1))[0]) for row in splits.x_test]
    classes = predictions.argmax(1)[places]
    accuracy = run.trials.set_index("trial_id").loc[run.best.trial_id, "test_accuracy"]
    assert np.mean(classes == splits.y_test) == pytest.approx(accuracy, abs=1e-6)
    assert accuracy > 0.8


def test_predictions_name_the_classes_and_say_what_is_unknown(run, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("zip,sex,name,age\n003,male,ann,79\n999,x,bob,21\n003,female,cy,\n")
    finished = call("predict", run.folder.path, "--input", path)
    assert finished.code == 0, finished
    assert finished.stderr.splitlines() == [
        f"{path}: column {column} (1 row), on which the model was not trained; they are treated as"
        " unknown"
        for column in ("'sex' holds 'x'", "'zip' holds '999'")
    ]
    path.write_text(finished.stdout)
    table = pd.read_csv(path, dtype={"zip": str})
    assert list(table.columns[-3:]) == ["probability_ill", "probability_well", "class"]
    assert list(table["zip"]) == ["003", "999", "003"]
    assert list(table["class"][:2]) == ["ill", "well"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zip,age\n003,79\n", "column 'sex' is missing; found zip, age"),
        ("zip,sex,age\n003,male,old\n", "new.csv:2: column 'age' must hold numbers, found 'old'"),
    ],
)
def test_rows_that_are_not_of_the_table_are_refused(run, tmp_path, text, message):
    path = tmp_path / "new.csv"
    path.write_text(text)
    finished = call("predict", run.folder.path, "--input", path)
    assert (finished.code, finished.stdout) == (2, "")
    assert message in finished.stderr


def test_an_edited_table_makes_other_trials_and_is_named(run, folder):
    path = folder / "patients.csv"
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"female", b"f"))
        finished = call("run", folder / "job.yaml", "--resume", run.folder.path)
    finally:
        path.write_bytes(before)
    assert finished.code == 2
    assert "the content of patients.csv has changed" in finished.stderr
