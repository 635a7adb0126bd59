"""Models with training steps of their own, in compiled engines; the oracle has many more."""

import contextvars
import itertools
import random
from collections import deque
from types import SimpleNamespace

import keras
import numpy as np
import oracle_cases_steps
import pytest
import tensorflow as tf
from keras import layers, ops
from oracle import compare
from oracle_cases_steps import STEP_CASES, build
from oracle_table import TABLE

from trialrun.errors import CannotFuse
from trialrun.training.internals import keras_model
from trialrun.training.internals.gradient_tapes import TapedScope, functions_inlined, tapes_in
from trialrun.training.internals.keras_model import metrics_or_logs
from trialrun.training.internals.keras_tracing import names_of_a_new_process
from trialrun.training.model.first_steps import FirstSteps, optimizers_of
from trialrun.training.model.held_values import differing, held_values
from trialrun.training.model.python_state import PythonState
from trialrun.training.program.own_steps import OwnStepsModel
from trialrun.training.program.own_verify import why_own_steps_differ
from trialrun.training.state import ModelState
from trialrun.training.vectorize.other_numbers import refuse_operations

pytestmark = pytest.mark.tensorflow


def test_a_model_with_two_optimizers_is_trained_as_plain_keras_trains_it(tmp_path):
    """One of them in a dict, where Keras does not look; one tape serves both."""
    line = TABLE["step_two_speeds"]
    result = compare(line, tmp_path, compared=[-1], eagerly=True)
    assert (result.engine, result.reason) == ("fused", "")
    assert max(result.weights, result.logs) <= line.tolerance


# Tapes ------------------------------------------------------------------------------------------


def penalized(weight, x):
    """A gradient of a gradient."""
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = ops.sum(weight * x**3)
        slope = inner.gradient(y, x)
        loss = ops.sum(slope**2) + y
    return outer.gradient(loss, [weight])[0]


def assigned_meanwhile(weight, x):
    with tf.GradientTape() as tape:
        before = ops.sum(weight * x)
        weight.assign(weight * 2 + 1)
        loss = before + ops.sum(weight**2)
    return tape.gradient(loss, weight)


def persistent(weight, x):
    with tf.GradientTape(persistent=True) as tape:
        one, other = ops.sum(weight * x), ops.sum(weight**2 * x)
    return tape.gradient(one, weight) + 2 * tape.gradient(other, {"w": weight})["w"]


def entered_again(weight, x):
    tape = tf.GradientTape(persistent=True)
    with tape:
        loss = ops.sum(weight * x)
    weight.assign(weight + 1)
    with tape:
        loss = loss + ops.sum(weight**2)
    return tape.gradient(loss, weight)


def watched_by_hand(weight, x):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weight.value)
        loss = ops.sum(weight**2 * x)
    return tape.gradient(loss, [weight, x], unconnected_gradients="zero")[0]


def by_rows(weight, x):
    with tf.GradientTape() as tape:
        each = weight**2 * x
    return tape.jacobian(each, weight)


def in_a_function(weight, x):
    @tf.function(autograph=False)
    def step(x):
        weight.assign(weight * 2)
        with tf.GradientTape() as tape:
            loss = ops.sum(weight**2 * x)
        return tape.gradient(loss, weight)

    return step(x)


