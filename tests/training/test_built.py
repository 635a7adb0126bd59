"""Models that their builder compiled, or that take steps of their own."""

from dataclasses import replace

import numpy as np
import pytest
from commands import call
from own_terms import TERMS
from training_jobs import FEW_ROWS, load_trials, make_task, train

from trialrun.errors import InputError, ModelError
from trialrun.job import load_job
from trialrun.job.keras_api.logs import natural_goal, probable_goal
from trialrun.job.user_code.builder_source import may_compile
from trialrun.training.dry_run import examine

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def load(tmp_path):
    """Trials of the blobs' job with a builder of `mine.py` and these sections."""
    (tmp_path / "mine.py").write_text(TERMS)

    def load(builder, *, searched=None, **sections):
        sections["training"] = {"epochs": 1, "learning_rate": 1e-4, **sections.get("training", {})}
        sections["search"] = {"parameters": searched or {}}
        sections["data"] = {"args": FEW_ROWS, **sections.get("data", {})}
        return load_trials(tmp_path, builder=f"mine.py:{builder}", seeds=2, **sections)

    return load


def select(metric, goal):
    return {"metric": metric, "goal": goal}


@pytest.mark.parametrize(
    ("builder", "data", "message"),
    [
        ("one_score_per_class", "one_hot", "logs 3 values as 'f1_score'.*average"),
        ("labels_of_one_output", "of_one_output", "do not fit the model: KeyError: 'b'"),
    ],
)
def test_logs_that_no_trial_can_have_are_refused(load, tmp_path, builder, data, message):
    trials = load(builder, data={"generator": f"mine.py:{data}", "args": {}})
    with pytest.raises(ModelError, match=message):
        train(make_task(tmp_path, trials))


def test_what_a_model_counts_while_it_is_used_makes_it_no_other_model(load, tmp_path):
    trials = load("counting", training={"engine": "keras"})
    first, second = train(make_task(tmp_path, trials)).trials
    (alone,) = train(make_task(tmp_path, trials[1:])).trials
    assert first.status == second.status == "completed"
    np.testing.assert_array_equal(second.history["loss"], alone.history["loss"])


# What can be selected by -------------------------------------------------------------------------


def test_the_metric_to_select_by_may_be_one_of_the_builders(load, tmp_path):
    trials = load("compiled", select=select("val_macro_recall", "maximize"))
    results = train(make_task(tmp_path, trials)).trials
    assert all(result.status == "completed" for result in results)
    assert all(np.isfinite(result.metrics["val_macro_recall"]) for result in results)
    # The program of one job does not answer for the logs of another.
    trials = load("compiled", select=select("val_mine", "maximize"))
    with pytest.raises(ModelError, match=r"select\.metric: the model logs no 'val_mine'"):
        train(make_task(tmp_path, trials))


def test_a_second_pack_of_a_process_names_its_logs_as_the_first(load, tmp_path):
    trials = load(
        "two_of_a_kind",
        data={"args": {**FEW_ROWS, "num_classes": 2}},
        select=select("val_auc_1", "maximize"),
        training={"engine": "keras"},
    )
    results = [train(make_task(tmp_path, [one])).trials[0] for one in trials]
    assert [result.status for result in results] == ["completed", "completed"]
    assert all(np.isfinite(result.metrics["val_auc_1"]) for result in results)
    assert set(results[0].history) == set(results[1].history) > {"auc", "auc_1"}


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_a_metric_that_the_model_does_not_log_is_refused_before_training(load, tmp_path, engine):
    wanted = select("val_macro_recal", "maximize")
    trials = load("compiled", select=wanted, training={"engine": engine})
    expected = (
        r"select.metric: the model logs no 'val_macro_recal'; did you mean 'val_macro_recall'\?;"
        " the model logs val_loss, val_accuracy, val_macro_recall"
    )
    for look in (train, examine):
        with pytest.raises(ModelError, match=expected):
            look(make_task(tmp_path, trials))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"keep_best": "val_my_auc"}, "training.keep_best: the model logs no 'val_my_auc'; known:"),
        (
            {"early_stopping": {"monitor": "acuracy_loss"}},
            "training.early_stopping.monitor: the model logs no 'acuracy_loss'",
        ),
    ],
)
def test_a_log_that_is_watched_must_be_logged(load, tmp_path, training, message):
    with pytest.raises(ModelError, match=message):
        train(make_task(tmp_path, load("compiled", training=training)))


