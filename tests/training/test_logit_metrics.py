"""Keras's metrics on logits: the right value, or a refusal with the remedy."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import expit, softmax
from sklearn import metrics

from trialrun.errors import InputError
from trialrun.job import TrainingSpec
from trialrun.training.model.build import compile_model
from trialrun.training.model.logit_metrics import check_compiled_metrics, check_signed_labels
from trialrun.training.model.outputs import output_losses

pytestmark = pytest.mark.tensorflow

ROWS = 80
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
Y_2 = np.random.default_rng(1).integers(0, 2, ROWS).astype(np.int32)
Y_3 = np.random.default_rng(2).integers(0, 3, ROWS).astype(np.int32)
BINARY = {"name": "binary_crossentropy", "from_logits": True}
SPARSE = {"name": "sparse_categorical_crossentropy", "from_logits": True}


def compiled(loss, wanted, *, units=1, activation=None, weighted=()):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(units, activation)])
    training = TrainingSpec(loss=loss, metrics=wanted, weighted_metrics=weighted)
    compile_model(model, training, 1, X)
    return model


def logs(model, y):
    return model.evaluate(X, y, batch_size=ROWS, verbose=0, return_dict=True)


@pytest.mark.parametrize("loss", [BINARY, {**BINARY, "name": "binary_focal_crossentropy"}])
def test_metrics_on_a_logit_are_scikit_learns_of_its_sigmoid(loss):
    wanted = ["accuracy", {"name": "binary_accuracy", "as": "second"}, "auc", "binary_crossentropy"]
    model = compiled(loss, wanted, weighted=["acc"])
    found = logs(model, Y_2[:, np.newaxis])
    probabilities = expit(np.float64(model.predict(X, verbose=0)[:, 0]))
    accuracy = metrics.accuracy_score(Y_2, probabilities > 0.5)
    assert accuracy != metrics.accuracy_score(Y_2, model.predict(X, verbose=0)[:, 0] > 0.5)
    for name in ("accuracy", "second", "acc"):
        assert found[name] == pytest.approx(accuracy)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(Y_2, probabilities), abs=0.02)
    log_loss = metrics.log_loss(Y_2, probabilities)
    assert found["binary_crossentropy"] == pytest.approx(log_loss, rel=1e-5)


def test_metrics_on_several_logits_are_scikit_learns_of_their_softmax():
    model = compiled(SPARSE, ["accuracy", "sparse_categorical_crossentropy"], units=3)
    found = logs(model, Y_3)
    probabilities = softmax(np.float64(model.predict(X, verbose=0)), axis=1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(Y_3, probabilities.argmax(1)))
    log_loss = metrics.log_loss(Y_3, probabilities)
    assert found["sparse_categorical_crossentropy"] == pytest.approx(log_loss, rel=1e-5)


def test_accuracy_under_a_hinge_cuts_at_zero():
    model = compiled("hinge", ["accuracy", "hinge", "auc"], activation="tanh")
    scores = model.predict(X, verbose=0)[:, 0]
    assert logs(model, Y_2)["accuracy"] == pytest.approx(metrics.accuracy_score(Y_2, scores > 0))
    assert logs(model, Y_2)["auc"] == pytest.approx(metrics.roc_auc_score(Y_2, scores), abs=0.02)


def test_a_threshold_of_the_users_own_stays():
    wanted = [{"name": "binary_accuracy", "threshold": 1.0}]
    model = compiled(BINARY, wanted)
    expected = metrics.accuracy_score(Y_2, model.predict(X, verbose=0)[:, 0] > 1)
    assert logs(model, Y_2)["binary_accuracy"] == pytest.approx(expected)


def test_keras_finds_the_logits_of_a_sigmoid_itself_and_metrics_stay_as_they_are():
    model = compiled(BINARY, ["accuracy", "precision"], activation="sigmoid")
    with pytest.warns(UserWarning, match="does not represent logits"):
        found = logs(model, Y_2)
    guesses = model.predict(X, verbose=0)[:, 0] > 0.5
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(Y_2, guesses))
    assert found["precision"] == pytest.approx(metrics.precision_score(Y_2, guesses))


@pytest.mark.parametrize(
    "metric",
    [
        *("precision", "recall", "true_positives", "false_negatives", "mse", "kl_divergence"),
        {"name": "f1_score", "average": "macro", "threshold": 0.5},
        {"name": "precision_at_recall", "recall": 0.5},
    ],
)
@pytest.mark.parametrize("loss", [BINARY, "hinge"])
def test_a_metric_that_only_knows_probabilities_is_refused_on_others(loss, metric):
    with pytest.raises(InputError, match=r"probabilities, but those under .*; give the last layer"):
        compiled(loss, [metric])


@pytest.mark.parametrize("metric", ["auc", "precision", "binary_accuracy"])
def test_a_metric_of_two_classes_is_refused_on_logits_of_several(metric):
    with pytest.raises(InputError, match=f"'{metric}' takes .* a softmax"):
        compiled(SPARSE, [metric], units=3)


@pytest.mark.parametrize(
    ("metric", "remedy"),
    [
        ("accuracy", r"keras.metrics.BinaryAccuracy\(threshold=0.0\)"),
        (keras.metrics.BinaryAccuracy(name="a"), r"keras.metrics.BinaryAccuracy\(threshold=0.0\)"),
        (keras.metrics.AUC(name="b"), r"keras.metrics.AUC\(from_logits=True\)"),
        (keras.metrics.Precision(name="c"), "give the last layer a sigmoid"),
        (keras.metrics.binary_accuracy, r"BinaryAccuracy\(threshold=0.0\)"),
    ],
)
def test_a_builder_that_compiled_a_metric_wrong_on_logits_is_told(metric, remedy):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=[metric])
    with pytest.raises(InputError, match=remedy):
        check_compiled_metrics(model, output_losses(model, model.loss, X))


def test_a_builders_metrics_that_are_right_or_its_own_are_taken():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    own = keras.metrics.MeanMetricWrapper(lambda y, p: y - p, name="own")
    right = [keras.metrics.BinaryAccuracy(threshold=0), keras.metrics.AUC(from_logits=True)]
    for loss in (keras.losses.BinaryCrossentropy(from_logits=True), "hinge"):
        model.compile(loss=loss, metrics=[own, *right], weighted_metrics=[right[0]])
        check_compiled_metrics(model, output_losses(model, model.loss, X))


def test_labels_with_signs_meet_no_metric_that_only_knows_0_and_1():
    parts = {"train": Y_2 * 2.0 - 1}
    for wanted, is_right in ((["hinge"], True), (["hinge", "accuracy"], False)):
        model = compiled("hinge", wanted)
        losses = output_losses(model, model.loss, X)
        if is_right:
            check_signed_labels(model, losses, parts)
            continue
        with pytest.raises(InputError, match=r"labels 0 and 1, .*; label the classes 0 and 1"):
            check_signed_labels(model, losses, parts)
