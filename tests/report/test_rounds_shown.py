"""What people read of a run with rounds: terminal, JSON, files, page, notebook, plan."""

import io
import json
import math
import re
from dataclasses import replace

import made_up_rounds
import pytest
from click.testing import CliRunner
from made_up_rounds import GRID, JOB, RACE, RUNGS, TPE, Driver, result_of
from made_up_runs import learning_rates, write_run
from rich.cells import cell_len
from rich.console import Console

import trialrun
from trialrun.analysis.importance import find_importance
from trialrun.analysis.variants import variant_rows
from trialrun.cli import cli
from trialrun.driver.rounds import Rounds
from trialrun.job import FRESH_SEEDS
from trialrun.report import build_report
from trialrun.report.outputs import print_overview, print_rounds
from trialrun.report.overview import load_overview
from trialrun.report.rounds import dropped_rows
from trialrun.store.columns import parameter_kinds
from trialrun.trials.packing import pack_trials
from trialrun.trials.results import PackResult

pytestmark = pytest.mark.long


def run_of(folder, job=JOB, **overrides):
    driver = Driver(folder, job, **overrides)
    driver.live()
    return driver


def words(*command):
    result = CliRunner().invoke(cli, [str(part) for part in command], terminal_width=200)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


def sentence_of(folder):
    return " ".join(words("show", folder).split())


def test_the_terminal_shows_rounds_above_the_finalists(tmp_path):
    run = run_of(tmp_path).run.path
    said = sentence_of(run)
    assert "round 1 9 variants x 2 seeds 3 go on" in said
    assert "round 3 3 variants x 12 seeds confirm v04, v01 on 4 fresh seeds" in said
    assert "9 variants were reduced to 3 by rounds of 2, 4 and 12 seeds, with 44% of the" in said
    assert "has the lowest mean val_loss of the 3 variants left" in said
    assert "The same seeds chose it and measured it, which flatters its mean and interval." in said
    assert "On 4 fresh seeds, which chose nothing, its mean val_loss is" in said
    assert "4 seeds cannot tell it from v01, whatever the difference: it takes at least 6." in said
    assert "95% confidence" not in said


def test_fresh_seeds_that_can_tell_do(tmp_path):
    run = run_of(tmp_path, **{"search.confirm": {"seeds": 12}}).run.path
    assert "v04 is better than v01 by 0.1" in sentence_of(run)


def test_who_was_dropped_is_told_with_round_and_rule(tmp_path):
    driver = run_of(tmp_path)
    said = words("show", driver.run.path, "--rounds")
    dropped = [line for line in said.splitlines() if line.startswith("v0")]
    assert len(dropped) == 6
    assert all("round 1" in line for line in dropped)
    assert "rank 4 of 9, and 3 go on" in dropped[0]
    result = CliRunner().invoke(cli, ["show", str(driver.run.path), "--rounds", "--csv"])
    assert result.exit_code == 2


MANY = """
    training.batch_size: {values: [10]}
    training.epochs: {values: [30]}
    training.optimizer: {values: [adam]}
    model.args.units: {values: [[64, 32, 16]]}
    model.args.dropout: {values: [0.1234]}
    model.args.l2: {values: [0.00123]}
    model.args.activation: {values: [leaky_relu]}
    model.args.batch_normalization: {values: [true]}
"""


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_shows_ids_and_reasons_beside_some_of_many_parameters(tmp_path, width):
    job = JOB.replace("{training.learning_rate", "\n    training.learning_rate").replace("}}", "}")
    driver = run_of(tmp_path, job + MANY)

    def lines_of(*options):
        console = Console(width=width, record=True, file=io.StringIO())
        folder = driver.run
        print_rounds(console, folder) if options else print_overview(console, folder)
        text = console.export_text()
        assert all(cell_len(line) <= width for line in text.splitlines())
        print(text)
        assert "parameters." in text
        return text

    dropped = lines_of("--rounds")
    assert len(re.findall(r"^v0\d ", dropped, re.M)) == 6
    assert "learning_" in dropped
    for rank in range(4, 10):
        assert f"rank {rank} of 9," in dropped
    board = lines_of()
    assert len(re.findall(r"^ *[123] +v0\d ", board, re.M)) == 3
    assert "learning_" in board
    assert "val_" in board


