"""Hyperparameters that differ inside one program, against plain Keras: a program for each."""

import copy
import math
import operator

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_jobs import (
    FEW_ROWS,
    make_task,
    train,
    train_with_fused,
    train_with_keras,
    write_files,
)

from trialrun.errors import CannotFuse, CannotShare
from trialrun.job import TrainingSpec, load_job
from trialrun.job.document import write_yaml
from trialrun.training.compiled.prepare import prepare
from trialrun.training.compiled.program_cache import ProgramCache
from trialrun.training.dry_run import examine
from trialrun.training.pack_data import load_pack_data
from trialrun.training.program.program import Program
from trialrun.training.program.traced_number import Location, Trace, TracedNumber
from trialrun.trials.packing import split_by, take_apart
from trialrun.trials.plan import plan_trials
from trialrun.trials.signature import exact_signature_of, numbers_inside, signature_of, with_number
from trialrun.trials.trial import Pack, Trial

pytestmark = pytest.mark.tensorflow

BUILDERS = '''
import functools
import operator
import re

import keras
import numpy as np
from keras import layers, regularizers


def _classifier(*hidden):
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, activation="softmax")])


def dense():
    return _classifier(layers.Dense(12, activation="relu"))


class Scale(layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


def rates(rate, noise, l1, l2, factor, momentum):
    """Each where Keras keeps it; the first dropout's is computed by the builder.

    The other kinds of dropout compute more with their rate than a comparison.
    """
    return _classifier(
        layers.GaussianNoise(noise),
        layers.Dense(
            8,
            use_bias=False,
            kernel_regularizer=regularizers.L1L2(l1, l2),
            activity_regularizer=regularizers.L2(l2),
        ),
        layers.BatchNormalization(momentum=momentum),
        layers.Activation("selu"),
        layers.Dropout(rate / 2, noise_shape=(None, 1)),
        layers.GaussianDropout(rate),
        layers.AlphaDropout(rate),
        Scale(factor),
    )


def width(share):
    return _classifier(layers.Dense(int(12 * share)))


def slope(slope):
    return _classifier(layers.Dense(8), layers.LeakyReLU(slope))


def slope_and_rate(slope, rate):
    return _classifier(layers.LeakyReLU(slope), layers.Dropout(rate))


def start(spread):
    start = keras.initializers.RandomNormal(stddev=spread)
    return _classifier(layers.Dense(8, kernel_initializer=start))


def make_focal(gamma):
    def focal(y_true, y_pred):
        p = keras.ops.take_along_axis(y_pred, keras.ops.reshape(y_true, (-1, 1)), axis=1)[:, 0]
        return -((1 - p) ** gamma) * keras.ops.log(p + 1e-7)

    return focal


def tied(learning_rate):
    """The decay follows from the learning rate, and so does what is clipped."""
    return keras.optimizers.AdamW(
        learning_rate, weight_decay=9 * learning_rate, clipnorm=learning_rate
    )


def decided(learning_rate):
    """Only a learning rate between the others has a momentum."""
    momentum = 0.9 if 0.02 < learning_rate < 0.1 else 0.0
    return keras.optimizers.SGD(learning_rate, momentum=momentum)


def hidden(factor):
    return _classifier(layers.Lambda(lambda x: x * factor))


class Stepwise(Scale):
    def call(self, x):
        return x * self.factor if self.factor < 1 else x + self.factor


def stepwise(factor):
    return _classifier(Stepwise(factor))


def half_hidden(rate):
    return _classifier(layers.Dropout(rate), layers.Lambda(lambda x: x * rate))


class Undone(layers.Layer):
    """Computes with an array, and in inference only."""

    def __init__(self, rate):
        super().__init__()
        self.rates = np.array([rate, 1.0], "float32")

    def call(self, x, training=False):
        return x if training else x * self.rates[0]


def both(rate, slope):
    units = 2 if rate > 0.3 and slope > 0.2 else 1
    return _classifier(layers.LeakyReLU(slope), layers.Dropout(rate), layers.Dense(units))


class Scaling:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return x * self.scale


def scaled(x, scale):
    return x * scale


class Annealed(layers.GaussianNoise):
    def call(self, x, training=False):
        self.stddev = self.stddev * 0.9
        return super().call(x, training=training)


def annealed(rate):
    model = _classifier(Annealed(rate))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


class Kept(keras.losses.Loss):
    """Makes its table when it is first called, of what a dropout's rate is too."""

    table = None

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def call(self, y, y_pred):
        if self.table is None:
            self.table = np.exp(np.arange(3) * self.rate).astype("float32")
        return keras.ops.sum(y_pred * self.table, axis=-1)


def kept_once(rate):
    model = _classifier(layers.Dropout(rate))
    model.compile("sgd", Kept(rate))
    return model


class Started(layers.Layer):
    """Adds what it calls its first state."""

    def __init__(self, state_initializer):
        super().__init__()
        self.state_initializer = state_initializer

    def call(self, x):
        return x + self.state_initializer((6,))


class Above(keras.metrics.BinaryAccuracy):
    """Keeps the number in a variable alone."""

    def __init__(self, rate):
        super().__init__(name="above")
        self.limit = self.add_weight((), keras.initializers.Constant(rate), name="limit")


def beside(rate, place):
    """A dropout's rate, which a program takes as an input, and the same number in another place."""

    def inference(x, training=False):
        return x if training else x * rate

    def above(y, y_pred):
        return keras.ops.mean(keras.ops.cast(y_pred > rate, "float32"), axis=-1)

    class Properties(layers.Layer):
        @property
        def factor(self):
            return rate

        @staticmethod
        def shifted(x):
            return x + rate

        def call(self, x):
            return self.shifted(x) * self.factor

    schedules = keras.optimizers.schedules
    if place == "epsilon":
        keras.config.set_epsilon(rate)
    source = keras.Input((6,))
    tanh = keras.ops.tanh(source)
    inner = keras.Model(
        source, layers.Subtract()([tanh, source] if 0.2 < rate < 0.6 else [source, tanh])
    )
    pattern, bound, content = re.compile(str(rate)), {"rate": rate}.get, operator.itemgetter(rate)
    objects = np.array([{"rate": rate}, None])
    masked = np.ma.array([1.0, 2.0], mask=[rate < 0.3, False])
    held = {"pattern": pattern, "bound": bound, "content": content, "objects": objects}
    held |= {"masked": masked, "model": inner, "wrapper": rate.__mul__}
    hidden = {
        "property": [Properties()],
        "initializer": [Started(lambda shape: rate * keras.ops.ones(shape))],
        "array": [Undone(rate)],
        "text": [layers.Dense(3, "relu" if rate < 0.3 else "tanh")],
        "partial": [layers.Lambda(functools.partial(scaled, scale=rate))],
        "slot": [layers.Lambda(Scaling(rate))],
        "code": [layers.Lambda((lambda x: x) if rate < 0.3 else (lambda x: x + 1.0))],
        "closure": [layers.Lambda(inference)],
        "weights": [layers.Dense(3, kernel_initializer=lambda *a, **k: rate * np.ones((6, 3)))],
        "third": [layers.Dense(int(4 * rate) + 1)],
        "bias": [layers.Dense(3, use_bias=rate < 0.3)],
        "between": [layers.Dense(1 + (0.2 < rate < 0.6))],
    }.get(place, [layers.Lambda(lambda x: held and x)] if place in held else [])
    held = {name: value for name, value in held.items() if name == place}
    model = keras.Sequential(
        [keras.Input((6,)), *hidden, layers.Dropout(rate), layers.Dense(1, "sigmoid")]
    )
    if place in ("constant", "operation", "order"):
        x = model.inputs[0]
        y = layers.Dense(6)(layers.Dropout(rate)(x))
        y = y * rate if place == "constant" else y
        if place == "operation":  # the middle value's alone
            y = keras.ops.roll(y, 2 if 0.2 < rate < 0.6 else 1, axis=1)
        y = layers.Subtract()([x, y] if place == "order" and 0.2 < rate < 0.6 else [y, x])
        model = keras.Model(x, layers.Dense(1, "sigmoid")(y))
    steps = schedules.PiecewiseConstantDecay([1000], [0.01, rate])
    metrics = {
        "metric": keras.metrics.BinaryAccuracy(threshold=rate),
        "thresholds": keras.metrics.Precision(thresholds=[rate]),
        "function": above,
        "start": Above(rate),
    }
    optimizer = keras.optimizers.Adagrad(
        steps if place == "schedule" else 0.01,
        weight_decay=0.1,
        initial_accumulator_value=rate if place == "slots" else 0.1,
    )
    if place == "decay":
        optimizer.exclude_from_weight_decay(var_names=["bias" if 0.2 < rate < 0.6 else "kernel"])
    model.compile(
        optimizer,
        "mse",
        loss_weights=[rate] if place == "loss" else None,
        metrics=["accuracy", *([metrics[place]] if place in metrics else [])],
    )
    return model
'''


