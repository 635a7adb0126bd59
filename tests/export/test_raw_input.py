"""Raw input for a saved model: what is right, and what is refused by name."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from trialrun.cli import cli
from trialrun.errors import InputError
from trialrun.export.predict import Predicted
from trialrun.export.predictions import check_output, write_predictions
from trialrun.export.raw_input import scaled_input

ONE = {"kind": "minmax", "scale": [0.5], "offset": [-1.0]}
TWO = {"kind": "minmax", "scale": [0.5, 2.0], "offset": [-1.0, 0.0]}
WORDS = {"kind": "none", "scale": [1.0], "offset": [0.0]}
ROWS = [[2.0, 3.0], [4.0, 5.0]]
SCALED = [[0.0, 6.0], [1.0, 10.0]]


@pytest.mark.parametrize(
    "raw",
    [
        ROWS,
        np.array(ROWS),
        np.array(ROWS, object),
        pd.DataFrame(ROWS, columns=["a", "b"]),
        pd.DataFrame(ROWS, columns=["a", "b"])[["b", "a"]].assign(more="x"),
        {"b": [3.0, 5.0], "a": [2.0, 4.0]},
    ],
    ids=lambda raw: type(raw).__name__,
)
def test_columns_are_found_by_name_and_rows_by_place(raw):
    np.testing.assert_array_equal(scaled_input(TWO, raw, ["a", "b"]), SCALED)


def test_several_inputs_are_each_scaled():
    x = scaled_input({"n": ONE, "text": WORDS}, {"text": pd.Series(["a", "b"]), "n": [2, 4]})
    np.testing.assert_array_equal(x["n"], [0, 1])
    assert x["text"].tolist() == ["a", "b"]
    assert x["text"].dtype == object
    pair = scaled_input([ONE, ONE], (np.array([2.0]), np.array([4.0])))
    np.testing.assert_array_equal(pair, [[0], [1]])


@pytest.mark.parametrize(
    ("scalers", "raw", "message"),
    [
        (ONE, [[1e300]], "the input holds 1e+300 in row 0, but float32 holds no number beyond"),
        (ONE, [[1.0], [np.nan]], "the input holds NaN or infinity, first in row 1"),
        (ONE, pd.DataFrame(), "column 'age' is missing; found none"),
        (ONE, pd.DataFrame({"age": []}), "the input holds no rows: its shape is (0, 1)"),
        (ONE, {"age": 40}, "the model takes rows with the columns age; If using all scalar values"),
        (ONE, 40, "the input must be an array with a value per row, got a int"),
        (ONE, np.float64(40), "the input must be an array with a value per row, got a float64"),
        (ONE, [], "the input holds no rows"),
        (ONE, "forty", "the input must be an array with a value per row, got a str"),
        (ONE, [[1.0, 2.0]], "the model takes 1 feature(s), got 2"),
        (ONE, pd.DataFrame({"years": [40]}), "column 'age' is missing; found years"),
        (ONE, pd.DataFrame({"age": ["old"]}), "column 'age' holds text"),
        (ONE, [["old"]], "must hold numbers, got text"),
        ({"n": ONE}, {"n": 40}, "the input 'n' must be an array with a value per row, got a int"),
        ({"n": ONE}, {"m": [1]}, "the model takes a dict of the inputs n"),
        ([ONE, ONE], [[1.0]], "the model takes a tuple of 2 inputs"),
        ({"n": ONE, "m": ONE}, {"n": [1.0], "m": [1.0, 2.0]}, "number of rows, but have 1 and 2"),
    ],
)  # fmt: skip
def test_what_the_model_cannot_take_is_refused(scalers, raw, message):
    with pytest.raises(InputError) as caught:
        scaled_input(scalers, raw, ["age"])
    assert message in str(caught.value)


# The file of predictions -------------------------------------------------------------------------

TABLE = pd.DataFrame({"age": [1, 2], "prediction": [1 / 3, 1e-9]})


@pytest.mark.parametrize(("name", "read"), [("p.csv", pd.read_csv), ("p.parquet", pd.read_parquet)])
def test_predictions_are_written_to_the_last_digit(tmp_path, name, read):
    output = tmp_path / name
    output.write_text("old")
    check_output(output, tmp_path / "in.csv")
    write_predictions(TABLE, output)
    pd.testing.assert_frame_equal(read(output), TABLE, check_exact=True)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("p.xlsx", "must end in .csv or .parquet"),
        ("none/p.csv", "its folder does not exist"),
        ("in.csv", "is the input file; give another"),
        ("link.csv", "is the input file; give another"),
        ("folder.csv", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_predicted(tmp_path, name, message):
    (tmp_path / "in.csv").write_text("age\n1\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError) as caught:
        check_output(tmp_path / name, tmp_path / "in.csv")
    assert message in str(caught.value)


def test_the_command_writes_its_table_and_prints_nothing(tmp_path, monkeypatch):
    asked = []
    predicted = Predicted(TABLE, 1)
    monkeypatch.setattr(
        "trialrun.export.predict.predict_file", lambda *args: asked.append(args) or predicted
    )
    monkeypatch.setattr("trialrun.store.RunFolder.open", lambda path: path)
    (tmp_path / "in.csv").write_text("age\n1\n2\n")
    options = ["predict", "run", "--input", str(tmp_path / "in.csv"), "--output"]
    done = CliRunner().invoke(cli, [*options, str(tmp_path / "out.parquet")])
    assert (done.exit_code, done.output) == (0, "")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), TABLE)
    refused = CliRunner().invoke(cli, [*options, str(tmp_path / "in.csv")])
    assert isinstance(refused.exception, InputError)
    assert len(asked) == 1  # nothing is predicted for a file that cannot be written
    assert (tmp_path / "in.csv").read_text() == "age\n1\n2\n"
