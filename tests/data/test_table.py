"""Data from CSV, Parquet and npz files: what is read, split, encoded and refused."""

import json

import numpy as np
import pandas as pd
import pytest
from commands import call
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from trialrun.data.load import check_data, load_splits
from trialrun.data.table.encoding import TableEncoder
from trialrun.errors import InputError
from trialrun.job import DataSpec, dump_job, load_job
from trialrun.job.document import write_yaml
from trialrun.trials.plan import plan_trials
from trialrun.trials.signature import signature_of

NUM_ROWS = 200


def patients():
    """A table with a number, a text, a code that looks like a number, and two kinds of target."""
    rng = np.random.default_rng(0)
    ages = rng.integers(20, 80, NUM_ROWS)
    return pd.DataFrame(
        {
            "age": ages,
            "sex": rng.choice(["female", "male", "other"], NUM_ROWS, p=[0.49, 0.49, 0.02]),
            "zip": [f"{code:03d}" for code in rng.integers(0, 8, NUM_ROWS)],
            "dose": rng.normal(size=NUM_ROWS).round(3),
            "outcome": np.where(ages > 65, "ill", "well"),
        }
    )


@pytest.fixture
def folder(tmp_path):
    patients().to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path


def spec(folder, **fields):
    return DataSpec.model_validate(
        {"csv": "patients.csv", "target": "outcome", **fields}, context={"folder": folder}
    )


def job(folder, **data):
    path = folder / "job.yaml"
    path.write_text(write_yaml({"name": "a", "seeds": 2, "data": data}))
    return path


def table_job(folder, **data):
    return job(folder, **{"csv": "patients.csv", "target": "outcome", **data})


# Parts -------------------------------------------------------------------------------------------


def test_a_table_is_split_into_three_parts_of_the_same_shares_of_classes(folder):
    splits = load_splits(spec(folder), folder, 3)
    assert splits.class_names == ("ill", "well")
    assert [len(y) for y in (splits.y_train, splits.y_val, splits.y_test)] == [144, 16, 40]
    share = (patients().outcome == "well").mean()
    for y in (splits.y_train, splits.y_val, splits.y_test):
        assert y.dtype == np.int32
        assert abs((y == 1).sum() - share * len(y)) <= 1


def test_the_parts_hold_each_row_once_with_its_own_target(folder):
    table = patients().assign(row=np.arange(NUM_ROWS) + 0.5, outcome=np.arange(NUM_ROWS) + 0.5)
    table[["row", "outcome"]].to_csv(folder / "patients.csv", index=False)
    splits = load_splits(spec(folder, scaling="none"), folder, 0)
    parts = [(splits.x_train, splits.y_train), (splits.x_val, splits.y_val)]
    parts.append((splits.x_test, splits.y_test))
    for x, y in parts:
        assert y.dtype == np.float32
        np.testing.assert_array_equal(x[:, 0], y)
    rows = np.sort(np.concatenate([y for _, y in parts]))
    np.testing.assert_array_equal(rows, np.arange(NUM_ROWS) + 0.5)


def test_a_split_is_new_for_each_seed_unless_the_job_fixes_it(folder):
    first, other = (load_splits(spec(folder), folder, seed) for seed in (0, 1))
    assert not np.array_equal(first.x_test, other.x_test)
    assert not np.array_equal(first.x_val, other.x_val)
    fixed = [load_splits(spec(folder, seed=1), folder, seed) for seed in (0, 5)]
    for part in ("x_train", "x_val", "x_test", "y_train"):
        np.testing.assert_array_equal(getattr(fixed[0], part), getattr(other, part))
        np.testing.assert_array_equal(getattr(fixed[0], part), getattr(fixed[1], part))


def test_a_file_of_test_rows_is_the_test_set_as_it_is(folder):
    patients()[:30].to_csv(folder / "test.csv", index=False)
    splits = load_splits(spec(folder, test="test.csv"), folder, 0)
    assert (len(splits.y_train), len(splits.y_val), len(splits.y_test)) == (180, 20, 30)
    expected = (patients().outcome[:30] == "well").astype(int)
    np.testing.assert_array_equal(splits.y_test, expected)