def plan(folder, builder, parameters, *, training=None, args=None, seeds=(3, 11)):
    """Trials of these seeds for each variant of a grid."""
    write_files(folder)
    (folder / "builders.py").write_text(BUILDERS)
    job = {
        "name": "hyperparameters",
        "seeds": list(seeds),
        "search": {"parameters": {path: {"values": of} for path, of in parameters.items()}},
        "data": {"generator": "data.py:blobs", "args": FEW_ROWS, "scaling": "standard"},
        "model": {"builder": f"builders.py:{builder}", "args": args or {}},
        "training": {"batch_size": 8, "epochs": 2, "learning_rate": 0.01, **(training or {})},
    }
    (folder / "job.yaml").write_text(write_yaml(job))
    return plan_trials(load_job(folder / "job.yaml").spec)


# A program that is compared with plain Keras's training need not verify its first steps.
UNVERIFIED = {"check_engine": False}
FEW_OPERATIONS = {**UNVERIFIED, "optimizer": "sgd", "metrics": []}


def assert_same_as_plain_keras(folder, trials):
    """Of the last trial, whose numbers are not those that the program was traced with."""
    assert len({signature_of(trial.variant) for trial in trials}) == 1
    assert len({exact_signature_of(trial.variant) for trial in trials}) > 1
    *_, fused = train_with_fused(make_task(folder, trials))
    (plain,) = train_with_keras(make_task(folder, trials[-1:]))
    for name, values in plain.history.items():
        np.testing.assert_allclose(fused.history[name], values, atol=2e-5, err_msg=name)
    for own, expected in zip(fused.trainable, plain.trainable, strict=True):
        np.testing.assert_allclose(own, expected, atol=2e-5)


