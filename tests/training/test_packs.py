"""What a pack gives: independence of its trials, divergence, fallback, metrics, errors."""

from dataclasses import replace
from unittest import mock

import keras
import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import confusion_matrix
from training_jobs import (
    FEW_ROWS,
    load_trials,
    make_task,
    train,
    train_with_fused,
)

import trialrun.training.compiled.train
import trialrun.training.program.program
from trialrun.data.load import load_splits
from trialrun.errors import InputError
from trialrun.job import SelectSpec, load_job
from trialrun.statistics.probabilities import ProbabilityScores
from trialrun.training.compiled.slices import slice_trials
from trialrun.training.compiled.train import train_prepared
from trialrun.training.pack import train_pack
from trialrun.training.pack_data import load_pack_data
from trialrun.training.program.program import Program
from trialrun.trials.results import PackResult, Progress

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def pack_of(tmp_path_factory):
    """Engine -> task, signs of life and result of a pack of three seeds of two variants."""
    packs = {}

    def pack_of(engine):
        if engine not in packs:
            folder = tmp_path_factory.mktemp(engine)
            task = task_of(folder, engine, learning_rates=(0.003, 0.03))
            *signs, result = train_pack(task, "CPU")
            packs[engine] = task, signs, result
        return packs[engine]

    return pack_of


def task_of(folder, engine, *, learning_rates):
    """Three seeds of two learning rates, in two slices; all such packs share a program."""
    trials = load_trials(
        folder,
        builder="dropout",
        seeds=[4, 0, 2],
        learning_rates=learning_rates,
        data={"args": FEW_ROWS},
        training={"engine": engine, "optimizer": "sgd"},
    )
    return make_task(folder, trials, num_threads=2)


# A trial and its pack -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sixty_four(tmp_path_factory):
    """A folder and 64 trials of one signature; no size is a multiple of a vector's width."""
    folder = tmp_path_factory.mktemp("packs")
    trials = load_trials(
        folder,
        builder="everything_with_tf_random",
        seeds=32,
        learning_rates=(0.003, 0.03),
        data={"args": {"num_train": 15, "num_val": 9, "num_test": 9}},
        training={"batch_size": 5},
    )
    return folder, trials


@pytest.fixture(scope="module")
def in_the_middle(sixty_four):
    """The trial number 40, trained with all the others, in its place among them."""
    folder, trials = sixty_four
    return train_with_fused(make_task(folder, trials, num_threads=2))[40]


@pytest.mark.parametrize(
    ("num_trials", "num_threads"),
    [(14, 2), (32, 1)],  # slices of 7 and of 32 trials
)
def test_a_trial_does_not_depend_on_its_pack(sixty_four, in_the_middle, num_trials, num_threads):
    """Weights, optimizer, predictions and logs are equal bit for bit.

    Programs of different widths are compiled apart, but no product or sum runs across trials, and
    on the CPU what is done for one trial is the same in each.
    """
    folder, trials = sixty_four
    others = [trial for trial in trials if trial is not trials[40]][: num_trials - 1]
    pack = [*others, trials[40]]
    trained = train_with_fused(make_task(folder, pack, num_threads=num_threads))
    assert_same_trial(trained[-1], in_the_middle)


def test_a_trial_alone_is_the_same_but_for_the_last_bits_of_its_logged_loss(
    sixty_four, in_the_middle
):
    """Weights, optimizer and predictions are equal bit for bit here too.

    Without a trial axis of more than one, XLA adds up the rows of a batch and the batches of an
    epoch in another order when it computes the loss that is logged. Such a sum of eight numbers
    moves by a few units in the last place: 3 were seen in 14 trials, 4 are allowed. Training never
    reads it.
    """
    folder, trials = sixty_four
    (alone,) = train_with_fused(make_task(folder, [trials[40]]))
    assert_same_trial(alone, in_the_middle, log_rtol=4 * 2**-23)


def test_training_again_gives_the_same_bit_for_bit(sixty_four, in_the_middle):
    folder, trials = sixty_four
    pack = [trials[40], *trials[:6]]
    first, again = (train_with_fused(make_task(folder, pack)) for _ in range(2))
    assert_same_trial(first[0], in_the_middle)
    for one, other in zip(first, again, strict=True):
        assert_same_trial(one, other)


