"""What TensorBoard's own readers find in tensorboard/ is what the run folder's tables say."""

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from commands import call
from made_up_runs import broken, completed, finish, learning_rates, make_variants, write_run
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment
from tensorboard.plugins.hparams.list_session_groups import Handler

from trialrun.trackers.tensorboard import write_tensorboard

pytestmark = pytest.mark.tensorflow

SEEDS = (0, 3, 7)
VARIANTS = make_variants(
    [
        {"model.args.units": [16, 32], "training.learning_rate": 1e-3, "training.loss": "mse"},
        {"model.args.units": [32, 64], "training.learning_rate": 3e-4, "training.loss": "mae"},
    ]
)
MORE_VARIANTS = learning_rates(*(0.1 / (index + 1) for index in range(5)))


def trained(variant, seed):
    """Trial results of unequal length; one trial diverged after two epochs, and one failed."""
    if (variant.variant_id, seed) == ("v00", 7):
        return broken(variant, seed, error="out of luck")
    if (variant.variant_id, seed) == ("v01", 3):
        whole = completed(variant, seed, epochs=2)
        history = {name: np.float32([0.5, math.nan]) for name in whole.history}
        return replace(whole, status="diverged", history=history)
    return completed(variant, seed, epochs=3 + seed)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = finish(write_run(tmp_path_factory.mktemp("runs"), VARIANTS, SEEDS, result_of=trained))
    write_tensorboard(folder)
    return folder


@pytest.fixture(scope="module")
def large_run(tmp_path_factory):
    return finish(write_run(tmp_path_factory.mktemp("large"), MORE_VARIANTS, SEEDS))


