import inspect

import pytest

from trialrun import messages
from trialrun.job.keras_api import arguments, terms
from trialrun.job.keras_api import logs as keras_logs
from trialrun.job.keras_api import names as keras_names

BASE_CLASSES = {"Metric", "Mean", "Sum", "MeanMetricWrapper", "metric", "mean", "sum"}
BASE_CLASSES |= {"mean_metric_wrapper", "Loss", "LossFunctionWrapper", "optimizer"}


BASE_CLASSES |= {"lossscaleoptimizer", "multioptimizer", "optimizermap"}  # of other optimizers


def names_of_keras(module):
    return set(module.ALL_OBJECTS_DICT) - BASE_CLASSES


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("kind", "names", "known_otherwise"),
    [
        ("optimizers", keras_names.OPTIMIZERS, {"lamb"}),
        ("losses", keras_names.LOSSES, {"crossentropy", "ce"}),
        ("metrics", keras_names.METRICS, {"acc"}),
    ],
)
def test_the_names_are_those_of_the_installed_keras(kind, names, known_otherwise):
    import keras

    module = getattr(keras.src, kind)
    assert set(names) == names_of_keras(module) | known_otherwise
    assert len(set(names)) == len(names)


@pytest.mark.tensorflow
def test_a_name_that_keras_chooses_by_shapes_is_accepted_by_it():
    import keras
    import numpy as np

    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(2, "softmax")])
    model.compile(loss="ce", metrics=["acc"])
    logs = model.evaluate(np.ones((4, 1)), np.zeros(4, int), verbose=0, return_dict=True)
    assert set(logs) == {"loss", "acc"}


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("adm", "adam"), ("Adm", "adam"), ("RMSProp_", "rmsprop")],
)
def test_the_nearest_name_is_suggested(word, nearest):
    assert repr(nearest) in messages.suggest(word, keras_names.OPTIMIZERS)


def test_all_names_are_listed_when_none_is_near():
    assert messages.suggest("xyz", ["adam", "sgd"]) == "known: adam, sgd"


# The arguments -----------------------------------------------------------------------------------

TABLES = {
    "optimizers": (arguments.OPTIMIZER_ARGUMENTS, {"learning_rate"}),
    "optimizers.schedules": (arguments.SCHEDULE_ARGUMENTS, {"initial_learning_rate"}),
    "losses": (arguments.LOSS_ARGUMENTS, set()),
    "metrics": (arguments.METRIC_ARGUMENTS, set()),
}
SAID_OTHERWISE = {"name", "dtype", "kwargs"}
# Keras would give one number per class.
NEEDED_HERE = {("F1Score", "average"), ("FBetaScore", "average")}


def keras_class(module, name):
    import keras

    home = keras
    for part in module.split("."):
        home = getattr(home, part)
    return getattr(home, name)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, (table, _) in TABLES.items() for name in table]
)
def test_the_arguments_are_those_of_the_installed_keras(module, name):
    table, given_elsewhere = TABLES[module]
    parameters = inspect.signature(keras_class(module, name)).parameters
    taken = {p for p in parameters if p not in SAID_OTHERWISE | given_elsewhere}
    needed = {p for p in taken if parameters[p].default is inspect.Parameter.empty}
    needed |= {argument for owner, argument in NEEDED_HERE if owner == name}
    assert set(table[name]) == taken
    assert {argument for argument, of in table[name].items() if of.required} == needed


@pytest.mark.tensorflow
@pytest.mark.parametrize("module", TABLES)
def test_every_default_of_keras_is_a_right_value(module):
    table, _ = TABLES[module]
    for name, known in table.items():
        parameters = inspect.signature(keras_class(module, name)).parameters
        required = {argument: of for argument, of in known.items() if not of.required}
        defaults = {argument: parameters[argument].default for argument in required}
        arguments.check_arguments(name, defaults, required)


def test_every_class_is_known_by_its_names():
    names = (*keras_names.OPTIMIZERS, *keras_names.SCHEDULES, *keras_names.LOSSES)
    names += keras_names.METRICS
    tables = {name for table, _ in TABLES.values() for name in table}
    found = {terms.class_name(n) for n in names if n not in keras_names.CHOSEN_BY_SHAPES}
    assert found == tables


def test_a_goal_is_known_of_every_metric():
    for metric in keras_names.METRICS:
        assert keras_logs.natural_goal(f"val_{metric}") in ("minimize", "maximize")
