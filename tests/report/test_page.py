"""What report.html holds, from its text alone; tests/system/test_browser.py opens it."""

import base64
import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up_runs import broken, completed, finish, learning_rates, make_variants, write_run
from matplotlib.colors import to_rgb

import trialrun.report
from trialrun.analysis.explanation import sentences
from trialrun.analysis.importance import find_importance
from trialrun.analysis.run_summary import Tally, TrialProblem
from trialrun.analysis.summary_json import run_summary
from trialrun.errors import TrialrunError
from trialrun.job import dump_job, load_job
from trialrun.report import build_report, overview_content
from trialrun.report.notebook import summary_html
from trialrun.report.overview import load_overview
from trialrun.report.page_table import MAX_CELLS, leading_number, page_table
from trialrun.report.page_text import (
    asked,
    environment_facts,
    group_problems,
    importance_note,
    question,
)
from trialrun.report.view import View
from trialrun.store import RunFolder
from trialrun.store.costs import Cost, problem_with_costs, read_costs, write_costs
from trialrun.store.files import write_json

VARIANTS = learning_rates(1e-4, 3e-4, 1e-3)
SCRIPT = "<script>alert(1)</script>"
ASSETS = Path(trialrun.report.__file__).parent


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder):
    build_report(folder)
    return Page(folder.report_file.read_text())


@pytest.fixture
def without_figures(monkeypatch):
    """For tests that read words alone: to draw the figures takes longer than all the rest."""
    monkeypatch.setattr("trialrun.report.figures.draw_figures", lambda *_: ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = finish(write_run(tmp_path_factory.mktemp("runs"), VARIANTS, range(3)))
    build_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder.report_file.read_text())


# What it shows --------------------------------------------------------------------------------


def test_the_page_shows_the_run(page):
    for text in (
        "medical_trial",
        "9 trials: 9 completed",
        "14.2 s in all",
        "has the lowest mean val_loss of 3 variants",
        "Total params: 642",
        'load_model("best/medical_trial_model.h5")',
        'model.load_weights("best/medical_trial.weights.h5")',
        "metric: val_loss",
    ):
        assert text in page.text
    assert page.text.count("±") >= 3 * 6


def test_the_images_of_the_page_are_told_in_words(page):
    *_, curves, matrix = (image["alt"] for image in page.all("img"))
    assert "True no_side_effects: " in matrix
    assert "predicted had_side_effects" in matrix
    assert "over 4 epochs; medians at the end: loss 0." in curves


def test_figures_and_page_follow_from_the_folder_alone(tmp_path):
    folder = finish(write_run(tmp_path / "here", VARIANTS, range(3)))
    write_json(folder.environment_file, {"python": "3.12.1", "packages": {"keras": "3.15.1"}})
    build_report(folder)
    moved = RunFolder.open(shutil.copytree(folder.path, tmp_path / "there" / folder.path.name))
    moved.report_file.unlink()
    shutil.rmtree(moved.figures_dir)
    build_report(moved)
    assert moved.report_file.read_bytes() == folder.report_file.read_bytes()
    names = {path.name for path in folder.figures_dir.iterdir()}
    assert {"variants.png", "variants.svg", "confusion_matrix.png", "learning_curves.svg"} <= names
    assert {path.name for path in moved.figures_dir.iterdir()} == names
    for name in names:
        image = moved.figures_dir / name
        assert image.read_bytes() == (folder.figures_dir / name).read_bytes()


def test_how_sure_the_win_is_stands_under_what_won(folder):
    text = Page(folder.report_file.read_text()).text
    told = sentences(load_overview(folder).leaderboard)
    assert len(told) >= 4
    places = [text.index(sentence) for sentence in told]
    assert places == sorted(places)
    assert places[-1] < text.index("Leaderboard", text.index("What won"))


