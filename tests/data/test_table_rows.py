"""Cells of CSV and Parquet files: what each means, and what is refused with its line."""

import csv
import decimal
import io
import re
import unicodedata

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trialrun.data.table.encoding import Column, TableEncoder
from trialrun.data.table.load import load_table
from trialrun.data.table.lookalikes import similar_texts
from trialrun.data.table.raw import from_frame, read_raw
from trialrun.data.table.rows import read_rows
from trialrun.errors import InputError
from trialrun.export.predict import _beside, _encoded
from trialrun.export.predictions import printed_csv, write_predictions
from trialrun.export.raw_input import scaled_input
from trialrun.job import DataSpec, load_job
from trialrun.job.document import parse_value, write_yaml
from trialrun.job.table_spelling import told_apart
from trialrun.trials.identity import hash_settings
from trialrun.trials.plan import plan_variants

NUM_ROWS = 12
NUMBERS = [0.5 * n for n in range(NUM_ROWS)]
CLASSES = ["no", "yes"] * (NUM_ROWS // 2)


def of_csv(folder, text, **fields):
    """The rows of a file with this text; the target is y."""
    path = folder / "d.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(DataSpec(csv=str(path), target=fields.pop("target", "y"), **fields))


def of_columns(folder, cells, **fields):
    """The rows of a file with these columns of texts, and y, two classes in turn."""
    columns = {"y": CLASSES, **cells}
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return of_csv(folder, buffer.getvalue(), **fields)


def of_parquet(folder, table, **fields):
    path = folder / "d.parquet"
    if isinstance(table, pd.DataFrame):
        table.to_parquet(path)
    else:
        pq.write_table(table, path)
    return read_rows(DataSpec(parquet=str(path), target="y", **fields))


def refusal(read, *arguments, **fields):
    with pytest.raises(InputError) as caught:
        read(*arguments, **fields)
    return str(caught.value)


def with_cell(value, row=3):
    """Numbers but for one cell, whose line in the file is `row` + 2."""
    return {"a": [value if place == row else str(n) for place, n in enumerate(NUMBERS)]}


# Fields -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,y\n0,13,no\n", "d.csv:2: 3 fields, but the header has 2: '0,13,no'"),
        ("a,y\n1,no\n1\n", "d.csv:3: 1 field, but the header has 2"),
        ("a,y\n1,no,\n2,yes,\n", "d.csv:2: 3 fields, but the header has 2"),
        ('a,y\n"x\nz",no\n\n1,no,2\n', "d.csv:5: 3 fields, but the header has 2"),
        ('a,y\n1,no\n"2,yes\n3,no\n', "d.csv:3: cannot be read as CSV"),
        ('a,y\n1,no\n"2"x,yes\n', "d.csv:3: cannot be read as CSV"),
        ("a,a,y\n1,2,no\n", "d.csv: has several columns named 'a'"),
        ("a, a,y\n1,2,no\n", "d.csv: has several columns named 'a'"),
        ("a,y\n", "d.csv: holds no rows"),
        ("", "d.csv: cannot be read as CSV: it is empty"),
        (b"a,y\n1,ja\n2,n\xe4\n", "d.csv:3: the byte 0xe4 is not utf-8; give the file's enc"),
        ("a,y\n1,ja\n".encode("utf-16"), "d.csv:1: the byte 0xff is not utf-8; give the file's"),
        (b"\x1f\x8b\x08", "d.csv: is compressed by gzip; rename it so that its name ends in .gz"),
        (b"PK\x03\x04\xff", "d.csv: is a zip archive or a spreadsheet, not a CSV file"),
    ],
)
def test_a_row_that_is_none_of_the_table_is_named_by_its_line(tmp_path, text, message):
    assert message in refusal(of_csv, tmp_path, text)


def test_a_field_may_be_longer_than_pythons_own_limit(tmp_path):
    text = "article,a,y\n" + f"{'x' * 200_000},1,no\nshort,2,yes\n"
    assert list(of_csv(tmp_path, text).features["article"].str.len()) == [200_000, 5]


def test_a_row_may_be_quoted_go_over_lines_and_have_blank_lines_around_it(tmp_path):
    text = '\ufeff a ,y\r\n\r\n"x, ""1""\r\n2", no \r\n  \r\nz,yes\r\n'
    rows = of_csv(tmp_path, text, missing="drop")
    assert list(rows.features["a"]) == ['x, "1"\r\n2', "z"]
    assert list(rows.features.index) == [3, 6]
    assert rows.target.classes.names == ["no", "yes"]


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "remedies"),
    [
        ("?", ["data.missing_values: ['?']"]),
        ("NA", ["data.missing_values: ['NA']"]),
        ("nan", ["data.missing_values: ['nan']"]),
        ("1,234", ["data.thousands: ','", "data.decimal: ','"]),
        ("1.234,5", ["data.thousands: '.'", "data.decimal: ','"]),
        ("0,5", ["data.decimal: ','"]),
        ("12 kg", []),
        ("2024-01-01", []),
        ("1_000", []),
        ("0x10", []),
        ("inf", ["no finite number"]),
    ],
)
def test_a_column_of_numbers_refuses_another_cell(tmp_path, value, remedies):
    message = refusal(of_columns, tmp_path, with_cell(value))
    assert f"d.csv:5: column 'a' holds {value!r}" in message
    assert "numbers in 11 of 12 rows" in message
    for remedy in [*remedies, "data.missing_values", "data.categorical: {a: onehot}"]:
        assert remedy in message