def with_others(trials, others):
    """The trials, and one more whose numbers in these sections are the others."""
    variant = trials[0].variant
    paths = {(*section, name): v for section, of in others.items() for name, v in of.items()}
    for path, value in paths.items():
        variant = with_number(variant, path, value)
    assert set(numbers_inside(variant)) >= set(paths)
    return [*trials, Trial(f"{trials[0].trial_id}-other", variant, trials[0].seed)]


def test_numbers_of_a_model_and_arguments_of_adamw_differ_inside_one_program(tmp_path):
    args = {
        **{"rate": 0.2, "noise": 0.1, "l1": 0.01, "l2": 0.01, "factor": 0.5, "momentum": 0.9},
    }
    optimizer = {
        **{"name": "adamw", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "clipnorm": 1.0},
        **{"weight_decay": 0.004, "use_ema": True, "ema_momentum": 0.9},
    }
    others = {
        ("model", "args"): {
            **{"rate": 0.4, "noise": 0.4, "l1": 0.05, "l2": 0.002, "factor": 1.5, "momentum": 0.5}
        },
        ("training", "optimizer"): {
            **{"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.5, "clipnorm": 0.1},
            "ema_momentum": 0.5,
        },
    }
    training = {"optimizer": optimizer, **UNVERIFIED}
    trials = plan(tmp_path, "rates", {}, args=args, training=training, seeds=[11])
    assert_same_as_plain_keras(tmp_path, with_others(trials, others))


def test_arguments_of_sgd_a_schedule_and_class_weights_differ_inside_one_program(tmp_path):
    """Also if the program was built for a pack that began with another seed.

    What differs between variants is looked for under the seed that it was built under.
    """
    schedule = {"name": "exponential_decay", "decay_steps": 3, "decay_rate": 0.9}
    sgd = {"name": "sgd", "momentum": 0.9, "nesterov": True, "global_clipnorm": 0.5}
    grid = plan(
        tmp_path,
        "dense",
        {
            "training.learning_rate": [0.01, 0.1],
            "training.learning_rate_schedule.decay_rate": [0.9, 0.5],
            "training.class_weight": [{"0": 3.0}, {"1": 0.5}],
            "training.optimizer.momentum": [0.9, 0.5],
            "training.optimizer.global_clipnorm": [0.5, 0.1],
        },
        training={"learning_rate_schedule": schedule, "optimizer": sgd, **UNVERIFIED},
    )
    first, other = grid[:2], [grid[3], grid[-2]]
    assert [trial.seed for trial in (*first, *other)] == [3, 11, 11, 3]
    assert len({signature_of(trial.variant) for trial in (*first, *other)}) == 1
    train_with_fused(make_task(tmp_path, first))
    assert_same_as_plain_keras(tmp_path, other)


def with_own_optimizer(folder, name, rates, **training):
    training = {"optimizer": f"builders.py:{name}", **UNVERIFIED, **training}
    search = {"training.learning_rate": rates}
    return plan(folder, "dense", search, training=training, seeds=[3])


def test_what_an_own_optimizer_makes_of_its_learning_rate_differs_inside_one_program(tmp_path):
    """Of trials whose loss is also an own one."""
    loss = {"name": "builders.py:make_focal", "gamma": 3.0}
    trials = with_own_optimizer(tmp_path, "tied", [0.01, 0.1], loss=loss)
    assert_same_as_plain_keras(tmp_path, trials)


def test_what_an_own_optimizer_decides_by_its_learning_rate_is_not_shared(tmp_path):
    """Not with compiled programs, and not between the models of plain Keras."""
    trials = with_own_optimizer(tmp_path, "decided", [0.01, 0.05, 0.1])
    task = make_task(tmp_path, trials)
    with pytest.raises(CannotShare, match=r"learning_rate changes .*momentum") as caught:
        train_with_fused(task)
    assert caught.value.paths == (("training", "learning_rate"),)
    packs, _ = take_apart(task.pack, caught.value.paths)
    assert [len(pack.trials) for pack in packs] == [1, 1, 1]
    lengths = [len(trained.optimizer) for trained in train_with_keras(task)]
    assert lengths == [2, 6, 2]  # with a momentum for each of four variables


@pytest.mark.parametrize(
    ("builder", "name", "values", "message"),
    [
        ("width", "share", [0.5, 1.0], r"model.args.share changes an integer \(.*units\)"),
        ("slope", "slope", [0.1, 0.4], "negative_slope is read as a constant"),
        ("start", "spread", [0.1, 0.4], r"model.args.spread changes the initial weights"),
        ("hidden", "factor", [0.5, 2.0], "where model.args.factor ends up in the model is not"),
        ("half_hidden", "rate", [0.1, 0.5], r"rate changes layers\[2\].function.rate too, which"),
    ],
)
def test_what_no_program_can_be_given_is_said(tmp_path, builder, name, values, message):
    trials = plan(tmp_path, builder, {f"model.args.{name}": values}, args={name: values[0]})
    with pytest.raises(CannotShare, match=message) as caught:
        train_with_fused(make_task(tmp_path, trials))
    assert caught.value.paths == (("model", "args", name),)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("array", r"layers\[1\].rates too"),
        ("text", r"layers\[1\].activation too"),
        ("partial", r"layers\[1\].function.keywords.scale too"),
        ("slot", r"layers\[1\].function.scale too"),
        ("code", r"layers\[1\].function too"),
        ("closure", r"layers\[1\].function.rate too"),
        ("schedule", r"optimizer._learning_rate.values too"),
        ("metric", r"metrics\[1\]._fn_kwargs.threshold too"),
        ("thresholds", r"metrics\[1\].init_thresholds too"),
        ("function", r"metrics\[1\].rate too"),
        ("start", "the initial value of above/limit"),
        ("loss", "loss_weights too"),
        ("weights", "the initial value of sequential/dense_1/kernel"),
        ("slots", "the initial value of .*accumulator"),
        ("third", "an integer .*units"),
        ("bias", "use_bias too"),
        ("between", "an integer .*units"),
        ("constant", r"layers\[\d\].graph\[\d\].args too"),
        ("operation", r"layers\[\d\].graph\[\d\].operation.shift too"),
        ("order", r"layers\[\d\].graph\[\d\].args\[0\] too"),
        ("property", r"layers\[1\].\w+.\w+.rate too"),
        ("initializer", r"layers\[1\].state_initializer.rate too"),
        ("epsilon", "settings.epsilon too"),
        ("decay", "weight_decay too"),
        ("pattern", r"held.pattern too"),
        ("bound", r"held.bound.__self__.rate too"),
        ("content", r"held.content too"),
        ("objects", r"held.objects too"),
        ("masked", r"held.masked too"),
        ("model", r"held.model.graph\[\d\].args\[0\] too"),
        ("wrapper", r"held.wrapper.__self__ too"),
    ],
)
def test_a_number_that_is_also_where_no_program_takes_it_is_not_shared(tmp_path, place, found):
    """Whether it acts in the first steps, later, in inference or for one variant only."""
    values, rate_unset = [0.2, 0.24, 0.6], {"learning_rate": TrainingSpec().learning_rate}
    parameters, args = {"model.args.rate": values}, {"rate": 0.2, "place": place}
    trials = plan(tmp_path, "beside", parameters, args=args, training=rate_unset, seeds=[3])
    task = make_task(tmp_path, trials)
    data, _ = load_pack_data(task.pack.trials, tmp_path)
    with pytest.raises(CannotShare, match=found) as caught:
        ProgramCache(1).get(task, data, "fused")
    assert caught.value.paths == (("model", "args", "rate"),)


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("annealed", r"each call of the model changes layers\[1\].stddev in Python"),
        ("kept_once", r"the model's first call keeps Kept.table"),
    ],
)
def test_a_number_that_calls_change_or_keep_is_not_shared(tmp_path, builder, message):
    search = {"model.args.rate": [0.2, 0.4]}
    rate_unset = {"learning_rate": TrainingSpec().learning_rate}
    trials = plan(tmp_path, builder, search, args={"rate": 0.2}, training=rate_unset, seeds=[3])
    task = make_task(tmp_path, trials)
    with pytest.raises(CannotFuse, match=message):
        prepare(task, load_pack_data(task.pack.trials, tmp_path)[0], "fused", {})


