"""The columns that `predict` adds, by what the model is."""

import numpy as np
import pandas as pd
import pytest

from trialrun.data.model_task import ModelTask
from trialrun.export.predict import with_predictions

TABLE = pd.DataFrame({"age": [13.0, 40.0]})
LOGITS = np.array([[-2.0], [3.0]])
WIDE = np.array([[1.0, 0.0, 3.0], [2.0, 0.0, -1.0]])
SIGMOIDS = 1 / (1 + np.exp(-LOGITS[:, 0]))
SOFTMAX = np.exp(WIDE) / np.exp(WIDE).sum(1, keepdims=True)


def predicted(kind, outputs, predictions, names, threshold=0.5):
    task = ModelTask(kind, outputs, predictions.shape[1], threshold, "")
    return with_predictions(TABLE, task.probabilities(predictions), names, task)


def test_a_logit_gives_the_probabilities_of_both_classes():
    found = predicted("binary", "logits", LOGITS, ["well", "sick"], threshold=0.0)
    assert list(found) == ["age", "probability_well", "probability_sick", "class"]
    np.testing.assert_allclose(found["probability_sick"], SIGMOIDS)
    np.testing.assert_allclose(found["probability_well"], 1 - SIGMOIDS)
    assert list(found["class"]) == ["well", "sick"]


def test_several_logits_give_their_softmax():
    found = predicted("multiclass", "logits", WIDE, ["a", "b", "c"])
    np.testing.assert_allclose(found.iloc[:, 1:4], SOFTMAX)
    assert list(found["class"]) == ["c", "a"]


def test_labels_that_do_not_exclude_each_other_have_no_class():
    found = predicted("multilabel", "logits", WIDE, ["a", "b", "c"])
    assert list(found) == ["age", "probability_a", "probability_b", "probability_c"]
    np.testing.assert_allclose(found.iloc[:, 1:4], 1 / (1 + np.exp(-WIDE)))


@pytest.mark.parametrize(("threshold", "classes"), [(0.0, ["b", "b"]), (0.5, ["a", "b"])])
def test_scores_are_called_scores(threshold, classes):
    scores = np.array([[0.25], [3.0]])
    found = predicted("binary", "scores", scores, ["a", "b"], threshold)
    assert list(found) == ["age", "score_b", "class"]
    assert list(found["class"]) == classes
    found = predicted("multiclass", "scores", WIDE, ["a", "b", "c"])
    assert list(found) == ["age", "score_a", "score_b", "score_c", "class"]


@pytest.mark.parametrize("kind", ["regression", "other"])
def test_what_is_no_classifier_has_predictions_whatever_the_names(kind):
    found = predicted(kind, "values", WIDE, ["a", "b", "c"])
    assert list(found) == ["age", "prediction_0", "prediction_1", "prediction_2"]
    np.testing.assert_array_equal(found.iloc[:, 1:], WIDE)


def test_without_names_a_logit_is_the_probability_of_the_second_class():
    found = predicted("binary", "logits", LOGITS, [])
    assert list(found) == ["age", "prediction"]
    np.testing.assert_allclose(found["prediction"], SIGMOIDS)


def test_an_older_run_is_known_by_its_names():
    found = with_predictions(TABLE, np.array([[0.2], [0.9]]), ["a", "b"], None)
    assert list(found["class"]) == ["a", "b"]
    found = with_predictions(TABLE, SOFTMAX, ["a", "b", "c"], None)
    assert list(found["class"]) == ["c", "a"]
    found = with_predictions(TABLE, SOFTMAX, [], None)
    assert list(found) == ["age", "prediction_0", "prediction_1", "prediction_2"]