@pytest.mark.parametrize("value", ["\\N", "it's", '"', "a\\'b"])
def test_a_remedy_is_yaml_that_helps(tmp_path, value):
    columns = {"dose, mg": with_cell(value)["a"]}
    message = refusal(of_columns, tmp_path, columns)
    remedies = re.findall(r"data\.(missing_values|categorical): (\[.*?\]|\{.*?\}) if", message)
    assert [field for field, _ in remedies] == ["missing_values", "categorical"]
    for field, text in remedies:
        of_columns(tmp_path, columns, missing="mean", **{field: parse_value(text, "the message")})


def test_prices_are_not_taken_for_a_year_and_a_month(tmp_path):
    prices = [f"{1200 + place}.50" for place in range(NUM_ROWS - 1)]
    message = refusal(of_columns, tmp_path, {"a": [*prices, "?"]})
    assert "column 'a' holds '?', but numbers in 11 of 12 rows" in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["2024-01-31", "2024-02-01"],
            "holds '2024-01-31', but dates and times cannot be features",
        ),
        (["31.01.2024", "1.2.2024"], "dates and times"),
        (["1/31/24", "2/1/24"], "dates and times"),
        (["2024-01-31T10:00:00Z", "2024-01-31 10:00"], "dates and times"),
        (["10:30", "11:45 pm"], "dates and times"),
        (["5 Jan 2024", "Feb 6, 2024"], "dates and times"),
        (["1,006", "2,500"], "give data.thousands: ','"),
        (["0,13", "-0,5"], "give data.decimal: ','"),
        (["12 kg", "13 kg", "14 kg"], "looks like a number but is not written as one"),
        (["$5", "$6"], "looks like a number"),
        (["5%", "6 %"], "looks like a number"),
        (["(5)", "\N{MINUS SIGN}6"], "looks like a number"),
        ([f"n{n}" for n in range(NUM_ROWS)], "a different text in each of its 12 rows"),
    ],
)
def test_texts_that_are_no_categories_are_refused_unless_they_are_named(tmp_path, values, message):
    columns = {"a": [values[place % len(values)] for place in range(NUM_ROWS)]}
    assert message in refusal(of_columns, tmp_path, columns)
    named = of_columns(tmp_path, columns, categorical={"a": "onehot"})
    assert set(named.categories["a"]) == set(columns["a"])


@pytest.mark.parametrize("values", [["2WD", "4WD"], ["1st", "2nd", "3rd"], ["10-19", "20-29"]])
def test_names_with_digits_are_categories(tmp_path, values):
    columns = {"a": [values[place % len(values)] for place in range(NUM_ROWS)]}
    assert of_columns(tmp_path, columns).categories["a"] == tuple(sorted(values))


@pytest.mark.parametrize("written", ["0.250", "1.25", "1.2500", "1.250.5", ".250"])
def test_what_no_mark_groups_is_no_number(tmp_path, written):
    columns = {"a": [written] * NUM_ROWS}
    fields = {"separator": ",", "decimal": ",", "thousands": "."}
    assert "looks like a number" in refusal(of_columns, tmp_path, columns, **fields)


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"decimal": ","}, ["0,5", "-1,25", "1e3", ",5"]),
        ({"thousands": ","}, ["0.5", "-1.25", "1,000", ".5"]),
        ({"thousands": ".", "decimal": ","}, ["0,5", "-1,25", "1.000", "0,5"]),
        ({"thousands": " ", "decimal": ","}, ["0,5", "-1,25", "1\xa0000", "+,5"]),
        ({"missing_values": ["?", -999]}, ["0.5", "-1.25", "1000", "0.5"]),
    ],
)
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_numbers_are_read_as_the_job_says_that_they_are_written(
    tmp_path, fields, written, separator
):
    lines = [f"{text}{separator}{'yn'[place % 2]}" for place, text in enumerate(written)]
    if "missing_values" in fields:
        lines += [f"?{separator}y", f"-999.0{separator}n", f"{separator}n"]
    text = "\n".join([f"a{separator}y", *lines])
    rows = of_csv(tmp_path, text, separator=separator, missing="mean", **fields)
    expected = [0.5, -1.25, 1000, 0.5, *[np.nan] * (len(lines) - 4)]
    np.testing.assert_array_equal(rows.features["a"], expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e300", "holds 1e300, beyond the range of float32"),
        ("1e400", "holds 1e400, beyond the range of float32"),
        ("-3.5e38", "beyond the range of float32"),
        ("10000000000000000000000001", "a whole number that no float holds exactly"),
        ("9007199254740993", "a whole number that no float holds exactly"),
    ],
)
def test_a_number_that_no_float_holds_is_refused(tmp_path, value, message):
    found = refusal(of_columns, tmp_path, with_cell(value))
    assert message in found
    assert "d.csv:5: column 'a'" in found
    of_columns(tmp_path, with_cell("9007199254740992"))