def test_the_leaderboard_says_what_can_be_told_from_the_winner(folder):
    board = load_overview(folder).leaderboard
    table = page_table(board)
    (place,) = [index for index, head in enumerate(table.heads) if head.name == "p"]
    cells = [row.cells[place] for row in table.rows]
    assert (cells[0].text, cells[0].value) == ("", "")
    for variant, cell in zip(board.variants[1:], cells[1:], strict=True):
        p_value = board.certainty.p_values[variant.variant_id]
        assert cell.text == f"{p_value:.2g}"
        assert float(cell.value) == pytest.approx(p_value)


# The question ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_figures")
def test_what_a_variant_has_cost_is_in_every_table_if_it_is_known(tmp_path, folder):
    run = write_run(tmp_path, VARIANTS, range(3))
    costs = {"v00": Cost(4_000.5, 75, 20), "v01": Cost(3.25), "v09": Cost(1)}
    opened = Tally(run, metric="val_loss", goal="minimize")  # as a driver does before it writes
    write_costs(run, costs)
    board = opened.standing_without_matrices().leaderboard
    assert {one.variant_id: one.cost for one in board.variants} == {
        name: costs.get(name) for name in ("v00", "v01", "v02")
    }
    run.costs_file.write_text(run.costs_file.read_text().replace('"v09"', '"\\u001b[2Jv09"'))
    assert read_costs(run) == {**{k: costs[k] for k in ("v00", "v01")}, "␛[2Jv09": Cost(1)}
    page = page_of(finish(run))
    assert "cost: the variant's share of the time for which devices were occupied" in page.text
    assert "1 h 6 min" in page.text
    assert "3.2 s" in page.text
    with run.variants_file.open(newline="") as file:
        rows = {row["variant_id"]: row for row in csv.DictReader(file)}
    assert [rows[name]["device_s"] for name in ("v00", "v01", "v02")] == ["4000.5", "3.25", ""]
    shown = overview_content(run, View(sort="device_s", reverse=True))["variants"]
    assert shown[0]["cost"] == {"device_s": 4000.5, "lost_s": 75, "compile_s": 20}
    assert "cost:" not in Page(folder.report_file.read_text()).text
    assert not problem_with_costs(run)
    for content in ("", "[1]", '{"v00": {"device_s": -5, "lost_s": true}}', '{"v00": 1}', "{" * 9):
        run.costs_file.write_text(content)
        assert set(read_costs(run).values()) <= {Cost()}
        assert problem_with_costs(run).endswith("what earlier commands have cost is not known")
    write_costs(run, {})
    assert not problem_with_costs(run)


def test_the_job_is_told_as_a_question(tmp_path):
    folder = write_run(tmp_path, VARIANTS, range(2), metric="val_accuracy", goal="maximize")
    (tmp_path / "job.yaml").write_text(
        "name: sweep\nmodel: {args: {units: [8], activation: relu}}\n"
        "seeds: [3, 14]\nselect: {metric: val_accuracy}\n"
        "search: {method: random, num_variants: 4, parameters: {\n"
        "  training.learning_rate: {min: 1e-4, max: 0.1, distribution: log_uniform},\n"
        "  model.args.units: {values: [[16, 32], [64]]}}}\n"
    )
    folder.write_job(dump_job(load_job(tmp_path / "job.yaml").spec))
    job, board = folder.read_job(), load_overview(folder).leaderboard
    assert question(job, board) == (
        "Which combination of learning_rate and units gives the highest mean val_accuracy"
        " over 2 seeds?"
    )
    facts = {fact.name: fact.text for fact in asked(job)}
    assert facts["training.learning_rate"] == "0.0001 to 0.1, log_uniform"
    assert facts["model.args.units"] == "[16, 32], [64]"
    assert facts["Search"] == "random, 4 variants"
    assert facts["Seeds"] == "2: 3, 14"
    assert facts["Model"] == "trialrun.models:mlp(activation=relu)"  # units are searched
    assert "learning_rate" not in facts["Training"]
    assert "epochs 30" in facts["Training"]


