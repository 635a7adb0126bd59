import json
import typing
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_runs import CLASS_NAMES, broken, completed, learning_rates, write_run
from scipy import stats

from trialrun.analysis.explanation import explain
from trialrun.analysis.run_summary import Tally
from trialrun.analysis.selection import ValidationScores, rank, select_best, validation_scores
from trialrun.analysis.summary_json import run_summary
from trialrun.analysis.variants import (
    STATISTICS,
    confusion_matrices,
    pool_matrices,
    rank_summaries,
    summarize,
    variant_rows,
)
from trialrun.analysis.winner import winner_curves
from trialrun.errors import InputError
from trialrun.store import RunFolder
from trialrun.store.confusion_matrices import writing_confusion_matrices
from trialrun.store.files import json_ready

VARIANTS = learning_rates(1e-4, 3e-4, 1e-3)
SEEDS = (0, 1, 2, 3)


def trials_with(tmp_path, losses, *, statuses=None, seeds=SEEDS):
    """Trials whose validation loss is `losses[variant][seed]`, as they are read from a folder."""
    statuses = statuses or {}

    def result_of(variant, seed):
        row = int(variant.variant_id[1:])
        status = statuses.get((row, seed), "completed")
        if status != "completed":
            return broken(variant, seed, status)
        return completed(variant, seed, val_loss=losses[row][seeds.index(seed)])

    folder = write_run(tmp_path, VARIANTS[: len(losses)], seeds, result_of=result_of)
    return folder.read_trials()


def board_of(trials, metric="val_loss", goal="minimize"):
    parameters = {variant.variant_id: variant.parameters for variant in VARIANTS}
    pooled = pool_matrices([trials])
    scores = validation_scores(trials, metric)
    return rank_summaries(summarize(trials, parameters, pooled), scores, goal)


# Statistics over seeds ------------------------------------------------------------------------


def test_the_statistics_are_those_of_pandas_over_completed_seeds(tmp_path):
    losses = np.random.default_rng(0).uniform(size=(3, 4))
    statuses = {(1, 2): "diverged", (2, 0): "failed", (2, 1): "failed"}
    trials = trials_with(tmp_path, losses, statuses=statuses)
    finished = trials[trials["status"] == "completed"]
    summaries = summarize(trials, {variant.variant_id: {} for variant in VARIANTS})
    assert [summary.num_completed for summary in summaries] == [4, 3, 2]
    assert [summary.num_diverged for summary in summaries] == [0, 1, 0]
    assert [summary.num_failed for summary in summaries] == [0, 0, 2]
    for summary in summaries:
        seeds = finished[finished["variant_id"] == summary.variant_id]
        assert list(summary.metrics) == [
            f"{part}_{name}" for part in ("train", "val", "test") for name in ("loss", "accuracy")
        ]
        for name, of in summary.metrics.items():
            expected = seeds[name].agg(["mean", "std", "min", "max", "count"])
            np.testing.assert_allclose(
                [of.mean, of.sd, of.min, of.max, of.n], expected.to_numpy(), rtol=1e-12
            )


def with_one_diverged(variant, seed):
    """A diverged trial has predictions too: whatever the model says of NaN."""
    is_lost = (variant.variant_id, seed) == ("v00", 1)
    return replace(completed(variant, seed), status="diverged" if is_lost else "completed")


def test_pooled_matrices_add_up_the_completed_seeds(tmp_path):
    folder = write_run(tmp_path, VARIANTS[:2], SEEDS, result_of=with_one_diverged)
    trials = folder.read_trials()
    pooled = pool_matrices([trials])
    first, second = summarize(trials, {"v00": {}, "v01": {}}, pooled)
    for summary, variant, seeds in ((first, VARIANTS[0], (0, 2, 3)), (second, VARIANTS[1], SEEDS)):
        trials = [completed(variant, seed) for seed in seeds]
        for name in ("val_confusion_matrix", "test_confusion_matrix"):
            expected = sum(getattr(trial, name) for trial in trials)
            np.testing.assert_array_equal(getattr(summary, name), expected)


def write_matrices(folder, some):
    with writing_confusion_matrices(folder.confusion_matrices_file, CLASS_NAMES) as write:
        for variants in some:
            write(variants)


