"""Conditional spaces: which assignments a grid and a random search take."""

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialrun.errors import InputError
from trialrun.job import JobSpec
from trialrun.job.condition_checks import check_conditions
from trialrun.job.conditions import Conditions
from trialrun.trials.plan import plan_trials, plan_variants
from trialrun.trials.search_space import expand

NAME, MOMENTUM = "training.optimizer.name", "training.optimizer.momentum"
DEPTH, UNITS = "model.args.depth", "model.args.units_2"


def search_of(parameters, **search):
    return JobSpec.model_validate(
        {"name": "a", "search": {"parameters": parameters, **search}}
    ).search


def expanded(parameters, **search):
    return expand(
        JobSpec.model_validate({"name": "a", "search": {"parameters": parameters, **search}})
    )


def sgd_only(**values):
    return {NAME: {"values": ["adam", "sgd"]}, MOMENTUM: {**values, "when": {NAME: "sgd"}}}


@st.composite
def spaces(draw):
    """Parameters with conditions in any order of the file: parents may come after children."""
    num = draw(st.integers(1, 6))
    values = [
        draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)) for _ in range(num)
    ]
    rank = draw(st.permutations(range(num)))
    parameters = {}
    for index in range(num):
        parents = [other for other in range(num) if rank[other] < rank[index]]
        chosen = (
            draw(st.lists(st.sampled_from(parents), max_size=2, unique=True)) if parents else []
        )
        when = {
            f"p{other}": draw(st.lists(st.sampled_from(values[other]), min_size=1, unique=True))
            for other in chosen
        }
        parameters[f"p{index}"] = {"values": values[index], "when": when}
    return parameters


def brute_force(parameters):
    """Every product of all values without what is inactive, each once, where it occurs first."""
    found = {}
    for values in itertools.product(*(spec["values"] for spec in parameters.values())):
        whole = dict(zip(parameters, values, strict=True))

        def is_active(path, whole=whole):
            return all(
                whole[parent] in wanted and is_active(parent)
                for parent, wanted in parameters[path]["when"].items()
            )

        kept = {path: value for path, value in whole.items() if is_active(path)}
        found.setdefault(json.dumps(kept), kept)
    return list(found.values())


@given(spaces())
@settings(max_examples=200, deadline=None)
def test_a_conditional_grid_is_the_product_without_what_is_inactive(parameters):
    expected = brute_force(parameters)
    assert [json.dumps(one) for one in expanded(parameters)] == [
        json.dumps(one) for one in expected
    ]
    search = search_of(parameters)
    assert Conditions.of(search.parameters).num_combinations() == len(expected)
    active = {path for one in expected for path in one}
    refused = [problem.path[2] for problem in check_conditions(search.parameters)]
    assert bool(refused) == (active != parameters.keys())
    assert active.isdisjoint(refused)


@given(spaces(), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_random_draws_are_members_of_the_grid_and_begin_with_the_same_ones(parameters, seed):
    grid = brute_force(parameters)
    num = math.ceil(len(grid) / 4)
    drawn = expanded(parameters, method="random", num_variants=num, seed=seed)
    assert all(one in grid for one in drawn)
    assert drawn[:1] == expanded(parameters, method="random", num_variants=1, seed=seed)


@given(spaces())
@settings(max_examples=50, deadline=None)
def test_what_makes_a_parameter_active_is_in_each_of_its_contexts(parameters):
    conditions = Conditions.of(search_of(parameters).parameters)
    if check_conditions(conditions.parameters):
        return
    grid = brute_force(parameters)
    for path in parameters:
        contexts = conditions.contexts(path)
        assert all(conditions.is_active(path, around) for around in contexts)
        for parent in conditions.activating(path):
            seen = {one[parent] for one in grid if path in one}
            assert {around[parent] for around in contexts} == seen


def test_a_grid_counts_each_condition_once():
    variants = expanded(sgd_only(values=[0.1, 0.9]))
    assert variants == (
        {NAME: "adam"},
        {NAME: "sgd", MOMENTUM: 0.1},
        {NAME: "sgd", MOMENTUM: 0.9},
    )


def test_values_are_compared_with_their_types():
    flags = {"values": [1, True, 1.0, "1"]}
    for asked, length in ((1, 5), (True, 5), ([1, 1.0], 6), ("1", 5)):
        parameters = {"model.args.a": flags, "model.args.b": {"values": [1, 2]}}
        parameters["model.args.b"]["when"] = {"model.args.a": asked}
        assert len(expanded(parameters)) == length


def test_a_value_that_is_a_list_is_written_as_a_list_of_lists():
    parameters = {
        "model.args.units": {"values": [[16], [16, 32]]},
        "model.args.rate": {"values": [0.1, 0.2], "when": {"model.args.units": [[16, 32]]}},
    }
    assert len(expanded(parameters)) == 3
    parameters["model.args.rate"]["when"] = {"model.args.units": [16, 32]}
    problems = check_conditions(search_of(parameters).parameters)
    assert problems[0].message.endswith("write a list that is one value as [[...]]")


def test_a_range_is_drawn_only_where_it_is_active():
    parameters = sgd_only(min=0.1, max=0.98, distribution="uniform")
    drawn = expanded(parameters, method="random", num_variants=40)
    assert [MOMENTUM in one for one in drawn] == [one[NAME] == "sgd" for one in drawn]
    assert sum(one[NAME] == "adam" for one in drawn) == 1  # there is but one


def test_a_random_search_takes_the_rare_variants_of_a_conditional_space_too():
    parameters = {
        "model.args.a": {"values": list(range(60))},
        "model.args.b": {"values": list(range(60)), "when": {"model.args.a": 7}},
    }
    drawn = expanded(parameters, method="random", num_variants=59 + 60)
    assert {json.dumps(one) for one in drawn} == {json.dumps(one) for one in expanded(parameters)}
    assert drawn[:50] == expanded(parameters, method="random", num_variants=50)


def test_parents_are_drawn_before_what_depends_on_them_wherever_they_stand():
    parameters = dict(reversed(sgd_only(min=1, max=3, distribution="int_uniform").items()))
    drawn = expanded(parameters, method="random", num_variants=4)
    assert sorted(json.dumps(one) for one in drawn) == sorted(
        json.dumps(one)
        for one in (
            {NAME: "adam"},
            *({MOMENTUM: value, NAME: "sgd"} for value in (1, 2, 3)),
        )
    )


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"values": [1, 2]}, 3),
        ({"min": 1, "max": 5, "distribution": "int_uniform"}, 6),
        ({"min": 1, "max": 5, "distribution": "uniform"}, math.inf),
    ],
)
def test_combinations_are_summed_over_the_values_of_parents(values, count):
    parameters = search_of(sgd_only(**values), method="random", num_variants=1).parameters
    assert Conditions.of(parameters).num_combinations() == count