def test_a_job_with_a_table_says_what_its_columns_hold(tmp_path):
    rows = [{"training.learning_rate": rate, "model.args.units": [8]} for rate in (0.1, 0.2, 0.1)]
    (tmp_path / "job.yaml").write_text("name: a\nseeds: 2\nsearch: {method: from}\n")
    job = yaml.safe_load(dump_job(load_job(tmp_path / "job.yaml", {"search.from": rows}).spec))
    facts = {fact.name: fact.text for fact in asked(job)}
    assert facts["training.learning_rate"] == "0.1, 0.2"
    assert facts["model.args.units"] == "[8]"
    assert facts["Search"] == "a table of 3 rows"
    assert facts["Model"] == "trialrun.models:mlp"
    assert "learning_rate" not in facts["Training"]


def test_the_page_does_not_claim_the_jobs_optimizer_for_a_model_that_its_builder_compiled():
    job = {"training": {"optimizer": "adam", "learning_rate": 0.1, "loss": "mse", "epochs": 3}}

    def training(compiled_by_builder):
        (fact,) = asked(job, compiled_by_builder)
        return fact.text

    assert training("none") == "optimizer adam, learning_rate 0.1, loss mse, epochs 3"
    assert training("all") == "optimizer and loss set by the model's builder, epochs 3"
    assert training("some") == (
        "optimizer adam, learning_rate 0.1, loss mse (some models: set by their builder), epochs 3"
    )


def test_a_question_is_asked_without_any_search(folder):
    board = dataclasses.replace(load_overview(folder).leaderboard, metric="val_loss", variants=())
    assert question({"seeds": 5}, board) == "What mean val_loss does the model reach over 5 seeds?"
    assert asked({}) == []


# The leaderboard ------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_figures")
def test_numbers_are_sorted_by_what_was_measured_not_by_what_is_shown(tmp_path):
    values = {"v00": 0.2500004, "v01": 0.2500001, "v02": math.nan}

    def result_of(variant, seed):
        if math.isnan(values[variant.variant_id]):
            return broken(variant, seed)
        return completed(variant, seed, val_loss=values[variant.variant_id])

    html = page_of(write_run(tmp_path, VARIANTS, (0,), result_of=result_of))
    rows = [cell["data-value"] for cell in html.all("td") if "data-value" in cell]
    assert {"0.2500004", "0.2500001"} <= set(rows)
    assert "nan" not in rows
    assert {"0.0001", "0.0003", "0.001"} <= set(rows)  # the learning rates


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.184 ± 0.012", 0.184),
        ("1.50e+12 ± 3.00e+11", 1.5e12),
        ("-3", -3),
        ("<0.001", 0.001),
        ("1,890", 1890),
        ("0.5 [0.4, 0.6]", 0.5),
    ],
)
def test_a_column_that_gives_no_values_is_sorted_by_its_leading_numbers(text, number):
    assert leading_number(text) == number


@pytest.mark.parametrize("text", ["n/a", "", "± 3", "relu"])
def test_a_text_without_a_number_is_not_sorted_as_one(text):
    assert math.isnan(leading_number(text))


@pytest.mark.usefixtures("without_figures")
def test_a_long_leaderboard_shows_its_top_and_links_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("trialrun.report.page_table.MAX_ROWS", 30)
    variants = learning_rates(*np.geomspace(1e-5, 1, 36))
    running = write_run(tmp_path, variants, (0,))
    page = page_of(running)
    assert len([cell for cell in page.all("th") if cell.get("scope") == "row"]) == 30
    assert "... and 6 more" in page.text
    assert "variants.csv" not in [link["href"] for link in page.all("a")]  # not written yet
    assert "variants.csv" in [link["href"] for link in page_of(finish(running)).all("a")]