def test_confusion_matrices_json_has_every_completed_seed_and_their_sum(tmp_path):
    folder = write_run(tmp_path, VARIANTS[:2], SEEDS, result_of=with_one_diverged)
    chunks = folder.tables.index().by_variants("results", 1)
    some = [confusion_matrices(chunk) for chunk in chunks]
    assert [list(variants) for variants in some] == [["v00"], ["v01"]]
    write_matrices(folder, some)
    content = json.loads(folder.confusion_matrices_file.read_text())
    assert content["class_names"] == list(CLASS_NAMES)
    assert list(content["variants"]["v00"]) == ["validation", "test"]
    assert list(content["variants"]["v00"]["validation"]["per_seed"]) == ["0", "2", "3"]
    for variant in content["variants"].values():
        for part in variant.values():
            assert np.sum(list(part["per_seed"].values()), axis=0).tolist() == part["pooled"]
    one = completed(VARIANTS[1], 2).test_confusion_matrix
    assert content["variants"]["v01"]["test"]["per_seed"]["2"] == one.tolist()


def test_the_recall_of_a_class_without_rows_is_null(tmp_path):
    def result_of(variant, seed):
        return replace(completed(variant, seed), test_confusion_matrix=np.array([[0, 0], [1, 3]]))

    folder = write_run(tmp_path, VARIANTS[:1], (0,), result_of=result_of)
    chunks = folder.tables.index().by_variants("results", 1)
    write_matrices(folder, map(confusion_matrices, chunks))
    content = json.loads(folder.confusion_matrices_file.read_text())
    assert content["variants"]["v00"]["test"]["scores"]["recall"] == [None, 0.75]


def test_without_classes_there_are_no_matrices(tmp_path):
    def result_of(variant, seed):
        trial = completed(variant, seed)
        return replace(trial, val_confusion_matrix=None, test_confusion_matrix=None)

    trials = write_run(tmp_path, VARIANTS[:1], SEEDS, result_of=result_of).read_trials()
    assert confusion_matrices(trials) == {}
    assert board_of(trials).variants[0].test_confusion_matrix is None


@pytest.mark.parametrize(("max_trials", "sizes"), [(1, [4, 4, 4]), (8, [8, 4]), (99, [12])])
def test_trials_are_split_between_variants(tmp_path, max_trials, sizes):
    folder = write_run(tmp_path, VARIANTS, SEEDS)
    trials = folder.read_trials("numbers")
    chunks = list(folder.tables.index().by_variants("numbers", max_trials))
    assert [len(chunk) for chunk in chunks] == sizes
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), trials)


# Selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "order", "winner", "seed"),
    [("minimize", ("v01", "v00", "v02"), "v01", 2), ("maximize", ("v02", "v00", "v01"), "v02", 3)],
)
def test_the_best_mean_wins_and_its_best_seed_is_the_best_model(
    tmp_path, goal, order, winner, seed
):
    # The single best and the single worst trial are v00's: one lucky seed wins nothing.
    losses = [[0.01, 0.5, 0.5, 0.99], [0.4, 0.4, 0.3, 0.4], [0.6, 0.6, 0.6, 0.7]]
    board = board_of(trials_with(tmp_path, losses), goal=goal)
    assert tuple(summary.variant_id for summary in board.variants) == order
    chosen = board.selection
    assert (chosen.variant_id, chosen.seed, chosen.num_seeds) == (winner, seed, 4)
    row = losses[int(winner[1:])]
    assert chosen.mean == pytest.approx(np.mean(row))
    assert chosen.value == row[SEEDS.index(seed)]
    assert chosen.trial_id == completed(VARIANTS[int(winner[1:])], seed).trial.trial_id


def test_equal_variants_keep_the_order_of_the_search(tmp_path):
    trials = trials_with(tmp_path, [[0.2, 0.4, 0.3, 0.3]] * 3)
    for goal in ("minimize", "maximize"):
        board = board_of(trials, goal=goal)
        assert [summary.variant_id for summary in board.variants] == ["v00", "v01", "v02"]
        assert board.selection.seed == {"minimize": 0, "maximize": 1}[goal]


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_variant_that_lost_a_trial_ranks_after_all_that_did_not(tmp_path, status):
    losses = [[0.1] * 4, [0.5] * 4, [0.9] * 4]
    board = board_of(trials_with(tmp_path, losses, statuses={(0, 3): status}))
    assert [summary.variant_id for summary in board.variants] == ["v01", "v02", "v00"]
    assert board.selection.variant_id == "v01"