def test_a_model_that_is_surely_compiled_as_the_job_says_is_checked_at_once(load):
    with pytest.raises(InputError, match="'val_auc' is not logged; "):
        load_job_of("trialrun.models:mlp", load, select=select("val_auc", "maximize"))


def load_job_of(builder, load, **sections):
    load("compiled", model={"builder": builder}, **sections)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import keras\ndef build(): return keras.Sequential()", False),
        ("import keras\ndef build(m): m.compile('adam'); return m", True),
        ("from keras.models import load_model\ndef build(): return load_model('a.keras')", True),
        ("import mypackage\ndef build(): return mypackage.net()", True),
        ("from beside import net\ndef build(): return net()", True),
    ],
)
def test_whether_a_builder_may_compile_is_read_in_its_source(tmp_path, source, expected):
    (tmp_path / "beside.py").write_text("def net(): return getattr(object, 'com' + 'pile')()")
    (tmp_path / "nets.py").write_text(source)
    assert may_compile("nets.py:build", tmp_path) is expected


def test_trialruns_own_builder_does_not_compile(tmp_path):
    assert not may_compile("trialrun.models:mlp", tmp_path)


@pytest.mark.parametrize(
    ("name", "natural", "probable"),
    [
        ("val_auc_1", "maximize", "maximize"),
        ("val_cls_accuracy", None, "maximize"),
        ("val_reg_mae", None, "minimize"),
        ("val_my_false_negatives", None, "minimize"),
        ("val_d_loss", None, "minimize"),
        ("val_quality", None, None),
    ],
)
def test_the_goal_follows_from_a_name_or_from_its_end(name, natural, probable):
    assert (natural_goal(name), probable_goal(name)) == (natural, probable)


def test_a_metric_without_a_known_direction_needs_a_goal(load, tmp_path):
    expected = (
        "select.goal is missing, and whether larger or smaller values of val_quality are better"
    )
    with pytest.raises(InputError, match=expected):
        load("compiled", select={"metric": "val_quality"})
    load("compiled", select={"metric": "val_macro_recall"})
    assert load_job(tmp_path / "job.yaml").spec.select.goal == "maximize"
    load("compiled", select=select("val_macro_recall", "minimize"))  # who says so may know better


def test_what_is_watched_must_have_a_known_direction(load):
    expected = r"keep_best: it is not known whether larger or smaller values of 'val_quality'"
    with pytest.raises(InputError, match=expected):
        load("compiled", training={"keep_best": "val_quality"})


# Logs without a loss -----------------------------------------------------------------------------


def test_a_model_that_logs_no_loss_is_selected_by_what_it_logs(load, tmp_path):
    training = {"epochs": 3, "keep_best": "val_g_loss", "terminate_on_nan": True}
    training["engine"] = "keras"
    trials = load("own_steps", select={"metric": "val_g_loss"}, training=training)
    results = train(make_task(tmp_path, trials)).trials
    for result in results:
        assert (result.status, result.epochs) == ("completed", 3)
        assert set(result.metrics) == {"train_g_loss", "val_g_loss", "test_g_loss"}
        assert result.metrics["val_g_loss"] == min(result.history["val_g_loss"])


def test_a_loss_of_any_name_that_is_not_finite_is_a_divergence(load, tmp_path):
    trials = load(
        "own_steps",
        model={"args": {"diverges": True}},
        select={"metric": "val_g_loss"},
        training={"epochs": 3, "terminate_on_nan": True, "engine": "keras"},
    )
    (result, _) = train(make_task(tmp_path, trials)).trials
    assert (result.status, result.epochs) == ("diverged", 1)