def test_many_conditions_are_counted_without_listing_what_they_allow():
    parameters = {f"a{i}": {"values": [0, 1]} for i in range(60)}
    parameters |= {f"b{i}": {"values": [0, 1, 2], "when": {f"a{i}": 1}} for i in range(60)}
    assert Conditions.of(search_of(parameters).parameters).num_combinations() == 4**60
    tangled = {f"a{i}": {"values": [0, 1]} for i in range(60)}
    tangled["b"] = {"values": [0], "when": {f"a{i}": 1 for i in range(60)}}
    (problem,) = check_conditions(search_of(tangled).parameters)
    assert "to be counted" in problem.message


def test_an_inactive_parameter_leaves_the_settings_and_the_trial_id_as_they_are():
    training = {"optimizer": {"name": "sgd", "momentum": 0.5}}
    parameters = {DEPTH: {"values": [1, 2]}, UNITS: {"values": [16, 32], "when": {DEPTH: 2}}}
    model = {"builder": "trialrun.models:mlp", "args": {"depth": 1, "units_2": 8}}
    job = {"name": "a", "seeds": 1, "model": model, "training": training}
    spec = JobSpec.model_validate({**job, "search": {"parameters": parameters}})
    first, *others = plan_variants(spec)
    assert first.parameters == {DEPTH: 1}
    assert first.model.args == {"depth": 1, "units_2": 8}  # the job's own value stays
    assert [one.model.args["units_2"] for one in others] == [16, 32]
    del parameters[UNITS]
    plain = JobSpec.model_validate({**job, "search": {"parameters": parameters}})
    assert plan_trials(spec)[0].trial_id == plan_trials(plain)[0].trial_id


def test_without_conditions_the_draws_are_those_of_version_0_1():
    parameters = {
        "training.learning_rate": {"min": 1e-5, "max": 1e-1, "distribution": "log_uniform"},
        "model.args.b": {"values": ["x", "y", "z"]},
        "model.args.c": {"min": 1, "max": 9, "distribution": "int_uniform"},
    }
    drawn = expanded(parameters, method="random", num_variants=4, seed=3)
    assert [tuple(one.values()) for one in drawn] == [
        (2.20088e-05, "x", 3),
        (0.0160361, "z", 6),
        (2.37966e-05, "x", 4),
        (0.000824528, "x", 2),
    ]
    assert all(list(one) == list(parameters) for one in drawn)


def test_values_that_are_wrong_together_are_refused_with_the_remedy():
    parameters = sgd_only(values=[0.1])
    del parameters[MOMENTUM]["when"]
    spec = JobSpec.model_validate(
        {
            "name": "a",
            "training": {"optimizer": {"name": "sgd"}},
            "search": {"parameters": parameters},
        }
    )
    with pytest.raises(InputError, match="adam takes no argument 'momentum'") as error:
        plan_variants(spec)
    assert "with `when`, search a parameter only where it is right" in str(error.value)