def test_a_variant_without_a_completed_trial_comes_last(tmp_path):
    statuses = {(0, seed): "failed" for seed in SEEDS} | {(1, 0): "diverged"}
    board = board_of(trials_with(tmp_path, [[0.1] * 4, [0.5] * 4], statuses=statuses))
    assert [summary.variant_id for summary in board.variants] == ["v01", "v00"]
    assert board.selection.num_unfinished == 1


def test_nothing_is_selected_if_nothing_completed(tmp_path):
    board = board_of(
        trials_with(tmp_path, [[0.1] * 4], statuses={(0, seed): "failed" for seed in SEEDS})
    )
    assert board.selection is None
    assert explain(board) == "Nothing was selected: no trial completed."


def test_an_empty_run_has_an_empty_leaderboard(tmp_path):
    board = board_of(RunFolder(tmp_path).read_trials())
    assert board.variants == ()
    assert board.selection is None
    assert variant_rows(board) == []


def test_a_run_that_goes_on_ranks_by_the_seeds_it_has(tmp_path):
    losses = [[0.3] * 4, [0.2, 0.2, 0.9, 0.9]]
    trials = trials_with(tmp_path, losses)
    so_far = trials[(trials["variant_id"] == "v00") | (trials["seed"] < 2)]
    chosen = board_of(so_far).selection
    assert (chosen.variant_id, chosen.num_seeds) == ("v01", 2)


def test_the_order_of_the_trials_does_not_matter(tmp_path):
    losses = np.random.default_rng(3).uniform(size=(3, 4))
    trials = trials_with(tmp_path, losses, statuses={(2, 2): "failed"})
    shuffled = trials.sample(frac=1, random_state=0)
    board, other = board_of(trials), board_of(shuffled)
    assert other.selection == board.selection
    assert variant_rows(other) == variant_rows(board)


def test_no_test_number_can_change_what_is_selected(tmp_path):
    rng = np.random.default_rng(1)
    trials = trials_with(tmp_path, rng.uniform(size=(3, 4)), statuses={(2, 0): "diverged"})
    board = board_of(trials)
    columns = [name for name in trials.columns if name.startswith("test_")]
    assert len(columns) == 3
    for _ in range(20):
        permuted = trials.copy()
        for name in columns:
            permuted[name] = trials[name].to_numpy()[rng.permutation(len(trials))]
        permuted["test_loss"] = rng.uniform(size=len(trials))
        other = board_of(permuted)
        assert other.selection == board.selection
        order = [summary.variant_id for summary in board.variants]
        assert [summary.variant_id for summary in other.variants] == order
        assert other.variants[0].metrics["test_loss"] != board.variants[0].metrics["test_loss"]
    without = board_of(trials.drop(columns=columns))
    assert without.selection == board.selection


def test_by_type_what_selects_takes_validation_scores_alone():
    for function in (rank, select_best):
        hints = typing.get_type_hints(function)
        del hints["return"], hints["goal"], hints["statistic"]
        hints.pop("bounds", None), hints.pop("digits", None)
        assert list(hints.values()) == [ValidationScores]


@pytest.mark.parametrize("metric", ["test_loss", "train_loss", "loss"])
def test_scores_of_no_validation_metric_cannot_exist(tmp_path, metric):
    scores = validation_scores(trials_with(tmp_path, [[0.1] * 4]), "val_loss")
    with pytest.raises(InputError, match=f"must be a validation metric .* got '{metric}'"):
        replace(scores, metric=metric)


def test_a_metric_that_was_not_recorded_is_answered_with_those_that_were(tmp_path):
    trials = trials_with(tmp_path, [[0.1] * 4])
    for metric in ("val_auc", "test_loss"):
        with pytest.raises(
            InputError, match=f"'{metric}' .* recorded validation metrics: val_loss, val_accuracy"
        ):
            validation_scores(trials, metric)


# What is written ------------------------------------------------------------------------------