@pytest.mark.parametrize("values", [["True", "False"], ["true", "FALSE"]])
def test_booleans_are_0_and_1_and_may_be_missing(tmp_path, values):
    cells = [*values * 5, "", values[0]]
    rows = of_columns(tmp_path, {"a": cells}, missing="mean")
    expected = [1, 0] * 5 + [np.nan, 1]
    np.testing.assert_array_equal(rows.features["a"], expected)
    table = pd.DataFrame({"a": pd.array([True, False] * 5 + [None, True]), "y": CLASSES})
    typed = of_parquet(tmp_path, table, missing="mean")
    np.testing.assert_array_equal(typed.features["a"], expected)


# Missing values -----------------------------------------------------------------------------------

WORDS = ["NA", "None", "null", "nan", "NaN", "N/A"]


def test_in_texts_only_an_empty_field_is_missing_and_what_the_job_names(tmp_path):
    columns = {"a": [*WORDS, "", " ", "x", "x", "x", "x"]}
    rows = of_columns(tmp_path, columns, missing="mean")
    assert list(rows.features["a"].isna()) == [False] * 6 + [True] * 2 + [False] * 4
    assert rows.categories["a"] == tuple(sorted({*WORDS, "x"}))
    assert "'N/A' (1 row)" in rows.summary.notes[0]
    named = of_columns(tmp_path, columns, missing="mean", missing_values=["NA", "None"])
    assert named.categories["a"] == tuple(sorted({*WORDS[2:], "x"}))
    table = pd.DataFrame({"a": columns["a"], "y": CLASSES})
    assert of_parquet(tmp_path, table, missing="mean").categories == rows.categories


def test_words_for_missing_values_may_be_classes(tmp_path):
    columns = {"a": NUMBERS, "y": ["None", "nan", "mild"] * 4}
    rows = of_columns(tmp_path, columns, missing="drop")
    assert rows.target.classes.names == ["None", "mild", "nan"]
    assert len(rows.features) == NUM_ROWS
    table = of_parquet(tmp_path, pd.DataFrame(columns))
    np.testing.assert_array_equal(table.target.values, rows.target.values)


def test_a_missing_value_is_named_by_its_line(tmp_path):
    message = refusal(of_columns, tmp_path, with_cell("", row=9))
    assert "d.csv:11: column 'a' lacks a value in 1 of 12 rows, here first" in message
    target = refusal(of_columns, tmp_path, {"a": NUMBERS, "y": ["", *CLASSES[1:]]}, missing="mean")
    assert "d.csv:2: column 'y' lacks a value in 1 of 12 rows" in target
    nothing = refusal(of_columns, tmp_path, {"a": NUMBERS, "z": [""] * NUM_ROWS}, missing="drop")
    assert "column 'z' holds no value at all" in nothing


def test_rows_that_are_dropped_are_counted_and_take_no_class_with_them(tmp_path):
    rows = of_columns(tmp_path, with_cell(""), missing="drop")
    assert len(rows.features) == NUM_ROWS - 1
    assert "1 of 12 rows lack a value and are left out" in rows.summary.notes[0]
    rare = {**with_cell(""), "y": ["rare" if n == 3 else CLASSES[n] for n in range(NUM_ROWS)]}
    message = refusal(of_columns, tmp_path, rare, missing="drop")
    assert "no row of these classes of column 'y': 'rare' (1 row)" in message
    numbered = {**with_cell(""), "y": [2 if n == 3 else n % 2 for n in range(NUM_ROWS)]}
    rows = of_columns(tmp_path, numbered, missing="mean")
    assert rows.target.classes.names == ["0", "1", "2"]


# Targets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["0", "1"], ["0", "1"]),
        (["0.0", "1.0"], ["0", "1"]),
        (["1.0", "2.0"], ["1", "2"]),
        (["-1", "1"], ["-1", "1"]),
        (["0", "1", "", "1"], ["0", "1"]),
        (["true", "False"], ["False", "True"]),
        (["b", " a "], ["a", "b"]),
        (["10", "9", "x"], None),
        (["1", "2", "3", "10"], None),
        ([str(n) for n in range(NUM_ROWS)], None),
        (["0.5", "1"], []),
    ],
)
def test_whole_numbers_are_classes_however_they_are_written(tmp_path, values, names):
    y = [values[place % len(values)] for place in range(NUM_ROWS)]
    if names is None:
        assert "column 'y' holds" in refusal(of_columns, tmp_path, {"a": NUMBERS, "y": y})
        return
    target = of_columns(tmp_path, {"a": NUMBERS, "y": y}, missing="drop").target
    assert ([] if target.classes is None else target.classes.names) == names
    kept = [text.strip() for text in y if text]
    if names and names[0] != "False":
        numbers = [text if text.isalpha() else str(int(float(text))) for text in kept]
        np.testing.assert_array_equal(target.values, [names.index(text) for text in numbers])


@pytest.mark.parametrize(
    "column",
    [
        pd.array([0, 1, None] * 4, "Int64"),
        pd.array([0.0, 1.0, np.nan] * 4, "float32"),
        pd.array(["0", "1", None] * 4, "str"),
        pd.Categorical([0, 1, None] * 4),
        pd.array([0, 1, None] * 4, "UInt8"),
        pa.array([decimal.Decimal("0.0"), decimal.Decimal("1.0"), None] * 4),
    ],
)
def test_a_target_of_parquet_is_what_it_is_in_csv(tmp_path, column):
    table = pa.table({"a": NUMBERS, "y": pa.array(column, from_pandas=True)})
    target = of_parquet(tmp_path, table, missing="drop").target
    assert target.classes.names == ["0", "1"]
    np.testing.assert_array_equal(target.values, [0, 1] * 4)


