"""The compiled program that trains trials of one signature, some epochs per call."""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from typing import Any, Literal, Protocol

import keras
import tensorflow as tf

from trialrun.errors import CannotFuse, CannotShare
from trialrun.training.compilation_cache.cached_function import CachedFunction
from trialrun.training.internals import keras_tracing
from trialrun.training.model.ownership import why_unknown
from trialrun.training.model.python_state import PythonState
from trialrun.training.process_settings import settings_to_trace
from trialrun.training.program.epochs import Epochs, Logs
from trialrun.training.program.loops import repeat
from trialrun.training.program.memory import peak_bytes
from trialrun.training.program.own_epochs import OwnEpochs
from trialrun.training.program.own_steps import OwnStepsModel
from trialrun.training.program.own_verify import why_own_steps_differ
from trialrun.training.program.pure_model import FunctionalModel
from trialrun.training.program.verify import first_batches, why_different
from trialrun.training.recurrence.rnn import rolled_or_as_it_is, rolled_or_unrolled
from trialrun.training.state import ModelState
from trialrun.training.vectorize.draws import constant_draws_as_outside_xla, draws_as_outside_xla
from trialrun.training.vectorize.images import images_by_arithmetic
from trialrun.training.vectorize.in_turn import run_in_turn
from trialrun.training.vectorize.other_numbers import refuse_operations
from trialrun.training.vectorize.products import products_for_xla
from trialrun.training.vectorize.sorting import sorting_as_outside_xla
from trialrun.training.vectorize.vectorize import vectorize

CompiledEngine = Literal["fused", "mapped"]

# Tracing replaces functions of Keras and TensorFlow for the whole process, so one at a time.
_TRACING = threading.Lock()


class Stacked(Protocol):
    """Trials before their first step, stacked on axis 0: what a program sees of a slice of a pack.

    Attributes:
        indices: The trials' indices in their pack.
        state: Their state.
        train, val, test: Their data; without an axis of trials if it is shared.
        is_shared: Whether they all see the same data.
        order_shape: (trials, rows of the training data).
        numbers: The hyperparameters of each that the program takes as inputs.
    """

    indices: Sequence[int]
    state: ModelState
    train: tuple[Any, ...]
    val: tuple[Any, ...]
    test: tuple[Any, ...]
    is_shared: bool
    order_shape: tuple[int, int]
    numbers: list[Sequence[float]]


