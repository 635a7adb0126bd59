"""A run whose variants have different parameters: everywhere it is shown, resumed and extended."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from commands import call
from made_up_rounds import Driver
from made_up_runs import completed, finish, make_variants, write_run

import trialrun
from trialrun.analysis.comparison import compare_variants
from trialrun.analysis.edges import edges
from trialrun.analysis.explanation import explain
from trialrun.analysis.parameters import ABSENT
from trialrun.cli import cli
from trialrun.errors import InputError
from trialrun.job import searched_paths
from trialrun.report import build_report
from trialrun.report.figures.effects import parameter_effects
from trialrun.report.overview import load_overview
from trialrun.report.page_text import asked
from trialrun.report.rounds import dropped_rows
from trialrun.store.columns import parameter_kinds

NAME, MOMENTUM = "training.optimizer.name", "training.optimizer.momentum"
DEPTH, UNITS, PENALTY = "model.args.depth", "model.args.units_2", "model.args.penalty"
JOB = """
name: conditions
seeds: 12
training: {optimizer: {name: adam}}
search:
  rounds: auto
  confirm: {seeds: 4}
  parameters:
    training.learning_rate: {values: [0.9, 0.2, 0.1]}
    training.optimizer.name: {values: [adam, sgd]}
    training.optimizer.momentum: {values: [0.5, 0.9], when: {training.optimizer.name: sgd}}
