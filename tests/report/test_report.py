import dataclasses
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from made_up_runs import broken, completed, finish, learning_rates, make_variants, write_run
from rich.cells import cell_len
from rich.console import Console

from trialrun.analysis.variants import MetricSummary, VariantSummary
from trialrun.report import build_report, overview_content, print_overview
from trialrun.report.columns import metric_column
from trialrun.report.format import mean_sd_text, parameter_text, short_names
from trialrun.store import RunFolder

VARIANTS = learning_rates(1e-4, 3e-4, 1e-3)
SWEEP = make_variants(
    [
        {"model.args.units": units, "training.learning_rate": rate, "training.batch_size": size}
        for units in ([16, 32], [32, 64])
        for rate in (1e-4, 3e-4, 1e-3)
        for size in (10, 32, 64, 128)
    ]
)


def printed(folder, width=100):
    console = Console(width=width, file=io.StringIO())
    print_overview(console, folder)
    return console.file.getvalue()


# Words and numbers ----------------------------------------------------------------------------


def test_a_parameter_has_the_shortest_name_that_is_unambiguous():
    paths = ["training.learning_rate", "model.args.units", "data.args.units", "data.seed"]
    assert list(short_names(paths).values()) == [
        "learning_rate",
        "model.args.units",
        "data.args.units",
        "seed",
    ]
    assert short_names(["a.seed", "seed"]) == {"a.seed": "a.seed", "seed": "seed"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "0.0001"),
        (0.000317219, "0.0003172"),
        ([16, 32], "[16, 32]"),
        ({"name": "sgd", "momentum": 0.9}, "{name: sgd, momentum: 0.9}"),
        (True, "true"),
        (None, "null"),
        ("relu", "relu"),
    ],
)
def test_a_parameter_is_written_as_in_a_job_file(value, text):
    assert parameter_text(value) == text


def metric(mean, sd, n=20):
    return MetricSummary(mean, sd, mean - sd, mean + sd, n, mean, mean, -np.inf, np.inf)


def test_a_mean_is_written_to_two_digits_of_its_own_spread():
    winner, wild = metric(0.72034, 0.0497), metric(48231.7, 56000.0)
    assert mean_sd_text(winner) == "0.720 ± 0.050"
    assert mean_sd_text(metric(0.2, 0.0091)) == "0.2000 ± 0.0091"
    assert mean_sd_text(metric(1234.5678, 56.0)) == "1235 ± 56"
    column = metric_column("m", [variant_with(winner), variant_with(wild)], with_sd=True)
    assert column.cells == ("0.720 ± 0.050", "48232 ± 56000")
    alone = metric_column("m", [variant_with(winner), variant_with(wild)], with_sd=False)
    assert alone.cells == ("0.720", "48232")


def variant_with(summary):
    """A variant with this metric alone."""
    return VariantSummary("v00", {}, summary.n, 0, 0, {"m": summary}, None, None)


def test_what_is_not_known_is_not_written_as_a_number():
    assert mean_sd_text(metric(np.nan, np.nan, n=0)) == "n/a"
    assert mean_sd_text(metric(0.18432, np.nan, n=1)) == "0.1843 ± n/a"


def test_a_huge_mean_takes_no_huge_column():
    assert mean_sd_text(metric(1.5e12, 3e11)) == "1.50e+12 ± 3.00e+11"


# Terminal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_the_tables_fit_the_terminal(tmp_path, width):
    for name, variants in (("reference", VARIANTS), ("sweep", SWEEP)):
        text = printed(write_run(tmp_path, variants, range(3), name=name), width)
        assert max(map(cell_len, text.splitlines())) <= width
        if width >= 60:
            assert "…" not in text


def test_80_columns_show_the_spread_of_validation_and_test(tmp_path):
    text = printed(write_run(tmp_path, VARIANTS, range(20)), 80)
    header, *rows = re.findall(r"^(?:#|\d)  .*$", text, re.MULTILINE)
    assert header.split() == [
        "#",
        "variant",
        "rate",
        "n",
        "val_loss",
        "val_accuracy",
        "test_accuracy",
    ]
    assert len(rows) == 3
    assert all(row.count("±") == 3 for row in rows)


def test_200_columns_show_every_metric_validation_first(tmp_path):
    folder = write_run(tmp_path, VARIANTS, range(20), metric="val_accuracy", goal="maximize")
    (header,) = re.findall(r"^#.*$", printed(folder, 200), re.MULTILINE)
    assert header.split()[4:] == [
        "val_accuracy",
        "val_loss",
        "test_loss",
        "test_accuracy",
        "train_loss",
        "train_accuracy",
    ]


def test_the_leaderboard_shows_twenty_and_counts_the_rest(tmp_path):
    text = printed(write_run(tmp_path, SWEEP, range(2)))
    assert len(re.findall(r"^ *\d+  v\d\d", text, re.MULTILINE)) == 20
    assert "... and 4 more (--csv)" in text
    finished = printed(finish(write_run(tmp_path, SWEEP, range(2))))
    assert "... and 4 more (variants.csv)" in finished


def test_lost_trials_are_counted_where_there_are_any(tmp_path):
    assert "diverged" not in printed(write_run(tmp_path, VARIANTS, range(3)))

    def result_of(variant, seed):
        if (variant.variant_id, seed) == ("v01", 2):
            return broken(variant, seed, "diverged")
        return completed(variant, seed)

    text = printed(write_run(tmp_path, VARIANTS, range(3), result_of=result_of))
    assert "9 trials: 8 completed, 1 diverged" in text
    assert "v01 seed 2 diverged" in text
    assert re.search(r"n +diverged", text)
    assert "failed" not in " ".join(text.split()).replace("diverged or failed", "")