def test_a_pack_has_compiled_the_widths_that_were_new_in_it(monkeypatch):
    """A program that trains nothing; its first epochs of a width take as many seconds."""
    clock = mock.Mock(**{"perf_counter.return_value": 0.0})
    program = object.__new__(Program)
    program._compile_s, program._traced = {}, dict.fromkeys((20, 5, 3))

    def train_epochs(_state, _train, orders, _val):
        clock.perf_counter.return_value += orders.shape[1]

    def train_slices(prepared, _reports):
        for width in prepared.slices:
            program.train_epochs(None, (), np.zeros((1, width)), ())
        yield from ()

    monkeypatch.setattr(program, "_train_epochs", train_epochs, raising=False)
    monkeypatch.setattr(trialrun.training.program.program, "time", clock)
    monkeypatch.setattr(trialrun.training.compiled.train, "_train_slices", train_slices)
    compiled_s = []
    for widths in ([20], [20, 5, 3], [5, 20]):
        timings_s = {}
        prepared = mock.Mock(program=program, slices=widths)
        assert list(train_prepared(prepared, timings_s, None)) == []
        compiled_s.append(timings_s["compile"])
    assert compiled_s == [20, 5, 0]


@pytest.mark.parametrize("engine", ["fused", "keras"])
def test_every_trial_of_a_pack_comes_back_in_its_place(pack_of, engine):
    task, _, result = pack_of(engine)
    assert tuple(row.trial for row in result.trials) == task.pack.trials
    assert {row.pack_id for row in result.trials} == {"p000"}
    losses = [row.history["loss"] for row in result.trials]
    for plain, loss in zip(pack_of("keras")[2].trials, losses, strict=True):
        np.testing.assert_allclose(loss, plain.history["loss"], rtol=0, atol=1e-5)
    assert len({loss.tobytes() for loss in losses}) == 6


def test_the_selection_metric_says_which_seed_is_best(pack_of):
    task, _, _ = pack_of("fused")
    select = SelectSpec(metric="val_accuracy", goal="maximize")
    *_, sign, result = train_pack(replace(task, select=select), "CPU")
    accuracies = [row.metrics["val_accuracy"] for row in result.trials]
    assert 0 < sign.best <= 1
    for number, variant_id in enumerate(("v00", "v01")):
        of_variant = accuracies[3 * number :][:3]
        first_of_equals = result.trials[3 * number + int(np.argmax(of_variant))]
        assert result.best_states[variant_id].seed == first_of_equals.trial.seed


@pytest.mark.parametrize(
    ("num_trials", "num_threads"), [(1, 1), (1, 4), (5, 2), (5, 4), (7, 2), (257, 2), (1000, 2)]
)
def test_slices_of_one_width_hold_every_trial(num_trials, num_threads):
    slices = slice_trials(num_trials, num_threads)
    assert len({len(indices) for indices in slices}) == 1
    assert len(slices[0]) <= 128
    assert {index for indices in slices for index in indices} == set(range(num_trials))


# Divergence ---------------------------------------------------------------------------------------


def test_a_diverging_trial_leaves_its_neighbors_untouched(tmp_path):
    def pack(middle_rate):
        return load_trials(
            tmp_path,
            builder="regression",
            seeds=[4],
            learning_rates=(0.01, middle_rate, 0.03),
            training={"loss": "mse", "optimizer": "sgd", "metrics": []},
        )

    task = make_task(tmp_path, pack(1e6))
    result = train(task)
    assert [row.status for row in result.trials] == ["completed", "diverged", "completed"]
    assert np.isnan(result.trials[1].history["loss"][-1])
    assert result.best_states.keys() == {"v00", "v02"}
    diverging, tame = train_with_fused(task), train_with_fused(make_task(tmp_path, pack(0.02)))
    assert np.isnan(diverging[1].trainable[0]).all()
    assert np.isfinite(tame[1].trainable[0]).all()
    for place in (0, 2):
        assert_same_trial(diverging[place], tame[place])


# Engines ------------------------------------------------------------------------------------------


def test_a_seed_gives_every_variant_the_same_data_start_and_batches(pack_of):
    """What makes a paired comparison of variants one of variants alone.

    With a learning rate of next to nothing weights stay what they were: two variants that differ
    in it log the same numbers, dropout and batches included.
    """
    folder = pack_of("fused")[0].job_folder
    task = task_of(folder, "fused", learning_rates=(1e-30, 2e-30))
    trials = task.pack.trials
    data, errors = load_pack_data(trials, folder)
    assert not errors
    by_seed = {}
    for trial, splits in zip(trials, data.splits, strict=True):
        by_seed.setdefault(trial.seed, []).append(splits)
    for first, second in by_seed.values():
        for name in ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    logs = {
        (trial.seed, trial.variant.variant_id): one.history
        for trial, one in zip(trials, train_with_fused(task), strict=True)
    }
    for seed in (4, 0, 2):
        for name, values in logs[seed, "v00"].items():
            np.testing.assert_array_equal(values, logs[seed, "v01"][name])
    assert not np.array_equal(logs[0, "v00"]["loss"], logs[2, "v00"]["loss"])


def test_the_plain_engine_is_used_when_asked_for(pack_of):
    _, _, result = pack_of("keras")
    assert result.trials[0].engine == "keras"
    assert result.reason == "training.engine is keras"