def test_parquet_and_csv_of_the_same_rows_give_the_same_data(folder):
    patients().to_parquet(folder / "patients.parquet")
    of_csv = load_splits(spec(folder, categorical={"zip": "onehot"}), folder, 0)
    of_parquet = DataSpec(
        parquet=str(folder / "patients.parquet"), target="outcome", categorical={"zip": "onehot"}
    )
    for one, other in zip(
        (of_csv.x_train, of_csv.x_test),
        (load_splits(of_parquet, folder, 0).x_train, load_splits(of_parquet, folder, 0).x_test),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


# Encoding ----------------------------------------------------------------------------------------


def raw_rows(folder, **fields):
    """The raw rows of the training and the test part, found again by a column of row numbers."""
    table = patients()
    table.insert(0, "row", np.arange(NUM_ROWS, dtype=float))
    table.to_csv(folder / "patients.csv", index=False)
    splits = load_splits(spec(folder, scaling="none", **fields), folder, 0)
    train, test = (table.iloc[x[:, 0].astype(int)] for x in (splits.x_train, splits.x_test))
    return splits, train, test


def test_categories_are_encoded_as_scikit_learn_does_when_fitted_on_the_training_part(folder):
    splits, train, test = raw_rows(folder, categorical={"zip": "ordinal"}, columns=None)
    names = splits.feature_names
    assert names == ("row", "age", "sex=female", "sex=male", "sex=other", "zip", "dose")
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train[["sex"]])
    known = [names.index(f"sex={category}") for category in one_hot.categories_[0]]
    np.testing.assert_array_equal(splits.x_test[:, known], one_hot.transform(test[["sex"]]))
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    ordinal.fit(train[["zip"]])
    np.testing.assert_array_equal(
        splits.x_test[:, names.index("zip")], ordinal.transform(test[["zip"]])[:, 0] + 1
    )


