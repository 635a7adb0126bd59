"""`trialrun show` with conditions and orders, and `trialrun compare`."""

import csv
import io
import json

import numpy as np
import pytest
from commands import call
from made_up_runs import broken, completed, make_variants, write_run
from rich.cells import cell_len
from rich.console import Console

from trialrun.analysis.comparison import compare_variants
from trialrun.report.comparison import print_comparison
from trialrun.statistics.paired import compare

VARIANTS = make_variants(
    [
        {"training.learning_rate": rate, "model.args.units": units, "model.args.activation": name}
        for rate, units, name in (
            (1e-3, [16, 32], "relu"),
            (1e-4, [16, 32], "tanh"),
            (1e-2, [8], "relu"),
            (3e-4, [16, 32], "relu"),
        )
    ]
)
LOSSES = {"v00": 0.3, "v01": 0.2, "v02": 0.4, "v03": 0.3002}


def result_of(variant, seed):
    if (variant.variant_id, seed) == ("v02", 7):
        return broken(variant, seed, "diverged")
    luck = np.random.default_rng(seed).normal(0, 0.05)
    own = np.random.default_rng([seed, int(variant.variant_id[1:])]).normal(0, 0.001)
    return completed(variant, seed, val_loss=LOSSES[variant.variant_id] + luck + own)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs"), VARIANTS, range(10), result_of=result_of)


def shown(run, *arguments):
    """The ids of the variants that `show --csv` gives."""
    done = call("show", run.path, "--csv", *arguments)
    assert done.code == 0, done.stderr
    return [row["variant_id"] for row in csv.DictReader(io.StringIO(done.stdout))]


# Conditions and orders --------------------------------------------------------------------------


def test_the_csv_is_that_of_the_run_folder(run):
    done = call("show", run.path, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["variant_id"] for row in rows] == ["v01", "v00", "v03", "v02"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0]["param.model.args.units"] == "[16, 32]"


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["--where", "activation=relu"], ["v00", "v03", "v02"]),
        (["--where", "activation!=relu"], ["v01"]),
        (["--where", "training.learning_rate = 1e-3"], ["v00"]),
        (["--where", "param.training.learning_rate=0.001"], ["v00"]),
        (["--where", "units=[8]"], ["v02"]),
        (["--where", "learning_rate<0.001", "--where", "units=[16, 32]"], ["v01", "v03"]),
        (["--where", "val_loss>=0.35"], ["v02"]),
        (["--where", "val_loss_max<0.0"], []),
        (["--where", "diverged>0"], ["v02"]),
        (["--where", "rank<=2"], ["v01", "v00"]),
        (["--sort", "learning_rate"], ["v01", "v03", "v00", "v02"]),
        (["--sort", "learning_rate", "--reverse"], ["v02", "v00", "v03", "v01"]),
        (["--sort", "activation"], ["v00", "v03", "v02", "v01"]),
        (["--sort", "val_loss"], ["v01", "v00", "v03", "v02"]),
        (["--sort", "val_loss", "--reverse"], ["v02", "v03", "v00", "v01"]),
        (["--reverse"], ["v02", "v03", "v00", "v01"]),
    ],
)
def test_variants_are_chosen_and_sorted(run, arguments, ids):
    assert shown(run, *arguments) == ids


@pytest.mark.parametrize("metric", ["test_accuracy", "test_accuracy_min", "val_loss", "test_loss"])
def test_a_metric_is_sorted_with_its_best_first(run, metric):
    rows = list(
        csv.DictReader(io.StringIO(call("show", run.path, "--csv", "--sort", metric).stdout))
    )
    column = metric if metric in rows[0] else f"{metric}_mean"
    values = [float(row[column]) for row in rows]
    assert values == sorted(values, reverse="accuracy" in metric)