class Program:
    """Epochs of training, and an evaluation, of any number of trials as XLA programs.

    Args:
        model: The model as pure functions.
        engine: `fused` computes each step for all trials together; `mapped` trains one trial after
            another.
        batch_size: Rows per step; the last step takes the rows that are left.
        shared_data: Whether all trials see the same rows, given without a trial axis.
        evaluation_batch_size: Rows that are evaluated together; None for all at once.
        name: The same in all processes that build this program.

    Attributes:
        name: See above.
        is_verified: Whether its first steps were found to be those of plain Keras, also under a
            seed other than that of the traced model.
    """

    def __init__(
        self,
        model: FunctionalModel | OwnStepsModel,
        engine: CompiledEngine,
        *,
        batch_size: int,
        shared_data: bool,
        evaluation_batch_size: int | None = None,
        name: str = "",
    ) -> None:
        self._model = model
        self._engine = engine
        self.name = name
        kind: type[Epochs] = OwnEpochs if isinstance(model, OwnStepsModel) else Epochs
        self._epochs = kind(
            model,
            one_trial=engine == "mapped",
            batch_size=batch_size,
            shared_data=shared_data,
            evaluation_batch_size=evaluation_batch_size,
        )
        self._shared_data = shared_data
        together = engine == "fused"
        self._train_epochs = self._compiled(
            self._epochs.train if together else self._train_in_turn, "train"
        )
        self._evaluate = self._compiled(
            self._epochs.evaluate if together else self._evaluate_in_turn, "evaluate"
        )
        self._train_until_not_finite = self._compiled(
            self._epochs.train_until_not_finite if together else self._until_not_finite_in_turn,
            "train until not finite",
        )
        # Without XLA, because it only replaces arrays by others and computes nothing.
        self._finalize = tf.function(
            lambda state: vectorize(model.finalize, [state]), autograph=False
        )
        self._traced: dict[int, Any] = {}  # width -> the concrete function
        self._memory_bytes: dict[int, tuple[int, int]] = {}
        self._compile_s: dict[int, float] = {}  # width -> seconds, its first epochs included
        self._batch_size = batch_size
        self._may_count = bool(why_unknown(model.model))  # code of the user's may
        self._before: PythonState | None = None  # as it was when tracing began
        self.is_verified = False

    def train_epochs(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        """Trains epochs; see `Epochs.train`."""
        width = orders.shape[1]
        start = time.perf_counter()
        if width not in self._traced:
            self.trace_epochs(state, train, orders, val)
        results = self._train_epochs(state, train, orders, val)
        if width not in self._compile_s:
            self._compile_s[width] = time.perf_counter() - start
        return results

    def train_until_not_finite(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        """Trains an epoch in which trials end at a loss that is not finite; see `Epochs`."""
        return self._train_until_not_finite(state, train, orders, val)

    @property
    def compiled_widths(self) -> frozenset[int]:
        """For how many trials at once epochs were trained before."""
        return frozenset(self._compile_s)

    def longest_compile_s(self, *, but_for: Container[int] = ()) -> float:
        """The longest that compiling for one width took, its first epochs included; 0 for none.

        Args:
            but_for: Widths that do not count.
        """
        compile_s = self._compile_s.copy()  # other threads add to it
        return max((took for width, took in compile_s.items() if width not in but_for), default=0.0)

    def evaluate(
        self, state: ModelState, val: tuple[Any, ...], test: tuple[Any, ...]
    ) -> tuple[Any, Logs, Any]:
        """Predictions on the validation set, logs and predictions on the test set; see `Epochs`."""
        return self._evaluate(state, val, test)

    def compile_evaluation(self, own: Stacked) -> None:
        """Compiles `evaluate` for slices of this shape, if it is not compiled yet."""
        self._evaluate.compile(own.state, own.val, own.test)

    def finalize(self, state: ModelState) -> ModelState:
        """The state as `fit` leaves it after the last epoch."""
        if not self._model.changes_at_the_end:
            return state
        with self._tracing():
            return self._finalize(state)

    def trace_epochs(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> None:
        """Traces `train_epochs` for arguments of these shapes; its first call compiles it.

        Raises:
            CannotFuse: This engine cannot train the model.
            ValueError: An operation has no vectorized form.
        """
        self._traced[orders.shape[1]] = self._train_epochs.trace(state, train, orders, val)

    def _check(self, graph: Any) -> None:
        """Raises CannotFuse if a traced graph is not what plain Keras computes."""
        sees_batches = isinstance(self._model, FunctionalModel) and self._model.sees_batches
        refuse_operations(graph, left_out=sees_batches)
        if self._before and (changed := self._before.counted(self.keras_model)):
            raise CannotFuse(
                f"each call of the model changes {changed} in Python, which a program does only"
                " once; keep what changes in a variable (add_weight)"
            )

    def compile_only(self, own: Stacked, num_epochs: int) -> str:
        """Compiles `train_epochs`, which must be traced, without running it.

        Returns:
            What XLA made of it, in its language HLO.

        Raises:
            tf.errors.InvalidArgumentError: XLA cannot compile it; a call would raise the same.
        """
        orders = tf.zeros([num_epochs, *own.order_shape], tf.int32)
        compiler = self._train_epochs.experimental_get_compiler_ir(
            own.state, own.train, orders, own.val
        )
        try:
            return str(compiler(stage="optimized_hlo"))
        except (TypeError, ValueError) as error:  # what this way of compiling raises instead
            raise tf.errors.InvalidArgumentError(None, None, str(error)) from error

    def memory_bytes(self, width: int) -> tuple[int, int]:
        """The estimated most bytes of `train_epochs` for this many trials, and of its arguments."""
        if width not in self._memory_bytes:
            self._memory_bytes[width] = peak_bytes(self._traced[width])
        return self._memory_bytes[width]

    @property
    def keras_model(self) -> keras.Model:
        """The model that the program was traced from."""
        return self._model.model

    @property
    def note(self) -> str:
        """What is to be known of its numbers; empty if they are those of `model.fit`."""
        return self._model.stream.note

    @property
    def step_function(self) -> Any:
        """The traced step, of all trials (`fused`) or of one (`mapped`)."""
        return self._epochs.traced_step

    def compile_step(self, own: Stacked) -> Callable[[], None]:
        """A function that computes one step of a slice: of all its trials, or of its first one.

        It takes all trials with `fused`, the first with `mapped`. The step is put into a loop, as
        in training, because XLA's code for it may be much slower there (on a CPU, convolutions of
        one trial: 1,400 ms instead of 24).
        """
        together = self._engine == "fused"
        rows = slice(None) if together else slice(0, 1)
        state = tf.nest.map_structure(lambda tensor: tensor[rows], own.state)
        batch = first_batches(own.train, self._batch_size, rows, len(own.indices), own.is_shared)[0]
        steps = self._compiled(self._take_steps, "steps")
        once = tf.constant(1)  # a tensor, whose value XLA does not know, so that it keeps the loop

        def take_step() -> None:
            steps(state, batch, once)[0].numpy()  # reading the result waits for the computation

        return take_step

    def _take_steps(self, state: ModelState, batch: Any, num_steps: tf.Tensor) -> list[tf.Tensor]:
        """The tensors of the state after some steps on one batch."""

        def take_step(_: tf.Tensor, state: ModelState, recorders: Any) -> Any:
            return self._epochs.step(state, batch)[0], recorders

        state, _ = repeat(take_step, num_steps, state, one_trial=self._engine == "mapped")
        return list(tf.nest.flatten(state))

    def check_numbers(self, numbers: Sequence[float]) -> None:
        """Raises CannotShare unless the traced program is right for a trial's hyperparameters."""
        self._model.trace.check(numbers)

    def verify(
        self,
        slices: Sequence[Stacked],
        model_of: Callable[[int], keras.Model],
        other_seeds: Collection[int],
    ) -> None:
        """Compares the first steps with plain Keras; `train_epochs` must be traced.

        One trial is enough if both its hyperparameters and its seed differ from the traced model's;
        otherwise one with other hyperparameters and one with another seed are compared. The trial's
        model is built anew, under its own seed. This finds a builder whose models differ from seed
        to seed in more than their variables.

        Args:
            slices: The slices before the first step.
            model_of: A trial's index in the pack -> its own compiled model.
            other_seeds: Indices of the trials whose seed is not the traced model's.

        Raises:
            CannotFuse: The steps differ.
        """
        numbers = [location.value for location in self._model.trace.locations]
        candidates = [(own, row) for own in slices for row in range(len(own.indices))]

        def is_other(own: Stacked, row: int) -> tuple[bool, bool]:
            return list(own.numbers[row]) != numbers, own.indices[row] in other_seeds

        chosen = max(candidates, key=lambda candidate: is_other(*candidate))
        by_seed = max(candidates, key=lambda candidate: is_other(*candidate)[::-1])
        compared = [chosen] if is_other(*chosen)[1] or not other_seeds else [chosen, by_seed]
        for own, row in compared:
            self._compare(own, row, model_of, numbers)
        self.is_verified = bool(other_seeds)  # without any, a later pack with some is compared

    def _compare(
        self,
        own: Stacked,
        row: int,
        model_of: Callable[[int], keras.Model],
        numbers: Sequence[float],
    ) -> None:
        """Raises CannotFuse if the first steps of a slice's trial differ from plain Keras's."""
        rows = slice(None) if self._engine == "fused" else slice(row, row + 1)
        state = _rows_of(own.state, rows)
        batches = first_batches(
            own.train, self._batch_size, rows, own.order_shape[0], own.is_shared
        )
        index = row if self._engine == "fused" else 0
        val = own.val if own.is_shared else _rows_of(own.val, rows)
        with _TRACING:  # so that no other thread replaces functions of Keras meanwhile
            model = model_of(own.indices[row])
            with settings_to_trace(model):
                reason = self._why_different(model, state, batches, val=val, index=index)
        if reason:
            said = f"it would not be trained as by plain Keras: {reason}"
            with_numbers = zip(self._model.trace.locations, own.numbers[row], strict=True)
            paths = dict.fromkeys(
                location.path for location, n in with_numbers if n != location.value
            )
            raise CannotShare.of(said, tuple(paths)) if paths else CannotFuse(said)

    def _why_different(
        self,
        model: keras.Model,
        state: ModelState,
        batches: Sequence[tuple[Any, ...]],
        *,
        val: tuple[Any, ...],
        index: int,
    ) -> str:
        traced, epochs = self._model, self._epochs
        if isinstance(traced, OwnStepsModel):
            assert isinstance(epochs, OwnEpochs)
            return why_own_steps_differ(traced, model, epochs, state, batches, val=val, index=index)
        return why_different(traced, model, epochs, state, batches, val=val, index=index)

    def _compiled(self, function: Callable[..., Any], what: str) -> CachedFunction:
        name = f"{self.name} {self._engine} {what}"
        return CachedFunction(function, name, self._tracing, self._check)

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        with _TRACING, contextlib.ExitStack() as stack:
            stack.enter_context(settings_to_trace(self._model.model))
            if self._engine == "fused":
                stack.enter_context(keras_tracing.recurrence_by(rolled_or_unrolled))
                stack.enter_context(constant_draws_as_outside_xla())
            else:
                stack.enter_context(keras_tracing.recurrence_by(rolled_or_as_it_is))
                stack.enter_context(draws_as_outside_xla())
            stack.enter_context(products_for_xla(one_trial=self._engine == "mapped"))
            stack.enter_context(keras_tracing.encoding_without_bincount())
            stack.enter_context(images_by_arithmetic())
            stack.enter_context(sorting_as_outside_xla())
            self._before = PythonState(self.keras_model) if self._may_count else None
            yield

    def _train_in_turn(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        def train_one(state: ModelState, own_orders: tf.Tensor, *own: Any) -> Any:
            train_own, val_own = own or (train, val)
            orders = tf.transpose(own_orders, [1, 0, 2])
            new_state, logs = self._epochs.train(state, train_own, orders, val_own)
            return new_state, {name: tf.transpose(values) for name, values in logs.items()}

        own = [] if self._shared_data else [train, val]
        by_trial = tf.transpose(orders, [1, 0, 2])
        new_state, logs = run_in_turn(train_one, [state, by_trial, *own])
        return new_state, {name: tf.transpose(values) for name, values in logs.items()}

    def _until_not_finite_in_turn(
        self, state: ModelState, train: tuple[Any, ...], orders: tf.Tensor, val: tuple[Any, ...]
    ) -> tuple[ModelState, Logs]:
        def train_one(state: ModelState, own_orders: tf.Tensor, *own: Any) -> Any:
            train_own, val_own = own or (train, val)
            return self._epochs.train_until_not_finite(state, train_own, own_orders, val_own)

        own = [] if self._shared_data else [train, val]
        return run_in_turn(train_one, [state, orders, *own])

    def _evaluate_in_turn(
        self, state: ModelState, val: tuple[Any, ...], test: tuple[Any, ...]
    ) -> tuple[Any, Logs, Any]:
        if self._shared_data:
            return run_in_turn(lambda own: self._epochs.evaluate(own, val, test), [state])
        return run_in_turn(self._epochs.evaluate, [state, val, test])


def _rows_of(stacked: Any, rows: slice) -> Any:
    """Some of the trials of stacked tensors (trials, ...)."""
    return tf.nest.map_structure(lambda tensor: tensor[rows], stacked)