def test_the_job_says_what_a_target_is(tmp_path):
    columns = {"a": NUMBERS, "y": ["1", "2.0", "7"] * 4}
    classes = of_columns(tmp_path, columns, task="classification").target
    assert classes.classes.names == ["1", "2", "7"]
    amounts = of_columns(tmp_path, columns, task="regression").target
    assert amounts.classes is None
    np.testing.assert_array_equal(amounts.values, [1, 2, 7] * 4)


def test_classes_that_differ_in_case_are_refused_unless_the_job_calls_them_classes(tmp_path):
    columns = {"a": NUMBERS, "y": ["yes", "Yes ", " yes", "no"] * 3}
    message = refusal(of_columns, tmp_path, columns)
    assert "classes that are probably the same: 'yes' (6 rows), 'Yes' (3 rows)" in message
    told = of_columns(tmp_path, columns, task="classification")
    assert told.target.classes.names == ["Yes", "no", "yes"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_counts_the_rows_is_named(tmp_path, first):
    numbers = [first + place for place in range(NUM_ROWS)]
    (note,) = of_columns(tmp_path, {"id": numbers, "a": NUMBERS}).summary.notes
    assert f"column 'id' counts the rows from {first} on; leave it out with data.columns" in note
    assert of_columns(tmp_path, {"id": numbers[::-1], "a": NUMBERS}).summary.notes == ()


LOOK_ALIKES = [
    "New York",
    "New\xa0York",
    "New  York",
    "New York\u200b",
    "new york",
    "\uff2eew York",
    "New York\ufe0f",
    "New\u034f York",
    "New\u200d York",
    "New\u200c York",
    "New York\U000e0100",
    "N\u2060ew York",
    "New York\x7f",
    "New\u115f York",
]


@pytest.mark.parametrize("other", LOOK_ALIKES[1:])
def test_categories_that_look_alike_are_named(tmp_path, other):
    texts = [LOOK_ALIKES[0], other, "Rome", "Rome"] * 3
    (note,) = of_columns(tmp_path, {"a": texts}).summary.notes
    message = refusal(of_columns, tmp_path, {"a": NUMBERS, "y": texts})
    assert "classes that are probably the same" in message
    seen = repr(other) if other == "\uff2eew York" else ascii(other)
    for told in (note, message):
        assert repr(LOOK_ALIKES[0]) in told
        assert seen in told


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1\u200b"), ("1.50", "\uff11.5"), ("2", "2\ufe0f"), ("e\u034f\u0301", "\xe9")],
)
def test_what_looks_alike_without_invisible_characters_is_named(one, other):
    assert set(similar_texts(["z", one, other])) == {one, other}


@settings(max_examples=300, deadline=None)
@given(text=st.text(min_size=1, max_size=8), data=st.data())
def test_a_text_looks_like_itself_with_a_character_that_nobody_sees(text, data):
    mark = data.draw(st.sampled_from("\u034f\u200b\u200c\u200d\u2060\ufe00\ufe0f\u00ad\U000e0101"))
    place = data.draw(st.integers(0, len(text)))
    other = text[:place] + mark + text[place:]
    assert similar_texts({text, other}) is not None
    one, shown = told_apart(text, other)
    assert one != shown
    assert ascii(mark)[1:-1] in shown or mark in text


def test_accents_are_part_of_their_letters_however_they_are_written(tmp_path):
    texts = ["caf\xe9", "cafe\u0301", "tea", "tea"] * 3
    assert of_columns(tmp_path, {"a": texts}).categories["a"] == ("caf\xe9", "tea")
    target = of_columns(tmp_path, {"a": NUMBERS, "y": texts}).target
    np.testing.assert_array_equal(target.values, [0, 0, 1, 1] * 3)


# One letter in two ways of writing ----------------------------------------------------------------

WAYS = [("caf\xe9", "cafe\u0301"), ("\u212b", "\xc5"), ("\u1112\u1161\u11ab", "\ud55c")]
BOTH_WAYS = [*WAYS, *((other, one) for one, other in WAYS)]


def as_typed(folder, cells, **fields):
    return of_parquet(folder, pa.table({"y": CLASSES, **cells}), **fields)


def as_dictionary(folder, cells, **fields):
    encoded = {name: pa.array(texts).dictionary_encode() for name, texts in cells.items()}
    return of_parquet(folder, pa.table({"y": CLASSES, **encoded}), **fields)


@pytest.mark.parametrize("read", [of_columns, as_typed, as_dictionary])
@pytest.mark.parametrize(
    ("word", "cell"),
    [
        *BOTH_WAYS,
        ("none", " none "),
        (" none", "none"),
        ("TRUE", "true"),
        ("-999", "-999.0"),
        (-999, "-999.00"),
        ("1.0", "1"),
    ],
)
def test_a_cell_is_missing_if_the_job_names_its_value_in_any_spelling(tmp_path, read, word, cell):
    texts = ["a", "b", cell] * 4
    fields = {"missing_values": [word], "missing": "drop", "categorical": {"a": "onehot"}}
    rows = read(tmp_path, {"a": texts}, **fields)
    assert rows.categories["a"] == ("a", "b")
    assert rows.summary.num_missing["a"] == 4
    target = read(tmp_path, {"a": NUMBERS, "y": texts}, missing_values=[word], missing="drop")
    assert target.target.classes.names == ["a", "b"]


