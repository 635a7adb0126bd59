"""The fused engine: all trials of a pack as one XLA program, vectorized over trials."""

import contextlib
import queue
import re
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trialrun.datasets import Splits
from trialrun.errors import CannotFuse, InputError
from trialrun.plan import Trial
from trialrun.training import PackTask
from trialrun.training.functional import FunctionalModel, ModelState
from trialrun.training.program import FusedProgram
from trialrun.training.randomness import BatchOrders
from trialrun.training.trained import (
    Advance,
    CompiledModel,
    PackData,
    TrainedTrial,
    initial_optimizer,
    make_compiled_model,
)

# Wider slices use the same time per trial (measured: 16 to 512 trials) and more memory.
_MAX_TRIALS_PER_SLICE = 128
_MAX_PROGRAMS_KEPT = 4
_MAX_EPOCHS_PER_CALL = 6
_NO_KERNEL = re.compile(r" on XLA_\w+: (\w+) \(")
_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|CannotFuse): ")


class ProgramCache:
    """The programs that this process compiled, so that the next pack of a signature reuses one."""

    def __init__(self, max_programs: int) -> None:
        self._max_programs = max_programs
        self._programs: dict[tuple[Any, ...], tuple[CompiledModel, FusedProgram]] = {}

    def get(self, task: PackTask, data: PackData) -> tuple[CompiledModel, FusedProgram]:
        """The model and the program for a pack; made if there is none."""
        key = (task.pack.signature, str(task.job_folder), data.is_shared, _form(data.splits[0]))
        if key not in self._programs:
            if len(self._programs) >= self._max_programs:
                del self._programs[next(iter(self._programs))]  # the oldest
            self._programs[key] = _make_program(task, data)
        return self._programs[key]


_PROGRAMS = ProgramCache(_MAX_PROGRAMS_KEPT)  # a worker process lives for one run


def train_fused(
    task: PackTask, data: PackData, timings_s: dict[str, float]
) -> Generator[Advance, None, list[TrainedTrial]]:
    """Trains a pack; yields each slice's newest logs after every call, returns the trained trials.

    Args:
        task: The pack.
        data: Its data.
        timings_s: Gets seconds of wall time under `build`, `trace` and `train`.

    Raises:
        CannotFuse: No vectorized program can be built; nothing was trained.
    """
    trials = task.pack.trials
    if len({_form(splits) for splits in data.splits}) > 1:
        raise CannotFuse("the trials' data differ in shape")
    start = time.perf_counter()
    epochs = trials[0].variant.training.epochs
    compiled, program = _PROGRAMS.get(task, data)
    slices = [
        _Slice(compiled, trials, data, indices)
        for indices in slice_trials(len(trials), task.num_threads)
    ]
    timings_s["build"] = time.perf_counter() - start
    _trace(program, slices[0], epochs)
    timings_s["trace"] = time.perf_counter() - start - timings_s["build"]
    start = time.perf_counter()
    outcomes = yield from _train_slices(program, slices, epochs, task)
    timings_s["train"] = time.perf_counter() - start
    by_index = {
        index: trained
        for one_slice, outcome in zip(slices, outcomes, strict=True)
        for index, trained in zip(one_slice.indices, outcome, strict=True)
    }
    return [by_index[index] for index in range(len(trials))]


