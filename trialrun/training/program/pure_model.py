"""A compiled Keras model, its optimizer and its metrics as pure functions of their state.

Keras's own code does all the mathematics: inside a `keras.StatelessScope` every read of a variable
gives the traced tensor, every assignment replaces it, and nothing in the model changes. So layers,
regularizers, losses, metrics and optimizers are those that `model.fit` would run.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import keras_model, keras_tracing
from trialrun.training.internals.gradient_tapes import sum_gradients
from trialrun.training.model.python_state import PythonState
from trialrun.training.process_settings import settings_to_trace
from trialrun.training.program.batch_metrics import (
    BatchMetrics,
    as_scalars,
    flat_logs,
    variables_of,
)
from trialrun.training.program.scope import WatchingScope, read_state
from trialrun.training.program.traced_number import Location, Trace
from trialrun.training.program.trial_stream import TrialStream
from trialrun.training.state import ModelState


class FunctionalModel:
    """The train and test step of a compiled model as functions from state to state.

    Args:
        model: A compiled model; it is built, and never changed afterwards.
        batch: `(x, y)` or `(x, y, sample_weight)` tensors of one batch of one trial: shapes and
            dtypes are what matters.
        locations: Where the model keeps the hyperparameters that differ between trials.

    Attributes:
        variables: All state of a trial; the optimizer's group ends with the stream's variables
            and `others`.
        stream: What the model's code draws from `tf.random`.
        others: Variables of the metrics that every batch updates.
        others_start: Their values before the first step.
        trace: What tracing found out about the numbers in the locations.

    Raises:
        CannotFuse: The model has an optimizer that cannot be turned into pure functions.
    """

    def __init__(
        self, model: keras.Model, batch: tuple[Any, ...], locations: Sequence[Location] = ()
    ) -> None:
        self.model, self._batch = model, batch
        python = PythonState(model) if locations else None
        self.stream = TrialStream(model)
        with settings_to_trace(model):
            self.variables = self.variables_of(model)
        self.trace = Trace(locations)
        if python and (kept := python.kept(model)):
            self.trace.refuse(f"the model's first call keeps {kept}, which may follow from it")
        keras_model.key_variables_in_both_ways(model.optimizer)
        self._metrics = BatchMetrics(model)
        self.others, self.others_start = self._metrics.variables, self._metrics.start
        self._live: dict[str, keras.Variable] = {}
        for name in keras_model.own_loops(model):
            raise CannotFuse(f"{type(model).__name__} has its own `{name}`")
        if keras_model.copied_weights(model.optimizer):
            # With tf.Variables its "old" momentum is already the new one; here it would be the old.
            raise CannotFuse("ScheduleFreeAdamW reads its momentum after it has changed it")

    def variables_of(self, model: keras.Model) -> ModelState:
        """All state of a trial, as variables of its own model, which is built for it."""
        keras_model.build_symbolically(model, self._batch)
        return ModelState(
            list(model.trainable_variables),
            list(model.non_trainable_variables),
            [*model.optimizer.variables, *self.stream.variables, *variables_of(model)],
        )

    @property
    def changes_at_the_end(self) -> bool:
        """Whether `finalize` does anything."""
        return keras_model.finalizes_weights(self.model.optimizer)

    def train_step(
        self, state: ModelState, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[ModelState, tf.Tensor, "Outputs"]:
        """One step on one batch of one trial, as `keras.Model.train_step` does it.

        Args:
            state: The trial's tensors.
            x: Inputs (batch, ...).
            y: Targets (batch, ...).
            sample_weight: Weights (batch,), or of each output; None for 1 each.

        Returns:
            The new state; the loss before the update: a scalar, or for several outputs a vector of
            the total loss and each output's loss; and the outputs.
        """
        model, optimizer = self.model, self.model.optimizer
        with self._scope(state) as scope:
            with self.stream.drawing():
                with (
                    tf.GradientTape(watch_accessed_variables=False) as tape,
                    scope.watching(self.variables.trainable, tape) as watched,
                ):
                    predictions = keras_model.call_model(model, x, training=True)
                    loss = keras_model.compute_loss(
                        model, x, y, predictions, sample_weight, training=True
                    )
                    scaled_loss = optimizer.scale_loss(loss)
                gradients = [sum_gradients(parts) for parts in tape.gradient(scaled_loss, watched)]
                optimizer.apply(gradients, self.variables.trainable)
                self._metrics.update(y, predictions, sample_weight)
            self.trace.require_all_read()
            return (
                read_state(scope, self.variables, state),
                self._losses(scope, loss),
                Outputs.of(predictions),
            )

    def test_step(
        self, state: ModelState, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[ModelState, tf.Tensor, "Outputs"]:
        """One trial evaluated on a batch: its state, the loss as in `train_step`, and the outputs.

        The state changes if a layer draws random numbers in inference, as Keras's recurrent cells
        with dropout do.
        """
        with self._scope(state) as scope:
            with self.stream.drawing():
                predictions = keras_model.call_model(self.model, x, training=False)
                loss = keras_model.compute_loss(
                    self.model, x, y, predictions, sample_weight, training=False
                )
            return (
                read_state(scope, self.variables, state),
                self._losses(scope, loss),
                Outputs.of(predictions),
            )

    def finalize(self, state: ModelState) -> ModelState:
        """The state as `fit` leaves it at its end: with averaged weights, if they are kept."""
        with self._scope(state) as scope:
            self.model.optimizer.finalize_variable_values(self.variables.trainable)
            return read_state(scope, self.variables, state)

    def _losses(self, scope: keras.StatelessScope, loss: tf.Tensor) -> tf.Tensor:
        """The loss of a batch; for several outputs a vector of it and each output's loss."""
        trackers = keras_model.output_loss_trackers(self.model)
        if not trackers:
            return loss
        own = [
            scope.get_current_value(tracker.total) / scope.get_current_value(tracker.count)
            for tracker in trackers
        ]
        return tf.stack([tf.cast(value, tf.float32) for value in (loss, *own)])

    def epoch_logs(
        self,
        state: ModelState,
        targets: tuple[Any, ...],
        outputs: "Outputs",
        losses: tf.Tensor,
        batch_sizes: Sequence[int],
    ) -> dict[str, tf.Tensor]:
        """What Keras logs for an epoch, from all of the epoch's batches at once.

        Keras updates its metrics batch by batch; their state is a sum over samples, so one update
        with all samples gives the same and costs a fraction. Other metrics are in the state.

        Args:
            state: The trial's tensors (some metrics read weights).
            targets: `(y,)` or `(y, sample_weight)` of the epoch in the order of training
                (rows, ...).
            outputs: The model's outputs during the epoch (rows, ...).
            losses: The loss of every batch (batches,), or (batches, 1 + outputs).
            batch_sizes: The number of rows of every batch.

        Returns:
            Scalar float32 tensors by Keras's names: `loss`, `accuracy`, ...
        """
        with self._scope(state) as scope:
            self._metrics.reset_others()
            self._update_sums(targets, outputs, losses, batch_sizes)
            return self._logs(scope)

    def reset_sums(self, state: ModelState) -> list[tf.Tensor]:
        """The values of the metrics of one trial that are sums, before the first batch."""
        with self._scope(state) as scope:
            self._metrics.reset_others()
            return self._values_of_sums(scope)

    def update_sums(
        self,
        state: ModelState,
        sums: Sequence[tf.Tensor],
        targets: tuple[Any, ...],
        outputs: "Outputs",
        loss: tf.Tensor,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The metrics that are sums after a batch, and the loss of the epoch so far.

        Args:
            state: The trial's tensors.
            sums: Values of these metrics before.
            targets: Of the batch, as in `epoch_logs`.
            outputs: Of the batch.
            loss: Of the batch, a scalar or (1 + outputs,).
        """
        with self._scope(state, sums) as scope:
            num_rows = keras.tree.flatten(targets[0])[0].shape[0]
            self._update_sums(targets, outputs, loss[None], [num_rows])
            return self._values_of_sums(scope), keras_model.loss_tracker(self.model).result()

    def logs_of_sums(self, state: ModelState, sums: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """What Keras logs when these metrics have these values; see `epoch_logs`."""
        with self._scope(state, sums) as scope:
            return self._logs(scope)

    @property
    def sees_batches(self) -> bool:
        """Whether there are metrics that every batch updates; their variables are in the state."""
        return bool(self._metrics.metrics)

    def reset_metrics(self, state: ModelState) -> ModelState:
        """The state at the beginning of an epoch, or of an evaluation."""
        with self._scope(state) as scope:
            self._metrics.reset()
            return read_state(scope, self.variables, state)

    def update_metrics(
        self, state: ModelState, targets: tuple[Any, ...], outputs: "Outputs"
    ) -> list[tf.Tensor]:
        """The values of `others` after a batch that was evaluated; `train_step` does it itself.

        Args:
            state: The trial's tensors.
            targets: Of the batch, as in `epoch_logs`.
            outputs: Of the batch.
        """
        y, *weights = targets
        with self._scope(state) as scope:
            self._metrics.update(y, outputs.with_masks(), weights[0] if weights else None)
            return self._values_of(scope, self.others)

    @property
    def has_live_logs(self) -> bool:
        """Whether `live_logs` gives any; `epoch_logs` must be traced."""
        return bool(self._live)

    def live_logs(self, state: ModelState) -> dict[str, tf.Tensor]:
        """Logs of training that are metrics' variables, with the values of a state.

        If the result of a metric is its variable, Keras logs what that is when the epoch is over:
        after the evaluation.
        """
        with self._scope(state):
            return as_scalars(self._live)

    def _update_sums(
        self,
        targets: tuple[Any, ...],
        outputs: "Outputs",
        losses: tf.Tensor,
        batch_sizes: Sequence[int],
    ) -> None:
        model = self.model
        y, *weights = targets
        losses = losses[:, None] if losses.shape.rank == 1 else losses
        sizes = tf.constant(batch_sizes, tf.float32)
        keras_model.loss_tracker(model).update_state(losses[:, 0], sample_weight=sizes)
        for index, tracker in enumerate(keras_model.output_loss_trackers(model), 1):
            # Keras counts a partial batch as a whole one here.
            tracker.update_state(losses[:, index])
        weight = weights[0] if weights else None
        self._metrics.update_others(y, outputs.with_masks(), weight)

    def _logs(self, scope: keras.StatelessScope) -> dict[str, tf.Tensor]:
        before = [scope.get_current_value(variable) for variable in self.others]
        logs = flat_logs(self.model.get_metrics_result())
        for variable, value in zip(self.others, before, strict=True):
            if scope.get_current_value(variable) is not value:
                raise CannotFuse(f"{variable.path!r} changes in the `result` of its metric")
        ours = set(map(id, self.others))
        self._live = {name: value for name, value in logs.items() if id(value) in ours}
        return as_scalars(logs)

    @property
    def _sums(self) -> list[keras.Variable]:
        """The variables of the metrics that are sums, of losses too."""
        others = set(map(id, self.others))
        return [v for v in self.model.metrics_variables if id(v) not in others]

    def _values_of_sums(self, scope: keras.StatelessScope) -> list[tf.Tensor]:
        return self._values_of(scope, self._sums)

    def _values_of(
        self, scope: keras.StatelessScope, variables: Sequence[keras.Variable]
    ) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(scope.get_current_value(v)) for v in variables]

    @contextlib.contextmanager
    def _scope(
        self, state: ModelState, sums: Sequence[tf.Tensor] | None = None
    ) -> Iterator[WatchingScope]:
        pairs = list(self.variables.with_values(state))
        variables = self._sums
        sums = sums or [tf.zeros(v.shape, v.dtype) for v in variables]
        pairs += zip(variables, sums, strict=True)
        known = {id(variable) for variable, _ in pairs}
        with (
            keras_tracing.pure_optimizers(),
            keras_tracing.selecting_cond(),
            self.trace.tracing(state.hyperparameters),
            WatchingScope(pairs, collect_losses=True) as scope,
        ):
            yield scope
        if unknown := scope.state_mapping.keys() - known:
            raise CannotFuse(
                f"{len(unknown)} variable(s) outside the model change while it is called, "
                "e.g. Keras's global seed generator: give random layers a seed generator"
            )


class Outputs(NamedTuple):
    """What a model gives for a batch.

    Attributes:
        predictions: The model's outputs, in their structure.
        masks: Index of an output -> the mask that a layer left on it; outputs without one are
            not listed.
    """

    predictions: Any
    masks: dict[int, Any]

    @classmethod
    def of(cls, predictions: Any) -> "Outputs":
        """The outputs of a call of a model."""
        masks = map(keras_model.mask_of, keras.tree.flatten(predictions))
        return cls(predictions, {index: m for index, m in enumerate(masks) if m is not None})

    def with_masks(self) -> Any:
        """The predictions, each with its mask on it."""
        for index, prediction in enumerate(keras.tree.flatten(self.predictions)):
            if index in self.masks:
                keras_model.set_mask(prediction, self.masks[index])
        return self.predictions