def test_what_two_arguments_decide_together_is_not_shared(tmp_path):
    search = {"model.args.rate": [0.2, 0.4], "model.args.slope": [0.1, 0.3]}
    trials = plan(tmp_path, "both", search, args={"rate": 0.2, "slope": 0.1}, seeds=[3])
    task = make_task(tmp_path, trials)
    data, _ = load_pack_data(task.pack.trials, tmp_path)
    with pytest.raises(
        CannotShare, match=r"together the settings of its trials change .*units too"
    ):
        ProgramCache(1).get(task, data, "fused")


def test_a_pack_need_not_share_with_the_one_before_it(tmp_path):
    """Packs of one variant each, in one process: there is nothing to split them by."""
    search = {"model.args.factor": [0.5, 2.0]}
    first, second = plan(
        tmp_path, "stepwise", search, args={"factor": 0.5}, training=FEW_OPERATIONS, seeds=[3]
    )
    task = make_task(tmp_path, [first])
    prepare(task, load_pack_data(task.pack.trials, tmp_path)[0], "fused", {})
    (result,) = train(make_task(tmp_path, [second])).trials
    (plain,) = train_with_keras(make_task(tmp_path, [second]))
    assert (result.status, result.engine) == ("completed", "fused")
    np.testing.assert_allclose(result.history["loss"], plain.history["loss"], atol=2e-5)