def test_the_winners_matrix_is_shown_with_the_names_of_its_classes(tmp_path):
    folder = write_run(tmp_path, VARIANTS[:1], range(3))
    matrix = sum(completed(VARIANTS[0], seed).test_confusion_matrix for seed in range(3))
    rows = re.findall(r"^(\w+_side_effects) +([\d,]+) +([\d,]+) ", printed(folder), re.MULTILINE)
    assert [name for name, *_ in rows] == ["no_side_effects", "had_side_effects"]
    counts = [[int(count.replace(",", "")) for count in row[1:]] for row in rows]
    assert counts == matrix.tolist()
    assert f"accuracy {np.trace(matrix) / matrix.sum():.2%}" in printed(folder)


def test_the_line_above_a_narrow_matrix_is_not_folded(tmp_path):
    text = printed(finish(write_run(tmp_path, VARIANTS, range(3), class_names=("a", "b"))))
    assert re.search(r"(?m)^Test set, v0\d, 3 seeds pooled: accuracy \d\d\.\d\d%$", text), text


def test_the_recall_of_a_class_without_test_rows_is_not_available(tmp_path):
    def result_of(variant, seed):
        return dataclasses.replace(
            completed(variant, seed), test_confusion_matrix=np.array([[0, 0], [1, 3]])
        )

    text = printed(write_run(tmp_path, VARIANTS[:1], (0,), result_of=result_of))
    assert re.findall(r"^\w+_side_effects .* (\S+)$", text, re.MULTILINE) == ["n/a", "75.0%"]


def test_a_matrix_too_wide_for_the_terminal_is_pointed_to(tmp_path):
    def result_of(variant, seed):
        return completed(variant, seed, num_classes=40)

    folder = write_run(tmp_path, VARIANTS[:1], (0,), result_of=result_of, class_names=())
    assert "40 classes: see figures/confusion_matrix.png" in " ".join(printed(folder, 80).split())


def test_brackets_in_a_name_are_not_markup(tmp_path):
    variants = make_variants([{"model.args.activation": "[bold]relu[/bold]"}])
    names = ("[red]no[/red]", "yes")
    text = printed(write_run(tmp_path, variants, range(2), class_names=names))
    assert text.count("[bold]relu[/bold]") >= 2
    assert "[red]no[/red]" in text


# An interrupted run ---------------------------------------------------------------------------


def test_an_interrupted_run_is_shown_from_the_trials_that_ended(tmp_path):
    folder = write_run(tmp_path, VARIANTS, range(3))
    assert "This run has not ended" in printed(folder)
    assert "has not ended" not in printed(finish(folder))
    (folder.trials_dir / "part-p001.parquet").unlink()
    assert "of 2 variants" in printed(folder)


def test_a_run_without_any_trial_is_shown(tmp_path):
    folder = RunFolder.create(tmp_path, "job")
    folder.write_job("name: job\n")
    assert "0 trials" in printed(folder)
    build_report(folder)
    assert "no trial completed" in folder.report_file.read_text()


def test_a_run_whose_trials_all_failed_is_shown(tmp_path):
    def result_of(variant, seed):
        return broken(variant, seed, error="the builder raised\nValueError: no units")

    folder = finish(write_run(tmp_path, VARIANTS, range(3), result_of=result_of))
    text = printed(folder)
    assert "9 trials: 9 failed" in text
    assert "Nothing was selected" in text
    assert "v00 seed 0 failed: ValueError: no units" in text
    assert "... and 4 more (trials/)" in text
    assert overview_content(folder)["selection"] is None


def test_the_content_for_machines_is_strict_json(tmp_path):
    folder = write_run(tmp_path, VARIANTS[:2], (0,), result_of=completed)
    text = json.dumps(overview_content(folder), allow_nan=False)
    content = json.loads(text)
    assert content["ended"] is False
    assert content["counts"]["trials"] == 2
    first = content["variants"][0]
    assert first["rank"] == 1
    assert first["variant_id"] == content["selection"]["variant_id"]
    assert first["metrics"]["val_loss"]["sd"] is None  # one seed
    assert np.sum(first["test_confusion_matrix"]) == 420


def test_showing_a_run_needs_neither_matplotlib_nor_tensorflow_nor_ray(tmp_path):
    folder = write_run(tmp_path, VARIANTS, range(2))
    program = """
import sys
from pathlib import Path
from rich.console import Console
from trialrun.report import overview_content, print_overview
from trialrun.store import RunFolder
folder = RunFolder.open(Path(sys.argv[1]))
print_overview(Console(), folder)
overview_content(folder)
heavy = {"matplotlib", "tensorflow", "keras", "ray", "sklearn", "jinja2"}
print("imported:", *heavy & set(sys.modules))
"""
    told = subprocess.run(
        [sys.executable, "-c", program, str(folder.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines()[-1] == "imported:"


# Figures --------------------------------------------------------------------------------------


def test_the_curves_leave_out_seeds_that_diverged(tmp_path):
    def result_of(variant, seed):
        trial = completed(variant, seed)
        if seed != 1:
            return trial
        history = {name: np.full_like(values, np.nan) for name, values in trial.history.items()}
        return dataclasses.replace(trial, status="diverged", history=history)

    folder = write_run(tmp_path, VARIANTS[:1], range(3), result_of=result_of)
    build_report(folder)
    assert "Learning curves of v00, 2 seeds" in folder.report_file.read_text()