def test_words_and_numbers_for_missing_values_are_read_as_the_table_writes_them(tmp_path):
    """A decimal comma in quotes is what the table holds; a number is what YAML says."""
    told = {"separator": ";", "decimal": ",", "thousands": ".", "missing": "drop"}
    text = "y;a\n" + "".join(
        f"{c};{n}\n"
        for c, n in zip(CLASSES, ["1,5", "1,5", "1.000,50", "1.000,50"] * 3, strict=True)
    )
    for word in ("1000,5", "1.000,500", 1000.5, "1000.5"):
        rows = of_csv(tmp_path, text, missing_values=[word], **told)
        assert rows.features["a"].unique().tolist() == [1.5], word


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("word", [-99.9, "-99.9"])
def test_a_number_is_missing_as_its_column_holds_it(tmp_path, kind, word):
    """-99.9 is another number in half and in single precision; pandas compares as the column."""
    column = pd.Series([1.5, 2.5, -99.9, 2.0] * 3, dtype=kind)
    assert (column == np.dtype(kind).type(-99.9)).sum() == 3
    cells = {"a": pa.array(column)}
    rows = as_typed(tmp_path, cells, missing_values=[word], missing="drop")
    assert rows.features["a"].unique().tolist() == [1.5, 2.5, 2.0]


def test_a_truth_value_is_missing_by_its_word_and_never_by_a_number(tmp_path):
    for read in (of_columns, as_typed):
        for values in (["True", "True", "False", "False"] * 3, [True, True, False, False] * 3):
            named = read(tmp_path, {"a": values}, missing_values=["false"], missing="drop")
            assert named.features["a"].unique().tolist() == [1]
            number = read(tmp_path, {"a": values}, missing_values=[0])
            assert number.features["a"].unique().tolist() == [1, 0]