def test_a_pack_is_split_by_the_number_that_is_built_in_and_by_no_other(tmp_path, monkeypatch):
    """Four variants of two slopes and two rates: two programs for the two slopes.

    XLA knows how often each of their loops runs: a GPU need not ask the host after each step.
    """
    programs = []

    def compile_and_keep(program, *arguments):
        if not programs:  # the other has the same loops
            programs.append(compile_only(program, *arguments))

    compile_only = Program.compile_only
    monkeypatch.setattr(Program, "compile_only", compile_and_keep)
    search = {"model.args.slope": [0.1, 0.4], "model.args.rate": [0.1, 0.2]}
    args, training = {"slope": 0.1, "rate": 0.1}, FEW_OPERATIONS
    trials = plan(tmp_path, "slope_and_rate", search, args=args, training=training, seeds=[3])
    found = examine(make_task(tmp_path, trials))
    assert [one.engine for one in found] == ["fused", "fused"]
    assert [len(one.pack.trials) for one in found] == [2, 2]
    assert [{t.variant.model.args["slope"] for t in one.pack.trials} for one in found] == [
        {0.1},
        {0.4},
    ]
    (text,) = programs
    assert text.count(" while(") == text.count("known_trip_count") == 2
    assert found[0].reason.startswith("a program for each value of model.args.slope: ")
    assert "is read as a constant" in found[0].reason