def test_a_category_that_the_training_part_lacks_is_unknown_and_keeps_its_place(folder):
    table = patients()
    table.loc[:, "sex"] = ["f", "m"] * (NUM_ROWS // 2)
    table.loc[0, "sex"] = "rare"
    table.to_csv(folder / "patients.csv", index=False)
    widths, unseen = set(), 0
    for seed in range(8):
        splits = load_splits(spec(folder, columns=["sex"]), folder, seed)
        widths.add(splits.x_train.shape[1])
        if not splits.encoder.columns[0].is_known[-1]:
            unseen += 1
            parts = (splits.x_val, splits.x_test)
            assert sum(int((x.sum(1) == 0).sum()) for x in parts) == 1
    assert widths == {3}
    assert 0 < unseen < 8


def test_codes_are_not_scaled_and_numbers_are_as_scikit_learn_would(folder):
    splits, train, _ = raw_rows(folder, columns=["row", "sex", "age"])
    scaled = load_splits(spec(folder, scaling="standard", columns=["row", "sex", "age"]), folder, 0)
    np.testing.assert_array_equal(scaled.x_train[:, 1:4], splits.x_train[:, 1:4])
    age = train["age"].to_numpy(float)
    expected = (age - age.mean()) / age.std()
    np.testing.assert_allclose(scaled.x_train[:, 4], expected, atol=1e-5)


def test_an_encoder_survives_json(folder):
    splits = load_splits(spec(folder, missing="mean", categorical={"zip": "ordinal"}), folder, 0)
    again = TableEncoder.from_json(json.loads(json.dumps(splits.encoder.to_json())))
    assert again == splits.encoder


# Missing values ----------------------------------------------------------------------------------


@pytest.fixture
def gaps(folder):
    """Seven ages and three sexes are missing, in ten rows."""
    table = patients().astype({"age": float})
    table.loc[10:16, "age"] = np.nan
    table.loc[20:22, "sex"] = None
    table.to_csv(folder / "patients.csv", index=False)
    return folder


def test_missing_values_are_refused_with_column_and_rows(gaps):
    with pytest.raises(InputError, match=r"column 'age' lacks a value in 7 of 200 rows"):
        load_splits(spec(gaps), gaps, 0)


def test_rows_that_lack_a_value_are_dropped_when_asked(gaps):
    splits = load_splits(spec(gaps, missing="drop"), gaps, 0)
    assert sum(len(y) for y in (splits.y_train, splits.y_val, splits.y_test)) == 190


def test_missing_numbers_become_the_mean_of_the_training_part(gaps):
    table = pd.read_csv(gaps / "patients.csv")
    table.insert(0, "row", np.arange(NUM_ROWS, dtype=float))
    table.to_csv(gaps / "patients.csv", index=False)
    splits = load_splits(spec(gaps, missing="mean", scaling="none"), gaps, 0)
    train = table.iloc[splits.x_train[:, 0].astype(int)]
    rows = np.concatenate([splits.x_train, splits.x_val, splits.x_test])
    filled = rows[np.isin(rows[:, 0], np.arange(10, 17))]
    np.testing.assert_allclose(filled[:, 1], train["age"].mean(), rtol=1e-6)
    without_sex = rows[np.isin(rows[:, 0], np.arange(20, 23))]
    assert without_sex[:, 2:5].sum() == 0


# Targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "names", "dtype"),
    [
        ([0, 1, 2, 1], "auto", ("0", "1", "2"), np.int32),
        (["b", "a", "c", "a"], "auto", ("a", "b", "c"), np.int32),
        ([True, False, True, True], "auto", ("False", "True"), np.int32),
        ([7, 10, 9, 10], "classification", ("7", "9", "10"), np.int32),
        ([7, 10, 9, 10], "regression", (), np.float32),
        ([0.5, 1.5, 2.0, 1.0], "auto", (), np.float32),
    ],
)
def test_a_target_is_classes_or_amounts_by_its_kind_or_the_jobs_word(
    folder, values, task, names, dtype
):
    table = patients().assign(outcome=values * (NUM_ROWS // 4))
    table.to_csv(folder / "patients.csv", index=False)
    splits = load_splits(spec(folder, task=task), folder, 0)
    assert splits.class_names == names
    assert splits.y_train.dtype == dtype
    if not names:
        assert set(splits.y_train.tolist()) == set(map(float, values))


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ({"outcome": range(30, 230)}, {}, "200 different integers from 30 to 229, which may be"),
        ({"outcome": "ill"}, {}, "column 'outcome' holds only one class, 'ill'"),
        ({"outcome": ["rare"] + ["a", "b"] * 99 + ["a"]}, {}, "class 'rare' has 1 row for 3 parts"),
        ({"outcome": 0.5}, {"stratify": True}, "data.stratify: true needs classes"),
        ({}, {"task": "regression"}, "column 'outcome' holds text, which a regression cannot"),
        ({"age": np.inf}, {}, "patients.csv:2: column 'age' holds 'inf', no finite number"),
        (
            {"sex": [f"n{n}" for n in range(NUM_ROWS)]},
            {},
            "a different text in each of its 200 rows",
        ),
        ({}, {"test_split": 0.999}, "splits them into 0 and 200"),
        (
            {"outcome": [f"n{n}" for n in range(50)] * 4},
            {},
            "the smallest part has 40 rows for 50",
        ),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(folder, change, fields, message):
    patients().assign(**change).to_csv(folder / "patients.csv", index=False)
    with pytest.raises(InputError) as caught:
        load_splits(spec(folder, **fields), folder, 0)
    assert message in str(caught.value)


def test_a_test_file_with_text_where_numbers_were_is_refused(folder):
    patients().assign(age="old").to_csv(folder / "test.csv", index=False)
    with pytest.raises(InputError, match=r"data.test test.csv:2: column 'age' must hold numb"):
        load_splits(spec(folder, test="test.csv"), folder, 0)


# The job file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"csv": "patient.csv"},
            "there is no file",
        ),
        ({"target": "outcom"}, "patients.csv has no column 'outcom'; did you mean 'outcome'?"),
        ({"target": None}, "target is missing; name the column of the csv file"),
        ({"columns": ["age", "sx"]}, "patients.csv has no column 'sx'; did you mean 'sex'?"),
        ({"columns": ["age", "outcome"]}, "columns holds the target 'outcome'"),
        ({"categorical": {"zp": "onehot"}}, "has no column 'zp'; did you mean 'zip'?"),
        ({"categorical": "one-hot"}, "data.categorical must be 'onehot' or 'ordinal', got"),
        ({"categorical": {"zip": "hash"}}, "or a mapping of column names to these"),
        (
            {"generator": "trialrun.datasets:medical_trial"},
            "must have only one of generator, csv, npz",
        ),
        ({"args": {"n": 3}}, "args is for generator, not for csv"),
        (
            {"test": "patients.csv", "test_split": 0.2},
            "test and test_split both choose the test rows",
        ),
        ({"test": "nothing.csv"}, "there is no file"),
        ({"test_split": 1.5}, "data.test_split must be less than 1, got 1.5"),
        ({"stratify": "yes"}, "data.stratify must be 'auto', true or false, got 'yes'"),
        ({"csv": "empty.csv"}, "cannot be read as CSV"),
        (
            {"csv": "one.csv"},
            "has one column, 'a;b'; if ';' separates its columns, give data.separator: ';'",
        ),
        ({"csv": "unnamed.csv"}, "column 1 of unnamed.csv has no name (is it an index that"),
        ({"csv": "doubled.csv"}, "doubled.csv has several columns named 'outcome'"),
    ],
)
def test_a_wrong_field_is_one_message_before_anything_is_started(folder, fields, message):
    (folder / "empty.csv").write_text("")
    (folder / "one.csv").write_text("a;b\n1;2\n")
    (folder / "unnamed.csv").write_text(",a,outcome\n0,1,2\n")
    (folder / "doubled.csv").write_text("a,outcome,outcome\n0,1,2\n")
    finished = call("plan", table_job(folder, **fields))
    assert (finished.code, finished.stdout) == (2, "")
    assert finished.stderr.startswith(f"Error: {folder / 'job.yaml'}:")
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_what_is_wrong_with_the_rows_is_found_by_a_plan_at_its_line(folder):
    finished = call("plan", table_job(folder, target="age"))
    assert (finished.code, finished.stdout) == (2, "")
    assert "which may be classes or amounts" in finished.stderr


