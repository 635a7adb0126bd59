"""Cases of the oracle trained twice, by trialrun and by plain `model.fit`, and compared."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from training_jobs import returned

from trialrun.data.load import load_splits
from trialrun.data.splits import Splits
from trialrun.job import load_job
from trialrun.training import engine_choice
from trialrun.training.batch_orders import BatchOrders
from trialrun.training.channel import Reports
from trialrun.training.engine_outputs import TrainedTrial
from trialrun.training.internals.random_functions import stateful_draws_replaced
from trialrun.training.pack import choose_and_train
from trialrun.training.pack_data import load_pack_data
from trialrun.training.program.trial_stream import stream_starts
from trialrun.training.vectorize.stateful_draws import draws_by
from trialrun.trials.signature import signature_of
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack, Trial

_EAGERLY = ContextVar("eagerly", default=False)


class Line(NamedTuple):
    """One line of the table.

    Attributes:
        kind: `layer`, `optimizer`, ...
        engine: That `auto` must take.
        tolerance: Of weights and logs.
        plan: Folder of the job, number of trials, engine -> the trials.
        train_plainly: A trial and the folder of its job -> the same in plain Keras.
    """

    kind: str
    engine: str
    tolerance: float
    plan: Callable[[Path, int, str], tuple[Trial, ...]]
    train_plainly: Callable[[Trial, Path], "Plain"]


class Comparison(NamedTuple):
    """What came out.

    Attributes:
        engine: That trained the case.
        reason: Why not a better one.
        weights, logs: The largest differences from `model.fit`.
        seconds, plain_seconds: Per trial and epoch in steady state; NaN where not measured.
    """

    engine: str
    reason: str
    weights: float
    logs: float
    seconds: float
    plain_seconds: float


def compare(
    line: Line,
    folder: Path,
    *,
    num_trials: int = 2,
    engine: str = "auto",
    timed: bool = False,
    compared: Sequence[int] = (0, -1),
    plainly: "dict[int, Plain] | None" = None,
    eagerly: bool = False,
) -> Comparison:
    """One case: some of its trials against plain Keras.

    And against themselves, trained again in the opposite order, by what is compiled already; `fit`
    compiles nothing for several trials.

    Args:
        line: The case.
        folder: Gets the job.
        num_trials: How many there are.
        engine: That the job asks for.
        timed: Whether to train once more, to measure it.
        compared: Which of the trials are compared; the first and the last if it is not given. A
            program is traced from the first, so that the last is the harder case.
        plainly: Keeps what plain Keras trained, for the same case in another engine.
        eagerly: Whether plain Keras traces nothing, which takes less time for a few batches.
    """
    plainly = {} if plainly is None else plainly
    trials = line.plan(folder, num_trials, engine)
    task = PackTask(
        Pack("p000", signature_of(trials[0].variant), trials),
        folder,
        load_job(folder / "job.yaml").spec.select,
    )
    used, reason, trained, seconds = _train(task)
    if timed and used != "keras":
        seconds = _train(task)[3]  # the program is compiled
    plain_seconds = np.inf
    weights = logs = 0.0
    again = trained
    if used != "keras":
        again = _train(replace(task, pack=replace(task.pack, trials=trials[::-1])))[2][::-1]
    for index in compared:
        if index not in plainly:
            with fitting_eagerly() if eagerly else contextlib.nullcontext():
                plainly[index] = line.train_plainly(trials[index], folder)
        own, plain = trained[index], plainly[index]
        for_order = [*again[index].trainable, *again[index].non_trainable]
        weights = max(weights, largest_difference(for_order, [*own.trainable, *own.non_trainable]))
        logs = max(logs, _largest_of_logs(again[index].history, own.history))
        plain_seconds = min(plain_seconds, plain.seconds_per_epoch)
        weights = max(
            weights, largest_difference([*own.trainable, *own.non_trainable], plain.weights)
        )
        logs = max(logs, _largest_of_logs(own.history, plain.history))
        logs = max(logs, _largest_of_logs(own.test_logs, plain.test_logs))
    num_epochs = sum(max(map(len, one.history.values())) for one in trained)
    return Comparison(used, reason, weights, logs, seconds / num_epochs, float(plain_seconds))


# The cases are tiny; what they show is of trainings that are long enough to be compiled.
@mock.patch.object(engine_choice, "engines_not_worth_compiling", return_value={})
def _train(task: PackTask, _: object) -> tuple[str, str, list[TrainedTrial], float]:
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    timings_s: dict[str, float] = {}
    engine, reason, trained = returned(
        choose_and_train(task, data, timings_s, Reports(lambda: False))
    )
    return engine, reason, trained, timings_s["train"]


class Plain(NamedTuple):
    """One trial, trained as anyone would write it.

    Attributes:
        weights: Trainable and non-trainable variables.
        history, test_logs: As Keras gives them.
        seconds_per_epoch: The fastest but the first, which compiles; infinite if there is no other.
    """

    weights: list[np.ndarray]
    history: Mapping[str, Sequence[float]]
    test_logs: Mapping[str, float]
    seconds_per_epoch: float


def fit_plainly(
    build: Callable[[], keras.Model],
    trial: Trial,
    folder: Path,
    *,
    class_weight: Mapping[int, float] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Plain:
    """A trial by `model.fit`, on its own data in its own order.

    What its code draws from `tf.random` comes from the trial's stream, as in a compiled engine.
    """
    splits = load_splits(trial.variant.data, folder, trial.seed)
    # Names of layers and metrics are those of a new process.
    keras.utils.clear_session(free_memory=False)
    keras.config.disable_interactive_logging()  # `TerminateOnNaN` prints a line
    keras.utils.set_random_seed(trial.seed)
    model = build()
    model.run_eagerly |= _EAGERLY.get()
    with stream_of(trial.seed):
        return _fit(model, trial, splits, class_weight, callbacks)


def _fit(
    model: keras.Model,
    trial: Trial,
    splits: Splits,
    class_weight: Mapping[int, float] | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Plain:
    training = trial.variant.training
    clock = _Clock()
    history = model.fit(
        _batches(trial, splits, class_weight),
        steps_per_epoch=-(-_num_rows(splits) // training.batch_size),
        epochs=training.epochs,
        shuffle=False,
        validation_data=_as_lists(splits.part("val")),
        validation_batch_size=training.batch_size,
        callbacks=[*callbacks, clock],
        verbose=0,
    ).history
    # Before evaluating: recurrent layers draw their dropout masks then too, and throw them away.
    variables = (*model.trainable_variables, *model.non_trainable_variables)
    arrays = [variable.numpy() for variable in variables]
    x, y, *weights = _as_lists(splits.part("test"))
    test_logs = model.evaluate(
        x,
        y,
        sample_weight=weights[0] if weights else None,
        batch_size=training.batch_size,
        return_dict=True,
        verbose=0,
    )
    return Plain(arrays, history, test_logs, min(clock.epochs_s[1:], default=np.inf))


@contextlib.contextmanager
def fitting_eagerly() -> Iterator[None]:
    """Within this context, `fit_plainly` runs Keras's own Python code batch by batch."""
    token = _EAGERLY.set(True)
    try:
        yield
    finally:
        _EAGERLY.reset(token)


