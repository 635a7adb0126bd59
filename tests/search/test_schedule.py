"""The rounds that a job asks for, and what they cost."""

import pytest

from trialrun.job import JobSpec
from trialrun.search.schedule import expected_rounds, schedule_of


def job_of(seeds, rounds, confirm=None):
    search = {"rounds": rounds, "confirm": confirm}
    return JobSpec.model_validate({"name": "j", "seeds": seeds, "search": search})


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


def test_without_rounds_every_variant_has_every_seed():
    [whole] = expected_rounds(job_of(8, None), 10)
    assert whole.num_trials == 80
    [whole, confirm] = expected_rounds(job_of([4, 2], None, {"seeds": 3, "variants": 1}), 10)
    assert (whole.num_trials, confirm.num_trials) == (20, 3)
    [whole] = expected_rounds(job_of(8, [{"seeds": 5}], False), 10)
    assert whole.num_trials == 50


def test_the_seeds_of_a_round_are_the_first_of_the_job():
    schedule = schedule_of(job_of([9, 3, 7, 1], "auto"))
    assert schedule.seeds == (9, 3, 7, 1)
    assert schedule.counts == (2, 4)