def slice_trials(num_trials: int, num_threads: int) -> list[list[int]]:
    """Indices of trials cut into slices of one width, so that one program serves all.

    The last slice repeats its last trial where the numbers do not come out even.

    >>> slice_trials(5, 2)
    [[0, 1, 2], [3, 4, 4]]
    """
    num_threads = min(num_threads, num_trials)
    rounds = -(-num_trials // (num_threads * _MAX_TRIALS_PER_SLICE))
    width = -(-num_trials // (num_threads * rounds))
    return [
        [min(index, num_trials - 1) for index in range(start, start + width)]
        for start in range(0, num_trials, width)
    ]


def choose_epochs_per_call(epochs: int) -> int:
    """Epochs that one call of the program trains: few enough to see progress, none left over.

    Each call costs about two milliseconds of handing tensors over, as much as a tenth of an epoch
    of the reference job.

    >>> choose_epochs_per_call(30), choose_epochs_per_call(7)
    (6, 1)
    """
    return max(count for count in range(1, _MAX_EPOCHS_PER_CALL + 1) if epochs % count == 0)


def _make_program(task: PackTask, data: PackData) -> tuple[CompiledModel, FusedProgram]:
    first, training = task.pack.trials[0], task.pack.trials[0].variant.training
    splits = data.splits[0]
    compiled = make_compiled_model(first.variant, task.job_folder, splits, first.seed)
    batch = keras.tree.map_structure(
        lambda rows: tf.constant(rows[: training.batch_size]), (splits.x_train, splits.y_train)
    )
    functional = FunctionalModel(compiled.model, batch)
    program = FusedProgram(functional, batch_size=training.batch_size, shared_data=data.is_shared)
    return compiled, program


class _Slice:
    """Trials of a pack that one thread trains: their initial state, data and batch orders.

    Everything is stacked over the slice's trials on axis 0, but for shared data.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        trials: Sequence[Trial],
        data: PackData,
        indices: Sequence[int],
    ) -> None:
        self.indices = indices
        own = [trials[index] for index in indices]
        seeds = [trial.seed for trial in own]
        splits = data.splits if data.is_shared else [data.splits[index] for index in indices]
        self.train = _stack(splits, "x_train", "y_train", data.is_shared)
        self.val = _stack(splits, "x_val", "y_val", data.is_shared)
        self.test = _stack(splits, "x_test", "y_test", data.is_shared)
        self.state = _initial_state(
            compiled, seeds, [trial.variant.training.learning_rate for trial in own]
        )
        num_rows = len(keras.tree.flatten(splits[0].y_train)[0])
        self.orders = BatchOrders(seeds, num_rows)
        self.order_shape = (len(own), num_rows)


def _initial_state(
    compiled: CompiledModel, seeds: Sequence[int], learning_rates: Sequence[float]
) -> ModelState:
    variables = [tf.constant(array) for array in compiled.initial.initial_variables(seeds)]
    num_trainable = len(compiled.model.trainable_variables)
    optimizer = [tf.constant(array) for array in initial_optimizer(compiled, learning_rates)]
    return ModelState(variables[:num_trainable], variables[num_trainable:], optimizer)


def _stack(splits: Sequence[Splits], x: str, y: str, is_shared: bool) -> tuple[Any, Any]:
    pairs = [(getattr(one, x), getattr(one, y)) for one in splits]
    if is_shared:
        return keras.tree.map_structure(tf.constant, pairs[0])
    return keras.tree.map_structure(lambda *arrays: tf.constant(np.stack(arrays)), *pairs)


def _form(splits: Splits) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Shapes and types of all arrays of a data set."""
    parts = (
        splits.x_train,
        splits.y_train,
        splits.x_val,
        splits.y_val,
        splits.x_test,
        splits.y_test,
    )
    return tuple(
        (tuple(array.shape), str(array.dtype)) for array in keras.tree.flatten(list(parts))
    )


def _trace(program: FusedProgram, first: _Slice, epochs: int) -> None:
    orders = tf.zeros([choose_epochs_per_call(epochs), *first.order_shape], tf.int32)
    try:
        program.trace_epochs(first.state, first.train, orders, first.val)
    except InputError:
        raise
    except Exception as error:  # whatever Keras or TensorFlow says while it traces
        raise CannotFuse(_short_reason(error)) from error


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """The first call compiles: an operation without an XLA kernel shows here."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
        raise CannotFuse(_short_reason(error)) from error


def _short_reason(error: Exception) -> str:
    """The telling line of TensorFlow's message: `No pfor vectorization defined for Qr`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if operation := _NO_KERNEL.search(str(error)):
        return f"XLA cannot compile the operation {operation[1]}"
    reason = f"{type(error).__name__}: {' '.join(lines[:1])}"
    if lines[:1] == ["in user code:"]:  # the stack follows, and then the error itself
        reason = next((line for line in lines if _ERROR_LINE.match(line)), lines[-1])
    return reason.removeprefix("CannotFuse: ")[:200]


def _train_slices(
    program: FusedProgram, slices: Sequence[_Slice], epochs: int, task: PackTask
) -> Generator[Advance, None, list[list[TrainedTrial]]]:
    """Trains all slices in threads; compiled code does not hold Python's lock."""
    reports: queue.SimpleQueue[Advance | Future[Any]] = queue.SimpleQueue()
    with ThreadPoolExecutor(task.num_threads, thread_name_prefix="slice") as pool:
        futures = [pool.submit(_train_slice, program, one, epochs, reports) for one in slices]
        for future in futures:
            future.add_done_callback(reports.put)
        # While the threads wait for the first epoch to be compiled, compile the evaluation.
        with _compiling():
            program.compile_evaluation(slices[0].state, (slices[0].val, slices[0].test))
        num_running = len(futures)
        try:
            while num_running:
                report = reports.get()
                if isinstance(report, Advance):
                    yield report
                else:
                    num_running -= 1
                    report.result()
        finally:
            for future in futures:
                future.cancel()
    return [future.result() for future in futures]


def _train_slice(
    program: FusedProgram, own: _Slice, epochs: int, reports: queue.SimpleQueue[Any]
) -> list[TrainedTrial]:
    num_trials = len(set(own.indices))
    epochs_per_call = choose_epochs_per_call(epochs)
    state, logs_of_calls = own.state, []
    for call in range(epochs // epochs_per_call):
        orders = np.stack([own.orders.next_epoch() for _ in range(epochs_per_call)])
        with _compiling() if call == 0 else contextlib.nullcontext():
            state, logs = program.train_epochs(state, own.train, tf.constant(orders), own.val)
        logs_of_calls.append({name: value.numpy() for name, value in logs.items()})
        newest = {name: values[-1] for name, values in logs_of_calls[-1].items()}
        reports.put(Advance(num_trials * epochs_per_call, newest))
    (_, val_predictions), (test_logs, test_predictions) = program.evaluate(
        state, (own.val, own.test)
    )
    history = {
        name: np.concatenate([logs[name] for logs in logs_of_calls]).T for name in logs_of_calls[0]
    }
    test_logs, val_predictions, test_predictions = keras.tree.map_structure(
        lambda tensor: tensor.numpy(), (test_logs, val_predictions, test_predictions)
    )
    stacked = TrainedTrial(
        history=history,
        test_logs=test_logs,
        val_predictions=val_predictions,
        test_predictions=test_predictions,
        trainable=tuple(tensor.numpy() for tensor in state.trainable),
        non_trainable=tuple(tensor.numpy() for tensor in state.non_trainable),
        optimizer=tuple(tensor.numpy() for tensor in state.optimizer),
    )
    return [_take_trial(stacked, place) for place in range(len(own.indices))]


def _take_trial(stacked: TrainedTrial, place: int) -> TrainedTrial:
    """One trial of several whose arrays are stacked on axis 0."""

    def take(structure: Any) -> Any:
        return keras.tree.map_structure(lambda array: array[place], structure)

    return TrainedTrial(
        history=take(stacked.history),
        test_logs={name: float(value) for name, value in take(stacked.test_logs).items()},
        val_predictions=take(stacked.val_predictions),
        test_predictions=take(stacked.test_predictions),
        trainable=take(stacked.trainable),
        non_trainable=take(stacked.non_trainable),
        optimizer=take(stacked.optimizer),
    )
