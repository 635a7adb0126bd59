"""Losses, metrics, optimizers and schedules that a job names by file and function."""

import keras
import numpy as np
import pytest
from own_terms import TERMS
from training_jobs import (
    FEW_ROWS,
    load_trials,
    make_task,
    train,
)

from trialrun.driver.resume import referenced_functions
from trialrun.errors import InputError
from trialrun.job import TrainingSpec, dump_job, load_job
from trialrun.job.keras_api.own_terms import is_itself
from trialrun.job.user_code.files import collect_files
from trialrun.training.internals.keras_model import key_variables_in_both_ways
from trialrun.training.internals.keras_tracing import pure_optimizers
from trialrun.training.model.build import compile_model
from trialrun.trials.signature import exact_signature_of, signature_of

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def load(tmp_path):
    """Trials of the blobs' job whose section `training` is given; the functions are beside it."""
    (tmp_path / "mine.py").write_text(TERMS)

    def load(seeds=1, learning_rates=(0.01,), **training):
        return load_trials(
            tmp_path,
            builder="mine.py:net",
            seeds=seeds,
            learning_rates=learning_rates,
            data={"args": FEW_ROWS},
            training=training,
        )

    return load


def compiled_with(**training):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    x = np.ones((4, 6), np.float32)
    compile_model(model, TrainingSpec.model_validate(training), 6, x)
    model.run_eagerly = True  # nothing is traced for a batch
    model.train_on_batch(x, np.array([0, 1, 2, 0]))
    return model


# One rule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("required", "given", "itself"),
    [
        (["y_true", "y_pred"], {}, True),
        (["y_true", "y_pred", "gamma"], {"gamma": 2}, True),
        (["alpha", "gamma"], {"alpha": 1, "gamma": 2}, False),
        ([], {"gamma": 2}, False),
    ],
)
def test_a_function_is_the_loss_if_two_arguments_are_left(required, given, itself):
    assert is_itself(required, given) is itself


def test_an_own_loss_is_trained_on_with_its_arguments(tmp_path):
    """Where gamma is given, the loss is smaller; a function, a maker and a class agree on it.

    All become a loss of Keras before an engine sees them.
    """
    (tmp_path / "mine.py").write_text(TERMS)

    def first_loss(name, **arguments):
        keras.utils.set_random_seed(1)
        model = compiled_with(loss={"name": f"{tmp_path}/mine.py:{name}", **arguments})
        return float(model.get_metrics_result()["loss"])

    without = first_loss("focal")
    given, *others = [first_loss(name, gamma=3.0) for name in ("make_focal", "focal", "Focal")]
    assert given < without
    assert others == [pytest.approx(given)] * len(others)


def test_an_own_loss_that_does_what_keras_does_gives_the_same_numbers(load, tmp_path):
    (tmp_path / "mine.py").write_text(
        TERMS + "\n\ndef same(y, p):\n    return keras.losses.sparse_categorical_crossentropy(y, p)"
    )
    own, of_keras = (
        train(make_task(tmp_path, load(loss=loss, metrics=[], optimizer="sgd", engine="keras")))
        for loss in ("mine.py:same", "sparse_categorical_crossentropy")
    )
    for one, other in zip(own.trials, of_keras.trials, strict=True):
        for name, value in other.metrics.items():
            assert one.metrics[name] == pytest.approx(value, rel=1e-5)


def test_a_loss_with_arguments_is_saved_under_another_name_than_without(tmp_path):
    (tmp_path / "mine.py").write_text(TERMS)
    loss = {"name": f"{tmp_path}/mine.py:focal", "gamma": 3.0}
    assert compiled_with(loss=loss).loss.__name__ == "focal_gamma_3.0"


