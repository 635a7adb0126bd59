"""Checks a built model against its job before it is trained: its logs, and fields it ignores.

A model that its builder compiled has its own loss, metrics and optimizer, and a model with its own
`train_step` may log anything. So this module checks that the model gives the logs that the job
selects by and watches. It also refuses a field of `training` that such a model ignores: a search
over that field would compare a trial with itself.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from trialrun.data.splits import Splits
from trialrun.errors import ModelError
from trialrun.job import TrainingSpec, monitors_of
from trialrun.job.keras_api.logs import logs_of
from trialrun.job.keras_api.losses import default_metrics
from trialrun.job.keras_api.names import CHOSEN_BY_SHAPES
from trialrun.job.keras_api.own_terms import is_own
from trialrun.job.keras_api.terms import class_name, loss_per_output, split_term
from trialrun.job.user_code.builder_source import COMPILED_FIELDS
from trialrun.job.user_code.functions import portable_reference
from trialrun.messages import in_short, suggest
from trialrun.training.control import loss_logs
from trialrun.training.devices import is_out_of_memory
from trialrun.training.internals import keras_model
from trialrun.training.internals.random_functions import unseeded_by_numpy
from trialrun.training.model.build import in_order_of_outputs
from trialrun.training.model.first_steps import FirstSteps
from trialrun.training.model.initial import CompiledModel, build_compiled
from trialrun.training.model.inputs import with_text_tensors
from trialrun.training.model.ownership import why_unknown
from trialrun.training.model.python_state import PythonState
from trialrun.training.pack_data import PackData
from trialrun.training.program.batch_metrics import own_metrics
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Trial, Variant


@dataclass(frozen=True, slots=True)
class Checked:
    """A model that can be trained as its job says.

    Attributes:
        logs: The names of all logs that `fit` will give.
        first_steps: What its first steps have shown; None if its steps and metrics are Keras's.
    """

    logs: tuple[str, ...]
    first_steps: FirstSteps | None = None


def check_built(built: CompiledModel, task: PackTask, data: PackData) -> Checked:
    """What is known of the model of a pack's first trial once it is checked.

    Args:
        built: That model.
        task: The pack.
        data: Its data.

    Raises:
        ModelError: The model cannot be trained or evaluated at all, or it ignores a field of
            `training` that was set or is searched.
    """
    trial = task.pack.trials[0]
    checked = _check(built.model, task, trial, data)
    if built.is_compiled_by_builder and not task.is_continued:
        _refuse_without_effect(built.model, trial.variant, checked.logs)
    return checked


def check_logs(logs: Collection[str], task: PackTask) -> None:
    """Raises ModelError unless a pack's model logs what the job selects by and its trials watch.

    Raises:
        ModelError: A log is missing. The message lists the model's logs and suggests the nearest.
    """
    trainings = list({id(t.variant): t.variant.training for t in task.pack.trials}.values())
    if trainings[0].callbacks:
        return  # they may add logs of their own
    _require(("select", "metric"), task.select.metric, [n for n in logs if n.startswith("val_")])
    watched = (item for training in trainings for item in monitors_of(training))
    for path, monitor in dict.fromkeys(watched):
        _require(path, monitor, logs)
    if any(training.terminate_on_nan for training in trainings) and not loss_logs(logs):
        raise ModelError(
            "training.terminate_on_nan: the model logs no loss that could be NaN; it logs"
            f" {', '.join(logs)}"
        )


def _require(path: tuple[str, ...], name: str, logs: Collection[str]) -> None:
    if name not in logs:
        hint = suggest(name, logs)
        listed = f"; the model logs {', '.join(logs)}" if hint.startswith("did") else ""
        raise ModelError(f"{'.'.join(path)}: the model logs no {name!r}; {hint}{listed}")


# Logs -------------------------------------------------------------------------------------------


def _check(model: keras.Model, task: PackTask, trial: Trial, data: PackData) -> Checked:
    """The logs that `fit` gives for an epoch, found without training the model."""
    splits = data.of_trial(0)
    batch_size = trial.variant.training.batch_size
    train, val = (
        with_text_tensors(
            keras.tree.map_structure(lambda rows: rows[:batch_size], splits.part(part))
        )
        for part in ("train", "val")
    )
    has_own_steps = bool(keras_model.own_steps(model))
    if has_own_steps or why_unknown(model):  # it may count how often it is used
        model = build_compiled(trial.variant, task.job_folder, splits, trial.seed)
    if not has_own_steps:
        try:
            _build_symbolically(model, train)
        except ModelError as refused:
            if not own_metrics(model):
                raise
            given = {"train": train, "val": val}
            return _checked_by_fit(refused, task, trial, splits, **given)
    if has_own_steps or own_metrics(model):
        before = PythonState(model)
        logs = _names_of_a_step(model, trial.variant, train, val)
        return Checked(logs, FirstSteps.of(model, before))
    names = model.get_metrics_result()
    _require_one_number_each(names)
    return Checked((*names, *(f"val_{name}" for name in names)))


def _build_symbolically(model: keras.Model, batch: tuple[Any, ...]) -> None:
    try:
        keras_model.build_symbolically(model, batch)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"training: loss or metrics do not fit the model: {in_short(error)}"
        ) from error


def _checked_by_fit(
    refused: ModelError,
    task: PackTask,
    trial: Trial,
    splits: Splits,
    *,
    train: tuple[Any, ...],
    val: tuple[Any, ...],
) -> Checked:
    """A model whose own metrics only the functions can take that `fit` makes of Python code.

    Args:
        refused: What was said without `fit`; raised if the model cannot be trained in `fit` either.
        task, trial, splits: Of which the model is built.
        train, val: Data of a batch.
    """
    model = build_compiled(trial.variant, task.job_folder, splits, trial.seed)
    try:
        logs = _names_of_a_step(model, trial.variant, train, val)
    except ModelError:
        raise refused from refused.__cause__
    assert isinstance(refused.__cause__, Exception)
    reason = f"only model.fit can run its metrics: {in_short(refused.__cause__)}"
    return Checked(logs, FirstSteps({}, (0, 0), reason))


@unseeded_by_numpy()  # whose stream would be one that steps change
def _names_of_a_step(
    model: keras.Model, variant: Variant, train: tuple[Any, ...], val: tuple[Any, ...]
) -> tuple[str, ...]:
    """The names of what a model logs in training and in evaluation; the model is thrown away.

    With steps of its own, only running them tells what they log, and what else they do.
    """
    source = f"model.builder {portable_reference(variant.model.builder)}"
    kind = type(model).__name__
    model.jit_compile = False
    given = {"batch_size": variant.training.batch_size, "verbose": 0}
    try:
        history = model.fit(**_named(model, train), **given, shuffle=False).history
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{source}: a training step of {kind} raised {in_short(error)}") from error
    try:
        logs = model.evaluate(**_named(model, val), **given, return_dict=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{source}: {kind} cannot be evaluated on the validation data: {in_short(error)}; give"
            " it a `test_step` that returns what an evaluation logs"
        ) from error
    _require_one_number_each({name: values[-1] for name, values in history.items()} | logs)
    return (*history, *(f"val_{name}" for name in logs))


def _require_one_number_each(logs: Mapping[str, Any]) -> None:
    for name, value in logs.items():
        if len(np.shape(value)):
            raise ModelError(
                f"the model logs {np.size(value)} values as {name!r}, and a log is one number: let"
                ' the metric average them (F1Score: average="macro"), or use one metric for each'
            )


def _named(model: keras.Model, part: tuple[Any, ...]) -> dict[str, Any]:
    x, *rest = in_order_of_outputs(model, part)
    return dict(zip(("x", "y", "sample_weight"), (with_text_tensors(x), *rest), strict=False))


# Fields without effect --------------------------------------------------------------------------


def _refuse_without_effect(model: keras.Model, variant: Variant, logs: Collection[str]) -> None:
    paths = list(_without_effect(model, variant, logs))
    if not paths:
        return
    fields = ", ".join(path.rpartition(".")[2] for path in paths)
    them, have = ("it", "has") if len(paths) == 1 else ("them", "have")
    raise ModelError(
        f"{', '.join(paths)} {have} no effect: model.builder"
        f" {portable_reference(variant.model.builder)} compiled the model itself"
        f" ({_described(model)}). Remove {them}, or let the builder return the model uncompiled, or"
        f" let it take what it compiles with as arguments (model.args) instead of {fields}"
    )


def _without_effect(model: keras.Model, variant: Variant, logs: Collection[str]) -> Iterator[str]:
    """Paths of the fields that are searched, or set to something other than what the model has.

    A field at its default counts as not set, because a resolved job writes all defaults out.
    """
    training = variant.training
    for path in variant.parameters:
        section, field = path.split(".")[:2]
        if section == "training" and field in COMPILED_FIELDS:
            yield f"search.parameters.{path}"
    searched = {path.split(".")[1] for path in variant.parameters if "." in path}
    for name in COMPILED_FIELDS:
        value = getattr(training, name)
        is_set = value != _default(training, name)
        if is_set and name not in searched and not _agrees(name, training, model, logs):
            yield f"training.{name}"


def _default(training: TrainingSpec, name: str) -> Any:
    return default_metrics(training.loss) if name == "metrics" else getattr(TrainingSpec(), name)


def _agrees(name: str, training: TrainingSpec, model: keras.Model, logs: Collection[str]) -> bool:
    """Whether a field says what the model was compiled with, as far as that can be told."""
    match name:
        case "learning_rate":
            rate = _rate(model)
            return rate is not None and math.isclose(rate, training.learning_rate, rel_tol=1e-6)
        case "optimizer":
            return _is_of(training.optimizer, model.optimizer)
        case "loss":
            expected, compiled = loss_per_output(training.loss), model.loss
            losses = compiled if isinstance(compiled, Mapping) else {"": compiled}
            return expected.keys() == losses.keys() and all(
                _is_of(term, losses[output]) for output, term in expected.items()
            )
        case "metrics" | "weighted_metrics":
            expected_logs = logs_of(training.loss, getattr(training, name), ())
            return expected_logs.keys() - logs_of(training.loss, (), ()).keys() <= set(logs)
    return False


def _is_of(term: Any, compiled: Any) -> bool:
    """Whether a Keras object, or its name, is what a term of the job means."""
    name, arguments = split_term(term)
    if is_own(name) or name in CHOSEN_BY_SHAPES:
        return bool(compiled == term)
    if isinstance(compiled, str):
        return compiled == term
    if not hasattr(compiled, "get_config"):
        return not arguments and getattr(compiled, "__name__", None) == name
    config = compiled.get_config()
    return type(compiled).__name__ == class_name(name) and all(
        config.get(key) == value for key, value in arguments.items()
    )


def _rate(model: keras.Model) -> float | None:
    rate = keras_model.learning_rate_variable(model.optimizer)
    return None if rate is None else float(rate.numpy())


def _described(model: keras.Model) -> str:
    rate = _rate(model)
    shown_rate = "a schedule" if rate is None else f"learning_rate {rate:g}"
    return f"{type(model.optimizer).__name__}, {shown_rate}"