@pytest.mark.parametrize(
    "step",
    [
        *(penalized, assigned_meanwhile, persistent, entered_again, watched_by_hand, by_rows),
        in_a_function,
    ],
)
def test_a_tape_in_a_scope_gives_the_gradients_that_it_gives_outside(step):
    x = tf.constant([0.3, -1.2, 2.0])
    plain, own = keras.Variable([1.0, 2.0, 3.0]), keras.Variable([9.0, 9.0, 9.0])
    expected = step(plain, x)

    @tf.function(autograph=False)
    def in_scope(value):
        scope = TapedScope([(own, value)])
        with functions_inlined(), scope, tapes_in(scope):
            return step(own, x), scope.get_current_value(own)

    found, value = in_scope(tf.constant([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(value, plain.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(own.numpy(), 9)


SIGNATURE = [tf.TensorSpec((2,), tf.float32)]


@pytest.mark.parametrize("given", [[1.0, 2.0], np.ones(2), (3, 4)], ids=["list", "array", "tuple"])
def test_an_inlined_function_makes_tensors_of_what_its_signature_says(given):
    """Of a list, `values + values` would be a longer one."""
    for function in (
        tf.function(lambda values: values + values, input_signature=SIGNATURE),
        Doubling().double,
    ):
        expected = function(given)
        with functions_inlined():
            found = function(given)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)


class Doubling:
    @tf.function(input_signature=SIGNATURE)
    def double(self, values):
        return values + values


# What only Python keeps -------------------------------------------------------------------------

COUNT, SEEN = itertools.count(), {"last": 0}


class Remembers:
    total = 0


class Steps(keras.Sequential):
    def __init__(self, act):
        super().__init__([keras.Input((2,)), layers.Dense(1)])
        self.act, self.number, self.losses_seen = act, 0, []
        self.of_user, self.named, self.numbers = Remembers(), {}, np.zeros(2)
        self.draws, self.epochs = np.random.default_rng(0), iter(range(9))

    def train_step(self, data):
        self.act(self)
        return super().train_step(data)


def nothing(model):
    model.optimizer.learning_rate = 0.5  # a variable
    return [layer.name for layer in model.layers], SEEN["last"]


def counts(model):
    model.number += 1


def appends(model):
    model.losses_seen.append(1.0)


def in_a_dict(model):
    model.named["new"] = 1


def in_an_object(model):
    model.of_user.total += 1


def of_its_class(model):
    Remembers.total += 1


def of_its_file(model):
    SEEN["last"] += 1


def of_another_file(model):
    oracle_cases_steps.EPOCHS += 1


def in_a_default(model, kept=[0]):  # noqa: B006 - as people do
    kept.append(1)


def in_a_closure():
    count = 0

    def act(model):
        nonlocal count
        count += 1

    return act


def takes_next(model):
    next(COUNT)


def iterates(model):
    next(model.epochs)


def in_an_array(model):
    model.numbers[0] += 1


def draws(model):
    model.draws.normal()


def draws_from_numpy(model):
    np.random.normal()


def draws_from_python(model):
    random.random()


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (counts, "Steps.number"),
        (appends, "Steps.losses_seen"),
        (in_a_dict, "Steps.named"),
        (in_an_object, "Remembers.total"),
        (of_its_class, "Remembers.total"),
        (of_its_file, "dict.last"),
        (of_another_file, "module.EPOCHS"),
        (in_a_default, "in_a_default.default 0"),
        (in_a_closure(), "in_a_closure.<locals>.act.count"),
        (takes_next, "takes_next.COUNT"),
        (iterates, "Steps.epochs"),
        (in_an_array, "Steps.numbers"),
        (draws, "Steps.draws"),
        (draws_from_numpy, "the stream of numpy.random"),
        (draws_from_python, "the stream of random"),
    ],
)
def test_what_python_keeps_between_steps_is_found(act, named):
    model = Steps(act)
    model.compile("sgd", "mse")
    before = PythonState(model)
    model.act(model)
    assert before.changed(model) == named


def remembering(total):
    remembers = Remembers()
    remembers.total = total
    return remembers


def scaled_by(number):
    def act(model):
        return number * model.count

    return act


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ((0.5, 0.5), ""),
        ((0.5, 0.25), "layers[2].act.number"),
        ((np.ones(3), np.arange(3.0)), "layers[2].act.number"),
        ((tf.constant([1.0]), tf.constant([2.0])), "layers[2].act.number"),
        (([1, 2], [1, 3]), "layers[2].act.number"),
        ((remembering(1), remembering(2)), "layers[2].act.number.total"),
    ],
)
def test_numbers_that_differ_between_two_models_are_found(numbers, named):
    """A program would compute with those of the model that it was traced from."""
    held = []
    for number in numbers:
        with names_of_a_new_process():
            held.append(held_values(Steps(scaled_by(number))))
    assert differing(*held) == named


def test_what_a_tf_function_keeps_of_the_models_that_call_it_is_no_difference():
    held = []
    for _ in range(2):
        with names_of_a_new_process():
            model = build("clipping_by_hand")
        held.append(held_values(model))
        assert model.train_step  # from now on, the class keeps something of this model
    assert differing(*held) == ""


@pytest.mark.parametrize(
    "function",
    [
        lambda x: keras.random.categorical(x, 1, seed=3),
        lambda x: tf.random.stateless_gamma([2], seed=[1, 2], alpha=x[0, 0]),
        lambda x: tf.boolean_mask(x, x > 0)[-1],
    ],
)
def test_what_xla_computes_otherwise_is_in_no_program(function):
    traced = tf.function(function).get_concrete_function(tf.TensorSpec([2, 3], tf.float32))
    with pytest.raises(CannotFuse, match=r"random numbers|depends on the values"):
        refuse_operations(traced.graph, left_out=False)


def test_methods_of_the_object_are_seen_like_those_of_its_class():
    model = build("set_on_the_object")
    assert keras_model.own_steps(model) == ["test_step"]
    model.evaluate = model.fit
    model.compute_loss = lambda *given, **named: 0.0
    assert keras_model.own_loops(model) == ["evaluate"]
    assert not keras_model.loss_is_mean_over_rows(model)


def test_what_keras_keeps_between_steps_is_no_state_of_pythons():
    model = Steps(nothing)
    model.compile("sgd", "mse")
    before = PythonState(model)
    model.fit(np.ones((4, 2)), np.ones((4, 1)), batch_size=4, verbose=0, shuffle=False)
    assert before.changed(model) == ""


# First steps ------------------------------------------------------------------------------------

