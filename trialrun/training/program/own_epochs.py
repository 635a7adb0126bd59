"""What a program computes for trials of a model with steps of its own; see `epochs`.

Here the metrics are part of the state, and every step updates them, as in `model.fit`. The logs of
an epoch are those of its last step.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.program.epochs import Epochs, Logs
from trialrun.training.program.loops import record, repeat, split_batches
from trialrun.training.state import ModelState
from trialrun.training.vectorize.other_numbers import refuse_operations

_PREDICTED_TOGETHER = 32  # rows, as in `model.predict`: a model may draw numbers for each batch


class OwnEpochs(Epochs):
    """Functions to be traced: epochs of own steps, and an evaluation, of stacked trials.

    Attributes:
        step: The traced step: (state, batch) -> (new state, logs).
        test: The same for the test step; the batch has no axis of trials if data is shared.
        predict: The same for predicting: (state, inputs) -> (new state, zeros, predictions).
    """

    test: Any
    predict: Any

    def _train_epoch(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        batch_size = min(self._batch_size, orders.shape[1])
        num_steps, num_left = divmod(orders.shape[1], batch_size)
        num_whole = num_steps * batch_size
        batches = self._in_order(train, split_batches(orders[:, :num_whole], batch_size))
        state = self._over_trials(self._model.reset_metrics, [state])
        self.step = tf.function(self._take_step, autograph=False)
        first = keras.tree.map_structure(lambda a: a[0], batches)
        self.traced_step = self.step.get_concrete_function(state, first)
        refuse_operations(self.traced_step.graph, left_out=True)

        def batch_at(index: tf.Tensor) -> Any:
            return keras.tree.map_structure(lambda a: a[index], batches)

        state, logs = self._last_logs(self.step, self.traced_step, num_steps, state, batch_at)
        if num_left:
            state, logs = self._take_step(state, self._in_order(train, orders[:, num_whole:]))
        state, val_logs = self._evaluate_steps(state, val)
        self._trace_predicting(state, val[0])  # what cannot be predicted is not trained
        if self._model.has_live_logs:
            logs = {**logs, **self._over_trials(self._model.live_logs, [state])}
        return state, {**logs, **{f"val_{name}": value for name, value in val_logs.items()}}

    def train_until_not_finite(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        """Not for steps of a model's own: what they log may be finite again after the epoch."""
        raise CannotFuse("training.terminate_on_nan reads what each step of the model's own logs")

    def evaluate(
        self, state: ModelState, val: tuple[Any, ...], test: tuple[Any, ...]
    ) -> tuple[Any, Logs, Any]:
        """Predictions on the validation set, and logs (trials,) and predictions on the test set.

        In the order of the plain engine, as each may draw random numbers.
        """
        state, logs = self._evaluate_steps(state, test)
        state, on_val = self._predict(state, val[0])
        _, on_test = self._predict(state, test[0])
        return on_val, logs, on_test

    def first_to_predict(self, val: tuple[Any, ...]) -> Any:
        """The first inputs that are predicted, of the shape for which `predict` was traced."""
        return self._first_predicted(val[0])

    def _first_predicted(self, x: Any) -> Any:
        return self._rows(x, slice(min(_PREDICTED_TOGETHER, self._num_rows(x))))

    def _trace_predicting(self, state: ModelState, x: Any) -> Any:
        self.predict = tf.function(self._predict_batch, autograph=False)
        traced = self.predict.get_concrete_function(state, self._first_predicted(x))
        refuse_operations(traced.graph, left_out=True)
        return traced

    def _take_step(self, state: ModelState, batch: tuple[Any, ...]) -> tuple[ModelState, Logs]:
        return self._over_trials(self._model.train_step, [state, *batch])

    def _test_rows(self, state: ModelState, batch: tuple[Any, ...]) -> tuple[ModelState, Logs]:
        if self._shared_data:
            return self._over_trials(lambda own: self._model.test_step(own, *batch), [state])
        return self._over_trials(self._model.test_step, [state, *batch])

    def _evaluate_steps(self, state: ModelState, data: tuple[Any, ...]) -> tuple[ModelState, Logs]:
        """The state after an evaluation, and its logs (trials,)."""
        num_rows = self._num_rows(data[1])
        batch_size = min(self._batch_size, num_rows)
        num_steps, num_left = divmod(num_rows, batch_size)
        state = self._over_trials(self._model.reset_metrics, [state])
        self.test = tf.function(self._test_rows, autograph=False)
        traced = self.test.get_concrete_function(state, self.first_test_batch(data))
        refuse_operations(traced.graph, left_out=True)
        batch_at = functools.partial(self._batch_at, data, batch_size)
        state, logs = self._last_logs(self.test, traced, num_steps, state, batch_at)
        if num_left:
            rest = self._rows(data, slice(num_steps * batch_size, None))
            state, logs = self._test_rows(state, rest)
        return state, logs

    def _predict(self, state: ModelState, x: Any) -> tuple[ModelState, Any]:
        """The state after predicting all rows, and the predictions (trials, rows, ...)."""
        num_rows = self._num_rows(x)
        batch_size = min(_PREDICTED_TOGETHER, num_rows)
        num_steps, num_left = divmod(num_rows, batch_size)
        _, *outputs = self._trace_predicting(state, x).structured_outputs

        def take_step(index: tf.Tensor, state: ModelState) -> tuple[ModelState, Any]:
            new_state, *outputs = self.predict(state, self._batch_at(x, batch_size, index))
            return new_state, outputs

        state, (_, predictions) = record(take_step, num_steps, state, outputs)
        if num_left:
            rest = self._rows(x, slice(num_steps * batch_size, None))
            state, _, last = self._predict_batch(state, rest)
            predictions = tf.nest.map_structure(
                lambda a, b: tf.concat([a, b], 1), predictions, last
            )
        return state, predictions

    def _predict_batch(self, state: ModelState, x: Any) -> tuple[ModelState, tf.Tensor, Any]:
        """The new state, zeros in the place of losses, and the predictions."""
        if self._shared_data:
            predicted = self._over_trials(lambda own: self._model.predict_step(own, x), [state])
        else:
            predicted = self._over_trials(self._model.predict_step, [state, x])
        new_state, predictions = predicted
        return new_state, tf.zeros([tf.nest.flatten(state)[0].shape[0]]), predictions

    def _last_logs(
        self,
        step: Callable[..., Any],
        traced: Any,
        num_steps: int,
        state: ModelState,
        batch_at: Callable[[tf.Tensor], Any],
    ) -> tuple[ModelState, Logs]:
        """The state after a loop of steps, and the logs of the last one."""
        _, forms = traced.structured_outputs
        begin = (state, {name: tf.zeros(form.shape, form.dtype) for name, form in forms.items()})

        def take_step(index: tf.Tensor, carried: tuple[ModelState, Logs], recorders: Any) -> Any:
            return step(carried[0], batch_at(index)), recorders

        (state, logs), _ = repeat(take_step, num_steps, begin, one_trial=self._one_trial)
        return state, logs