def test_a_model_that_cannot_be_evaluated_is_refused_before_training(load, tmp_path):
    trials = load("without_test_step", select={"metric": "val_g_loss"})
    expected = r"mine.py:without_test_step: OwnSteps cannot be evaluated .* give it a `test_step`"
    with pytest.raises(ModelError, match=expected):
        train(make_task(tmp_path, trials))


def test_the_loss_that_a_model_does_not_log_is_not_selected_by(load, tmp_path):
    with pytest.raises(ModelError, match=r"no 'val_loss'; did you mean 'val_g_loss'\?"):
        train(make_task(tmp_path, load("own_steps")))


# Fields without effect ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("learning_rate", [0.001, 0.3]),
        ("optimizer", ["adam", "sgd"]),
        ("optimizer.momentum", [0.1, 0.2]),
        ("loss.label_smoothing", [0.1, 0.2]),
        ("learning_rate_schedule.alpha", [0.1, 0.2]),
    ],
)
def test_a_searched_field_that_a_compiled_model_does_not_heed_is_refused(
    load, tmp_path, path, values
):
    training = {
        "optimizer": {"name": "sgd"},
        "loss": {"name": "categorical_crossentropy"},
        "metrics": ["accuracy"],
        "learning_rate_schedule": {"name": "cosine_decay", "decay_steps": 10},
    }
    trials = load(
        "compiled",
        searched={f"training.{path}": {"values": values}},
        select=select("val_accuracy", "maximize"),
        training=training,
    )
    with pytest.raises(ModelError) as caught:
        train(make_task(tmp_path, trials))
    message = str(caught.value)
    assert f"search.parameters.training.{path}" in message
    assert "no effect: model.builder mine.py:compiled compiled the model itself (SGD" in message


@pytest.mark.parametrize(
    "training",
    [
        {"learning_rate": 0.3},
        {"optimizer": "rmsprop"},
        {"optimizer": {"name": "sgd", "momentum": 0.5}},
        {"learning_rate_schedule": {"name": "cosine_decay", "decay_steps": 10}},
        {"loss": "mse"},
        {"loss": "mine.py:focal"},
        {"metrics": ["mae"]},
        {"weighted_metrics": ["mae"]},
    ],
)
def test_a_set_field_that_a_compiled_model_does_not_heed_is_refused(load, tmp_path, training):
    (field,) = training
    with pytest.raises(ModelError, match=rf"training\.{field} has no effect: model\.builder mine"):
        train(make_task(tmp_path, load("compiled", training=training)))


def test_what_is_said_as_the_builder_compiled_it_is_no_lie(load, tmp_path):
    said = {"learning_rate": 0.01, "optimizer": "sgd", "class_weight": "balanced"}
    (found,) = examine(make_task(tmp_path, load("compiled", training={**said, "engine": "keras"})))
    assert found.model_task.startswith("classifier")


def test_several_fields_without_effect_are_named_together(load, tmp_path):
    trials = load("compiled", training={"learning_rate": 0.3, "loss": "mse"})
    expected = "training.learning_rate, training.loss have no effect: .* Remove them, or let"
    with pytest.raises(ModelError, match=expected):
        train(make_task(tmp_path, trials))


def test_a_run_of_an_older_version_goes_on_with_fields_that_have_no_effect(load, tmp_path):
    task = make_task(tmp_path, load("compiled", training={"learning_rate": 0.3, "engine": "keras"}))
    (found,) = examine(replace(task, is_continued=True))
    assert found.engine == "keras"


def test_the_plan_says_that_a_searched_field_may_be_refused(load, tmp_path):
    load("net", searched={"training.learning_rate": {"values": [0.1, 0.2]}})
    shown = " ".join(call("plan", tmp_path / "job.yaml").stdout.split())
    assert "yes; refused if the builder compiles the model" in shown


def test_the_place_of_a_searched_field_is_said(load, tmp_path):
    load("compiled", searched={"training.learning_rate": {"values": [0.1]}})
    loaded = load_job(tmp_path / "job.yaml")
    lines = (tmp_path / "job.yaml").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if "training.learning_rate" in text)
    located = loaded.locate("search.parameters.training.learning_rate has no effect: ...")
    assert f"job.yaml:{line}: search" in located
