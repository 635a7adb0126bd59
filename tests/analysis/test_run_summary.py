"""A run read some variants at a time says what it says when it is read whole, to the last digit."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_runs import JOB, broken, completed, learning_rates

from trialrun.analysis.run_summary import Tally
from trialrun.analysis.selection import validation_scores
from trialrun.analysis.variants import (
    confusion_matrices,
    count_trials,
    pool_matrices,
    rank_summaries,
    summarize,
)
from trialrun.analysis.winner import winner_curves
from trialrun.store import RunFolder
from trialrun.store.columns import metric_names, parameter_kinds
from trialrun.trials.results import PackResult

VARIANTS = learning_rates(1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = range(23)


def result_of(variant, seed, pack_id, attempt=0):
    """Completed, diverged, failed, or with another number of epochs, by variant and seed."""
    number = int(variant.variant_id[1:])
    if number == 3 or (number + seed) % 11 == 0:
        return broken(variant, seed, pack_id=pack_id, attempt=attempt, error=f"seed {seed}")
    result = completed(variant, seed, pack_id=pack_id, attempt=attempt, epochs=2 + seed % 3)
    return replace(result, status="diverged" if (number + seed) % 7 == 0 else "completed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Packs across variants, missing seeds, one variant failed; then parts of them once more."""
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "many")
    folder.write_job(JOB.format(name="many", metric="val_loss", goal="minimize"))
    kinds = parameter_kinds(VARIANTS)
    places = [(v, seed) for v in VARIANTS for seed in SEEDS if (v.variant_id, seed) != ("v01", 5)]
    for number, start in enumerate(range(0, len(places), 9)):
        pack_id = f"p{number:03d}"
        trials = tuple(result_of(*place, pack_id) for place in places[start : start + 9])
        folder.write_pack(PackResult(pack_id, trials, class_names=("no", "yes")), kinds)
    again = [completed(VARIANTS[0], seed, pack_id="p100", val_loss=0.1) for seed in (0, 3, 4, 7)]
    again += [broken(VARIANTS[1], seed, pack_id="p100") for seed in (1, 2)]
    again += [completed(VARIANTS[4], 7, pack_id="p100", epochs=9)]
    folder.write_pack(PackResult("p100", tuple(again)), kinds)
    later = [replace(one, pack_id="p100a", attempt=1) for one in again[2:5]]
    folder.write_pack(PackResult("p100a", tuple(later)), kinds)
    return folder


def as_text(board):
    """Every number with all its digits."""
    return json.dumps(
        [repr(board.selection), *(repr(one) for one in board.variants), board.metric, board.goal]
    )


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("max_trials", [1, 50, 10_000])
def test_in_chunks_a_run_gives_the_same_leaderboard_to_the_last_digit(run, max_trials, goal):
    trials = run.read_trials()
    metric = "val_loss" if goal == "minimize" else "val_accuracy"
    summaries = summarize(trials, run.read_parameters(), pool_matrices([trials]))
    whole = rank_summaries(summaries, validation_scores(trials, metric), goal)
    tally = Tally(run, metric=metric, goal=goal, max_problems=None, max_trials=max_trials)
    written = {}
    standing = tally.standing(written.update)
    assert as_text(standing.leaderboard) == as_text(whole)
    assert standing.counts == count_trials(trials)
    assert standing.num_epochs == trials["epochs"].sum()
    unfinished = trials[trials["status"] != "completed"]
    assert [one.trial_id for one in standing.problems] == unfinished["trial_id"].tolist()
    best = trials[trials["trial_id"] == whole.selection.trial_id].iloc[0]
    assert standing.best_trial == {name: best[name] for name in metric_names(trials.columns)}
    expected = confusion_matrices(trials)
    assert {key: repr(value) for key, value in written.items()} == {
        key: repr(value) for key, value in expected.items()
    }


def test_the_means_are_those_of_pandas(run):
    standing = Tally(
        run, metric="val_loss", goal="minimize", max_trials=1
    ).standing_without_matrices()
    trials = run.read_trials()
    grouped = trials[trials["status"] == "completed"].groupby("variant_id")["val_loss"]
    expected = grouped.agg(["mean", "std", "min", "max", "count"])
    found = {one.variant_id: one for one in standing.leaderboard.variants}
    assert set(expected.index) == set(found) - {"v03"}
    for variant_id, row in expected.iterrows():
        of = found[variant_id].metrics["val_loss"]
        np.testing.assert_allclose(
            [of.mean, of.sd, of.min, of.max, of.n], row.to_numpy(), rtol=1e-12
        )
    assert found["v03"].num_failed == len(SEEDS)


@pytest.mark.parametrize("variant_id", [variant.variant_id for variant in VARIANTS])
def test_curves_read_file_by_file_are_those_of_the_whole_history(run, variant_id):
    trials, history = run.read_trials(), run.read_history(variant_id)
    done = trials.loc[trials["status"] == "completed", "trial_id"]
    history = history[history["trial_id"].isin(done)]
    curves = winner_curves(run, variant_id)
    if history.empty:
        assert curves == {}
        return
    assert list(curves) == list(history.columns[4:])
    for name, values in curves.items():
        expected = history.pivot(index="seed", columns="epoch", values=name).to_numpy()
        np.testing.assert_array_equal(values, expected)


def test_a_chunk_is_made_of_the_latest_rows_of_whole_variants(run):
    chunks = list(run.tables.index().by_variants("all", 1))
    assert [chunk["variant_id"].unique().tolist() for chunk in chunks] == [
        [variant.variant_id] for variant in VARIANTS
    ]
    whole = run.read_trials()
    united = pd.concat(chunks, ignore_index=True)[whole.columns.tolist()]
    pd.testing.assert_frame_equal(united, whole)


def test_only_the_first_problems_are_kept_when_there_are_many(run):
    tally = Tally(run, metric="val_loss", goal="minimize", max_problems=3, max_trials=1)
    standing = tally.standing_without_matrices()
    assert len(standing.problems) == 3
    assert standing.counts["diverged"] + standing.counts["failed"] > 23


def test_without_trials_nothing_is_selected(tmp_path):
    folder = RunFolder.create(tmp_path, "empty")
    tally = Tally(folder, metric="val_loss", goal="minimize")
    assert tally.is_empty
    standing = tally.standing()
    assert (standing.counts["trials"], standing.leaderboard.selection) == (0, None)
