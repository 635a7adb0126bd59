"""A model with training or test steps of its own as pure functions of all the state that it holds.

The steps are the user's code, or Keras's, and run as they stand: gradient tapes, several
optimizers, metrics that are updated on the way. So the state of a trial holds more here: behind the
variables of `model.optimizer` stand those of the model's other optimizers, and of all metrics.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import gradient_tapes, keras_model, keras_tracing
from trialrun.training.model.build import in_order_of_outputs
from trialrun.training.model.first_steps import FirstSteps, build_others, optimizers_of
from trialrun.training.process_settings import settings_to_trace
from trialrun.training.program.batch_metrics import as_scalars, flat_logs
from trialrun.training.program.scope import read_state
from trialrun.training.program.traced_number import Location, Trace
from trialrun.training.program.trial_stream import TrialStream
from trialrun.training.state import ModelState

Logs = dict[str, tf.Tensor]


class OwnStepsModel:
    """The steps of a compiled model as functions from state to state.

    Args:
        model: A compiled model; it is built, and never changed afterwards.
        batch: `(x, y)` or `(x, y, sample_weight)` tensors of one batch of one trial.
        locations: Where the model keeps the hyperparameters that differ between trials.
        first: What the first steps of such a model have shown.

    Attributes:
        variables: All state of a trial; the optimizer's group ends with the stream's variables
            and `others`.
        stream: What the model's code draws from `tf.random`.
        others: Variables of further optimizers and of metrics.
        others_start: Their values before the first step.
        trace: What tracing found out about the numbers in the locations.

    Raises:
        CannotFuse: The steps do more than a pure function can.
    """

    def __init__(
        self,
        model: keras.Model,
        batch: tuple[Any, ...],
        locations: tuple[Location, ...],
        first: FirstSteps,
    ) -> None:
        if first.why_impure:
            raise CannotFuse(first.why_impure)
        self.model, self._first, self._batch = model, first, batch
        self.trace, self.stream = Trace(locations), TrialStream(model)
        self._live: dict[str, keras.Variable] = {}
        self._optimizers = list(optimizers_of(model).values())
        with settings_to_trace(model):
            self.variables = self.variables_of(model)
        for optimizer in self._optimizers:
            if optimizer.built and keras_model.copied_weights(optimizer):
                raise CannotFuse("ScheduleFreeAdamW reads its momentum after it has changed it")
        num_before = len(model.optimizer.variables) + len(self.stream.variables)
        self.others = self.variables.optimizer[num_before:]
        self.others_start: list[npt.NDArray[np.generic]] = [v.numpy() for v in self.others]

    def variables_of(self, model: keras.Model) -> ModelState:
        """All state of a trial, as variables of its own model, which is built for it."""
        keras_model.build_symbolically(model, self._batch)
        return ModelState(
            list(model.trainable_variables),
            list(model.non_trainable_variables),
            [
                *(*model.optimizer.variables, *self.stream.variables),
                *build_others(model, self._first),
            ],
        )

    @property
    def changes_at_the_end(self) -> bool:
        """Whether `finalize` does anything."""
        return keras_model.finalizes_weights(self.model.optimizer)

    def train_step(
        self, state: ModelState, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[ModelState, Logs]:
        """The state after the model's training step on one batch of one trial, and its logs.

        They are those that Keras logs for the epoch if this was its last step.
        """
        with self._scope(state) as scope:
            with self.stream.drawing():
                logs = self.model.train_step(_as_data(x, y, sample_weight))
            self.trace.require_all_read()
            self._live = keras_model.live_logs(self.model, logs)
            return read_state(scope, self.variables, state), self._logs(logs)

    def test_step(
        self, state: ModelState, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[ModelState, Logs]:
        """The state after the model's test step on one batch of one trial, and its logs so far."""
        with self._scope(state) as scope:
            data = in_order_of_outputs(self.model, _as_data(x, y, sample_weight))
            with self.stream.drawing():
                logs = self.model.test_step(data)
            return read_state(scope, self.variables, state), self._logs(logs)

    def predict_step(self, state: ModelState, x: Any) -> tuple[ModelState, Any]:
        """The state after predicting a batch of one trial, and the predictions."""
        with self._scope(state) as scope:
            with self.stream.drawing():
                predictions = self.model.predict_step((x,))
            return read_state(scope, self.variables, state), predictions

    def reset_metrics(self, state: ModelState) -> ModelState:
        """The state at the beginning of an epoch, or of an evaluation."""
        with self._scope(state) as scope:
            self.model.reset_metrics()
            return read_state(scope, self.variables, state)

    def finalize(self, state: ModelState) -> ModelState:
        """The state as `fit` leaves it at its end: with averaged weights, if they are kept."""
        with self._scope(state) as scope:
            self.model.optimizer.finalize_variable_values(self.variables.trainable)
            return read_state(scope, self.variables, state)

    @property
    def has_live_logs(self) -> bool:
        """Whether `live_logs` gives any; `train_step` must be traced."""
        return bool(self._live)

    def live_logs(self, state: ModelState) -> Logs:
        """Logs of training that are metrics' variables, with the values of a state.

        If the result of a metric is its variable, Keras logs what that is when the epoch is over:
        after the evaluation.
        """
        with self._scope(state):
            return as_scalars(self._live)

    def _logs(self, logs: Any) -> Logs:
        found = keras_model.metrics_or_logs(self.model, logs)
        return as_scalars(flat_logs(found, by_name=True))

    @contextlib.contextmanager
    def _scope(self, state: ModelState) -> Iterator[keras.StatelessScope]:
        pairs = list(self.variables.with_values(state))
        known = {id(variable) for variable, _ in pairs}
        scope = gradient_tapes.TapedScope(pairs)
        with (
            keras_tracing.pure_optimizers(),
            keras_tracing.keyed_by_identity(self._optimizers),
            keras_tracing.selecting_cond(),
            gradient_tapes.functions_inlined(),
            self.trace.tracing(state.hyperparameters),
            scope,
            gradient_tapes.tapes_in(scope),
        ):
            yield scope
        if unknown := scope.state_mapping.keys() - known:
            raise CannotFuse(
                f"{len(unknown)} variable(s) outside the model change in its steps, e.g. Keras's"
                " global seed generator: give random layers and functions a seed generator"
            )


def _as_data(x: Any, y: Any, sample_weight: Any) -> tuple[Any, ...]:
    return (x, y) if sample_weight is None else (x, y, sample_weight)
