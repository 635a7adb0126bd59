"""The next round, from closed rounds: decisions, ties, losses, races, more seeds, confirmation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialrun.analysis.selection import ValidationScores, select_best
from trialrun.job import FIRST_FRESH_SEED, ConfirmSpec, JobSpec
from trialrun.search.schedule import schedule_of
from trialrun.search.strategy import Search, next_round
from trialrun.store.round_log import RoundLog


def scores_of(values, metric="val_loss"):
    """Scores of variants `v0`, `v1`, ... with seeds 0, 1, ..."""
    values = np.array(values, float)
    ids = [f"v{row}/{seed}" for row in range(len(values)) for seed in range(values.shape[1])]
    return ValidationScores(
        metric=metric,
        variant_ids=tuple(f"v{row}" for row in range(len(values))),
        seeds=tuple(range(values.shape[1])),
        trial_ids=np.array(ids, np.bytes_).reshape(values.shape),
        values=values,
        num_unfinished=np.count_nonzero(np.isnan(values), axis=1),
    )


def search_of(scores, rounds="auto", confirm=False, seeds=None, **select):
    num_seeds = len(scores.seeds) if seeds is None else seeds
    content = {"name": "j", "seeds": num_seeds, "search": {"rounds": rounds}, "select": select}
    job = JobSpec.model_validate(content)
    wanted = ConfirmSpec(**confirm) if confirm else None
    goal, statistic = job.select.goal, job.select.statistic
    schedule = schedule_of(job, len(scores.variant_ids))
    return Search(scores.variant_ids, job.seed_list, goal, statistic, schedule, wanted)


def all_rounds(search, scores, rounds=()):
    rounds = list(rounds)
    while (one := next_round(search, rounds, scores)) is not None:
        rounds.append(one)
        assert len(rounds) < 20
    return rounds


def asked(rounds):
    return [(one.stage, one.variants, len(one.seeds)) for one in rounds]


# Rounds by rank ----------------------------------------------------------------------------------


def test_the_better_third_goes_on_and_the_best_two_are_confirmed():
    values = np.add.outer(np.arange(9) / 10, np.arange(20) / 1000)[[8, 3, 5, 0, 1, 7, 6, 2, 4]]
    scores = scores_of(values)
    rounds = all_rounds(search_of(scores, confirm={"seeds": 3}), scores)
    assert asked(rounds) == [
        ("choose", scores.variant_ids, 3),
        ("choose", ("v3", "v4", "v7"), 7),
        ("choose", ("v3", "v4", "v7"), 20),
        ("confirm", ("v3", "v4"), 3),
    ]
    assert rounds[-1].seeds == tuple(range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + 3))
    decided = rounds[1].decision
    assert list(decided.scores) == ["v3", "v4", "v7", "v1", "v8", "v2", "v6", "v5", "v0"]
    assert decided.scores["v4"] == 0.101
    assert decided.dropped["v1"] == "rank 4 of 9, and 3 go on"
    assert set(decided.dropped) == {"v0", "v1", "v2", "v5", "v6", "v8"}


def test_large_is_good_where_the_job_says_so():
    scores = scores_of([[0.1] * 4, [0.9] * 4, [0.5] * 4], metric="val_accuracy")
    rounds = [{"seeds": 2, "keep": 1}, {"seeds": 4}]
    found = all_rounds(search_of(scores, rounds, metric="val_accuracy", goal="maximize"), scores)
    assert found[-1].variants == ("v1",)


@pytest.mark.parametrize(
    ("means", "keep", "going_on"),
    [
        ([0.3, 0.1, 0.2, 0.4], 2, (1, 2)),
        ([0.3, 0.1, 0.2, 0.2], 2, (1, 2, 3)),
        ([0.2, 0.2, 0.2, 0.2], 1, (0, 1, 2, 3)),
        # Differences in the last bits of float32 decide nothing.
        ([0.3, 0.1, 0.2, 0.2 * (1 + 1e-7)], 2, (1, 2, 3)),
        ([0.3, 0.1, 0.2, 0.20001], 2, (1, 2)),
        # Lost trials are the worst, whatever the others say.
        ([0.3, np.nan, 0.2, 0.4], 2, (0, 2)),
        ([np.nan, np.nan, 0.2, 0.4], "3/4", (2, 3)),
    ],
)
def test_who_goes_on(means, keep, going_on):
    scores = scores_of(np.outer(means, [1, 1, 1, 1]))
    rounds = all_rounds(search_of(scores, [{"seeds": 2, "keep": keep}, {"seeds": 4}]), scores)
    assert rounds[1].variants == tuple(f"v{index}" for index in going_on)


def test_a_variant_that_lost_one_trial_comes_after_all_that_lost_none():
    scores = scores_of([[0.1, np.nan, 0.1], [0.5, 0.5, 0.5], [0.6, 0.6, 0.6]])
    search = search_of(scores, [{"seeds": 2, "keep": 2}, {"seeds": 3}])
    _, second = all_rounds(search, scores)
    assert second.variants == ("v1", "v2")
    assert second.decision.lost == {"v0": (1,)}
    # What it lost afterwards is not known to the decision.
    later = scores_of([[0.1, 0.1, np.nan], [0.5, 0.5, 0.5], [0.6, 0.6, 0.6]])
    assert all_rounds(search, later)[1].variants == ("v0", "v1")


def test_nothing_follows_if_no_trial_has_a_value():
    scores = scores_of(np.full((3, 4), np.nan))
    assert len(all_rounds(search_of(scores, confirm={"seeds": 2}), scores)) == 1


def test_a_bound_from_few_seeds_does_not_decide():
    scores = scores_of([[0.1, 0.3] * 10, [0.201, 0.2] * 10, [0.9, 0.9] * 10])
    search = search_of(scores, [{"seeds": 4, "keep": 1}, {"seeds": 20}], metric="val_loss")
    bound = replace(search, statistic="confidence_bound")
    assert all_rounds(bound, scores)[1].variants == ("v0",)
    many = search_of(scores, [{"seeds": 10, "keep": 1}, {"seeds": 20}])
    many = replace(many, statistic="confidence_bound")
    assert all_rounds(many, scores)[1].variants == ("v1",)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    num_variants=st.integers(1, 30),
    rounds=st.sampled_from(["auto", {"method": "race"}, [{"seeds": 2, "keep": 0.4}, {"seeds": 9}]]),
    goal=st.sampled_from(["minimize", "maximize"]),
)
def test_a_decision_sees_its_own_trials_alone(seed, num_variants, rounds, goal):
    """Nothing but the trials of closed rounds counts, in any order and up to rounding."""
    rng = np.random.default_rng(seed)
    values = rng.normal(np.arange(num_variants)[:, None] / 10, 1, (num_variants, 9))
    values[rng.random(values.shape) < 0.05] = np.nan
    metric = "val_accuracy" if goal == "maximize" else "val_loss"
    scores = scores_of(values, metric)
    search = search_of(scores, rounds, {"seeds": 4}, metric=metric, goal=goal)
    expected = all_rounds(search, scores)
    for number, one in enumerate(expected):
        before = expected[:number]
        asked_for = np.zeros(values.shape, bool)
        for round_ in before:
            for variant in round_.variants:
                if round_.stage != "confirm":
                    asked_for[int(variant[1:]), list(round_.seeds)] = True
        others = scores_of(np.where(asked_for, values, rng.normal(size=values.shape)), metric)
        shuffled = others.restricted(
            [f"v{row}" for row in rng.permutation(num_variants)], rng.permutation(9).tolist()
        )
        assert next_round(search, before, shuffled).to_json() == one.to_json()
    sizes = [len(one.variants) for one in expected if one.stage != "confirm"]
    assert sizes == sorted(sizes, reverse=True)


# Races -------------------------------------------------------------------------------------------


def test_a_race_drops_what_is_worse_and_nothing_else():
    rng = np.random.default_rng(0)
    luck = rng.normal(size=20)
    values = luck + rng.normal(scale=0.1, size=(12, 20))
    values[6:] += 1
    scores = scores_of(values)
    rounds = all_rounds(search_of(scores, {"method": "race"}), scores)
    assert {one.stage for one in rounds} == {"race"}
    assert set(rounds[-1].variants) == {f"v{index}" for index in range(6)}
    rules = [rule for one in rounds[1:] for rule in one.decision.dropped.values()]
    assert len(rules) == 6
    assert all(rule.startswith("worse than v") for rule in rules)


def test_a_race_of_equals_drops_nobody():
    scores = scores_of(np.random.default_rng(1).normal(size=(12, 20)))
    rounds = all_rounds(search_of(scores, {"method": "race"}), scores)
    assert [len(one.variants) for one in rounds] == [12] * 5


def test_a_race_drops_a_variant_that_lost_a_trial():
    values = np.random.default_rng(1).normal(size=(4, 20))
    values[2, 1] = np.nan
    scores = scores_of(values)
    rounds = all_rounds(search_of(scores, {"method": "race"}), scores)
    assert rounds[1].decision.dropped == {"v2": "lost 1 trial"}
    lost_everywhere = np.where(np.arange(20) == 1, np.nan, values)
    rounds = all_rounds(search_of(scores, {"method": "race"}), scores_of(lost_everywhere))
    assert len(rounds[1].variants) == 4


def test_a_race_that_is_decided_ends():
    luck = np.random.default_rng(2).normal(size=20)
    scores = scores_of([luck, luck + 5 + np.arange(20) / 100])
    search = search_of(scores, {"method": "race", "looks": [10, 15, 20]}, {"seeds": 2})
    assert asked(all_rounds(search, scores)) == [
        ("race", ("v0", "v1"), 10),
        ("race", ("v0",), 10),
        ("confirm", ("v0",), 2),
    ]


def test_a_race_of_one_variant_gets_all_seeds():
    scores = scores_of([np.arange(20) / 100])
    rounds = all_rounds(search_of(scores, {"method": "race"}), scores)
    assert len(rounds[-1].seeds) == 20


def test_an_interval_is_the_same_for_seeds_in_any_order():
    """Its resampling is drawn, so that it depends on the order of the values."""
    values = np.random.default_rng(0).exponential(size=(5, 14))
    scores = scores_of(values)
    search = replace(search_of(scores, None), statistic="confidence_bound")
    confirm = ConfirmSpec(seeds=2)
    schedule = search.schedule
    found = []
    for seeds in (range(14), [9, 3, 13, 0, 1, 7, 2, 12, 4, 5, 11, 6, 8, 10]):
        seeds = tuple(seeds)
        ordered = replace(schedule, seeds=seeds, statistic="confidence_bound")
        own = replace(search, seeds=seeds, schedule=ordered, confirm=confirm)
        found.append(all_rounds(own, scores)[-1].decision.scores)
    assert found[0] == found[1]
    best = select_best(scores, "minimize", "confidence_bound", digits=5)
    assert next(iter(found[0])) == best.variant_id


# More seeds, and confirmation --------------------------------------------------------------------


def test_more_seeds_extend_the_last_round_and_confirm_again():
    values = np.add.outer(np.arange(9) / 10, np.zeros(30))
    values[0, 20:] += 9  # the winner of 20 seeds is not that of 30
    scores = scores_of(values)
    search = search_of(scores, seeds=20, confirm={"seeds": 3})
    rounds = all_rounds(search, scores)
    assert rounds[-1].variants == ("v0", "v1")
    again = all_rounds(replace(search, seeds=tuple(range(30))), scores, rounds)
    assert again[: len(rounds)] == rounds
    assert asked(again[len(rounds) :]) == [
        ("extend", ("v0", "v1", "v2"), 30),
        ("confirm", ("v1", "v2"), 3),
    ]
    assert again[-1].seeds == rounds[-1].seeds
    assert not set(again[-2].seeds) & set(again[-1].seeds)


def test_a_plain_grid_is_confirmed_and_may_grow():
    scores = scores_of([[0.3] * 4, [0.1] * 4, [0.2] * 4])
    search = search_of(scores, None, {"seeds": 2})
    rounds = all_rounds(search, scores)
    assert asked(rounds) == [
        ("choose", ("v0", "v1", "v2"), 4),
        ("confirm", ("v1", "v2"), 2),
    ]
    more = scores_of([[0.3] * 4, [0.1] * 4, [0.2] * 4, [0.0] * 4])
    again = all_rounds(replace(search, variant_ids=more.variant_ids), more, rounds)
    assert asked(again[2:]) == [
        ("extend", ("v0", "v1", "v2", "v3"), 4),
        ("confirm", ("v3", "v1"), 2),
    ]


def test_only_what_has_a_value_is_confirmed():
    scores = scores_of([[np.nan] * 4, [0.1] * 4])
    rounds = all_rounds(search_of(scores, None, {"seeds": 2, "variants": 5}), scores)
    assert rounds[-1].variants == ("v1",)


def test_a_round_is_read_as_it_was_written(tmp_path):
    values = np.random.default_rng(0).normal(size=(9, 20))
    values[3, 1] = np.nan
    scores = scores_of(values)
    log = RoundLog(tmp_path / "search")
    assert log.read() == ()
    for rounds in ("auto", {"method": "race"}):
        written = all_rounds(search_of(scores, rounds, {"seeds": 3}), scores)
        for one in written:
            log.write(one)
        assert log.read()[: len(written)] == tuple(written)
        assert [one.to_json() for one in log.read()] == [
            file.read_text() for file in sorted(log.path.iterdir())
        ]