@pytest.mark.parametrize("read", [of_columns, as_typed])
@pytest.mark.parametrize(("told", "name"), [*BOTH_WAYS, (" b", "b"), ("b", " b ")])
def test_a_column_is_found_by_its_name_in_any_spelling(tmp_path, read, told, name):
    fields = {"columns": [told, "z"], "categorical": {told: ["q", "p"]}}
    rows = read(tmp_path, {name: ["p", "q"] * 6, "z": NUMBERS}, **fields)
    (found, _) = rows.features
    assert found == unicodedata.normalize("NFC", name.strip())
    assert rows.categories[found] == ("q", "p")
    pq.write_table(pa.table({name: CLASSES, "a": NUMBERS}), tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    assert read_rows(DataSpec(parquet=path, target=told)).target.classes is not None
    job_file = tmp_path / "job.yaml"
    data = {"parquet": "t.parquet", "target": told, "columns": ["a"]}
    job_file.write_text(write_yaml({"name": "a", "data": data}))
    assert load_job(job_file).spec.data.target == found


@pytest.mark.parametrize(("told", "name"), BOTH_WAYS)
def test_rows_to_predict_name_their_columns_in_any_spelling(tmp_path, told, name):
    encoder = TableEncoder((Column(unicodedata.normalize("NFC", told), "number"),))
    frame = pd.DataFrame({name: NUMBERS})
    table = from_frame(frame, "the input", {column.name for column in encoder.columns})
    encoded = _encoded(table, encoder, DataSpec().dialect, pytest.fail)
    np.testing.assert_array_equal(encoded[:, 0], NUMBERS)
    older = TableEncoder.from_json([{**encoder.to_json()[0], "name": told}])
    assert older == encoder
    scalers = {"kind": "none", "scale": [1.0], "offset": [0.0]}
    np.testing.assert_array_equal(scaled_input(scalers, frame, [told])[:, 0], NUMBERS)


# Two files ----------------------------------------------------------------------------------------


def of_two(folder, own, test, **fields):
    test.to_csv(folder / "test.csv", index=False)
    return of_columns(folder, own, test=str(folder / "test.csv"), **fields)


@pytest.mark.parametrize(
    ("own", "test"),
    [
        (["1", "2"], [1.0, 2.0]),
        (["1.0", "2.0"], [1, 2]),
        (["a", "b"], ["a ", " b"]),
        (["True", "False"], ["true", "FALSE"]),
    ],
)
def test_one_value_is_one_category_in_every_file(tmp_path, own, test):
    columns = {"a": own * 6, "y": own * 6}
    other = pd.DataFrame({"a": test, "y": test})
    rows = of_two(tmp_path, columns, other, categorical={"a": "onehot"}, task="classification")
    assert list(rows.features["a"][-2:]) == list(rows.features["a"][:2])
    np.testing.assert_array_equal(rows.target.values[-2:], rows.target.values[:2])
    assert rows.summary.notes == ()


def test_categories_that_only_test_rows_have_are_counted_and_classes_are_refused(tmp_path):
    own = {"a": ["p", "q"] * 6}
    test = pd.DataFrame({"a": ["p", "z", "z"], "y": ["no", "yes", "no"]})
    rows = of_two(tmp_path, own, test)
    assert "'a' holds categories that the training file lacks" in rows.summary.notes[0]
    assert "treated as unknown: 'z' (2 rows)" in rows.summary.notes[0]
    message = refusal(of_two, tmp_path, own, test.assign(y=["no", "maybe", "maybe"]))
    assert "data.test has classes that the training file lacks: 'maybe' (2 rows)" in message
    foreign = refusal(of_two, tmp_path, own, test.assign(a="z"))
    assert "column 'a' holds no category of the training file: it holds 'z' (3 rows)" in foreign
    numbers = refusal(of_two, tmp_path, {"a": NUMBERS}, test)
    assert "test.csv:2: column 'a' must hold numbers, found 'p'" in numbers


# Orders -------------------------------------------------------------------------------------------

LEVELS = ["low", "high", "mid"] * 4


def test_levels_are_ordered_by_value_by_the_job_or_by_the_file(tmp_path):
    numbers = of_columns(
        tmp_path, {"a": ["10", "9.0", "1", "20"] * 3}, categorical={"a": "ordinal"}
    )
    assert numbers.categories["a"] == ("1", "9", "10", "20")
    words = {"a": ["low", "mid", "high"]}
    told = of_columns(tmp_path, {"a": LEVELS}, categorical=words)
    assert told.categories["a"] == ("low", "mid", "high")
    assert told.orders == {"a"}
    column = pd.Categorical(LEVELS, ["low", "mid", "high"], ordered=True)
    table = pd.DataFrame({"a": column, "y": CLASSES})
    of_file = of_parquet(tmp_path, table, categorical={"a": "ordinal"})
    assert of_file.categories["a"] == ("low", "mid", "high")


def test_texts_without_an_order_and_levels_outside_it_are_refused(tmp_path):
    message = refusal(of_columns, tmp_path, {"a": LEVELS}, categorical="ordinal")
    assert "no order of their own: 'high', 'low', 'mid'; give their" in message
    outside = refusal(of_columns, tmp_path, {"a": LEVELS}, categorical={"a": ["low", "high"]})
    assert "d.csv:4: column 'a' holds 'mid', which is not among its categories low, high" in outside


SAME_CATEGORY = [
    ([1, 2, "1.0"], "1 and '1.0'"),
    ([2, 1, 2.0], "2 and 2.0"),
    (["a", "caf\xe9", "cafe\u0301"], r"'caf\xe9' and 'cafe\u0301'"),
    (["\u212b", "a", "\xc5"], r"'\u212b' and '\xc5'"),
    (["true", "false", "TRUE"], "'true' and 'TRUE'"),
    (["low", "high", "low "], "'low' and 'low '"),
    (["0", "1", "-0.0"], "'0' and '-0.0'"),
    (["a", "a"], "'a' and 'a'"),
]


@pytest.mark.parametrize(("order", "twice"), SAME_CATEGORY)
def test_an_order_that_holds_a_category_twice_is_refused(tmp_path, order, twice):
    (tmp_path / "d.csv").write_text("a,y\n1,no\n")
    plain = job(tmp_path, target="y", categorical={"a": order})
    message = refusal(load_job, plain)
    assert f"job.yaml:6: data.categorical of a must hold each category once, but {twice}" in message
    columns = {"a": [str(order[0]), str(order[1])] * 6}
    assert twice in refusal(of_columns, tmp_path, columns, categorical={"a": order})


@pytest.mark.parametrize(("order", "twice"), SAME_CATEGORY[2:-1])
def test_an_order_of_a_file_that_holds_a_category_twice_is_refused(tmp_path, order, twice):
    column = pd.Categorical(order * 4, order, ordered=True)
    table = pd.DataFrame({"a": column, "y": CLASSES})
    message = refusal(of_parquet, tmp_path, table, categorical={"a": "ordinal"})
    assert "d.parquet: column 'a' has an order of categories" in message
    assert twice in message
    other = of_parquet(tmp_path, table, categorical={"a": "onehot"})
    assert len(other.categories["a"]) == 2
    told = of_parquet(tmp_path, table, categorical={"a": sorted(other.categories["a"])})
    assert told.orders == {"a"}


def test_levels_are_read_as_the_table_writes_numbers(tmp_path):
    told = {"separator": ";", "decimal": ",", "thousands": "."}
    cells = ["1,5", "1.000", "2"] * 4
    text = "y;a\n" + "".join(f"{c};{n}\n" for c, n in zip(CLASSES, cells, strict=True))
    for order in (["1.000", "1,5", 2], [1000, 1.5, "2"]):
        rows = of_csv(tmp_path, text, categorical={"a": order}, **told)
        assert rows.categories["a"] == ("1000", "1.5", "2")
        assert set(rows.features["a"]) == {"1000", "1.5", "2"}
    twice = refusal(of_csv, tmp_path, text, categorical={"a": ["1.000", 1000, 2]}, **told)
    assert "'1.000' and 1000 are one category" in twice
    outside = refusal(of_csv, tmp_path, text, categorical={"a": [1000, 2]}, **told)
    assert "d.csv:2: column 'a' holds '1.5', which is not among its categories 1000, 2" in outside


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": ["a", "caf\xe9", "cafe\u0301"]},
        {"categorical": {"caf\xe9": "onehot", "cafe\u0301": "ordinal"}},
    ],
)
def test_a_column_that_a_job_names_twice_is_refused(tmp_path, fields):
    (tmp_path / "d.csv").write_text("a,caf\xe9,y\n1,2,no\n")
    message = refusal(load_job, job(tmp_path, target="y", **fields))
    assert r"must be distinct, but 'caf\xe9' and 'cafe\u0301' are one column" in message