def test_a_run_without_rounds_says_so(tmp_path):
    run = write_run(tmp_path, learning_rates(0.1, 0.2), range(3)).path
    result = CliRunner().invoke(cli, ["show", str(run), "--rounds"])
    assert "has no rounds" in str(result.exception)
    assert "fresh seeds" not in sentence_of(run)
    assert "rounds" not in json.loads(words("show", run, "--json"))


def test_a_race_says_that_the_best_is_still_in(tmp_path):
    run = run_of(tmp_path, RACE, seeds=20).run.path
    assert "With 95% confidence the best of all 9 is still in." in sentence_of(run)
    assert "worse than v0" in words("show", run, "--rounds")


def test_a_race_says_nothing_of_variants_that_it_did_not_test(tmp_path):
    driver = Driver(tmp_path, RACE, seeds=20)
    driver.live(fails=[("v04", 0)])
    said = sentence_of(driver.run.path)
    assert "With 95% confidence the best of the 8 that lost no trial is still in." in said
    assert "lost 1 trial" in words("show", driver.run.path, "--rounds")


def test_rounds_that_dropped_nobody_say_so(tmp_path):
    equal = RACE.replace("[0.9, 0.2, 0.3, 0.8, 0.1, 0.5, 0.7, 0.4, 0.6]", "[0.14, 0.16]")
    said = sentence_of(run_of(tmp_path, equal).run.path)
    assert "seeds dropped none of the 2 variants." in said
    assert "still in" not in said


@pytest.mark.parametrize("job", [JOB, RACE])
def test_a_single_variant_had_no_others(tmp_path, job):
    single = job.replace("[0.9, 0.2, 0.3, 0.8, 0.1, 0.5, 0.7, 0.4, 0.6]", "[0.14]")
    said = sentence_of(run_of(tmp_path, single).run.path)
    assert "1 variants" not in said
    assert "flatters" not in said
    assert "v00 (training.learning_rate = 0.14) is the only variant" in said


def test_one_fresh_seed_that_is_left_has_no_spread(tmp_path):
    driver = Driver(tmp_path, JOB)
    driver.live(fails=range(FRESH_SEEDS[0] + 1, FRESH_SEEDS[0] + 4))
    said = sentence_of(driver.run.path)
    assert re.search(r"On 4 fresh seeds, .* mean val_loss is \S+ \(3 lost\)\.", said)
    assert "nan" not in said


def test_fresh_seeds_that_were_given_to_others_are_told(tmp_path):
    driver = run_of(tmp_path)
    log = driver.run.rounds
    last = log.read()[-1]
    log.write(replace(last, variants=("v01", "v04")))
    said = sentence_of(driver.run.path)
    assert "Fresh seeds were given to v01 and v04, when v01 was the best." in said


@pytest.mark.parametrize("left", [0, 3])
def test_a_run_whose_rounds_are_not_known_is_not_told_wrongly(tmp_path, left):
    driver = run_of(tmp_path)
    for number in range(left + 1, 5):
        driver.run.rounds.file_of(number).unlink()
    result = CliRunner().invoke(cli, ["show", str(driver.run.path)])
    assert "the record of the rounds is missing" in str(result.exception)
    Driver(tmp_path).live()
    assert "round 3 3 variants x 12 seeds confirm v04, v01" in sentence_of(driver.run.path)


def test_a_confirmed_grid_keeps_its_certainty(tmp_path):
    said = sentence_of(run_of(tmp_path, GRID).run.path)
    assert "With 95% confidence" in said
    assert "On 4 fresh seeds, which chose nothing" in said
    assert "were reduced" not in said