@pytest.mark.usefixtures("without_figures")
def test_a_wide_leaderboard_shows_fewer_rows(tmp_path, monkeypatch):
    max_cells = MAX_CELLS // 10
    monkeypatch.setattr("trialrun.report.page_table.MAX_CELLS", max_cells)

    def result_of(variant, seed):
        more = {f"val_metric_{number}": 0.5 for number in range(50)}
        return completed(variant, seed, **more)

    variants = learning_rates(*np.geomspace(1e-5, 1, 60))
    page = page_of(write_run(tmp_path, variants, (0,), result_of=result_of))
    assert 20 <= len([cell for cell in page.all("th") if cell.get("scope") == "row"]) < 60
    assert len(page.all("td")) < max_cells + 100


# Trials that were lost ------------------------------------------------------------------------


def test_a_run_whose_trials_all_failed_has_a_page(tmp_path):
    def result_of(variant, seed):
        return broken(variant, seed, error="the builder raised\nValueError: no units")

    page = page_of(finish(write_run(tmp_path, VARIANTS, range(3), result_of=result_of)))
    assert page.text.count("ValueError: no units") == 2  # the reason, and the full text
    assert "v01: seeds 0, 1, 2" in page.text
    assert not page.all("img")


def test_the_trials_that_were_lost_are_listed_on_the_page(tmp_path):
    def result_of(variant, seed):
        return broken(variant, seed, error=f"reason {seed}") if seed else completed(variant, seed)

    page = page_of(write_run(tmp_path, VARIANTS[:1], range(60), result_of=result_of))
    assert "1 completed, 59 failed" in page.text
    assert "reason 50" in page.text
    assert "reason 51" not in page.text
    assert "... and 9 more" in page.text
    assert len(page.all("img")) == 4  # one variant has no effects, made-up trials no probabilities


def test_trials_lost_for_the_same_reason_are_told_together():
    def problem(variant_id, seed, error="", status="failed"):
        return TrialProblem(f"{variant_id}{seed}", variant_id, seed, status, error)

    trace = "Traceback:\n  File x\nValueError: no\n"
    groups = group_problems(
        [
            problem("v00", 1, trace),
            problem("v00", 2, status="diverged"),
            problem("v00", 3, trace),
            problem("v07", 1, trace),
        ]
    )
    assert [(one.num_trials, one.trials, one.reason, one.text) for one in groups] == [
        (3, "v00: seeds 1, 3; v07: seed 1", "ValueError: no", trace.strip()),
        (1, "v00: seed 2", "a loss is not finite", ""),
    ]


def test_an_endless_error_is_cut_in_its_middle():
    error = "first line\n" + "x" * 1_000_000 + "\nValueError: the last line"
    (group,) = group_problems([TrialProblem("t", "v00", 0, "failed", error)])
    assert group.reason == "ValueError: the last line"
    assert len(group.text) < 25_000
    assert group.text.startswith("first line")
    assert group.text.endswith("the last line")


# The environment ------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_figures")
def test_the_page_tells_what_the_run_ran_on(tmp_path):
    folder = finish(write_run(tmp_path, VARIANTS[:1], (0,)))
    environment = {
        "job_file": "jobs/medical_trial.yaml",
        "command": ["trialrun", "run", "my job.yaml"],
        "git_revision": "0123abc-dirty",
        "python": "3.12.1",
        "platform": "Linux-6.1",
        "node": "box",
        "packages": {"tensorflow": "2.21.0", "keras": SCRIPT},
        "ray": {
            "address": "local",
            "num_devices": 2,
            "gpus_per_pack": 0.5,
            "accelerator_type": None,
        },
        "earlier": [{"node": "other"}],
    }
    write_json(folder.environment_file, environment)
    assert {fact.name: fact.text for fact in environment_facts(environment)} == {
        "Command": "trialrun run 'my job.yaml'",
        "Job file": "jobs/medical_trial.yaml",
        "Git revision": "0123abc-dirty",
        "Versions": f"tensorflow 2.21.0, keras {SCRIPT}",
        "Python": "3.12.1",
        "Machine": "box, Linux-6.1",
        "Devices": "num_devices 2, gpus_per_pack 0.5, address local",
        "Interrupted": "1 time; this describes where the run was last continued",
    }
    page = page_of(folder)
    assert "trialrun run 'my job.yaml'" in page.text
    start = page.text.index("{", page.text.index("environment.json"))
    assert json.JSONDecoder().raw_decode(page.text[start:])[0] == environment