def scalars(path):
    """tag -> [(step, value)] of one TensorBoard run."""
    events = EventAccumulator(str(path))
    events.Reload()
    return {
        tag: [(one.step, one.value) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def hparams_of(folder):
    """The experiment and the groups of sessions that the HParams plugin shows."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = backend_context.Context(TBContext(logdir=str(folder), data_provider=provider))
    asked = api_pb2.GetExperimentRequest(include_metrics=True)
    experiment = get_experiment.Handler(RequestContext(), context, "", asked).run()
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=1000,
        include_metrics=True,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
        aggregation_type=api_pb2.AGGREGATION_AVG,
    )
    return experiment, Handler(RequestContext(), context, "", request).run().session_groups


def value_of(value):
    return getattr(value, value.WhichOneof("kind"))


def metrics_of(message):
    return {one.name.tag.removeprefix("final/"): one.value for one in message.metric_values}


def test_the_curves_of_a_trial_are_those_of_history_epoch_by_epoch(run):
    history = run.read_history()
    for (variant_id, seed), rows in history.groupby(["variant_id", "seed"]):
        shown = scalars(run.tensorboard_dir / variant_id / f"seed_{seed}")
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            steps, values = zip(*shown[f"epoch/{name}"], strict=True)
            assert list(steps) == list(rows["epoch"])
            np.testing.assert_array_equal(np.float32(values), rows[name].to_numpy())


def test_the_final_numbers_of_a_trial_are_those_of_trials_at_its_last_epoch(run):
    trials = run.read_trials().set_index(["variant_id", "seed"])
    names = [name for name in trials if name.startswith(("train_", "val_l", "val_a", "test_l"))]
    for (variant_id, seed), row in trials.iterrows():
        shown = scalars(run.tensorboard_dir / variant_id / f"seed_{seed}")
        if row["status"] != "completed":
            assert not any(tag.startswith("final/") for tag in shown)
            continue
        for name in names:
            assert shown[f"final/{name}"] == [(row["epochs"], np.float32(row[name]))]


def test_hparams_has_a_session_for_each_trial_and_a_group_for_each_variant(run):
    _, groups = hparams_of(run.tensorboard_dir)
    trials = run.read_trials()
    statuses = {session.name: session.status for group in groups for session in group.sessions}
    assert statuses == {
        f"{row.variant_id}/seed_{row.seed}": api_pb2.STATUS_SUCCESS
        if row.status == "completed"
        else api_pb2.STATUS_FAILURE
        for row in trials.itertuples()
    }
    of_run = f"medical_trial/{run.path.name}"
    assert [group.name for group in groups] == [f"v00/{of_run}", f"v01/{of_run}"]


def test_hparams_shows_the_parameters_of_the_search_by_their_type(run):
    experiment, groups = hparams_of(run.tensorboard_dir)
    assert {info.name: info.type for info in experiment.hparam_infos} == {
        "model.args.units": api_pb2.DATA_TYPE_STRING,
        "training.learning_rate": api_pb2.DATA_TYPE_FLOAT64,
        "training.loss": api_pb2.DATA_TYPE_STRING,
    }
    shown = [{name: value_of(value) for name, value in g.hparams.items()} for g in groups]
    assert shown == [
        {
            **variant.parameters,
            "model.args.units": json.dumps(variant.parameters["model.args.units"]),
        }
        for variant in VARIANTS
    ]


def test_hparams_shows_the_finals_of_trials_and_their_means_of_variants(run):
    experiment, groups = hparams_of(run.tensorboard_dir)
    variants = pd.read_csv(run.variants_file).set_index("variant_id")
    trials = run.read_trials().set_index(["variant_id", "seed"])
    metrics = [info.display_name for info in experiment.metric_infos]
    assert metrics == [
        f"{part}_{name}" for part in ("val", "test", "train") for name in ("loss", "accuracy")
    ]
    for group in groups:
        variant_id = group.name.partition("/")[0]
        means = variants.loc[variant_id, [f"{name}_mean" for name in metrics]]
        np.testing.assert_allclose([metrics_of(group)[name] for name in metrics], means, rtol=1e-6)
        for session in group.sessions:
            row = trials.loc[variant_id, int(session.name.rpartition("_")[2])]
            if row["status"] == "completed":
                assert metrics_of(session) == {n: np.float32(row[n]) for n in metrics}
            else:
                assert not session.metric_values


@pytest.mark.parametrize(
    ("values", "kind", "shown"),
    [
        ([1, 2.5], api_pb2.DATA_TYPE_FLOAT64, [1.0, 2.5]),
        ([True, False], api_pb2.DATA_TYPE_BOOL, [True, False]),
        ([True, 2], api_pb2.DATA_TYPE_STRING, ["true", "2"]),
        ([None, "relu"], api_pb2.DATA_TYPE_STRING, ["null", "relu"]),
        ([{"name": "sgd"}, "adam"], api_pb2.DATA_TYPE_STRING, ['{"name": "sgd"}', "adam"]),
    ],
)
def test_values_of_several_types_are_text(tmp_path, values, kind, shown):
    variants = make_variants([{"training.optimizer": value} for value in values])
    folder = finish(write_run(tmp_path, variants, (0,)))
    write_tensorboard(folder)
    experiment, groups = hparams_of(folder.tensorboard_dir)
    [info] = experiment.hparam_infos
    assert info.type == kind
    assert [value_of(group.hparams["training.optimizer"]) for group in groups] == shown


def test_hparams_lacks_what_a_variant_does_not_have(tmp_path):
    parameters = [
        {"training.optimizer.name": "adam"},
        {"training.optimizer.name": "sgd", "training.optimizer.momentum": 0.9},
    ]
    folder = finish(write_run(tmp_path, make_variants(parameters), (0,)))
    write_tensorboard(folder)
    experiment, groups = hparams_of(folder.tensorboard_dir)
    types = {info.name: info.type for info in experiment.hparam_infos}
    assert types["training.optimizer.momentum"] == api_pb2.DATA_TYPE_FLOAT64
    shown = [{name: value_of(value) for name, value in g.hparams.items()} for g in groups]
    assert shown == parameters


@pytest.mark.parametrize(("num_values", "num_boxes"), [(50, 50), (51, 0)])
def test_a_few_texts_have_a_box_to_tick_each(tmp_path, num_values, num_boxes):
    variants = make_variants([{"model.args.units": [index]} for index in range(num_values)])
    folder = finish(write_run(tmp_path, variants, (0,)))
    write_tensorboard(folder)
    experiment, _ = hparams_of(folder.tensorboard_dir)
    [info] = experiment.hparam_infos
    boxes = [value_of(value) for value in info.domain_discrete.values]
    assert boxes == [f"[{index}]" for index in range(num_boxes)]


def test_a_job_that_searches_nothing_is_shown(tmp_path):
    folder = finish(write_run(tmp_path, make_variants([{}]), SEEDS))
    write_tensorboard(folder)
    _, [group] = hparams_of(folder.tensorboard_dir)
    assert len(group.sessions) == len(SEEDS)
    assert not group.hparams


@pytest.mark.parametrize("max_folders", [4, 3])
def test_a_run_of_which_no_trial_completed_is_shown(tmp_path, max_folders):
    folder = finish(write_run(tmp_path, MORE_VARIANTS[:2], (0, 1), result_of=broken))
    write_tensorboard(folder, max_folders)
    experiment, groups = hparams_of(folder.tensorboard_dir)
    assert not experiment.metric_infos
    assert {session.status for group in groups for session in group.sessions} == {
        api_pb2.STATUS_FAILURE
    }


def test_of_many_trials_the_means_of_variants_are_shown_and_that_is_said(large_run, caplog):
    with caplog.at_level(logging.INFO, "trialrun"):
        write_tensorboard(large_run, max_folders=14)
    assert "means over seeds of variants, because there are 15 trials (limit 14)" in caplog.text
    folders = {path.name for path in large_run.tensorboard_dir.iterdir() if path.is_dir()}
    assert folders == {f"v{index:02d}" for index in range(5)}
    history = large_run.read_history()
    shown = scalars(large_run.tensorboard_dir / "v03")
    of_variant = history[history["variant_id"] == "v03"]
    curves = of_variant.pivot(index="seed", columns="epoch", values="val_loss").to_numpy(np.float64)
    expected = np.float32(curves.mean(axis=0))
    np.testing.assert_allclose([value for _, value in shown["epoch/val_loss"]], expected, rtol=1e-6)
    variants = pd.read_csv(large_run.variants_file).set_index("variant_id")
    mean = np.float32(variants.loc["v03", "test_loss_mean"])
    assert shown["final/test_loss"] == [(4, mean)]
    _, groups = hparams_of(large_run.tensorboard_dir)
    assert [len(group.sessions) for group in groups] == [1] * 5


def test_of_many_variants_the_best_are_shown_and_that_is_said(large_run, caplog):
    with caplog.at_level(logging.INFO, "trialrun"):
        write_tensorboard(large_run, max_folders=2)
    assert "the best 2 of 5 variants" in caplog.text
    best = pd.read_csv(large_run.variants_file)["variant_id"][:2]
    folders = {path.name for path in large_run.tensorboard_dir.iterdir() if path.is_dir()}
    assert folders == set(best)


def test_means_of_trials_that_stopped_early_are_of_those_that_went_on(run):
    write_tensorboard(run, max_folders=5)
    try:
        shown = scalars(run.tensorboard_dir / "v01")["epoch/loss"]
    finally:
        write_tensorboard(run)
    history = run.read_history()
    seed_0, seed_7 = (
        history[(history["variant_id"] == "v01") & (history["seed"] == seed)]["loss"].to_numpy()
        for seed in (0, 7)  # seed 3 diverged
    )
    expected = [*((np.float64(seed_0) + seed_7[:3]) / 2), *seed_7[3:]]
    assert [step for step, _ in shown] == list(range(1, 11))
    np.testing.assert_allclose([value for _, value in shown], expected, rtol=1e-6)


def test_written_again_nothing_of_before_is_left(run):
    (run.tensorboard_dir / "v99").mkdir()
    before = {
        path.name: path.read_bytes() for path in run.tensorboard_dir.rglob("*") if path.is_file()
    }
    write_tensorboard(run)
    after = {
        path.name: path.read_bytes() for path in run.tensorboard_dir.rglob("*") if path.is_file()
    }
    assert not (run.tensorboard_dir / "v99").exists()
    assert before == after
    assert not list(run.path.glob(".tensorboard*"))


def test_a_disk_that_refuses_does_not_take_what_was_there(run, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    job = run.job_file.read_text()
    run.job_file.write_text(f"{job}output: {{tensorboard: true}}\n")
    monkeypatch.setattr("trialrun.trackers.tensorboard._write_events", refuse)
    try:
        finished = call("report", run.path, "--trackers")
    finally:
        run.job_file.write_text(job)
    assert finished.code == 1
    message = "Error: tensorboard/ could not be written: [Errno 28] No space left on device\n"
    assert finished.stderr == message
    assert (run.tensorboard_dir / "v00" / "seed_0").exists()
    assert not list(run.path.glob(".tensorboard*"))