def test_json_holds_rounds_dropped_and_confirmation(tmp_path):
    run = run_of(tmp_path).run.path
    found = json.loads(words("show", run, "--json"))
    assert [variant["num_completed"] for variant in found["variants"]] == [12] * 3
    rounds = found["rounds"]
    assert (rounds["num_trained"], rounds["num_whole"]) == (48, 108)
    assert len(rounds["dropped"]) == 6
    assert rounds["confirmation"]["differences"][0]["n"] == 4


def test_seeds_that_confirm_are_not_compared_as_if_they_chose(tmp_path):
    run = run_of(tmp_path, GRID).run.path
    assert json.loads(words("compare", run, "v04", "v01", "--json"))["num_seeds"] == 12


def test_the_page_the_figure_and_the_notebook_show_rounds(tmp_path):
    driver = run_of(tmp_path)
    build_report(driver.run)
    page = driver.run.report_file.read_text()
    assert "9 variants x 2 seeds" in page
    assert "The 6 dropped variants" in page
    assert (driver.run.figures_dir / "rounds.png").exists()
    assert "after 2 seeds 3 of 9 went on" in page
    html = trialrun.open_run(driver.run.path)._repr_html_()
    assert "<td>v04, v01 on 4 fresh seeds</td>" in html


def test_edges_count_the_values_that_were_dropped(tmp_path):
    """0.1 is the best and the smallest of all, not only of those that are left."""
    run = run_of(tmp_path).run.path
    assert "The best training.learning_rate is the smallest tried (0.1)" in sentence_of(run)
    more = JOB.replace("[0.9,", "[0.05, 0.9,")
    (tmp_path / "more").mkdir()
    driver = run_of(tmp_path / "more", more)
    board = load_overview(driver.run).leaderboard
    assert board.selection.variant_id == "v00"


def test_batches_of_proposals_are_shown_as_one(tmp_path):
    driver = run_of(tmp_path, TPE)
    said = sentence_of(driver.run.path)
    assert "rounds 1-3 26 variants x 2 seeds 9 go on round 4 9 variants x 4 seeds 3 go on" in said
    assert "26 variants were reduced to 3 by rounds of 2, 4 and 12 seeds" in said
    dropped = words("show", driver.run.path, "--rounds")
    assert dropped.count("round 3 ") == 17
    assert dropped.count("round 4 ") == 6 + 1
    build_report(driver.run)
    page = driver.run.report_file.read_text()
    assert "tpe, 26 variants" in page
    assert "after 2 seeds 9 of 26 went on" in page
    assert "rounds 1-3" in trialrun.open_run(driver.run.path)._repr_html_()
    found = json.loads(words("show", driver.run.path, "--json"))["rounds"]
    assert (found["num_trained"], found["num_whole"]) == (26 * 2 + 9 * 2 + 3 * 8, 26 * 12)


def test_proposals_alone_rank_all_variants(tmp_path):
    run = run_of(tmp_path, TPE.replace("rounds: auto", "")).run.path
    found = json.loads(words("show", run, "--json"))
    assert [variant["num_completed"] for variant in found["variants"]] == [12] * 26
    assert "rounds 1-3 26 variants x 12 seeds confirm" in sentence_of(run)


@pytest.mark.parametrize("is_noisy", [False, True])
def test_proposals_alone_do_not_promise_too_much(tmp_path, is_noisy):
    job = TPE.replace("rounds: auto", "")
    if is_noisy:  # so that the seeds cannot tell them apart
        job = job.replace("{min: 1e-3, max: 1,", "{min: 0.1, max: 0.14,")
    said = sentence_of(run_of(tmp_path, job, **{"search.confirm": False}).run.path)
    told = re.search(r"With 95% confidence [^.]*", said)
    assert told is None or told[0].endswith("if those that were proposed are taken as given")
    assert is_noisy or told
    assert said.count("The same seeds chose it and measured it, which flatters") == 1