def test_ranks_and_the_winner_stay_those_of_all_variants(run):
    text = call("show", run.path, "--where", "activation=relu").stdout
    assert "2  v00" in text
    assert "v01 (training.learning_rate = 0.0001" in " ".join(text.split())
    content = json.loads(call("show", run.path, "--json", "--where", "activation=relu").stdout)
    assert [one["rank"] for one in content["variants"]] == [2, 3, 4]
    assert content["selection"]["variant_id"] == "v01"
    assert content["certainty"]["num_compared"] == 3
    nothing = call("show", run.path, "--where", "units=[9]").stdout
    assert "None of the 4 variants meets the conditions." in nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "actvation=relu"], "no column 'actvation'; did you mean 'activation'?"),
        (
            ["--where", "learning_rate"],
            "write a column, one of =, !=, <, <=, >, >=, and a value, such as n>=3",
        ),
        (["--where", "learning_rate<fast"], "< compares numbers, got 'fast'"),
        (["--where", "learning_rate=[1"], "--where learning_rate=[1: not YAML"),
        (
            ["--sort", "val_los"],
            "--sort val_los: there is no column 'val_los'; did you mean 'val_loss'",
        ),
        (["--sort", "val_loss", "--json", "--csv"], "--json and --csv cannot be combined"),
    ],
)
def test_a_wrong_condition_is_answered_with_what_is_allowed(run, arguments, message):
    done = call("show", run.path, *arguments)
    assert done.code == 2
    assert message in " ".join(done.stderr.split())


def test_the_end_of_two_paths_is_refused_with_both(tmp_path):
    variants = make_variants([{"model.args.units": 3, "data.args.units": 4}])
    folder = write_run(tmp_path, variants, range(2))
    done = call("show", folder.path, "--where", "units=3")
    assert done.code == 2
    assert "'units' may mean model.args.units or data.args.units" in done.stderr
    assert shown(folder, "--where", "model.args.units=3") == ["v00"]


@pytest.mark.parametrize(("given", "typed"), [("caf\xe9", "cafe\u0301"), ("cafe\u0301", "caf\xe9")])
def test_a_text_is_found_in_either_form_of_unicode(tmp_path, given, typed):
    variants = make_variants([{"model.args.place": place} for place in (given, "tea")])
    folder = write_run(tmp_path, variants, range(3))
    assert shown(folder, "--where", f"place={typed}") == ["v00"]
    assert shown(folder, "--where", f"place!={typed}") == ["v01"]


# Two variants -----------------------------------------------------------------------------------


def test_a_comparison_is_that_of_the_seeds_that_both_completed(run):
    content = json.loads(call("compare", run.path, "v00", "v02", "--json").stdout)
    trials = run.read_trials()
    wide = trials.pivot(index="seed", columns="variant_id", values="val_loss")[["v00", "v02"]]
    wide = wide.dropna()
    expected = compare(wide["v00"], wide["v02"], np.random.default_rng(0))
    assert content["num_seeds"] == len(wide) == 9
    found = content["metrics"]["val_loss"]
    assert found["first"] == pytest.approx(wide["v00"].mean())
    assert {name: found[name] for name in expected._fields} == pytest.approx(expected._asdict())
    assert content["parameters"] == {
        "training.learning_rate": [1e-3, 1e-2],
        "model.args.units": [[16, 32], [8]],
    }
    assert content["verdict"] == (
        "By val_loss v00 is better than v02 (p = 0.0039), under 100% of the seeds."
    )


def test_the_better_one_is_named_whichever_comes_first(run):
    for pair in (("v01", "v00"), ("v00", "v01")):
        text = " ".join(call("compare", run.path, *pair).stdout.split())
        assert "By val_loss v01 is better than v00 (p = 0.002), under 100% of the seeds." in text
        assert "use the p_value in variants.csv, which is corrected for all pairs" in text


def test_what_cannot_be_told_apart_is_said_to_be_so(run):
    text = call("compare", run.path, "v00", "v03").stdout
    assert "By val_loss no difference between them is found at 5% (p = " in text


def test_few_seeds_compare_nothing(tmp_path):
    folder = write_run(tmp_path, VARIANTS, range(5), result_of=result_of)
    text = " ".join(call("compare", folder.path, "v00", "v01").stdout.split())
    assert (
        "Both have a val_loss in 5 seeds only, and a sign-flip test needs at least 6 to find a"
        " difference." in text
    )


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_comparison_fits_the_terminal(run, width):
    out = io.StringIO()
    print_comparison(Console(width=width, file=out), compare_variants(run, "v00", "v01"))
    lines = out.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "val_loss" in out.getvalue()
    assert ("higher in" in out.getvalue()) == (width >= 80)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("v00", "v09"), "there is no variant 'v09'; did you mean"),
        (("v00", "v00"), "give two different variants"),
    ],
)
def test_a_pair_that_is_none_is_refused(run, pair, message):
    done = call("compare", run.path, *pair)
    assert done.code == 2
    assert message in done.stderr