def test_an_own_metric_is_logged_under_its_name_in_the_job(tmp_path):
    (tmp_path / "mine.py").write_text(TERMS)
    mine = f"{tmp_path}/mine.py"
    metrics = ["accuracy", f"{mine}:hit", f"{mine}:Hit", {"name": f"{mine}:hit", "as": "other"}]
    training = {"metrics": metrics}
    logs = compiled_with(**training).get_metrics_result()
    assert list(logs) == ["loss", "accuracy", "hit", "Hit", "other"]
    assert set(TrainingSpec.model_validate(training).logs) == set(logs)
    assert logs["hit"] == logs["Hit"] == logs["accuracy"]


def test_an_own_optimizer_and_schedule_begin_at_the_jobs_learning_rate(tmp_path):
    (tmp_path / "mine.py").write_text(TERMS)
    mine = f"{tmp_path}/mine.py"
    optimizer = compiled_with(
        optimizer={"name": f"{mine}:adam", "beta": 0.5},
        learning_rate_schedule={"name": f"{mine}:Halving", "every": 1},
        learning_rate=0.25,
    ).optimizer
    assert optimizer.beta_1 == 0.5
    assert float(optimizer.learning_rate) == 0.125  # after one step


def test_an_optimizer_decides_by_the_names_that_variables_have_in_fit():
    """There a variable's name has its path. What does not decay is kept by keys of `fit` too."""

    class SlowBody(keras.optimizers.AdamW):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate * 10 ** ("body" in variable.name))

    model = keras.Sequential([keras.Input((6,))])
    for name in ("body", "norm", "head"):
        model.add(keras.layers.Dense(3, name=name, bias_initializer="ones"))
    optimizer = SlowBody(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([model.layers[0].kernel], ["norm"])
    weights = model.trainable_variables
    optimizer.build(weights)
    key_variables_in_both_ways(optimizer)
    held = [*weights, *optimizer.variables]
    values = [(variable, keras.ops.convert_to_tensor(variable.numpy())) for variable in held]
    gradients = [keras.ops.ones(variable.shape) for variable in weights]
    with keras.StatelessScope(values) as scope, pure_optimizers():
        optimizer.apply(gradients, weights)
        own = [scope.get_current_value(variable).numpy() for variable in weights]
    optimizer.apply(gradients, weights)
    for value, variable in zip(own, weights, strict=True):
        np.testing.assert_allclose(value, variable.numpy(), rtol=1e-6, err_msg=variable.path)


WARMING_UP = {
    **{"name": "cosine_decay", "decay_steps": 3},
    **{"warmup_target": 0.1, "warmup_steps": 2},
}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"optimizer": "{}:half_as_fast"}, "was given the learning rate 0.0001, but its .* 5e-05"),
        ({"optimizer": "{}:Halving"}, "it raised TypeError"),
        ({"loss": "{}:number"}, "must return a keras.losses.Loss or a function .*, got a int"),
        ({"metrics": ["{}:number"]}, "must return a keras.metrics.Metric or a function"),
        ({"learning_rate_schedule": "{}:adam"}, "raised TypeError"),
        (
            {"optimizer": "{}:unscheduled", "learning_rate_schedule": WARMING_UP},
            "was given a learning rate schedule, but its optimizer has the constant .* 0.0001;",
        ),
    ],
)
def test_what_gives_something_else_is_refused_by_name(tmp_path, training, message):
    (tmp_path / "mine.py").write_text(TERMS)

    def absolute(value):
        if isinstance(value, list):
            return [absolute(one) for one in value]
        if isinstance(value, dict):
            return value
        return value.format(tmp_path / "mine.py")

    with pytest.raises(InputError, match=message):
        compiled_with(**{name: absolute(value) for name, value in training.items()})


# Trials ------------------------------------------------------------------------------------------