def test_data_of_different_shapes_are_trained_by_keras(tmp_path):
    trials = load_trials(
        tmp_path, builder="dense", seeds=[1, 2], data={"generator": "data.py:growing"}
    )
    result = train(make_task(tmp_path, trials))
    assert [row.engine for row in result.trials] == ["keras", "keras"]
    assert result.reason == "not fused or mapped: the trials' data differ in shape"


# Results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["fused", "keras"])
def test_metrics_are_those_after_the_last_epoch_and_the_matrices_are_scikit_learns(pack_of, engine):
    task, _, result = pack_of(engine)
    by_id = {row.trial.trial_id: row for row in result.trials}
    for row in result.trials:
        assert row.engine == engine
        assert (row.epochs, row.attempt, row.device, row.error) == (3, 0, "CPU", "")
        assert row.history.keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}
        for name, values in row.history.items():
            assert (values.shape, values.dtype) == ((3,), np.float32)
            final = name if name.startswith("val_") else f"train_{name}"
            assert row.metrics[final] == float(values[-1])
        assert len(row.metrics) == 6 + len(ProbabilityScores._fields)
        val, test = row.val_confusion_matrix, row.test_confusion_matrix
        assert (val.sum(), test.sum()) == (8, 8)
        assert np.trace(val) / 8 == pytest.approx(row.metrics["val_accuracy"], abs=1e-6)
        assert np.trace(test) / 8 == pytest.approx(row.metrics["test_accuracy"], abs=1e-6)
    assert result.best_states.keys() == {"v00", "v01"}
    for variant_id, state in result.best_states.items():
        row = by_id[state.trial_id]
        losses = [
            other.metrics["val_loss"]
            for other in result.trials
            if other.trial.variant.variant_id == variant_id
        ]
        assert row.trial.variant.variant_id == variant_id
        assert row.metrics["val_loss"] == min(losses)
        splits = load_splits(row.trial.variant.data, task.job_folder, row.trial.seed)
        np.testing.assert_array_equal(
            row.test_confusion_matrix,
            confusion_matrix(splits.y_test, state.test_predictions.argmax(1), labels=range(3)),
        )
        loss = keras.losses.sparse_categorical_crossentropy(splits.y_test, state.test_predictions)
        assert np.mean(loss) == pytest.approx(row.metrics["test_loss"], abs=1e-6)


def test_a_classifier_is_judged_by_its_test_probabilities(pack_of):
    """The scores of scikit-learn, on the predictions that the pack gives of its best trial."""
    task, _, result = pack_of("fused")
    state = result.best_states["v00"]
    (best,) = (row for row in result.trials if row.trial.trial_id == state.trial_id)
    labels = load_splits(best.trial.variant.data, task.job_folder, state.seed).y_test
    found = best.metrics
    probabilities = state.test_predictions
    assert found["test_roc_auc"] == pytest.approx(
        metrics.roc_auc_score(labels, probabilities, multi_class="ovr"), rel=1e-6
    )
    assert found["test_average_precision"] == pytest.approx(
        metrics.average_precision_score(np.eye(3)[labels], probabilities), rel=1e-6
    )
    assert found["test_brier_score"] == pytest.approx(
        metrics.brier_score_loss(labels, probabilities), rel=1e-6
    )
    assert best.test_reliability[:, 0].sum() == len(labels)
    assert 0 <= found["test_calibration_error"] <= 1
    assert {name for name in found if name.startswith("val_")} == {"val_loss", "val_accuracy"}


def test_a_single_probability_means_two_classes(tmp_path):
    """And a metric of one's own name can select."""
    metrics = ["accuracy", {"name": "auc", "as": "area"}]
    trials = load_trials(
        tmp_path,
        builder="binary",
        seeds=[1],
        data={"args": {"num_classes": 2}},
        training={"loss": "binary_crossentropy", "metrics": metrics, "engine": "keras"},
        select={"metric": "val_area"},
    )
    assert load_job(tmp_path / "job.yaml").spec.select.goal == "maximize"
    result = train(make_task(tmp_path, trials))
    (row,) = result.trials
    splits = load_splits(trials[0].variant.data, tmp_path, 1)
    classes = result.best_states["v00"].test_predictions[:, 0] > 0.5
    np.testing.assert_array_equal(
        row.test_confusion_matrix, confusion_matrix(splits.y_test, classes)
    )
    accuracy = np.trace(row.test_confusion_matrix) / len(splits.y_test)
    assert accuracy == pytest.approx(row.metrics["test_accuracy"])
    assert 0 <= row.metrics["val_area"] <= 1


