"""What a job file may say in `when`, and what is refused, with file and line."""

import textwrap
from pathlib import Path

import pytest
import yaml

from trialrun.errors import InputError
from trialrun.job import dump_job, load_job

NETS = """
def stack(depth, units_2=8, **more): ...
def strict(depth, units_2): ...
def focal(y_true, y_pred): ...
"""
JOB = """\
name: a
model: {builder: "nets.py:stack", args: {depth: 1}}
training: {optimizer: {name: adam}}
search:
  parameters:
    model.args.depth: {values: [1, 2, 3]}
    training.optimizer.name: {values: [adam, sgd, rmsprop]}
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a job to whose search lines are added, the first of them line 8 of the file."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)

    def load(added, job=JOB, overrides=()):
        path = Path("a.yaml")
        path.write_text(job + textwrap.indent(textwrap.dedent(added).strip("\n"), "    "))
        return load_job(path, overrides)

    return load


def refusal(load, *args, **options):
    with pytest.raises(InputError) as caught:
        load(*args, **options)
    return str(caught.value)


UNITS = "model.args.units_2: {{values: [16, 32], when: {when}}}"
MOMENTUM = "training.optimizer.momentum"


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{model.args.dept: 2}", "`when` names 'model.args.dept', which is not searched; did you"),
        (
            "{model.args.depth: [2, 4]}",
            "'model.args.depth' never has the value 4; its values: 1, 2",
        ),
        ("{model.args.depth: 2.0}", "'model.args.depth' never has the value 2.0; its values"),
        ("{model.args.depth: []}", "`when` gives no value for 'model.args.depth'; give at least"),
        ("{model.args.units_2: 16}", "its `when` names itself; leave it out"),
        ("sgd", None),
    ],
)
def test_a_wrong_condition_is_refused_with_its_line(load, when, message):
    shown = refusal(load, UNITS.format(when=when))
    if message is None:
        assert shown == (
            "a.yaml:8: search.parameters.model.args.units_2.when must be a mapping of searched"
            " paths to values, got 'sgd'"
        )
    else:
        assert shown.startswith(f"a.yaml:8: model.args.units_2: {message}")
    assert "\n" not in shown


def test_the_line_is_that_of_the_value(load):
    shown = refusal(
        load,
        """
        model.args.units_2:
          values: [16, 32]
          when:
            model.args.depth:
              - 2
              - 7
        """,
    )
    assert shown.startswith(
        "a.yaml:13: model.args.units_2: 'model.args.depth' never has the value 7"
    )


def test_a_circle_is_named_once(load):
    shown = refusal(
        load,
        """
        model.args.a: {values: [1], when: {model.args.b: 1, model.args.depth: 1}}
        model.args.b: {values: [1], when: {model.args.c: 1}}
        model.args.c: {values: [1], when: {model.args.a: 1}}
        model.args.d: {values: [1], when: {model.args.c: 1}}
        """,
    )
    way = "model.args.a -> model.args.b -> model.args.c -> model.args.a"
    assert shown == f"a.yaml:8: model.args.a: its `when` leads back to itself: {way}"


def test_a_range_cannot_be_named_in_a_condition(load):
    shown = refusal(
        load,
        """
        training.learning_rate: {min: 1e-5, max: 1e-3, distribution: log_uniform}
        model.args.units_2: {values: [16, 32], when: {training.learning_rate: 1e-4}}
        """,
        overrides=["search.method=random", "search.num_variants=3"],
    )
    assert shown == (
        "a.yaml:9: model.args.units_2: `when` names 'training.learning_rate', which is a range;"
        " only one with `values` can be named"
    )


def test_a_parameter_that_can_never_be_active_is_refused(load):
    shown = refusal(
        load,
        """
        model.args.units_2: {values: [16, 32], when: {model.args.depth: [2, 3]}}
        model.args.rate: {values: [1, 2], when: {model.args.units_2: 16, model.args.depth: 1}}
        model.args.more: {values: [1, 2], when: {model.args.rate: 1}}
        """,
    )
    assert shown == (
        "a.yaml:9: model.args.rate: can never be searched: what it depends on asks for different"
        " values of model.args.depth"
    )


def test_a_value_is_checked_with_what_makes_it_active(load):
    line = f"{MOMENTUM}: {{values: [0.5, 0.9], when: {{training.optimizer.name: %s}}}}"
    assert load(line % "sgd").spec.search.parameters[MOMENTUM].when == {
        "training.optimizer.name": ("sgd",)
    }
    load(line % "[sgd, rmsprop]")
    shown = refusal(load, line % "[sgd, adam]")
    assert shown.startswith("a.yaml:8: training.optimizer: adam takes no argument 'momentum'")
    assert "\n" not in shown
    shown = refusal(load, (line % "sgd").replace("0.9", "-2"))
    assert shown.startswith("a.yaml:8: training.optimizer: ")
    assert "\n" not in shown


def test_a_value_is_checked_along_a_chain(load):
    chain = f"""
        {MOMENTUM}: {{values: [0.5, 0.9], when: {{training.optimizer.name: sgd}}}}
        training.optimizer.nesterov: {{values: [true, false], when: {{{MOMENTUM}: 0.9}}}}
    """
    load(chain)
    shown = refusal(load, chain.replace("true", "3"))
    assert shown.startswith("a.yaml:9: training.optimizer: ")
    assert "\n" not in shown


SCHEDULE = """
    training.learning_rate_schedule.name: {values: [exponential_decay, inverse_time_decay]}
    training.learning_rate_schedule.decay_steps: {values: [50, 100], when: \
{training.learning_rate_schedule.name: [exponential_decay, inverse_time_decay]}}
    training.learning_rate_schedule.decay_rate: {values: [0.5, 0.9], when: \
{training.learning_rate_schedule.name: [exponential_decay, inverse_time_decay]}}
"""


def test_a_value_may_need_those_that_it_makes_active(load):
    job = "name: a\nsearch:\n  parameters:\n"
    load(SCHEDULE, job)
    shown = refusal(load, SCHEDULE.replace("[0.5, 0.9]", "[fast, 0.9]"), job)
    assert {line.split(": ")[0] for line in shown.splitlines()} == {"a.yaml:6"}
    shown = refusal(load, SCHEDULE.replace("exponential_decay", "exponential_decai"), job)
    assert "a.yaml:4: " in shown


def test_an_argument_that_a_builder_needs_must_not_be_left_out(load):
    strict = JOB.replace("stack", "strict")
    line = UNITS.format(when="{model.args.depth: [2, 3]}")
    shown = refusal(load, line, strict)
    assert shown == (
        "a.yaml:8: nets.py:strict needs an argument 'units_2', which `when` leaves out elsewhere;"
        " give it in model.args too"
    )
    load(line, strict.replace("depth: 1}", "depth: 1, units_2: 8}"))
    load(line)


def test_a_condition_may_name_functions_of_the_user(load):
    job = JOB.replace("training: {", "training: {metrics: [mae], ") + "    training.loss: {values: "
    job += '["nets.py:focal", mse]}\n'
    metric = ["select.metric=val_mae"]
    line = UNITS.format(when='{training.loss: "nets.py:focal"}')
    spec = load(line, job, overrides=metric).spec
    assert spec.search.parameters["model.args.units_2"].when["training.loss"] == (
        f"{Path('nets.py').absolute()}:focal",
    )


def test_the_resolved_job_says_the_same_and_nothing_of_conditions_without_any(load):
    spec = load(UNITS.format(when="{model.args.depth: 2}")).spec
    written = yaml.safe_load(dump_job(spec))["search"]["parameters"]
    assert written["model.args.depth"] == {"values": [1, 2, 3]}
    assert written["model.args.units_2"]["when"] == {"model.args.depth": [2]}
    Path("b.yaml").write_text(dump_job(spec))
    assert load_job("b.yaml").spec == spec


def test_a_condition_can_be_set_on_the_command_line(load):
    added = "model.args.units_2: {values: [16, 32]}"
    option = "search.parameters.model.args.units_2.when={model.args.depth: 3}"
    spec = load(added, overrides=[option]).spec
    assert spec.search.parameters["model.args.units_2"].when == {"model.args.depth": (3,)}
    shown = refusal(load, added, overrides=[option.replace("3", "4")])
    assert shown.startswith(f"--set {option.replace('3', '4')}: model.args.units_2: ")


def test_a_random_search_is_bounded_by_what_conditions_leave(load):
    line = UNITS.format(when="{model.args.depth: [2, 3]}")
    random = ["search.method=random", "search.num_variants={}"]
    load(line, overrides=[random[0], random[1].format(15)])
    shown = refusal(load, line, overrides=[random[0], random[1].format(16)])
    assert "search.num_variants must be at most 15, the number of different variants" in shown