def test_zero_and_other_numbers_make_programs_of_their_own(tmp_path):
    values = [0.0, 0.1, 0.2]
    trials = plan(tmp_path, "slope", {"model.args.slope": values}, args={"slope": 0.0})
    assert len({signature_of(trial.variant) for trial in trials}) == 2


def test_a_pack_is_split_by_its_exact_signatures_under_names_of_halves(tmp_path):
    values = [0.1, 0.2, 0.3]
    trials = plan(tmp_path, "slope", {"model.args.slope": values}, args={"slope": 0.1})
    packs = split_by(Pack("p003", signature_of(trials[0].variant), trials), frozenset())
    assert [pack.pack_id for pack in packs] == ["p003aa", "p003ab", "p003b"]
    assert [trial for pack in packs for trial in pack.trials] == list(trials)
    assert len({pack.signature for pack in packs}) == 3


def test_a_pack_is_taken_apart_by_all_numbers_where_the_named_one_is_not_the_reason(tmp_path):
    search = {"model.args.slope": [0.1, 0.4], "model.args.rate": [0.1, 0.2]}
    trials = plan(tmp_path, "slope_and_rate", search, args={"slope": 0.1, "rate": 0.1})
    pack = Pack("p003", signature_of(trials[0].variant), trials)
    rate = ("model", "args", "rate")
    packs, by = take_apart(pack, [rate])
    assert by == {rate}
    assert [len(one.trials) for one in packs] == [4, 4]
    assert not {one.signature for one in packs} & {pack.signature}
    for wrong in ([], [("training", "learning_rate")]):
        packs, by = take_apart(pack, wrong)
        assert by == frozenset()
        assert [len(one.trials) for one in packs] == [2] * 4
    assert take_apart(packs[0], [rate]) == ((packs[0],), frozenset())