# Parquet ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([decimal.Decimal("1.50")] * NUM_ROWS), 1.5),
        (pa.array(np.full(NUM_ROWS, 1.5, np.float16)), 1.5),
        (pa.array([2**63] * NUM_ROWS, pa.uint64()), float(2**63)),
        (pa.array([7] * NUM_ROWS).dictionary_encode(), 7),
        (pa.array([True] * NUM_ROWS), 1),
    ],
)
def test_what_parquet_declares_as_a_number_is_one(tmp_path, column, expected):
    rows = of_parquet(tmp_path, pa.table({"a": column, "y": CLASSES}))
    np.testing.assert_array_equal(rows.features["a"], np.full(NUM_ROWS, expected))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2024-01-01", periods=NUM_ROWS), "row 1: column 'a' holds '2024-01-01 00"),
        (
            pa.array([1] * NUM_ROWS, pa.duration("s")),
            "row 1: column 'a' holds '1', but dates and times",
        ),
        (pa.array([[1]] * NUM_ROWS), "holds list<"),
        (pd.period_range("2024", periods=NUM_ROWS, freq="D"), "neither numbers nor text"),
        (pa.array([b"x"] * NUM_ROWS), "holds binary, neither numbers nor text"),
        (pa.array([None] * NUM_ROWS), "holds no value at all"),
        (pa.array([2**53 + 1] * NUM_ROWS), "row 1: column 'a' holds 9007199254740993, a whole"),
        (pa.array([1.5, np.inf] * 6), "row 2: column 'a' holds inf, no finite number"),
        (pa.array(["1", "2"] * 6), "column 'a' holds numbers that are stored as text"),
    ],
)
def test_what_parquet_declares_and_no_model_takes_is_refused_by_name(tmp_path, column, message):
    table = pa.table({"a": pa.array(column), "y": CLASSES})
    assert message in refusal(of_parquet, tmp_path, table, missing="mean")


def test_columns_of_parquet_are_those_of_the_file_whatever_pandas_made_of_them(tmp_path):
    frame = pd.DataFrame({"a": NUMBERS, "y": CLASSES, "z": NUMBERS})
    for index in ("y", "z", ["y", "z"]):
        assert set(of_parquet(tmp_path, frame.set_index(index)).features) == {"a", "z"}
    path = tmp_path / "d.parquet"
    pd.DataFrame({0: NUMBERS, 2: CLASSES}).to_parquet(path)
    assert list(read_rows(DataSpec(parquet=str(path), target="2")).features) == ["0"]


# One table, two formats ---------------------------------------------------------------------------

# No digits: `1.0` and `1` are one category, which is tested above.
words = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z", "N"]), min_size=1, max_size=4
).filter(lambda text: text.casefold() not in ("true", "false"))


def columns_of(values):
    return st.lists(st.none() | values, min_size=NUM_ROWS, max_size=NUM_ROWS)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    numbers=columns_of(st.floats(-1e30, 1e30)),
    texts=columns_of(words),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    decimal_mark=st.sampled_from([".", ","]),
)
def test_a_table_is_the_same_in_csv_in_parquet_and_by_hand(
    tmp_path, numbers, texts, separator, decimal_mark
):
    numbers[:3], texts[:3] = [0.25, -2.5, None], ['a;b,c\n"d"', "e", None]
    columns = {"row": [n + 0.5 for n in range(NUM_ROWS)], "a": numbers, "c": texts, "y": CLASSES}
    write_csv(tmp_path / "h.csv", columns, separator, decimal_mark)
    pq.write_table(pa.table(columns), tmp_path / "h.parquet")
    # Two ways to write one letter, such as U+2F912 and U+6FC6, are one category.
    texts = [None if text is None else unicodedata.normalize("NFC", text) for text in texts]
    common = {"target": "y", "missing": "mean", "categorical": {"c": "onehot"}}
    common |= {"test_split": 0.25, "validation_split": 0.25}
    written = {"separator": separator, "decimal": decimal_mark}
    for data in (
        DataSpec(csv=str(tmp_path / "h.csv"), **common, **written),
        DataSpec(parquet=str(tmp_path / "h.parquet"), **common),
    ):
        output = load_table(data, 0).output
        train = output["train"][0][:, 0].astype(int)
        known = {texts[row] for row in train} - {None}
        filled = [numbers[row] for row in train if numbers[row] is not None]
        categories = sorted({text for text in texts if text is not None})
        for part in ("train", "validation", "test"):
            x, y = output[part]
            for features, label in zip(x, y, strict=True):
                row = int(features[0])
                number = np.mean(filled) if numbers[row] is None else numbers[row]
                one_hot = [text == texts[row] and text in known for text in categories]
                np.testing.assert_allclose(features[1], number, rtol=1e-12)
                np.testing.assert_array_equal(features[2:], one_hot)
                assert label == row % 2


def write_csv(path, columns, separator, decimal_mark):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            cells = ("" if value is None else str(value) for value in row)
            numbers = [
                text.replace(".", decimal_mark) if isinstance(value, float) else text
                for text, value in zip(cells, row, strict=True)
            ]
            writer.writerow(numbers)


# The job and predictions --------------------------------------------------------------------------