def test_a_model_that_its_builder_compiled_for_counts_is_no_classifier(tmp_path):
    trials = load_trials(
        tmp_path,
        builder="counting",
        seeds=[1],
        search={"parameters": {}},
        training={"engine": "keras"},
    )
    result = train(make_task(tmp_path, trials))
    (row,) = result.trials
    assert (row.val_confusion_matrix, row.test_confusion_matrix) == (None, None)
    assert "test_roc_auc" not in row.metrics
    assert result.model_task == "regression (loss poisson)"
    assert result.is_compiled_by_builder


def test_signs_of_life_come_first(pack_of):
    _, signs, result = pack_of("fused")
    assert signs
    assert all(isinstance(sign, Progress) for sign in signs)
    assert all(0 < sign.epochs_done <= 6 * 3 and sign.best > 0 for sign in signs)
    assert {sign.engine for sign in signs} == {"fused"}
    assert sum(so_far.num_trials for so_far in signs[0].variants.values()) == 6
    assert isinstance(result, PackResult)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "keras"])
@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("raising", r"nets\.py:raising: it raised RuntimeError: no such thing today"),
        ("nothing", r"nets\.py:nothing: must return a keras\.Model, got a NoneType"),
        ("too_narrow", r"nets\.py:too_narrow: the model cannot take the data's inputs"),
    ],
)
def test_a_builder_that_gives_no_fitting_model_is_an_input_error(
    tmp_path, builder, message, engine
):
    trials = load_trials(tmp_path, builder=builder, seeds=[1], training={"engine": engine})
    with pytest.raises(InputError, match=message):
        train(make_task(tmp_path, trials))


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_labels_outside_the_models_outputs_are_an_input_error(tmp_path, engine):
    trials = load_trials(
        tmp_path,
        builder="dense",
        seeds=[1],
        data={"args": {"num_classes": 5}},
        training={"engine": engine},
    )
    with pytest.raises(InputError, match=r"class label 4, but the model has 3 outputs"):
        train(make_task(tmp_path, trials))


WORDS = """
import keras
import numpy as np
from keras import layers


def words(seed):
    ids = np.random.default_rng(seed).integers(0, 20, (40, 3))
    validation = ids[:8].copy()
    validation[5, 1] = 20 if seed == 2 else 19
    labels = np.arange(40) % 3
    return {"train": (ids, labels), "validation": (validation, labels[:8]), "test": (ids, labels)}


def build():
    inputs = keras.Input((3,), dtype="int32")
    embedded = layers.Embedding(20, 2, name="embed")(layers.Reshape((1, 3))(inputs))
    return keras.Model(inputs, layers.Dense(3, "softmax")(layers.Flatten()(embedded)))
"""


def test_a_number_without_an_embedding_is_an_input_error(tmp_path):
    """XLA would take the last embedding. It is in the validation data of the second seed alone."""
    (tmp_path / "words.py").write_text(WORDS)
    trials = load_trials(
        tmp_path,
        builder="words.py:build",
        seeds=[1, 2],
        data={"generator": "words.py:words"},
        training={"epochs": 1},
    )
    with pytest.raises(
        InputError, match=r"val inputs, row 5: the layer 'embed' looks up the number 20"
    ):
        train(make_task(tmp_path, trials))


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_labels_are_looked_at_under_every_seed_and_in_every_part(tmp_path, engine):
    trials = load_trials(
        tmp_path,
        builder="dense",
        seeds=[1, 2],
        data={"generator": "data.py:odd_label"},
        training={"engine": engine, "epochs": 1},
    )
    with pytest.raises(InputError, match=r"class label 3, .* in test labels"):
        train(make_task(tmp_path, trials))


@pytest.mark.parametrize(
    "training",
    [
        {"metrics": [{"name": "auc", "curve": "no such curve"}]},
        {"metrics": ["auc"]},  # of three classes whose labels are not one-hot
    ],
)
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_what_keras_refuses_to_compile_is_an_input_error(tmp_path, training, engine):
    training = {**training, "engine": engine}
    trials = load_trials(tmp_path, builder="dense", seeds=[1], training=training)
    with pytest.raises(InputError, match=r"training: |Keras cannot train"):
        train(make_task(tmp_path, trials))


def assert_same_trial(trained, expected, *, atol=0.0, log_rtol=0.0):
    for logs in ("history", "test_logs"):
        actual, wanted = getattr(trained, logs), getattr(expected, logs)
        assert actual.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_allclose(
                actual[name], wanted[name], rtol=log_rtol, atol=atol, err_msg=name
            )
    for kind in ("trainable", "non_trainable", "optimizer"):
        arrays = zip(getattr(trained, kind), getattr(expected, kind), strict=True)
        for index, (array, wanted) in enumerate(arrays):
            np.testing.assert_allclose(array, wanted, rtol=0, atol=atol, err_msg=f"{kind} {index}")
    for name in ("val_predictions", "test_predictions"):
        np.testing.assert_allclose(
            getattr(trained, name), getattr(expected, name), rtol=0, atol=atol
        )
