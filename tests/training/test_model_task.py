"""What a built model is, and what its predictions say: models x losses x labels."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, losses
from scipy.special import expit, softmax
from sklearn import metrics

from trialrun.data.labels import class_numbers, classes_of_parts
from trialrun.data.model_task import ModelTask, OutputLoss, task_of
from trialrun.errors import TrialrunError
from trialrun.training.model.outputs import output_losses
from trialrun.training.scores import judge

pytestmark = pytest.mark.tensorflow

ROWS = 60
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
CLASSES_2 = np.random.default_rng(1).integers(0, 2, ROWS)
CLASSES_3 = np.random.default_rng(2).integers(0, 3, ROWS)


class Own(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)


class OwnBinary(losses.BinaryCrossentropy):
    pass


class Subclassed(keras.Model):
    """Keras does not know the outputs of such a model."""

    def __init__(self, units, activation):
        super().__init__()
        self.head = layers.Dense(units, activation)

    def call(self, x):
        return self.head(x)


def sequential(units, activation=None, *more):
    stack = [keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(units, activation), *more]
    return keras.Sequential(stack)


def subclassed(units, activation=None):
    model = Subclassed(units, activation)
    model(X[:1])
    return model


def functional(units):
    x = keras.Input((4,))
    return keras.Model(x, keras.ops.sigmoid(layers.Dense(units)(x)))


def named(loss, labels=None, model=None):
    return task_of(read(loss, labels, model))


def read(loss, labels=None, model=None):
    keras.utils.set_random_seed(0)
    model.compile("sgd", loss)
    return output_losses(model, model.loss, X, labels)


BCE, BCE_LOGITS = "binary_crossentropy", losses.BinaryCrossentropy(from_logits=True)
SPARSE, SPARSE_LOGITS = (
    "sparse_categorical_crossentropy",
    losses.SparseCategoricalCrossentropy(from_logits=True),
)
ONE_HOT, ONE_HOT_LOGITS = (
    "categorical_crossentropy",
    losses.CategoricalCrossentropy(from_logits=True),
)
OWN_BY_KERAS = functools.partial(losses.binary_crossentropy, from_logits=True)

# Model, loss -> kind, what the outputs are, threshold of two classes.
TASKS = {
    "sigmoid": (lambda: sequential(1, "sigmoid"), BCE, "binary", "probabilities", 0.5),
    "in a list": (lambda: sequential(1, "sigmoid"), [BCE], "binary", "probabilities", 0.5),
    "class": (
        *(lambda: sequential(1, "sigmoid"), losses.BinaryFocalCrossentropy()),
        *("binary", "probabilities", 0.5),
    ),
    "logit": (lambda: sequential(1), BCE_LOGITS, "binary", "logits", 0.0),
    "partial": (lambda: sequential(1), OWN_BY_KERAS, "binary", "logits", 0.0),
    "subclassed logit": (lambda: subclassed(1), BCE_LOGITS, "binary", "logits", 0.0),
    "sigmoid from_logits": (
        *(lambda: sequential(1, "sigmoid"), BCE_LOGITS, "binary", "probabilities", 0.5),
    ),
    "subclassed sigmoid from_logits": (
        *(lambda: subclassed(1, "sigmoid"), BCE_LOGITS, "binary", "probabilities", 0.5),
    ),
    "operation from_logits": (lambda: functional(1), BCE_LOGITS, "binary", "probabilities", 0.5),
    "no sigmoid": (lambda: sequential(1), BCE, "binary", "scores", 0.5),
    "hinge": (lambda: sequential(1, "tanh"), "hinge", "binary", "scores", 0.0),
    "softmax": (lambda: sequential(3, "softmax"), SPARSE, "multiclass", "probabilities", 0.5),
    "logits": (lambda: sequential(3), SPARSE_LOGITS, "multiclass", "logits", 0.0),
    "one-hot logits": (lambda: sequential(3), ONE_HOT_LOGITS, "multiclass", "logits", 0.0),
    "softmax from_logits": (
        *(lambda: sequential(3, None, layers.Softmax()), ONE_HOT_LOGITS),
        *("multiclass", "probabilities", 0.5),
    ),
    "by shapes": (
        *(lambda: sequential(3, "softmax"), "crossentropy", "multiclass", "probabilities", 0.5),
    ),
    "no softmax": (lambda: sequential(3), SPARSE, "multiclass", "scores", 0.5),
    "sigmoids of classes": (
        *(lambda: sequential(3, "sigmoid"), ONE_HOT, "multiclass", "scores", 0.5),
    ),
    "softmax of two with bce": (
        *(lambda: sequential(2, "softmax"), BCE, "multiclass", "probabilities", 0.5),
    ),
    "several labels": (lambda: sequential(3, "sigmoid"), BCE, "multilabel", "probabilities", 0.5),
    "several logits": (lambda: sequential(3), BCE_LOGITS, "multilabel", "logits", 0.0),
    "quantity": (lambda: sequential(1), "mse", "regression", "values", 0.0),
    "count": (lambda: sequential(1, "softplus"), losses.Poisson(), "regression", "values", 0.0),
    "autoencoder": (lambda: sequential(4, "sigmoid"), "mae", "regression", "values", 0.0),
    "own, embeddings": (lambda: sequential(8), Own(), "other", "values", 0.0),
    "own, softmax": (
        *(lambda: sequential(3, "softmax"), Own(), "multiclass", "probabilities", 0.5),
    ),
    "own, sigmoid": (
        *(lambda: sequential(1, "sigmoid"), OwnBinary(), "binary", "probabilities", 0.5),
    ),
    "own, sigmoids": (lambda: sequential(3, "sigmoid"), Own(), "other", "values", 0.0),
    "masks": (lambda: sequential(4, "sigmoid"), losses.Dice(), "other", "values", 0.0),
    "no loss": (lambda: sequential(1), None, "other", "values", 0.0),
    "a class per place": (
        lambda: keras.Sequential([keras.Input((4,)), layers.Reshape((2, 2)), layers.Softmax()]),
        *(SPARSE, "other", "values", 0.0),
    ),
}


@pytest.mark.parametrize("case", TASKS)
def test_the_task_follows_from_the_built_models_own_loss_and_outputs(case):
    make, loss, kind, outputs, threshold = TASKS[case]
    task = named(loss, CLASSES_3, make())
    assert (task.kind, task.outputs, task.threshold) == (kind, outputs, threshold)
    assert bool(task.warning) == (outputs == "scores" and case != "hinge")
    assert ModelTask.from_json(task.to_json()) == task


def test_several_outputs_are_one_task_each_and_have_no_matrix():
    x = keras.Input((4,))
    heads = {
        "sick": layers.Dense(1, name="sick")(x),
        "age": layers.Dense(1, "softplus", name="age")(x),
    }
    loss = {"sick": BCE_LOGITS, "age": losses.Poisson()}
    found = read(loss, None, keras.Model(x, heads))
    assert {one.output: (one.family, one.from_logits) for one in found} == {
        "sick": ("binary", True),
        "age": ("count", False),
    }
    task = task_of(found)
    assert (task.kind, task.num_classes) == ("other", 0)
    assert "sick: classifier of 2 classes" in task.describe()


def test_an_output_beside_one_without_a_loss_is_not_taken_for_all_outputs():
    x = keras.Input((4,))
    heads = {"kind": layers.Dense(3, name="kind")(x), "code": layers.Dense(2, name="code")(x)}
    task = task_of(read({"kind": SPARSE_LOGITS, "code": None}, None, keras.Model(x, heads)))
    assert (task.kind, task.num_classes) == ("other", 0)
    assert "kind: classifier of 3 classes" in task.describe()
    joined = np.array([[2.0, -1.0, 0.5, 7.0, 7.0]])  # as `predict` has them: logits, then codes
    np.testing.assert_array_equal(task.probabilities(joined), joined)


@pytest.mark.parametrize("is_functional", [True, False])
def test_outputs_in_a_dict_are_called_by_its_keys(is_functional):
    class Headed(Subclassed):
        def call(self, x):
            return {"sick": self.head(x), "kind": self.second(x)}

    if is_functional:
        x = keras.Input((4,))
        heads = {"sick": layers.Dense(1, name="a")(x), "kind": layers.Dense(3, name="b")(x)}
        model = keras.Model(x, heads)
    else:
        model = Headed(1, None)
        model.second = layers.Dense(3)
        model(X[:1])
    found = read({"sick": BCE_LOGITS, "kind": SPARSE_LOGITS}, None, model)
    assert {one.output: (one.shape, one.family, one.from_logits) for one in found} == {
        "sick": ((1,), "binary", True),
        "kind": ((3,), "sparse", True),
    }


# What predictions say -------------------------------------------------------------------------


def one_hot(classes):
    return np.eye(3, dtype=np.float32)[classes]


BINARY = ("sigmoid", "logit", "sigmoid from_logits")
MULTICLASS = ("softmax", "logits", "softmax from_logits", "one-hot logits", "own, softmax")
LABELS = {
    "integers": lambda classes: classes.astype(np.int32),
    "column": lambda classes: classes[:, np.newaxis],
    "floats": lambda classes: classes.astype(np.float32),
    "float column": lambda classes: classes[:, np.newaxis].astype(np.float64),
}


def judged(case, labels):
    """The judgment of an untrained model, and its outputs."""
    make, loss, *_ = TASKS[case]
    model = make()
    task = named(loss, labels, model)
    outputs = model.predict(X, verbose=0)
    classes = classes_of_parts(task, {"test": labels})
    return judge(task, classes and classes["test"], outputs), outputs


@pytest.mark.parametrize("labels", [*LABELS, "booleans"])
@pytest.mark.parametrize("case", BINARY)
def test_two_classes_are_judged_as_scikit_learn_judges_the_probabilities(case, labels):
    make = LABELS.get(labels, lambda classes: classes.astype(bool))
    found, outputs = judged(case, make(CLASSES_2))
    probabilities = expit(np.float64(outputs[:, 0])) if case == "logit" else outputs[:, 0]
    expected = metrics.confusion_matrix(CLASSES_2, probabilities > 0.5)
    np.testing.assert_array_equal(found.confusion_matrix, expected)
    assert found.scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(CLASSES_2, probabilities))
    brier = metrics.brier_score_loss(CLASSES_2, probabilities)
    assert found.scores["brier_score"] == pytest.approx(brier)
    assert found.reliability[:, 0].sum() == ROWS


@pytest.mark.parametrize("labels", [*LABELS, "one-hot"])
@pytest.mark.parametrize("case", MULTICLASS)
def test_several_classes_are_judged_as_scikit_learn_judges_the_probabilities(case, labels):
    found, outputs = judged(case, LABELS.get(labels, one_hot)(CLASSES_3))
    is_logits = case in ("logits", "one-hot logits")
    probabilities = softmax(np.float64(outputs), axis=1) if is_logits else np.float64(outputs)
    expected = metrics.confusion_matrix(CLASSES_3, probabilities.argmax(1), labels=range(3))
    np.testing.assert_array_equal(found.confusion_matrix, expected)
    assert found.confusion_matrix.sum() == ROWS
    roc_auc = np.mean(
        [metrics.roc_auc_score(one == CLASSES_3, probabilities[:, one]) for one in range(3)]
    )
    assert found.scores["roc_auc"] == pytest.approx(roc_auc)
    brier = np.square(probabilities - one_hot(CLASSES_3)).sum(1).mean()
    assert found.scores["brier_score"] == pytest.approx(brier, rel=1e-6)


@pytest.mark.parametrize("signs", [False, True])
def test_a_hinge_cuts_its_outputs_at_zero_whichever_labels_it_is_given(signs):
    found, outputs = judged("hinge", CLASSES_2 * 2.0 - 1 if signs else CLASSES_2)
    expected = metrics.confusion_matrix(CLASSES_2, outputs[:, 0] > 0)
    np.testing.assert_array_equal(found.confusion_matrix, expected)
    assert not found.scores  # no probabilities


@pytest.mark.parametrize(
    ("case", "labels"),
    [
        ("softmax", 0.9 * one_hot(CLASSES_3) + 0.1 / 3),  # smoothed
        ("sigmoid", np.linspace(0, 1, ROWS)),
        ("own, softmax", np.full(ROWS, 7)),
        ("several labels", one_hot(CLASSES_3)),
        ("count", CLASSES_3),
        ("quantity", CLASSES_2),
        ("own, embeddings", CLASSES_3),
        ("no loss", CLASSES_2),
    ],
)
def test_what_has_no_class_in_each_row_has_no_matrix_and_no_scores(case, labels):
    found, _ = judged(case, labels)
    assert (found.confusion_matrix, dict(found.scores), found.reliability) == (None, {}, None)


def test_outputs_that_are_no_probabilities_have_a_matrix_alone():
    found, outputs = judged("no softmax", CLASSES_3)
    expected = metrics.confusion_matrix(CLASSES_3, outputs.argmax(1), labels=range(3))
    np.testing.assert_array_equal(found.confusion_matrix, expected)
    assert (dict(found.scores), found.reliability) == ({}, None)


def test_parts_are_judged_alike_or_not_at_all():
    task = ModelTask("binary", "probabilities", 1, 0.5, "")
    parts = {"val": np.array([0.0, 1.0]), "test": np.array([0.0, 0.4])}
    assert classes_of_parts(task, parts) is None


def test_a_matrix_that_lost_a_row_is_an_error():
    task = ModelTask("binary", "probabilities", 1, 0.5, "")
    with pytest.raises(TrialrunError, match="would not count all of them: labels from 1 to 2, 2 c"):
        judge(task, np.array([1, 2]), np.array([[0.1], [0.9]]))


@pytest.mark.parametrize(
    ("labels", "num_classes", "expected"),
    [
        (np.array([True, False]), 2, [1, 0]),
        (np.array([[2.0], [0.0]]), 3, [2, 0]),
        (np.array([-1.0, 1.0]), 2, [0, 1]),
        (np.array([[0, 1], [1, 0]]), 2, [1, 0]),
        (np.array([-1.0, 1.0]), 3, None),
        (np.array([0, 1, 2]), 2, None),
        (np.array([0.0, 0.5]), 2, None),
        (np.array([[1, 1], [1, 0]]), 2, None),
        (np.array([[0, 1, 0]]), 2, None),
        ({"a": np.array([0, 1])}, 2, None),
    ],
)
def test_labels_are_class_numbers_whatever_their_form(labels, num_classes, expected):
    found = class_numbers(labels, num_classes)
    assert (found if found is None else found.tolist()) == expected


def test_no_other_json_is_a_task():
    known = task_of([OutputLoss("mse", "quantity", (1,))]).to_json()
    for wrong in ({}, {**known, "kind": "magic"}, {**known, "more": 1}):
        with pytest.raises(ValueError, match="is not the task of a model"):
            ModelTask.from_json(wrong)
