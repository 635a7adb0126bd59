"""The rounds that a job asks for, and what they cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trialrun.errors import InputError
from trialrun.job import JobSpec
from trialrun.job.rounds_checks import check_rounds
from trialrun.search.schedule import expected_rounds, num_going_on, schedule_of


def job_of(seeds, rounds, confirm=None, epochs=30, **search):
    search |= {"rounds": rounds, "confirm": confirm}
    training = {"epochs": epochs}
    return JobSpec.model_validate(
        {"name": "j", "seeds": seeds, "search": search, "training": training}
    )


@pytest.mark.parametrize(
    ("seeds", "rounds", "num_variants", "expected"),
    [
        (20, "auto", 96, [(96, 3, 288), (32, 7, 128), (11, 20, 143), (2, 20, 40)]),
        (20, "auto", 2, [(2, 3, 6), (2, 7, 8), (2, 20, 26), (2, 20, 40)]),
        (5, "auto", 9, [(9, 2, 18), (3, 5, 9), (2, 20, 40)]),
        (3, "auto", 9, [(9, 2, 18), (3, 3, 3), (2, 20, 40)]),
        (8, [{"seeds": 2, "keep": 0.25}, {"seeds": 8}], 10, [(10, 2, 20), (3, 8, 18), (2, 20, 40)]),
        (8, [{"seeds": 2, "keep": 1}, {"seeds": 6}], 10, [(10, 2, 20), (1, 6, 4), (1, 20, 20)]),
        (8, {"method": "race"}, 4, [(4, 3, 12), (4, 5, 8), (4, 8, 12), (2, 20, 40)]),
        (8, {"method": "race", "looks": [4]}, 4, [(4, 4, 16), (2, 20, 40)]),
    ],
)
def test_rounds_and_their_trials(seeds, rounds, num_variants, expected):
    found = expected_rounds(job_of(seeds, rounds), num_variants)
    assert [one[1:4] for one in found] == expected
    assert [one.num_epochs for one in found] == [30 * one.num_trials for one in found]


def test_without_rounds_every_variant_has_every_seed():
    [whole] = expected_rounds(job_of(8, None), 10)
    assert whole.num_trials == 80
    [whole, confirm] = expected_rounds(job_of([4, 2], None, {"seeds": 3, "variants": 1}), 10)
    assert (whole.num_trials, confirm.num_trials) == (20, 3)
    [whole] = expected_rounds(job_of(8, [{"seeds": 5}], False), 10)
    assert whole.num_trials == 50


def test_the_seeds_of_a_round_are_the_first_of_the_job():
    schedule = schedule_of(job_of([9, 3, 7, 1], "auto"), 5)
    assert schedule.seeds == (9, 3, 7, 1)
    assert schedule.counts == (2, 4)


# Budgets -----------------------------------------------------------------------------------------


def cost_of(job, num_variants):
    return sum(one.num_trials for one in expected_rounds(job, num_variants))


@given(st.integers(1, 300), st.integers(3, 40), st.integers(1, 5000))
def test_auto_is_fitted_to_a_budget_of_trials(num_variants, seeds, budget):
    whole = cost_of(job_of(seeds, "auto"), num_variants)
    job = job_of(seeds, "auto", budget={"trials": budget})
    if budget >= whole:
        assert schedule_of(job, num_variants) == schedule_of(job_of(seeds, "auto"), num_variants)
        return
    try:
        fitted = cost_of(job, num_variants)
    except InputError as error:
        needed = int(str(error).split("at least ")[1].split()[0])
        assert needed > budget
        cost_of(job_of(seeds, "auto", budget={"trials": needed}), num_variants)
    else:
        assert fitted <= budget


def test_a_fitted_budget_is_used():
    job = job_of(20, "auto", budget={"trials": 500})
    assert schedule_of(job, 96).keeps == ("23/100", "23/100")
    assert cost_of(job, 96) == 498


@pytest.mark.parametrize("rounds", [None, [{"seeds": 3, "keep": 1}, {"seeds": 8}]])
def test_rounds_that_are_given_are_not_fitted(rounds):
    needed = cost_of(job_of(8, rounds, True), 10)
    assert cost_of(job_of(8, rounds, True, budget={"trials": needed}), 10) == needed
    with pytest.raises(InputError, match=f"must be at least {needed} for 10 variants .* auto is"):
        expected_rounds(job_of(8, rounds, True, budget={"trials": needed - 1}), 10)


@pytest.mark.parametrize(
    ("time", "seconds"), [("2h", 7200), ("90m", 5400), ("1h 30m", 5400), ("1h1m1s", 3661)]
)
def test_a_time(time, seconds):
    assert job_of(8, "auto", budget={"time": time}).search.budget.seconds == seconds


@pytest.mark.parametrize("time", [7200, "2", "", "0h", "2 days", "-1h", "1m 2h", True, 1.5])
def test_what_is_no_time(time):
    with pytest.raises(ValueError, match="such as 2h, 90m or 1h 30m"):
        job_of(8, "auto", budget={"time": time})


# Rounds that pause their trials ------------------------------------------------------------------

RUNGS = [{"seeds": 3, "epochs": 9, "keep": "1/3"}, {"seeds": 6, "keep": "1/3"}, {"seeds": 18}]


def test_the_epochs_of_a_round_are_those_that_its_trials_still_lack():
    costs = expected_rounds(job_of(18, RUNGS, epochs=27), 96)
    assert [(one.num_variants, one.num_trials, one.pause_after) for one in costs] == [
        (96, 288, 9),
        (32, 96, None),
        (11, 132, None),
        (2, 40, None),
    ]
    by_hand = [96 * 3 * 9, 32 * (6 * 27 - 3 * 9), 11 * (18 - 6) * 27, 2 * 20 * 27]
    assert [one.num_epochs for one in costs] == by_hand


def test_what_ties_cost_is_saved_in_epochs():
    """Eleven more of 30 go on, for 27 x 6 - 9 x 3 epochs each, and 3 more seeds cost 27 x 3."""
    rounds = [*RUNGS[:2], {"seeds": 9}]
    schedule = schedule_of(job_of(18, rounds, epochs=27), 90)
    assert schedule.epochs == (9, 27, 27)
    assert num_going_on(schedule, [90, 30]) == 10
    assert num_going_on(schedule, [90, 31]) == int((10 - 1 * (6 * 27 - 3 * 9) / (3 * 27)) * 30 / 31)


def test_without_pauses_the_schedule_has_no_epochs():
    assert schedule_of(job_of(20, "auto"), 9).epochs == ()
    assert schedule_of(job_of(8, [{"seeds": 2, "keep": 1}, {"seeds": 8}]), 9).epochs == ()


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        (
            [{"seeds": 3, "epochs": 30, "keep": 1}, {"seeds": 6}],
            "search.rounds[0].epochs must be less than training.epochs, 30, got 30",
        ),
        (
            [{"seeds": 3, "epochs": 9, "keep": 1}, {"seeds": 6, "epochs": 20}],
            "search.rounds[1].epochs: the last round trains its trials to their end; leave it out",
        ),
        (
            [
                {"seeds": 3, "epochs": 9, "keep": 2},
                {"seeds": 4, "epochs": 8, "keep": 1},
                {"seeds": 6},
            ],
            "search.rounds[1].epochs must not be less than the 9 before it, got 8",
        ),
        (
            [{"seeds": 3, "keep": 2}, {"seeds": 4, "epochs": 8, "keep": 1}, {"seeds": 6}],
            "search.rounds[1].epochs: the round before it trains its trials to their end; leave it"
            " out",
        ),
        (
            [
                {"seeds": 3, "epochs": 9, "keep": 2},
                {"seeds": 4, "epochs": 9, "keep": 1},
                {"seeds": 6},
            ],
            "",
        ),
    ],
)
def test_epochs_at_which_no_round_can_pause_are_refused(rounds, message):
    problems = [problem.message for problem in check_rounds(job_of(6, rounds))]
    assert problems == ([message] if message else [])


def test_pauses_are_refused_where_the_epochs_are_searched():
    job = job_of(18, RUNGS, parameters={"training.epochs": {"values": [20, 40]}})
    [problem] = check_rounds(job)
    assert "search.rounds[0].epochs: cannot be used while training.epochs is searched" in (
        problem.message
    )