@contextlib.contextmanager
def stream_of(seed: int) -> Iterator[None]:
    """Within this context, `tf.random` draws from a trial's stream, also in graphs."""
    state = tf.Variable(stream_starts([seed])[0])

    def next_seed(_: object) -> tf.Tensor:
        seed = state.read_value()
        state.assign(seed + tf.constant([0, 1], tf.int64))
        return seed

    with stateful_draws_replaced(draws_by(next_seed)):
        yield


def set_to_start(model: keras.Model, fresh: keras.Model, learning_rate: float) -> None:
    """Sets a trained model to the variables of a new one; its steps are not traced again.

    Its optimizer's slots and its metrics must be such as begin at zero.
    """
    ours = (*model.trainable_variables, *model.non_trainable_variables)
    theirs = (*fresh.trainable_variables, *fresh.non_trainable_variables)
    for variable, other in zip(ours, theirs, strict=True):
        variable.assign(other)
    for variable in (*model.optimizer.variables, *model.metrics_variables):
        variable.assign(keras.ops.zeros_like(variable))
    model.optimizer.learning_rate.assign(learning_rate)


def _batches(
    trial: Trial, splits: Splits, class_weight: Mapping[int, float] | None
) -> Iterator[tuple[Any, ...]]:
    """A trial's batches, each epoch in the order of that trial."""
    rows = splits.part("train")
    if class_weight is not None:
        x, y, *own = rows
        of_classes = np.array([class_weight.get(int(label), 1.0) for label in y], "float32")
        rows = (x, y, of_classes * own[0] if own else of_classes)
    batch_size = trial.variant.training.batch_size
    orders = BatchOrders([trial.seed], _num_rows(splits))
    for _ in range(trial.variant.training.epochs):
        (order,) = orders.next_epoch()
        for start in range(0, len(order), batch_size):
            taken = order[start : start + batch_size]
            yield keras.tree.map_structure(lambda array, taken=taken: array[taken], rows)


def _num_rows(splits: Splits) -> int:
    return len(keras.tree.flatten(splits.y_train)[0])


def _as_lists(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Data of two outputs without names: Keras 3.15 cannot evaluate weights otherwise."""
    x, y, *weights = data
    if not isinstance(y, dict) or not weights:
        return data
    return x, list(y.values()), weights * len(y)


class _Clock(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.epochs_s: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs_s.append(time.perf_counter() - self._start)


def _largest_of_logs(logs: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    assert logs.keys() == expected.keys(), (set(logs), set(expected))
    return largest_difference([logs[name] for name in expected], list(expected.values()))


def largest_difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest difference; of numbers above 1 the relative one, as float32 is no finer.

    (At 100, where a mape may be, its numbers are 8e-6 apart.) What is not finite must be the same.
    """
    differences = [
        _difference(np.asarray(a, "float64"), np.asarray(b, "float64"))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return max(differences, default=0.0)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        difference = np.abs(a - b) / np.maximum(1, np.abs(b))
    difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, difference)
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
