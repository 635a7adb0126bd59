import pytest

from trialrun import vocabulary

BASE_CLASSES = {"Metric", "Mean", "Sum", "MeanMetricWrapper", "metric", "mean", "sum"}
BASE_CLASSES |= {"mean_metric_wrapper", "Loss", "LossFunctionWrapper", "optimizer"}


def names_keras_can_build(module):
    def can_build(name):
        try:
            module.get(name)
        except (TypeError, KeyError):  # it needs arguments
            return False
        return True

    return {name for name in module.ALL_OBJECTS_DICT if can_build(name)} - BASE_CLASSES


@pytest.mark.parametrize(
    ("kind", "names", "chosen_by_shapes"),
    [
        ("optimizers", vocabulary.OPTIMIZERS, set()),
        ("losses", vocabulary.LOSSES, {"crossentropy", "ce"}),
        ("metrics", vocabulary.METRICS, {"acc"}),
    ],
)
def test_the_names_are_those_that_the_installed_keras_can_build(kind, names, chosen_by_shapes):
    import keras

    module = getattr(keras.src, kind)
    assert set(names) == names_keras_can_build(module) | chosen_by_shapes
    assert len(set(names)) == len(names)


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
    assert repr(nearest) in vocabulary.suggest(word, vocabulary.OPTIMIZERS)


def test_all_names_are_listed_when_none_is_near():
    assert vocabulary.suggest("xyz", ["adam", "sgd"]) == "known: adam, sgd"