def test_the_source_of_an_own_loss_is_part_of_a_trials_id(load, tmp_path):
    (tmp_path / "losses.py").write_text(TERMS)
    (before,) = load(loss="losses.py:focal")
    (other,) = load(loss="losses.py:Focal")
    (tmp_path / "losses.py").write_text(TERMS + "\n# edited\n")
    (edited,) = load(loss="losses.py:focal")
    (tmp_path / "losses.py").write_text(TERMS)
    (again,) = load(loss="losses.py:focal")
    assert before.trial_id == again.trial_id
    assert len({before.trial_id, edited.trial_id, other.trial_id}) == 3
    assert str(tmp_path) not in exact_signature_of(before.variant)


def test_the_file_of_an_own_loss_travels(load, tmp_path):
    (tmp_path / "losses.py").write_text(TERMS)
    load(loss={"name": "losses.py:focal", "gamma": 1.0})
    functions = referenced_functions(load_job(tmp_path / "job.yaml"))
    assert str(tmp_path / "losses.py") in collect_files(functions).contents


def test_a_resolved_job_finds_its_own_functions_from_anywhere(load, tmp_path):
    load(loss={"name": "mine.py:focal", "gamma": 1.0}, metrics=["mine.py:hit"])
    spec = load_job(tmp_path / "job.yaml").spec
    (tmp_path / "elsewhere").mkdir()
    resolved = tmp_path / "elsewhere" / "job.yaml"
    resolved.write_text(dump_job(spec))
    assert load_job(resolved).spec == spec


def test_a_number_that_an_own_loss_is_given_makes_a_program_of_its_own(load, tmp_path):
    """What a function makes of it is not known: built into a closure, it would be the first's."""
    (one,), (other,) = (
        load(loss={"name": "mine.py:focal", "gamma": gamma}) for gamma in (1.0, 2.0)
    )
    assert signature_of(one.variant) != signature_of(other.variant)


# The job -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"loss": "mine.py:fcal"}, "training.loss: mine.py has no function 'fcal'; did you mean"),
        ({"loss": "mine.py:make_focal"}, "training.loss: mine.py:make_focal needs an argument"),
        (
            {"loss": {"name": "mine.py:focal", "gama": 1}},
            "mine.py:focal takes no argument 'gama'; did you mean 'gamma'",
        ),
        ({"metrics": ["none.py:hit"]}, "training.metrics: there is no file"),
        ({"optimizer": "mine.py:focal"}, "mine.py:focal takes no argument 'learning_rate'"),
        (
            {"optimizer": {"name": "mine.py:adam", "learning_rate": 1}},
            "training.optimizer holds a learning_rate",
        ),
        ({"learning_rate_schedule": "mine.py:adam"}, "no argument 'initial_learning_rate'"),
        (
            {"loss": "mine:py:focal"},
            "training.loss must be a Keras name or a reference to your own",
        ),
        ({"metrics": ["mine.py:hit", "mine.py:hit"]}, "training.metrics must be distinct"),
    ],
)
def test_a_wrong_reference_is_found_before_anything_is_imported(load, training, message):
    with pytest.raises(InputError, match=message):
        load(**training)


def test_a_searched_loss_may_be_an_own_one(tmp_path, load):
    load()
    losses = ["mse", "mine.py:focal", {"name": "mine.py:focal", "gamma": 1.0}]
    changed = {
        "search.parameters": {"training.loss": {"values": losses}},
        "select": {"metric": "val_accuracy"},
        "training.metrics": ["accuracy"],
    }
    values = load_job(tmp_path / "job.yaml", changed).spec.search.parameters["training.loss"].values
    assert values[0] == "mse"
    assert values[1] == f"{tmp_path}/mine.py:focal"
    assert values[2] == {"name": f"{tmp_path}/mine.py:focal", "gamma": 1.0}
    losses[1] = "mine.py:fcal"
    with pytest.raises(InputError, match=r"mine.py has no function 'fcal'"):
        load_job(tmp_path / "job.yaml", changed)


def test_beside_an_own_loss_no_metric_is_supposed(load):
    (trial,) = load(loss="mine.py:focal")
    assert trial.variant.training.metrics == ()