def test_columns_may_be_searched_and_files_may_not(folder):
    path = table_job(folder)
    search = "search.parameters.data.columns.values=[[age], [age, dose]]"
    trials = plan_trials(load_job(path, [search]).spec)
    assert len({signature_of(trial.variant) for trial in trials}) == 2
    with pytest.raises(InputError, match="has no column 'dos'"):
        load_job(path, [search.replace("dose", "dos")])
    with pytest.raises(InputError, match="must be the same in every variant"):
        load_job(path, ["search.parameters.data.csv.values=[a.csv]"])


def test_a_resolved_job_is_the_same_job_in_any_folder(folder, tmp_path_factory):
    spec = load_job(table_job(folder, categorical={"zip": "ordinal"})).spec
    assert spec.data.csv == str(folder / "patients.csv")
    assert "generator" not in dump_job(spec)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "job.yaml"
    elsewhere.write_text(dump_job(spec))
    assert load_job(elsewhere).spec == spec


def test_a_trial_is_known_by_the_content_of_its_files_and_not_by_their_folder(
    folder, tmp_path_factory
):
    def ids(where):
        return [trial.trial_id for trial in plan_trials(load_job(table_job(where)).spec)]

    before = ids(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "patients.csv").write_bytes((folder / "patients.csv").read_bytes())
    assert ids(elsewhere) == before
    patients().assign(dose=0.5).to_csv(folder / "patients.csv", index=False)
    assert not set(ids(folder)) & set(before)


def test_classes_that_may_be_amounts_are_told_so_where_they_do_not_fit(tmp_path):
    path = tmp_path / "rings.csv"
    table = pd.DataFrame({"a": 0.5 * np.arange(60), "y": 1 + np.arange(60) % 29})
    table.to_csv(path, index=False)
    data = DataSpec(csv=str(path), target="y", test_split=0.2)
    with pytest.raises(InputError, match=r"from 1 to 29; give data\.task: regression"):
        load_splits(data, tmp_path, 0)
    told = load_splits(data.model_copy(update={"task": "regression"}), tmp_path, 0)
    assert told.class_names == ()


# Arrays ------------------------------------------------------------------------------------------

X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3


