"""What a program computes for trials of one signature: epochs of training, and an evaluation.

Shapes in comments: trials, rows (of a data set), steps (batches of an epoch), batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from trialrun.training.program import loops
from trialrun.training.program.own_steps import OwnStepsModel
from trialrun.training.program.pure_model import FunctionalModel
from trialrun.training.state import ModelState
from trialrun.training.vectorize.in_turn import apply_to_the_only
from trialrun.training.vectorize.vectorize import vectorize

Logs = dict[str, tf.Tensor]
# (A function of one trial's tensors, stacks of such tensors (trials, ...)) -> its stacked results.
OverTrials = Callable[[Callable[..., Any], Sequence[Any]], Any]


class Epochs:
    """Functions to be traced: epochs of training, and an evaluation, of stacked trials.

    Args:
        model: The model as pure functions of one trial; an `OwnStepsModel` for `OwnEpochs`.
        one_trial: Whether there is one trial, to which functions are applied as they are. They are
            vectorized over several.
        batch_size: Rows per step; the last step takes the rows that are left.
        shared_data: Whether all trials see the same rows, given without a trial axis.
        evaluation_batch_size: Rows that are evaluated together, if their number changes the
            results or the state; None for all at once.

    Attributes:
        step: The traced step: (state, batch) -> (new state, losses, predictions). It exists once
            the first epoch was traced.
        traced_step: The step's graph.
        reset, test: `reset_metrics`, and (state, batch) -> (new state, logs) of an evaluation; the
            batch has no axis of trials if data is shared. They exist if metrics see batches.
    """

    step: Any
    traced_step: Any
    reset: Any
    test: Any

    def __init__(
        self,
        model: FunctionalModel | OwnStepsModel,
        *,
        one_trial: bool,
        batch_size: int,
        shared_data: bool,
        evaluation_batch_size: int | None,
    ) -> None:
        self._model: Any = model
        self._one_trial = one_trial
        self._over_trials: OverTrials = apply_to_the_only if one_trial else vectorize
        self._batch_size = batch_size
        self._shared_data = shared_data
        self._evaluation_batch_size = evaluation_batch_size
        # Each is traced once for all places with the same shapes: epochs, both parts to evaluate.
        self._train_batch = tf.function(self._train_step, autograph=False)
        self._test_batch = tf.function(self._test_step, autograph=False)
        self._logs_of = tf.function(self._logs_of_batches, autograph=False)
        self._metrics_after = tf.function(self._metrics_after_batch, autograph=False)

    def train(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        """Trains epochs, and evaluates on the validation set after each.

        Args:
            state: Tensors (trials, ...).
            train: Inputs, targets and perhaps sample weights (trials, rows, ...), or (rows, ...)
                when data is shared.
            orders: int32 row numbers (epochs, trials, rows): the order in which each trial sees
                its rows.
            val: Like `train`.

        Returns:
            The new state, and Keras's logs of each epoch: name -> float32 (epochs, trials); the
            names of the validation logs begin with `val_`.
        """
        # A function of its own, so that one trace serves both its shapes and the loop.
        epoch = tf.function(self._train_epoch, autograph=False)
        _, log_forms = epoch.get_concrete_function(state, train, orders[0], val).structured_outputs
        num_epochs, num_trials, _ = orders.shape
        recorders = {
            name: tf.TensorArray(tf.float32, num_epochs, element_shape=[num_trials])
            for name in log_forms
        }

        def train_epoch(index: tf.Tensor, state: ModelState, recorders: dict[str, Any]) -> Any:
            state, logs = epoch(state, train, orders[index], val)
            return state, {name: recorders[name].write(index, logs[name]) for name in recorders}

        state, recorders = loops.repeat(
            train_epoch, num_epochs, state, recorders, one_trial=self._one_trial
        )
        return state, {name: recorder.stack() for name, recorder in recorders.items()}

    def _train_epoch(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        batch_size = min(self._batch_size, orders.shape[1])
        num_steps, num_left = divmod(orders.shape[1], batch_size)
        num_whole = num_steps * batch_size
        batches = self._in_order(train, loops.split_batches(orders[:, :num_whole], batch_size))
        if self._model.sees_batches:
            self._trace_for_verification(state, val)
            state = self.reset(state)
        state, losses, predictions = self._train_whole_batches(state, batches, num_steps)
        batch_sizes = [batch_size] * num_steps
        if num_left:
            last = self._in_order(train, orders[:, num_whole:])
            state, loss, more = loops.traced(self._train_batch, state, last)
            losses, predictions = loops.append((losses, predictions), (loss[:, None], more))
            batch_sizes.append(num_left)
        logs = self._over_trials(
            functools.partial(self._model.epoch_logs, batch_sizes=batch_sizes),
            [state, self._in_order(train[1:], orders), predictions, losses],
        )
        return self._with_validation(state, logs, val)

    def _with_validation(
        self, state: ModelState, logs: Logs, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        """The state after the validation that follows an epoch, and all logs of the epoch."""
        state, val_logs, _ = self._evaluate_one(state, val)
        if self._model.has_live_logs:
            logs = {**logs, **self._over_trials(self._model.live_logs, [state])}
        return state, {**logs, **{f"val_{name}": value for name, value in val_logs.items()}}

    def _reset_metrics(self, state: ModelState) -> ModelState:
        """The state before the first batch of an epoch, or of an evaluation."""
        reset: ModelState = self._over_trials(self._model.reset_metrics, [state])
        return reset

    def _trace_for_verification(self, state: ModelState, val: tuple[Any, ...]) -> None:
        self.reset = tf.function(self._reset_metrics, autograph=False)
        self.reset.get_concrete_function(state)
        self.test = tf.function(lambda *given: self._evaluate_one(*given)[:2], autograph=False)
        self.test.get_concrete_function(state, self.first_test_batch(val))

    def of_trial(self, batch: Any, index: int) -> Any:
        """What a trial sees of a batch of an evaluation."""
        if self._shared_data:
            return batch
        return keras.tree.map_structure(lambda a: a[index], batch)

    def first_test_batch(self, val: tuple[Any, ...]) -> tuple[Any, ...]:
        """The first batch of an evaluation, of the shape for which `test` was traced."""
        batch: tuple[Any, ...] = self._rows(
            val, slice(min(self._batch_size, self._num_rows(val[1])))
        )
        return batch

    def _in_order(self, structure: Any, orders: tf.Tensor) -> Any:
        """Each array's rows with the numbers in `orders`, in the shape of `orders`."""

        def take(data: tf.Tensor) -> tf.Tensor:
            if self._shared_data:
                return tf.gather(data, orders)
            num_trials, num_rows, *features = data.shape
            first_rows = tf.range(num_trials)[:, None] * num_rows
            return tf.gather(tf.reshape(data, [-1, *features]), orders + first_rows)

        return keras.tree.map_structure(take, structure)

    def _train_whole_batches(
        self, state: ModelState, batches: tuple[Any, ...], num_steps: int
    ) -> tuple[ModelState, tf.Tensor, Any]:
        """The state after all whole batches, losses (trials, steps), predictions (trials, rows)."""
        step = self._train_batch
        first = keras.tree.map_structure(lambda a: a[0], batches)
        self.traced_step = step.get_concrete_function(state, first)
        _, *outputs = self.traced_step.structured_outputs
        self.step = step

        def take_step(index: tf.Tensor, state: ModelState) -> tuple[ModelState, Any]:
            new_state, *outputs = step(state, keras.tree.map_structure(lambda a: a[index], batches))
            return new_state, outputs

        state, (losses, predictions) = loops.record(
            take_step, num_steps, state, outputs, one_trial=self._one_trial
        )
        return state, losses, predictions

    def train_until_not_finite(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        """Trains an epoch in which a trial takes no further step once its loss is not finite.

        As in `keras.callbacks.TerminateOnNaN`, the logs are checked after each batch, where the
        loss is the mean over the epoch so far. The epoch's logs are those of the batches that were
        taken, so metrics are updated batch by batch. Then the trials are evaluated.

        Args:
            state: Tensors (trials, ...).
            train: As in `train`.
            orders: int32 row numbers (trials, rows).
            val: As in `train`.

        Returns:
            The new state, and the logs (trials,) of the epoch.
        """
        batch_size = min(self._batch_size, orders.shape[1])
        num_steps, num_left = divmod(orders.shape[1], batch_size)
        num_whole = num_steps * batch_size
        batches = self._in_order(train, loops.split_batches(orders[:, :num_whole], batch_size))
        if self._model.sees_batches:
            state = self._reset_metrics(state)
        sums = self._over_trials(self._model.reset_sums, [state])

        def take_step(index: tf.Tensor, carried: Any, recorders: Any) -> Any:
            batch = keras.tree.map_structure(lambda a: a[index], batches)
            return self._step_if_finite(carried, batch), recorders

        start = (state, sums, tf.ones(orders.shape[:1], tf.bool))
        carried, _ = loops.repeat(take_step, num_steps, start, one_trial=self._one_trial)
        if num_left:
            carried = self._step_if_finite(carried, self._in_order(train, orders[:, num_whole:]))
        state, sums, _ = carried
        logs = self._over_trials(self._model.logs_of_sums, [state, sums])
        return self._with_validation(state, logs, val)

    def _step_if_finite(
        self, carried: tuple[ModelState, Any, tf.Tensor], batch: tuple[Any, ...]
    ) -> tuple[ModelState, Any, tf.Tensor]:
        """State, metrics that are sums, and bool (trials,): which trials continue after a batch.

        State and metrics are unchanged for trials that have ended.
        """
        state, sums, goes_on = carried
        new_state, loss, outputs = loops.traced(self._train_batch, state, batch)
        new_sums, epoch_loss = self._over_trials(
            self._model.update_sums, [new_state, sums, batch[1:], outputs, loss]
        )
        state, sums = loops.select_trials(goes_on, (new_state, new_sums), (state, sums))
        return state, sums, goes_on & tf.math.is_finite(epoch_loss)

    def evaluate(
        self, state: ModelState, val: tuple[Any, ...], test: tuple[Any, ...]
    ) -> tuple[Any, Logs, Any]:
        """Predictions on the validation set, and logs (trials,) and predictions on the test set.

        Args:
            state: Tensors (trials, ...).
            val, test: As in `train`.

        Returns:
            The predictions are (trials, rows, ...).
        """
        _, _, on_val = self._test_all(state, val)
        _, logs, on_test = self._evaluate_one(state, test)
        return on_val.predictions, logs, on_test.predictions

    def _evaluate_one(
        self, state: ModelState, data: tuple[Any, ...]
    ) -> tuple[ModelState, Logs, Any]:
        """The state after an evaluation, its logs (trials,), and outputs (trials, rows, ...)."""
        state, losses, outputs = self._test_all(state, data)
        if self._model.sees_batches:
            state = self._after_all_batches(state, data[1:], outputs)
        sizes = tuple(self._batch_sizes(data))
        logs = loops.traced(self._logs_of, state, data[1:], outputs, losses, sizes)
        return state, logs, outputs

    def _after_all_batches(
        self, state: ModelState, targets: tuple[Any, ...], outputs: Any
    ) -> ModelState:
        """The state after metrics have seen the rows of an evaluation in the batches of Keras."""
        state = self._reset_metrics(state)
        num_before = len(state.optimizer) - len(self._model.others)
        before, values = state.optimizer[:num_before], state.optimizer[num_before:]

        def see(values: list[tf.Tensor], rows: tf.Tensor) -> list[tf.Tensor]:
            own = state._replace(optimizer=[*before, *values])
            axis = 0 if self._shared_data else 1
            batch = keras.tree.map_structure(lambda a: tf.gather(a, rows, axis=axis), targets)
            seen = tf.nest.map_structure(lambda a: tf.gather(a, rows, axis=1), outputs)
            new: list[tf.Tensor] = loops.traced(self._metrics_after, own, batch, seen)
            return new

        values = loops.over_batches(see, values, self._num_rows(targets), self._batch_size)
        return state._replace(optimizer=[*before, *values])

    def _metrics_after_batch(
        self, state: ModelState, targets: tuple[Any, ...], outputs: Any
    ) -> list[tf.Tensor]:
        def update(state: ModelState, outputs: Any, *own: Any) -> list[tf.Tensor]:
            new: list[tf.Tensor] = self._model.update_metrics(state, own or targets, outputs)
            return new

        own = () if self._shared_data else targets
        values: list[tf.Tensor] = self._over_trials(update, [state, outputs, *own])
        return values

    def _logs_of_batches(
        self,
        state: ModelState,
        targets: tuple[Any, ...],
        predictions: Any,
        losses: tf.Tensor,
        batch_sizes: tuple[int, ...],
    ) -> Logs:
        def logs_of(state: ModelState, predictions: Any, losses: tf.Tensor, *own: Any) -> Logs:
            return self._model.epoch_logs(state, own or targets, predictions, losses, batch_sizes)

        own = () if self._shared_data else targets
        logs: Logs = self._over_trials(logs_of, [state, predictions, losses, *own])
        return logs

    def _batch_sizes(self, data: tuple[Any, ...]) -> list[int]:  # rows that are evaluated together
        num_rows = self._num_rows(data[1])
        batch_size = min(self._evaluation_batch_size or num_rows, num_rows)
        num_batches, num_left = divmod(num_rows, batch_size)
        return [batch_size] * num_batches + [num_left] * bool(num_left)

    def _test_all(
        self, state: ModelState, data: tuple[Any, ...]
    ) -> tuple[ModelState, tf.Tensor, Any]:
        """State, losses (trials, batches), predictions (trials, rows, ...) of all batches."""
        batch_size, *others = self._batch_sizes(data)
        num_whole = 1 + others.count(batch_size)
        state, losses, predictions = self._test_batches(state, data, batch_size, num_whole)
        if num_whole <= len(others):
            last = self._rows(data, slice(num_whole * batch_size, None))
            state, loss, more = self._test(state, last)
            losses, predictions = loops.append((losses, predictions), (loss[:, None], more))
        return state, losses, predictions

    def _test_batches(
        self, state: ModelState, data: tuple[Any, ...], batch_size: int, num_batches: int
    ) -> tuple[ModelState, tf.Tensor, Any]:
        """State, losses (trials, batches), predictions (trials, rows, ...) of whole batches."""
        if num_batches == 1:
            state, loss, predictions = self._test(state, self._rows(data, slice(batch_size)))
            return state, loss[:, None], predictions
        _, *outputs = self._test_batch.get_concrete_function(
            state, self._rows(data, slice(batch_size))
        ).structured_outputs

        def take_step(index: tf.Tensor, state: ModelState) -> tuple[ModelState, Any]:
            new_state, *outputs = self._test(state, self._batch_at(data, batch_size, index))
            return new_state, outputs

        state, (losses, predictions) = loops.record(take_step, num_batches, state, outputs)
        return state, losses, predictions

    def _test(self, state: ModelState, batch: tuple[Any, ...]) -> tuple[ModelState, tf.Tensor, Any]:
        new_state, loss, predictions = loops.traced(self._test_batch, state, batch)
        return state if new_state is None else new_state, loss, predictions

    def _train_step(
        self, state: ModelState, batch: tuple[Any, ...]
    ) -> tuple[ModelState, tf.Tensor, Any]:
        """The state, losses (trials,) and predictions (trials, batch, ...) after a step."""
        new_state, loss, predictions = self._over_trials(self._model.train_step, [state, *batch])
        return new_state, loss, predictions

    def _test_step(
        self, state: ModelState, batch: tuple[Any, ...]
    ) -> tuple[ModelState | None, tf.Tensor, Any]:
        """As `_train_step` of a batch that is evaluated; no state where it cannot change."""
        new_state, loss, predictions = self._over_trials(
            lambda state, *own: self._model.test_step(state, *(own or batch)),
            [state] if self._shared_data else [state, *batch],
        )
        return new_state if self._evaluation_batch_size else None, loss, predictions

    def _num_rows(self, data: Any) -> int:
        return int(keras.tree.flatten(data)[0].shape[0 if self._shared_data else 1])

    def _batch_at(self, data: Any, batch_size: int, index: tf.Tensor) -> Any:
        """The whole batch with a number, counted from 0."""
        rows = index * batch_size + tf.range(batch_size)
        axis = 0 if self._shared_data else 1
        return keras.tree.map_structure(lambda a: tf.gather(a, rows, axis=axis), data)

    def _rows(self, data: Any, rows: slice) -> Any:
        return keras.tree.map_structure(
            lambda array: array[rows] if self._shared_data else array[:, rows], data
        )
