import math
from collections import Counter

import pytest

from trialrun.errors import InputError
from trialrun.job import JobSpec
from trialrun.trials.search_space import expand


def job(**search):
    return JobSpec.model_validate({"name": "a", "search": search})


def random_job(num_variants, seed=0, **parameters):
    return job(method="random", num_variants=num_variants, seed=seed, parameters=parameters)


def test_a_job_that_searches_nothing_has_one_variant_without_parameters():
    assert expand(job()) == ({},)


def test_a_grid_is_the_product_in_file_order_with_the_last_parameter_fastest():
    parameters = {"training.epochs": {"values": [2, 1]}, "model.args.b": {"values": ["x", "y"]}}
    assert expand(job(parameters=parameters)) == (
        {"training.epochs": 2, "model.args.b": "x"},
        {"training.epochs": 2, "model.args.b": "y"},
        {"training.epochs": 1, "model.args.b": "x"},
        {"training.epochs": 1, "model.args.b": "y"},
    )


@pytest.mark.parametrize("value", [1, 1.0, True, "1", [1, 2.0], None, {"a": 1}])
@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_value_keeps_its_type(value, method):
    count = {"num_variants": 1} if method == "random" else {}
    (variant,) = expand(
        job(method=method, parameters={"model.args.a": {"values": [value]}}, **count)
    )
    assert repr(variant) == repr({"model.args.a": value})


def test_a_random_search_depends_on_its_seed_alone():
    ranges = {"a": {"min": 0, "max": 1, "distribution": "uniform"}}
    first = expand(random_job(5, seed=1, **ranges))
    assert first == expand(random_job(5, seed=1, **ranges))
    assert first != expand(random_job(5, seed=2, **ranges))


def test_a_longer_random_search_begins_with_the_variants_of_a_shorter_one():
    parameters = {
        "a": {"values": [1, 2, 3]},
        "b": {"min": 1, "max": 9, "distribution": "int_uniform"},
    }
    assert expand(random_job(20, **parameters))[:7] == expand(random_job(7, **parameters))


def test_a_random_search_takes_every_variant_of_a_finite_space_once():
    parameters = {
        "a": {"values": ["x", "y"]},
        "b": {"min": 1, "max": 3, "distribution": "int_uniform"},
    }
    variants = expand(random_job(6, **parameters))
    assert Counter((v["a"], v["b"]) for v in variants) == Counter(
        (a, b) for a in "xy" for b in (1, 2, 3)
    )


def test_more_variants_than_the_space_holds_are_refused():
    with pytest.raises(InputError, match=r"num_variants must be at most 3, .* got 4"):
        expand(random_job(4, a={"min": 1, "max": 3, "distribution": "int_uniform"}))


@pytest.mark.parametrize(
    ("distribution", "low", "high", "middle"),
    [
        ("uniform", -1.0, 3.0, 1.0),
        ("log_uniform", 1e-5, 1e-1, 1e-3),
        ("int_uniform", 0, 10**6, 500_000),
    ],
)
def test_half_of_the_draws_lie_below_the_middle_of_the_distribution(
    distribution, low, high, middle
):
    spec = {"min": low, "max": high, "distribution": distribution}
    values = [variant["a"] for variant in expand(random_job(2000, a=spec))]
    assert all(low <= value <= high for value in values)
    below = sum(value < middle for value in values)
    assert abs(below - 1000) < 4 * math.sqrt(2000) / 2  # four standard deviations of a fair coin
    assert {type(value) for value in values} == {int if distribution == "int_uniform" else float}


def test_a_drawn_number_has_six_digits_so_that_it_is_the_same_on_every_machine():
    spec = {"min": 1e-5, "max": 1e-1, "distribution": "log_uniform"}
    values = [variant["a"] for variant in expand(random_job(50, a=spec))]
    assert all(value == float(f"{value:.6g}") for value in values)
