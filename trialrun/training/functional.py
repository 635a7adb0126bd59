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
from trialrun.training import internals


class ModelState(NamedTuple):
    """All variables of a model by kind, each a list in Keras's order.

    Holds `keras.Variable`s, or tensors of one trial, or tensors stacked over trials on axis 0.
    """

    trainable: list[Any]
    non_trainable: list[Any]
    optimizer: list[Any]


class FunctionalModel:
    """The train and test step of a compiled model as functions from state to state.

    Args:
        model: A compiled model; it is built, and never changed afterwards.
        batch: `(x, y)` tensors of one batch of one trial: shapes and dtypes are what matters.

    Raises:
        CannotFuse: The model holds something whose meaning over batches is not known.
    """

    def __init__(self, model: keras.Model, batch: tuple[Any, Any]) -> None:
        internals.build_symbolically(model, batch)
        internals.key_variables_by_identity(model.optimizer)
        self.model = model
        self.variables = ModelState(
            list(model.trainable_variables),
            list(model.non_trainable_variables),
            list(model.optimizer.variables),
        )
        _refuse_unknown_metrics(model)

    def train_step(
        self, state: ModelState, x: Any, y: Any
    ) -> tuple[ModelState, tf.Tensor, tf.Tensor]:
        """One step on one batch of one trial, as `keras.Model.train_step` does it.

        Args:
            state: The trial's tensors.
            x: Inputs (batch, ...).
            y: Targets (batch, ...).

        Returns:
            The new state, the scalar loss before the update, and the predictions.
        """
        model, optimizer = self.model, self.model.optimizer
        with self._scope(state) as scope:
            with (
                tf.GradientTape(watch_accessed_variables=False) as tape,
                scope.watching(self.variables.trainable, tape) as watched,
            ):
                predictions = internals.call_model(model, x, training=True)
                loss = internals.compute_loss(model, x, y, predictions, training=True)
                scaled_loss = optimizer.scale_loss(loss)
            gradients = [_sum(of_one) for of_one in tape.gradient(scaled_loss, watched)]
            optimizer.apply(gradients, self.variables.trainable)
            return self._read(scope), loss, predictions

    def evaluate(self, state: ModelState, x: Any, y: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Loss and metrics of one trial on a whole data set, and its predictions."""
        num_rows = keras.tree.flatten(x)[0].shape[0]
        with self._scope(state):
            predictions = internals.call_model(self.model, x, training=False)
            loss = internals.compute_loss(self.model, x, y, predictions, training=False)
        logs = self.epoch_logs(state, y, predictions, loss[None], [num_rows])
        return logs, predictions

    def epoch_logs(
        self,
        state: ModelState,
        y: Any,
        predictions: Any,
        losses: tf.Tensor,
        batch_sizes: Sequence[int],
    ) -> dict[str, tf.Tensor]:
        """What Keras logs for an epoch, from all of the epoch's batches at once.

        Keras updates its metrics batch by batch; their state is a sum over samples, so one update
        with all samples gives the same and costs a fraction.

        Args:
            state: The trial's tensors (some metrics read weights).
            y: Targets of the epoch in the order of training (rows, ...).
            predictions: Predictions made during the epoch (rows, ...).
            losses: The loss of every batch (batches,).
            batch_sizes: Rows of every batch.

        Returns:
            Scalar float32 tensors by Keras's names: `loss`, `accuracy`, ...
        """
        model = self.model
        with self._scope(state):
            for metric in model.metrics:
                metric.reset_state()
            sizes = tf.constant(batch_sizes, tf.float32)
            internals.loss_tracker(model).update_state(losses, sample_weight=sizes)
            model.compute_metrics(None, y, predictions, sample_weight=None)
            return {
                name: tf.cast(value, tf.float32)
                for name, value in model.get_metrics_result().items()
            }

    @contextlib.contextmanager
    def _scope(self, state: ModelState) -> Iterator["_Scope"]:
        pairs = [
            pair
            for variables, tensors in zip(self.variables, state, strict=True)
            for pair in zip(variables, tensors, strict=True)
        ]
        pairs += [(v, tf.zeros(v.shape, v.dtype)) for v in self.model.metrics_variables]
        known = {id(variable) for variable, _ in pairs}
        with (
            internals.pure_optimizers(),
            internals.selecting_cond(),
            _Scope(pairs, collect_losses=True) as scope,
        ):
            yield scope
        if unknown := scope.state_mapping.keys() - known:
            raise CannotFuse(
                f"{len(unknown)} variable(s) outside the model change while it is called, "
                "e.g. Keras's global seed generator: give random layers a seed generator"
            )

    def _read(self, scope: keras.StatelessScope) -> ModelState:
        return ModelState(
            *(
                [tf.convert_to_tensor(scope.get_current_value(v)) for v in variables]
                for variables in self.variables
            )
        )


class _Scope(keras.StatelessScope):
    """A scope in which gradients are those of tf.Variables: by every value that was read.

    A layer may assign its own trainable weight while it is called (SpectralNormalization does).
    """

    _tape: tf.GradientTape | None = None

    @contextlib.contextmanager
    def watching(
        self, variables: Sequence[keras.Variable], tape: tf.GradientTape
    ) -> Iterator[list[list[tf.Tensor]]]:
        """Gives each variable's value, and then, in the same list, those assigned to it."""
        self._watched = {id(v): [self.get_current_value(v)] for v in variables}
        self._tape = tape
        tape.watch(list(self._watched.values()))
        yield list(self._watched.values())
        self._tape = None

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        """Called by Keras: a variable is assigned a value."""
        variable, value = update
        if self._tape is not None and id(variable) in self._watched:
            value = tf.stop_gradient(tf.convert_to_tensor(value))  # an assignment ends the path
            self._tape.watch(value)
            self._watched[id(variable)].append(value)
        super().add_update((variable, value))


def _sum(gradients: Sequence[Any]) -> Any:
    """The sum of a variable's gradients; a single one stays as sparse as it is."""
    known = [gradient for gradient in gradients if gradient is not None]
    if len(known) <= 1:
        return known[0] if known else None
    return tf.add_n([tf.convert_to_tensor(gradient) for gradient in known])


def _refuse_unknown_metrics(model: keras.Model) -> None:
    for metric in model.metrics:
        if not type(metric).__module__.startswith("keras."):
            raise CannotFuse(
                f"metric {metric.name!r} ({type(metric).__name__}) is not Keras's own: "
                "its state may not be a sum over samples"
            )