"""
GRID = JOB.replace("  rounds: auto\n  confirm: {seeds: 4}\n", "")
# The first has an explicit null where the second has nothing; integers stay integers.
VARIANTS = make_variants(
    [
        {NAME: "adam", DEPTH: 1, PENALTY: None},
        {NAME: "adam", DEPTH: 2, UNITS: 16},
        {NAME: "sgd", MOMENTUM: 0.9, DEPTH: 2, UNITS: 32, PENALTY: [1, 2]},
        {NAME: "sgd", MOMENTUM: 0.5, DEPTH: 1, PENALTY: None},
    ]
)
LOSSES = {"v00": 0.3, "v01": 0.2, "v02": 0.1, "v03": 0.4}


def result_of(variant, seed):
    luck = np.random.default_rng(seed).normal(0, 0.05)
    own = np.random.default_rng([seed, int(variant.variant_id[1:])]).normal(0, 0.001)
    return completed(variant, seed, val_loss=LOSSES[variant.variant_id] + luck + own)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs"), VARIANTS, range(6), result_of=result_of)
    return finish(folder)


def words(*command):
    result = CliRunner().invoke(cli, [str(part) for part in command], terminal_width=220)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


# What is stored -----------------------------------------------------------------------------------


def test_paths_are_united_in_the_order_of_the_search():
    paths = [list(variant.parameters) for variant in VARIANTS]
    assert searched_paths(dict.fromkeys(one) for one in paths) == [
        NAME,
        MOMENTUM,
        DEPTH,
        UNITS,
        PENALTY,
    ]
    assert searched_paths([]) == []
    assert searched_paths([{}, {"a": 1}, {"a": 2}]) == ["a"]


def test_types_are_those_of_the_values_that_there_are():
    assert parameter_kinds(VARIANTS) == {
        NAME: "text",
        MOMENTUM: "float",
        DEPTH: "int",
        UNITS: "int",
        PENALTY: "json",
    }


def test_parameters_are_read_back_as_they_were(run):
    expected = {variant.variant_id: dict(variant.parameters) for variant in VARIANTS}
    found = run.read_parameters()
    assert {key: sorted(one.items(), key=str) for key, one in found.items()} == {
        key: sorted(one.items(), key=str) for key, one in expected.items()
    }
    assert repr(found["v01"][UNITS]) == "16"
    assert PENALTY not in found["v01"]
    assert found["v00"][PENALTY] is None


def test_a_cell_of_an_absent_parameter_is_null_and_a_null_is_not(run):
    tables = [pq.read_table(file) for file in sorted(run.tables.trials_dir.iterdir())]
    assert tables[1][f"param.{PENALTY}"].null_count == len(tables[1])
    assert tables[0][f"param.{PENALTY}"].to_pylist()[0] == "null"
    assert tables[0][f"param.{UNITS}"].null_count == len(tables[0])
    assert str(tables[0].schema.field(f"param.{UNITS}").type) == "int64"


def test_the_table_of_variants_has_an_empty_cell(run):
    text = run.variants_file.read_text()
    rows = {row["variant_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert [rows[f"v0{n}"][f"param.{MOMENTUM}"] for n in range(4)] == ["", "", "0.9", "0.5"]
    assert [rows[f"v0{n}"][f"param.{UNITS}"] for n in range(4)] == ["", "16", "32", ""]
    penalties = [rows[f"v0{n}"][f"param.{PENALTY}"] for n in range(4)]
    assert penalties == ["null", "", "[1, 2]", "null"]
    assert rows == {
        row["variant_id"]: row
        for row in csv.DictReader(io.StringIO(words("show", run.path, "--csv")))
    }
    frame = trialrun.open_run(run.path).variants.set_index("variant_id")
    assert pd.isna(frame.loc["v00", f"param.{MOMENTUM}"])


# What people see ----------------------------------------------------------------------------------


def test_the_terminal_and_the_notebook_show_a_dash(run):
    lines = [line.split() for line in words("show", run.path).splitlines()]
    cells = {line[1]: line for line in lines if len(line) > 8}
    assert cells["v00"][2:7] == ["adam", "-", "1", "-", "null"]
    assert cells["v02"][2:6] == ["sgd", "0.9", "2", "32"]
    html = trialrun.open_run(run.path)._repr_html_()
    assert html.count("<td>-</td>") == 2 + 2 + 1


def test_json_says_nothing_of_what_a_variant_does_not_have(run):
    shown = json.loads(words("show", run.path, "--json"))
    own = {variant["variant_id"]: variant["parameters"] for variant in shown["variants"]}
    assert own == {variant.variant_id: dict(variant.parameters) for variant in VARIANTS}
    best = json.loads(run.summary_file.read_text())["selection"]["parameters"]
    assert best == dict(VARIANTS[2].parameters)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--where", "momentum=0.9"], ["v02"]),
        (["--where", "momentum!=0.9"], ["v03"]),
        (["--where", "momentum<1"], ["v02", "v03"]),
        (["--where", "penalty=null"], ["v00", "v03"]),
        (["--sort", "momentum"], ["v03", "v02", "v01", "v00"]),
        (["--sort", "units_2", "--reverse"], ["v02", "v01", "v00", "v03"]),
    ],
)
def test_conditions_and_orders_know_what_is_absent(run, options, expected):
    rows = csv.DictReader(io.StringIO(words("show", run.path, "--csv", *options)))
    assert [row["variant_id"] for row in rows] == expected


def test_a_comparison_says_what_only_one_of_them_has(run):
    assert compare_variants(run, "v00", "v02").parameters[MOMENTUM] == (ABSENT, 0.9)
    assert f"{MOMENTUM}: - against 0.9" in words("compare", run.path, "v00", "v02")
    pairs = json.loads(words("compare", run.path, "v00", "v02", "--json"))["parameters"]
    assert pairs[MOMENTUM] == [None, 0.9]
    assert UNITS not in compare_variants(run, "v00", "v03").parameters  # neither has it


def test_the_page_shows_a_dash_and_lets_choose_by_it(run):
    build_report(run)
    page = run.report_file.read_text()
    assert '<td class="number">-</td>' in page
    assert '<option value="-">-</option>' in page
    assert "Which combination of name, momentum, depth, units_2 and penalty gives" in page


def test_the_page_says_what_holds_where_a_condition_is_not_met():
    domains = {"model.args.depth": {"values": [1, 2]}}
    domains[UNITS] = {"values": [16, 32], "when": {DEPTH: [2]}}
    model = {"builder": "nets.py:stack", "args": {"depth": 1, "units_2": 8}}
    facts = {
        fact.name: fact.text for fact in asked({"model": model, "search": {"parameters": domains}})
    }
    assert facts[UNITS] == "16, 32; if model.args.depth is 2"
    assert facts["Model"] == "nets.py:stack(units_2=8)"


def test_effects_are_of_the_variants_that_have_the_parameter():
    means = np.array([0.3, 0.2, 0.1, 0.4, np.nan])
    values = {
        "momentum": [ABSENT, ABSENT, 0.9, 0.5, 0.5],
        "kind": ["a", ABSENT, "b", None, ABSENT],
        "one": [ABSENT, 1, ABSENT, ABSENT, 1],
    }
    momentum, kind = parameter_effects(values, means, "minimize")
    np.testing.assert_array_equal(momentum.positions, [np.nan, np.nan, 0.9, 0.5, np.nan])
    assert [(group.label, group.median) for group in momentum.groups] == [
        ("0.5", 0.4),
        ("0.9", 0.1),
    ]
    assert [(group.label, group.median) for group in kind.groups] == [
        ("a", 0.3),
        ("b", 0.1),
        ("null", 0.4),
    ]


def test_an_edge_is_one_of_the_variants_that_have_the_parameter(tmp_path):
    units = [{DEPTH: 1}, *({DEPTH: 2, UNITS: number} for number in (8, 16, 32))]

    def better_if_wider(variant, seed):
        loss = 1 / variant.parameters.get(UNITS, 4)
        return completed(variant, seed, val_loss=loss + 1e-4 * (seed % 3))

    folder = write_run(tmp_path, make_variants(units), range(6), result_of=better_if_wider)
    (edge,) = edges(load_overview(folder).leaderboard)
    assert (edge.path, edge.value, edge.end) == (UNITS, 32, "largest")


def test_losses_that_only_some_variants_have_are_not_the_same(tmp_path):
    variants = make_variants(
        [{"training.loss.name": "huber", "training.loss.delta": 1.0}, {"training.loss.name": "mse"}]
    )
    said = explain(load_overview(write_run(tmp_path, variants, range(3))).leaderboard)
    assert "(training.loss.name, training.loss.delta is searched)" in said


# Runs of a job ------------------------------------------------------------------------------------


def driver_of(folder, job=JOB, **overrides):
    driver = Driver(folder, job, **overrides)
    driver.live()
    return driver


def test_rounds_show_who_was_dropped(tmp_path):
    driver = driver_of(tmp_path)
    assert driver.log[0] == "choose 9 x 2"
    said = words("show", driver.run.path, "--rounds")
    dropped = [line.split() for line in said.splitlines() if line.startswith("v0")]
    assert all(row[3] == "-" for row in dropped if row[2] == "adam")
    assert all(row[3] in ("0.5", "0.9") for row in dropped if row[2] == "sgd")
    assert {row[2] for row in dropped} == {"adam", "sgd"}
    board = load_overview(driver.run).leaderboard
    rows = dropped_rows(board.rounds)
    assert any(f"param.{MOMENTUM}" not in row for row in rows)
    driver.run.write_dropped(rows)
    table = list(csv.DictReader(io.StringIO(driver.run.dropped_file.read_text())))
    has_momentum = {row[f"param.{NAME}"]: row[f"param.{MOMENTUM}"] != "" for row in table}
    assert has_momentum == {"adam": False, "sgd": True}
    build_report(driver.run)
    page = driver.run.report_file.read_text()
    assert f"0.5, 0.9; if {NAME} is sgd" in page


def test_the_leaderboard_of_conditions_is_a_table_of_the_same_trials(tmp_path):
    for name in ("grid", "table"):
        (tmp_path / name).mkdir()
    first = Driver(tmp_path / "grid", GRID)
    trained = first.live()
    finish(first.run)
    (tmp_path / "table" / "t.csv").write_bytes(first.run.variants_file.read_bytes())
    table = GRID.split("  parameters:")[0] + "  method: from\n  from: t.csv\n"
    again = Driver(tmp_path / "table", table)
    assert sorted(again.live()) == sorted(trained)
    said = [line.split() for line in words("show", again.run.path).splitlines()]
    cells = {tuple(line[2:5]) for line in said if len(line) > 6}
    assert ("0.1", "adam", "-") in cells
    assert ("0.1", "sgd", "0.9") in cells
    resumed = Driver(tmp_path / "table", again.run.job_file.read_text())
    assert resumed.live() == []


def test_the_plan_shows_conditions(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    said = words("plan", job)
    row = next(line.split() for line in said.splitlines() if line.startswith("v00"))
    assert row == ["v00", "0.9", "adam", "-"]
    assert f"{MOMENTUM} yes if {NAME} is sgd" in " ".join(said.split())


def test_a_run_is_resumed_and_extended(tmp_path):
    first = driver_of(tmp_path, GRID)
    assert not driver_of(tmp_path, GRID).live()  # nothing is missing
    longer = Driver(tmp_path, GRID, seeds=14)
    assert len(longer.live()) == 9 * 2
    assert first.run.read_parameters() == longer.run.read_parameters()
    values = {"search.parameters.training.learning_rate.values": [0.9, 0.2, 0.1, 0.3]}
    wider = Driver(tmp_path, GRID, seeds=14, **values)
    assert len(wider.live()) == 3 * 14


def test_a_run_of_a_job_with_other_conditions_is_not_resumed(tmp_path):
    driver_of(tmp_path, GRID)
    other = GRID.replace(
        "when: {training.optimizer.name: sgd}", "when: {training.learning_rate: 0.2}"
    )
    other = other.replace("{name: adam}", "{name: sgd}").replace("[adam, sgd]", "[rmsprop, sgd]")
    with pytest.raises(InputError, match="differs from"):
        Driver(tmp_path, other)


def test_a_wrong_condition_ends_with_code_2(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("name: sgd}", "name: sdg}"))
    finished = call("plan", job)
    assert finished.code == 2
    assert finished.stderr.startswith(f"Error: {job}:11: {MOMENTUM}: {NAME!r} never has the value")