def test_a_run_without_environment_has_a_page_without_it(page):
    assert "The environment" not in page.text


@pytest.mark.usefixtures("without_figures")
def test_a_damaged_environment_is_named(tmp_path):
    folder = write_run(tmp_path, VARIANTS[:1], (0,))
    folder.environment_file.write_text("{")
    with pytest.raises(TrialrunError, match=r"environment\.json: cannot be read"):
        build_report(folder)


# Nothing from outside, nothing by others ------------------------------------------------------


def test_the_page_loads_nothing_from_anywhere(page):
    names = {"src", "href", "srcset", "action", "data", "poster"}
    links = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in names
    ]
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    inside = [link for link in links if link.startswith("#")]
    assert {link.removeprefix("#") for link in inside} <= ids
    images = [link for link in links if link not in inside]
    assert len(images) == len(page.all("img")) >= 4
    assert all(link.startswith("data:image/png;base64,") for link in images)
    assert not {"link", "iframe", "object", "form"} & {tag for tag, _ in page.elements}
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_the_policy_lets_the_pages_own_style_and_script_run_and_nothing_else(folder, page):
    html = folder.report_file.read_text()
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    hashes = {
        tag: base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for tag in ("style", "script")
        for content in re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    }
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes['style']}';"
        f" script-src 'sha256-{hashes['script']}'; base-uri 'none'; form-action 'none'"
    )
    assert len(page.all("script")) == len(page.all("style")) == 1
    attributes = {name for _, of in page.elements for name in of}
    assert not [name for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("name", ["page.css", "page.js"])
def test_no_asset_ends_its_own_element(name):
    assert "</" not in (ASSETS / name).read_text(encoding="utf-8")


def test_what_users_write_cannot_become_part_of_the_page(tmp_path):
    def result_of(variant, seed):
        if seed == 2:
            return broken(variant, seed, error=f'{SCRIPT} & "quoted"\n{SCRIPT}')
        return completed(variant, seed)

    names = (SCRIPT, '"><script>alert(2)</script>')
    parameters = [{f"model.args.{SCRIPT}": text} for text in (*names, "'-alert(3)-'" * 20)]
    folder = write_run(
        tmp_path, make_variants(parameters), range(3), result_of=result_of, class_names=names
    )
    folder.write_job(
        f"name: '{SCRIPT}'\nselect: {{metric: val_loss, goal: minimize}}\n"
        f"search: {{parameters: {{'model.args.{SCRIPT}': {{values: ['{SCRIPT}']}}}}}}\n"
    )
    write_json(folder.environment_file, {"command": [SCRIPT], "ray": {SCRIPT: SCRIPT}})
    page = page_of(finish(folder, model_summary=SCRIPT))
    html = folder.report_file.read_text()
    assert html.count("<script") == 1  # ours
    assert len(page.all("script")) == 1
    assert page.text.count(SCRIPT) >= 12  # name, parameter, error, model, job: all are shown
    assert '"><script>alert(2)</script>' in page.all("img")[-1]["alt"]
    assert '"><script>alert(2)</script>' in [option["value"] for option in page.all("option")]


# Can be read ----------------------------------------------------------------------------------


def themes():
    """Name of a color -> its value, for the light and for the dark page."""
    css = (ASSETS / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#\w+);", block)) for block in blocks)
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def contrast(one, other):
    """The contrast ratio of two colors as WCAG 2 defines it, 1 to 21."""
    rgb = np.array([to_rgb(one), to_rgb(other)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "panel"])
def test_every_color_of_text_can_be_read_on_its_ground(theme, ground):
    colors = themes()[theme]
    assert contrast("#000", "#fff") == pytest.approx(21)
    for name in ("text", "muted", "accent", "warning"):
        assert contrast(colors[name], colors[ground]) >= 4.5, name
    assert contrast(colors["control"], colors[ground]) >= 3  # edges of what can be typed into


def test_the_style_names_no_color_outside_the_themes():
    css = (ASSETS / "page.css").read_text(encoding="utf-8")
    rules = re.sub(r":root \{.*?\}", "", css, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-f]{3,8}\b", rules) == ["#fff"]  # the ground of figures


def test_a_page_without_figures_says_why_they_are_missing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr("trialrun.report.figures.draw_figures", fail)
    folder = finish(write_run(tmp_path, VARIANTS, range(3)))
    build_report(folder)
    text = Page(folder.report_file.read_text()).text
    assert "The figures could not be drawn: RuntimeError: no font." in text
    assert "has the lowest mean val_loss of 3 variants" in text


@pytest.mark.usefixtures("without_figures")
def test_the_page_says_which_files_hold_the_model_and_why_others_do_not(tmp_path):
    folder = finish(write_run(tmp_path, VARIANTS, range(3)))
    where = "\n  at nets.py:4 in get_config: raise OSError\n  called at nets.py:9 in f: g()"
    formats = [
        {"name": ".weights.h5", "file": "m.weights.h5", "is_proved": True, "note": "the builder"},
        {"name": ".keras", "file": "m.keras", "is_proved": False, "note": "'l' is <Lambda>"},
        {"name": ".h5", "file": "m.h5", "is_proved": False, "note": f"no disk{where}"},
    ]
    saved = {"proved": True, "problem": "", "formats": formats, "notes": []}
    write_json(folder.summary_file, {**folder.read_summary(), "best_model": saved})
    build_report(folder)
    text = Page(folder.report_file.read_text()).text
    assert "The best model is in best/ as .weights.h5: loaded again and compared." in text
    assert "Not as .keras: 'l' is <Lambda>." in text
    assert "Not as .h5: no disk (at nets.py:4 in get_config: raise OSError)." in text
    assert "keras.models.load_model" not in text


def test_the_page_and_the_notebook_show_the_importance_of_parameters(tmp_path):
    variants = make_variants(
        [
            {"training.learning_rate": 10.0**-power, "model.args.units": [units]}
            for power in range(1, 11)
            for units in (16, 32)
        ]
    )

    def result_of(variant, seed):
        [units] = variant.parameters["model.args.units"]
        return completed(
            variant, seed, val_loss=units + variant.parameters["training.learning_rate"]
        )

    folder = write_run(tmp_path, variants, range(2), result_of=result_of)
    standing = Tally(folder, **folder.read_job()["select"]).standing_without_matrices()
    importance = find_importance(standing.leaderboard, standing.scores)
    summary = run_summary("job", standing, timings_s={}, importance=importance)
    write_json(folder.summary_file, summary)
    assert [one["is_clear"] for one in summary["importance"]["parameters"]] == [True, False]
    assert "Importance: how much each parameter separates the best 5 of 20" in page_of(folder).text
    assert "(PED-ANOVA): units (" in summary_html(load_overview(folder))


def test_the_page_says_how_to_get_the_importance_and_when_there_is_none(tmp_path, monkeypatch):
    variants = make_variants(
        [
            {"training.learning_rate": 0.1**power, "model.args.units": units}
            for power in range(1, 11)
            for units in (16, 32)
        ]
    )
    folder = write_run(tmp_path, variants, range(2))
    assert "none separates the best 5 of 20 variants in val_loss" in page_of(folder).text

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    def note(folder):
        overview = load_overview(folder)
        return importance_note(find_importance(overview.leaderboard, overview.scores), "val_loss")

    monkeypatch.setattr(importlib.metadata, "version", missing)
    said = "Importance of the parameters: Optuna is not installed: pip install 'trialrun[se"
    assert note(folder).startswith(said)
    assert note(write_run(tmp_path / "few", VARIANTS, range(2))) == ""