ROWS = np.ones((4, 6), "float32"), np.ones(4, "int32")


@pytest.fixture(scope="module")
def first():
    """What the first steps of a model with two optimizers show."""
    used = build("two_speeds")
    before = PythonState(used)
    used.fit(*ROWS, batch_size=4, verbose=0, shuffle=False)
    return FirstSteps.of(used, before)


def fresh(first):
    """Another model of that kind, and as pure functions."""
    model = build("two_speeds")
    model.optimizer.build(model.trainable_variables)
    return model, OwnStepsModel(model, tuple(map(tf.constant, ROWS)), (), first)


def test_optimizers_are_built_for_what_they_update_in_a_first_step(first):
    assert first.why_impure == ""
    assert first.updated["others.head"] == (2, 3)
    model, own = fresh(first)
    head = optimizers_of(model)["others.head"]
    assert [id(v) for v in own.others[:2]] == [id(v) for v in head.variables]
    assert len(own.others) == 2 + len(model.metrics_variables)


def test_steps_that_are_not_those_of_plain_keras_are_found(first):
    (model, own), (other, _) = fresh(first), fresh(first)
    for variable, start in zip(other.variables, model.variables, strict=True):
        variable.assign(start)
    logs = metrics_or_logs(other, other.train_step(ROWS))
    state = ModelState(
        *([tf.constant(v.numpy())[None] for v in group] for group in own.variables[:3])
    )

    def difference(logs):
        stacked = {name: tf.constant([float(value)]) for name, value in logs.items()}
        epochs = SimpleNamespace(step=lambda *_: (state, stacked))
        plain, _ = fresh(first)
        given = {"val": ROWS, "index": 0}
        batch = tuple(rows[None] for rows in ROWS)
        return why_own_steps_differ(own, plain, epochs, state, [batch], **given)

    assert "loss is 9, in plain Keras" in difference({**logs, "loss": 9.0})
    assert "it logs loss" in difference({"loss": logs["loss"]})
    assert "differs" in difference(logs)


@pytest.mark.parametrize("name", STEP_CASES)
def test_every_case_is_a_right_job(tmp_path, name):
    assert len(TABLE[f"step_{name}"].plan(tmp_path, 2, "auto")) == 2


def test_what_a_layer_counts_is_told_from_what_it_keeps_to_be_looked_at():
    class Counting(keras.layers.Layer):
        calls, scores = 0, None

        def call(self, x):
            self.scores = x
            if isinstance(self.calls, int):
                self.calls += 1
            return x

    layer = Counting()
    model = keras.Sequential([keras.Input((2,)), layer])
    before = PythonState(model)
    model(np.ones((1, 2)))
    assert before.counted(model).endswith("Counting.calls")
    layer.calls = None
    before = PythonState(model)
    model(np.ones((1, 2)))
    assert before.counted(model) == ""


class Slots:
    __slots__ = ("calls",)

    def __init__(self):
        self.calls = 0


def count_from(calls):
    while True:
        yield calls
        calls += 1


def one_more_slot(slots):
    slots.calls += 1


def one_more_open(held):
    held.calls += 1


def turned(held):
    held.is_odd = not held.is_odd


def longer(held):
    held.text += "a"


def as_number_of_numpy(held):
    held.calls = held.calls + np.int64(1)


STEPS_BY = {
    "slot": (Slots(), one_more_slot),
    "namespace": (SimpleNamespace(calls=0), one_more_open),
    "flag": (SimpleNamespace(is_odd=False), turned),
    "text": (SimpleNamespace(text=""), longer),
    "NumPy's": (SimpleNamespace(calls=np.int64(0)), as_number_of_numpy),
    "array": (np.zeros(1), lambda calls: calls.__iadd__(1)),
    "bytes": (bytearray(1), lambda calls: calls.__setitem__(0, calls[0] + 1)),
    "list": ([], lambda calls: calls.append(1)),
    "turning": (deque([1.0, 2.0]), lambda numbers: numbers.rotate(1)),
    "generator": (count_from(0), next),
    "counter": (itertools.count(), next),
    "cycle": (itertools.cycle([1.0, 2.0, 3.0]), next),
    "pairs": (enumerate(range(9)), next),
    "context": (contextvars.ContextVar("calls"), lambda calls: calls.set(calls.get(0) + 1)),
    "stream": (None, lambda _: np.random.uniform()),
    "Python's stream": (None, lambda _: random.random()),
}


@pytest.mark.parametrize("kind", STEPS_BY)
def test_whatever_goes_on_in_python_when_a_layer_is_called_is_seen(kind):
    held, step = STEPS_BY[kind]

    class Stepping(keras.layers.Layer):
        def call(self, x):
            step(held)
            return x

    model = keras.Sequential([keras.Input((2,)), Stepping()])
    if kind == "generator":
        next(held)  # the first time it begins
    before = PythonState(model)
    assert before.counted(model) == ""
    model(np.ones((1, 2)))
    assert before.counted(model)