def number(value, trace):
    tensor = tf.constant(value, tf.float64)
    return TracedNumber(value, tensor, frozenset(["rate"]), lambda values: values["rate"], trace)


def test_a_traced_number_computes_as_python_does_until_it_meets_a_tensor():
    trace = Trace([])
    rate = number(0.999, trace)
    assert float(tf.constant(3.0) * ((1 - rate) ** 2 / 2)) == pytest.approx(3 * 0.001**2 / 2, 1e-6)
    assert (rate * tf.constant(2.0, tf.float16)).dtype == tf.float16
    assert trace.read == {"rate"}


def test_what_python_decided_by_a_number_must_hold_for_the_others():
    trace = Trace([Location("rate", None, "rate", 0.3, ("model", "args", "r"))])
    rate = number(0.3, trace)
    assert rate > 0
    assert not 1 - rate < 0.5
    trace.check([0.4])
    with pytest.raises(CannotShare, match=r"rate < 0.5 is not the same for all trials") as caught:
        trace.check([0.6])
    assert caught.value.paths == (("model", "args", "r"),)
    with pytest.raises(CannotShare, match="rate > 0 is not the same"):
        trace.check([-0.1])


def test_a_traced_number_meets_whole_numbers_as_a_float_does():
    """Those of NumPy, of Keras's variables, which take it as a float, and of no tensor."""
    trace = Trace([])
    rate, steps = number(0.3, trace), keras.Variable(4, dtype="int32")
    whole, places = np.int64(4), np.arange(3)
    for function in (operator.mul, operator.add, operator.pow, operator.sub):
        expected = function(0.3, 4)
        assert float(tf.convert_to_tensor(function(rate, whole))) == pytest.approx(expected)
        assert float(function(rate, steps)) == pytest.approx(expected)
        np.testing.assert_allclose(function(rate, places), function(0.3, places), rtol=1e-6)
    assert float(tf.convert_to_tensor(rate * True + False)) == pytest.approx(0.3)
    assert list((rate < places).numpy()) == [False, True, True]
    assert bool(rate < steps)
    assert not bool(rate > steps)
    with pytest.raises(TypeError, match="int32"):
        rate * tf.constant(4)


CONSTANT = {
    "logarithm": math.log,
    "power": lambda rate: math.pow(rate, 2),
    "text": str,
    "shown": lambda rate: f"{rate:.1f}",
    "rounded": lambda rate: round(rate, 1),
    "ceiling": math.ceil,
    "whole part": lambda rate: rate // 0.2,
    "rest": lambda rate: 1 % rate,
    "key": {0.7: 1.0}.get,
    "array": lambda rate: np.array([rate, 1.0], "float32"),
    "of NumPy": np.exp,
    "constant tensor": lambda rate: tf.constant(rate, tf.float32),
    "integer ratio": lambda rate: rate.as_integer_ratio(),
}


@pytest.mark.parametrize("read", CONSTANT)
def test_a_number_that_python_reads_past_its_methods_is_refused(read):
    trace = Trace([])
    with pytest.raises(CannotShare, match="rate is "):
        CONSTANT[read](number(0.3, trace))
    with pytest.raises(CannotShare, match="rate is "), trace.tracing([]):
        pass  # also if the user's code has caught it


def test_a_number_that_python_takes_as_a_constant_is_refused():
    rate = number(0.3, Trace([]))
    assert isinstance(rate, float)
    assert copy.deepcopy(rate) is rate  # what is decided by a copy is recorded too
    with pytest.raises(CannotShare, match="rate is read as a constant"):
        float(rate)
    with pytest.raises(CannotShare, match="rate is made an integer"):
        int(rate)