def test_a_race_of_proposals_does_not_promise_too_much(tmp_path):
    run = run_of(tmp_path, TPE.replace("auto", "{method: race}")).run.path
    assert "is still in, if those that were proposed are taken as given." in sentence_of(run)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["round 1 9 variants x 2 seeds 18 trials", "In all 56 trials; choosing takes 44%"]),
        (["search.rounds={method: race}"], ["at most 116 trials; choosing takes at most 100%"]),
        (["search.rounds=null"], ["confirm 2 variants x 4 fresh seeds 8 trials"]),
        (["search.rounds=null", "search.confirm=false"], ["Packs pack"]),
        (
            [
                "search.rounds=[{seeds: 2, epochs: 9, keep: 1/3}, {seeds: 12}]",
                "training.epochs=30",
            ],
            [
                "round 1 9 variants x 2 seeds, to epoch 9 18 trials 162 trial-epochs",
                "round 2 3 variants x 12 seeds 30 trials 1,026 trial-epochs",
                "In all 56 trials; choosing takes 37% of the trial-epochs of the whole grid",
                "The rounds save the epochs of 68 trials",
            ],
        ),
        ([], ["The rounds save 60 trials: if they are as small", "Packs of the first round"]),
    ],
)
def test_a_plan_says_what_rounds_cost(tmp_path, overrides, expected):
    (tmp_path / "job.yaml").write_text(JOB)
    options = [part for text in overrides for part in ("--set", text)]
    said = " ".join(words("plan", tmp_path / "job.yaml", *options).split())
    for text in expected:
        assert text in said


# Rounds that pause their trials ------------------------------------------------------------------


def test_pauses_are_told_everywhere(tmp_path):
    run = run_of(tmp_path, RUNGS).run
    said = sentence_of(run.path)
    assert "round 1 9 variants x 2 seeds, to epoch 9 3 go on" in said
    assert "round 2 3 variants x 4 seeds, to epoch 20 2 go on" in said
    assert "48 trials: 32 completed, 16 paused" in said
    share = (6 * 2 * 9 + 1 * 4 * 20 + 2 * 12 * 30) / (9 * 12 * 30)
    assert (
        "reduced to 2 by rounds of 2 (to epoch 9), 4 (to epoch 20) and 12 seeds, with"
        f" {share:.0%} of the trial-epochs of the whole grid"
    ) in said
    told = words("show", run.path, "--rounds")
    assert "0.3 round 2 4 20" in " ".join(told.split())
    assert "rank 3 of 3 at" in told
    rows = dropped_rows(load_overview(run).leaderboard.rounds)
    assert [row["paused_at_epoch"] for row in rows] == [20] + 6 * [9]
    found = json.loads(words("show", run.path, "--json"))
    assert found["counts"] == {
        "trials": 48,
        "completed": 32,
        "diverged": 0,
        "failed": 0,
        "paused": 16,
    }
    assert found["problems"] == []
    assert found["rounds"]["share_trained"] == pytest.approx(share)
    build_report(run)
    page = run.report_file.read_text()
    assert "9 variants x 2 seeds, to epoch 9" in page
    assert "after 2 seeds, epoch 9 3 of 9 went on" in page
    assert "of the seeds and epochs that it was trained with" in page


def test_a_paused_variant_is_not_compared_with_others(tmp_path):
    run = run_of(tmp_path, RUNGS).run.path
    result = CliRunner().invoke(cli, ["compare", str(run), "v00", "v04"])
    assert "the trials of v00 are paused after epoch 9, and only trials that have" in str(
        result.exception
    )
    assert json.loads(words("compare", run, "v04", "v01", "--json"))["num_seeds"] == 12


def test_a_comparison_names_no_p_values_that_are_not_there(tmp_path):
    for name, job in (("rounds", JOB), ("grid", GRID)):
        (tmp_path / name).mkdir()
        driver = run_of(tmp_path / name, job)
        row = variant_rows(load_overview(driver.run).leaderboard)[1]
        said = " ".join(words("compare", driver.run.path, "v04", "v01").split())
        has_p_value = row["p_value"] is not None
        assert has_p_value == (name == "grid") == ("the p_value in variants.csv" in said)
        told = "the same seeds chose which variants got more of them, for which it is not corrected"
        assert (told in said) == (name == "rounds")