def npz(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return DataSpec(npz=str(folder / "data.npz"))


def test_arrays_of_all_parts_are_taken_as_they_are(tmp_path):
    data = npz(tmp_path, x_train=X, y_train=Y, x_val=X[:9], y_val=Y[:9], x_test=X[:7], y_test=Y[:7])
    output = check_data(data, tmp_path, 0).output
    np.testing.assert_array_equal(output["train"][0], X)
    assert [len(output[part][1]) for part in ("validation", "test")] == [9, 7]


def test_whole_arrays_are_split_with_the_same_shares_of_classes(tmp_path):
    splits = load_splits(npz(tmp_path, x=X, y=Y, class_names=["a", "b", "c"]), tmp_path, 0)
    assert splits.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(np.bincount(splits.y_test), [4, 4, 4])


def test_several_inputs_are_told_apart_by_a_name_after_a_dot(tmp_path):
    data = npz(tmp_path, **{"x.age": X[:, :1], "x.tokens": np.arange(120).reshape(60, 2), "y": Y})
    data = data.model_copy(update={"scaling": {"age": "standard", "tokens": "none"}})
    splits = load_splits(data, tmp_path, 0)
    assert sorted(splits.x_train) == ["age", "tokens"]
    assert splits.x_train["tokens"].dtype == np.int32
    np.testing.assert_array_equal(splits.x_train["tokens"][:, 0] // 2 % 3, splits.y_train)
    assert abs(splits.x_train["age"].mean()) < 1e-6


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "data.npz lacks the array 'y'; it holds x"),
        ({"x_train": X, "y_train": Y}, "data.npz lacks the array 'x_test'"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y}, "must hold either x and y, or x_train"),
        ({"x": X, "y": Y, "z": Y}, "holds an array 'z'; known: x_train"),
        ({"x": X, "x.a": X, "y": Y}, "holds both 'x' and 'x.a'"),
        ({"x": X, "y": Y[:5]}, "train x has 60, train y has 5"),
        ({"x": X, "y": np.array([{}] * 60)}, "arrays of objects are refused"),
    ],
)
def test_an_archive_that_is_no_data_set_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    finished = call("plan", job(tmp_path, npz="data.npz"))
    assert (finished.code, finished.stdout) == (2, "")
    assert message in finished.stderr


@pytest.mark.parametrize("stratify", ["auto", True])
@pytest.mark.parametrize("form", ["integers", "floats", "one-hot"])
def test_an_archive_is_stratified_by_classes_in_any_form(tmp_path, form, stratify):
    classes = np.repeat([0, 1, 2], [30, 20, 10])
    y = {"integers": classes, "floats": classes.astype(float), "one-hot": np.eye(3)[classes]}[form]
    data = npz(tmp_path, x=X, y=y).model_copy(update={"stratify": stratify})
    test = load_splits(data, tmp_path, 0).y_test
    found = test.argmax(1) if form == "one-hot" else test
    counts = np.bincount(found.astype(int))
    np.testing.assert_array_equal(counts * 10, np.array([30, 20, 10]) * counts.sum() / 6)


@pytest.mark.parametrize("y", [np.eye(2)[(np.arange(60) < 2) * 1], (np.arange(60) < 2) * 1.0])
def test_an_archive_without_a_row_of_a_class_for_each_part_is_refused(tmp_path, y):
    with pytest.raises(InputError, match="class '1' has 2 rows for 3 parts"):
        load_splits(npz(tmp_path, x=X, y=y), tmp_path, 0)


def test_amounts_of_an_archive_are_no_classes(tmp_path):
    for y in (np.arange(60.0), np.round(X[:, 0], 1), np.eye(60)[:, :40]):
        load_splits(npz(tmp_path, x=X, y=y), tmp_path, 0)


# Scaling by name ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"a": "none", "c": "none"}, "data.scaling names 'c', which is no input; the inputs are a"),
        ({"a": "none"}, "data.scaling names no input 'b'; the inputs are a, b"),
    ],
)
def test_a_mapping_of_scalings_names_exactly_the_inputs(tmp_path, scaling, message):
    data = npz(tmp_path, **{"x.a": X, "x.b": X, "y": Y}).model_copy(update={"scaling": scaling})
    with pytest.raises(InputError, match=message):
        check_data(data, tmp_path, 0)