def job(folder, **data):
    path = folder / "job.yaml"
    path.write_text(write_yaml({"name": "a", "seeds": 2, "data": {"csv": "d.csv", **data}}))
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"separator": ";;"}, "data.separator must be one character between the fields"),
        ({"decimal": "'"}, "data.decimal must be '.' or ','"),
        ({"thousands": ","}, None),
        ({"thousands": ",", "decimal": ","}, "thousands and decimal are both ','"),
        ({"encoding": "latin-99"}, "data.encoding must be an encoding that Python knows"),
        ({"missing_values": "NA"}, "data.missing_values must be a list of texts and numbers"),
        ({"missing_values": [float("nan")]}, "must be a list of texts and numbers"),
        (
            {"missing_values": [None]},
            "with quotes around words to which YAML gives another meaning",
        ),
        ({"categorical": {"a": ["low"]}}, "must be two or more categories, the lowest"),
        ({"categorical": {"a": [False, True]}}, "of a must be texts and numbers, with quotes"),
    ],
)
def test_a_wrong_word_about_how_a_table_is_written_is_refused(tmp_path, fields, message):
    (tmp_path / "d.csv").write_text("a,y\n1,no\n")
    path = job(tmp_path, target="y", **fields)
    if message is None:
        load_job(path)
    else:
        assert message in refusal(load_job, path)


def test_fields_that_are_not_given_are_not_part_of_a_job(tmp_path):
    (tmp_path / "d.csv").write_text("a,y\n1,no\n")
    plain = load_job(job(tmp_path, target="y")).spec
    new = {"separator", "decimal", "thousands", "encoding", "missing_values"}
    assert not new & plain.data.model_dump().keys()
    told = load_job(job(tmp_path, target="y", thousands=",")).spec
    hashes = {hash_settings(plan_variants(spec)[0]) for spec in (plain, told)}
    assert len(hashes) == 2


def test_predictions_never_take_the_place_of_a_users_column():
    table = pd.DataFrame({"class": ["x"], "predicted_class": ["y"], "a": [1]})
    beside = _beside(table, {"probability_x": [0.5], "class": ["z"]})
    pd.testing.assert_frame_equal(beside[list(table)], table)
    assert list(beside)[3:] == ["probability_x", "predicted_predicted_class"]


def test_the_columns_of_a_users_parquet_file_keep_their_values(tmp_path):
    ids = pa.array([2**53 + 1, None, 3])
    pq.write_table(pa.table({"id": ids, "amount": [1234567.891, 0.1, 2.0]}), tmp_path / "d.parquet")
    own = read_raw(tmp_path / "d.parquet", DataSpec().dialect, "d.parquet").as_written()
    table = _beside(own, {"prediction": [1 / 3, 2, 1e-9]})
    write_predictions(table, tmp_path / "o.parquet")
    assert pq.read_table(tmp_path / "o.parquet")["id"].combine_chunks().equals(ids)
    assert printed_csv(table, 2).splitlines() == [
        "id,amount,prediction",
        "9007199254740993,1234567.891,0.333333",
        ",0.1,2",
        "3,2.0,1e-09",
    ]


def test_a_folder_is_no_table(tmp_path):
    assert "cannot be read" in refusal(read_raw, tmp_path, DataSpec().dialect, "here")


def test_rows_to_predict_are_read_by_the_rules_of_the_training_file(tmp_path):
    own = {"a": NUMBERS, "c": ["p", "1"] * 6}
    of_columns(tmp_path, own, categorical={"c": "onehot"})
    path, shares = str(tmp_path / "d.csv"), {"test_split": 0.25, "validation_split": 0.3}
    data = DataSpec(csv=path, target="y", categorical={"c": "onehot"}, **shares)
    encoder = load_table(data, 0).encoder
    warnings = []

    def encoded(text, **dialect):
        path = tmp_path / "new.csv"
        path.write_text(text)
        spec = DataSpec(csv=str(path), target="y", **dialect)
        table = read_raw(path, spec.dialect, "new.csv")
        return _encoded(table, encoder, spec.dialect, warnings.append)

    np.testing.assert_array_equal(encoded("c,a\n 1.0 ,3\np,4.5\n"), [[3, 1, 0], [4.5, 0, 1]])
    np.testing.assert_array_equal(
        encoded("c;a\np;4,5\n", separator=";", decimal=","), [[4.5, 0, 1]]
    )
    rows = pd.DataFrame({"a": [3, "4.5"], "c": [1.0, "p"], "unused": [object(), [1]]})
    frame = from_frame(rows, "the input", {"a", "c"})
    np.testing.assert_array_equal(
        _encoded(frame, encoder, data.dialect, warnings.append), [[3, 1, 0], [4.5, 0, 1]]
    )
    assert warnings == []
    for text, message in {
        "c,a\np,1e300\n": "new.csv:2: column 'a' holds 1e300, beyond the range of float32",
        "c,a\np,1\np,1,2\n": "new.csv:3: 3 fields, but the header has 2",
        "c,a,a\np,1,2\n": "new.csv: has several columns named 'a'",
        "c,a\np,inf\n": "new.csv:2: column 'a' must hold numbers, found 'inf'",
        "c,a\np,\n": "new.csv:2: column 'a' must hold a number, but is empty",
        "c,a\n,1\n": "new.csv:2: column 'c' lacks a value",
        "c\np\n": "column 'a' is missing; found c",
        "c,a\n": "new.csv: holds no rows",
    }.items():
        assert message in refusal(encoded, text)