def test_paused_variants_are_compared_at_their_epoch_and_no_test_is_told(tmp_path):
    """In the middle of round 2, all that the variants have in common is epoch 9."""
    driver = Driver(tmp_path, RUNGS)
    kinds = parameter_kinds([trial.variant for trial in driver.work.trials])
    batches = Rounds(driver.work).batches()
    for num_packs in (None, 1):
        batch = next(batches)
        packs = pack_trials(
            batch.trials,
            num_devices=1,
            max_trials_per_pack=7,
            first_number=driver.run.next_pack_number(),
        )
        for pack in packs[:num_packs]:
            results = tuple(result_of(t, pause_after=batch.pause_after) for t in pack.trials)
            driver.run.write_pack(PackResult(pack.pack_id, results), kinds)
    board = load_overview(driver.run).leaderboard
    left = driver.run.rounds.read()[1]
    assert {one.variant_id: one.metrics["val_loss"].mean for one in board.variants} == {
        variant_id: pytest.approx(score, rel=1e-4)
        for variant_id, score in left.decision.scores.items()
        if variant_id in left.variants
    }
    assert [one.num_completed for one in board.variants] == [2, 2, 2]
    assert all(one.metrics["test_loss"].n == 0 for one in board.variants)
    said = sentence_of(driver.run.path)
    assert "The variants are compared at epoch 9, where their trials are paused." in said
    assert "The best model is" not in said
    assert "test set" not in said


def test_importance_comes_from_the_first_round_which_all_variants_were_in(tmp_path):
    job = JOB.replace("{training.learning_rate:", "{training.batch_size: {values: [5, 10]},")
    job = job.replace("[5, 10]},", "[5, 10]}, training.learning_rate:")
    driver = run_of(tmp_path, job)
    overview = load_overview(driver.run)
    found = find_importance(overview.leaderboard, overview.scores)
    # Two batch sizes make pairs of equals, so that six variants are the best five.
    assert (found.num_best, found.num_variants, found.num_seeds) == (6, 18, 2)
    assert found.parameters[0].path == "training.learning_rate"
    assert found.parameters[1].share == pytest.approx(0, abs=1e-6)


@pytest.mark.tensorflow
def test_a_plan_says_that_callbacks_make_paused_trials_begin_again(tmp_path):
    (tmp_path / "mine.py").write_text("import keras\n\ndef make():\n    return keras.Callback()\n")
    (tmp_path / "job.yaml").write_text(RUNGS + "training: {callbacks: [mine.py:make]}\n")
    said = " ".join(words("plan", tmp_path / "job.yaml").split())
    assert "those that go on are trained from the start, which is not counted here" in said


@pytest.mark.parametrize("is_everywhere", [True, False])
def test_paused_trials_without_a_number_are_not_called_completed(
    tmp_path, monkeypatch, is_everywhere
):
    """Their metrics are NaN: they would have diverged."""

    def broken(trial, status="completed", pause_after=None):
        result = result_of(trial, status, pause_after)
        if is_everywhere or (trial.variant.variant_id, trial.seed) == ("v00", 0):
            status = "paused" if result.status == "paused" else "diverged"
            result = replace(result, status=status, metrics={"val_loss": math.nan})
        return result

    monkeypatch.setattr(made_up_rounds, "result_of", broken)
    driver = Driver(tmp_path, RUNGS, **{"search.budget.time": "2h"})
    driver.work = replace(driver.work, started_s=-math.inf)  # it ends after the first round
    driver.live()
    said = sentence_of(driver.run.path)
    trials = "each of the 17 trials" if is_everywhere else "a trial"
    assert f"val_loss is NaN in {trials} that got to epoch 9 or ended before" in said
    assert "that completed" not in said