def test_rows_of_variants_csv_have_validation_before_test(tmp_path):
    trials = trials_with(tmp_path, [[0.3] * 4, [0.2] * 4], statuses={(0, 1): "diverged"})
    rows = variant_rows(board_of(trials, metric="val_accuracy", goal="maximize"))
    metrics = ["val_accuracy", "val_loss", "test_loss", "test_accuracy"]
    metrics += ["train_loss", "train_accuracy"]
    assert list(rows[0]) == [
        "rank",
        "variant_id",
        "param.training.learning_rate",
        "n",
        "diverged",
        "failed",
        "p_value",
        *(f"{name}_{of}" for name in metrics for of in STATISTICS),
    ]
    first = (rows[0]["rank"], rows[0]["variant_id"], rows[0]["param.training.learning_rate"])
    assert first == (1, "v01", 3e-4)
    assert (rows[1]["n"], rows[1]["diverged"], rows[1]["failed"]) == (3, 1, 0)


def test_the_summary_says_what_was_selected_and_counts(tmp_path):
    losses = [[0.3] * 4, [0.2, 0.1, 0.2, 0.3]]
    trials = trials_with(tmp_path, losses, statuses={(0, 1): "failed"})
    assert len(trials) == 8
    [path] = tmp_path.glob("*/*")
    tally = Tally(RunFolder(path), metric="val_loss", goal="minimize")
    standing = tally.standing_without_matrices()
    timings_s = {"total": 4.0, "train": 1.0}
    summary = run_summary("medical_trial", standing, timings_s=timings_s)
    assert summary["counts"] == {
        "trials": 8,
        "completed": 7,
        "diverged": 0,
        "failed": 1,
        "variants": 2,
    }
    assert summary["throughput"] == {"trials_per_s": 2.0, "epochs_per_s": 7.0}
    chosen = summary["selection"]
    assert (chosen["variant_id"], chosen["seed"], chosen["mean"]) == ("v01", 1, 0.2)
    assert chosen["best_trial"]["val_loss"] == 0.1
    assert chosen["best_trial"] == pytest.approx(
        completed(VARIANTS[1], 1).metrics | {"val_loss": 0.1}
    )
    assert json.loads(json.dumps(json_ready(summary), allow_nan=False)) == json_ready(summary)


def test_the_explanation_says_which_why_and_how_sure(tmp_path):
    losses = [[0.3] * 4, [0.2, 0.1, 0.2, 0.3]]
    low, high = stats.t(3, np.mean(losses[1]), stats.sem(losses[1])).interval(0.95)
    test_loss = np.mean([completed(VARIANTS[1], seed).metrics["test_loss"] for seed in SEEDS])
    # The better of two equal normal values lies 0.59 standard deviations from their mean.
    error = np.subtract(*losses).std(ddof=1) / np.sqrt(2 * 4)
    flattered = (
        "The same seeds chose it and measured it, which flatters its mean and interval: by about"
        f" {0.5895 * error:.2g} if the 2 are equal."
    )
    sentence = explain(board_of(trials_with(tmp_path / "all", losses)))
    assert sentence == (
        "v01 (training.learning_rate = 0.0003) has the lowest mean val_loss of 2 variants:"
        f" 0.2 (95% interval {low:.4g} to {high:.4g}, sd 0.082) over 4 seeds. The seeds do not tell"
        f" v01 and v00 apart: each may have the lowest mean. {flattered} The best model is its seed"
        " 1, with val_loss 0.1. On the test set, which had no say in this, its mean test_loss is"
        f" {test_loss:.4g} (validation minus test: {0.2 - test_loss:+.2g})."
    )
    lost = explain(board_of(trials_with(tmp_path / "lost", losses, statuses={(0, 0): "failed"})))
    assert lost.endswith(" Variants with diverged or failed trials rank after those without.")
    statuses = {(0, 0): "failed", (1, 0): "diverged"}
    both = explain(board_of(trials_with(tmp_path / "both", losses, statuses=statuses)))
    assert both.endswith(" Every variant lost trials, the winner 1, which its mean does not show.")


def test_curves_have_a_row_per_seed_and_nan_after_the_last_epoch(tmp_path):
    def result_of(variant, seed):
        return completed(variant, seed, epochs=2 + seed)

    folder = write_run(tmp_path, VARIANTS[:1], (1, 0), result_of=result_of)
    curves = winner_curves(folder, "v00")
    assert list(curves) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    short, long = (completed(VARIANTS[0], seed, epochs=2 + seed) for seed in (0, 1))
    np.testing.assert_array_equal(curves["loss"][0], [*short.history["loss"], np.nan])
    np.testing.assert_array_equal(curves["val_loss"][1], long.history["val_loss"])
