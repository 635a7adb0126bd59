"""Initial weights of a model under many seeds, as Keras would draw them under each."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.errors import CannotFuse, InputError
from trialrun.training.internals import keras_model, keras_seeds, keras_tracing
from trialrun.training.model.held_values import (
    Held,
    difference_of_calls,
    difference_of_seeds,
    held_values,
)

Values = Mapping[str, Held]


def build_seeded(build: Callable[[], keras.Model], seed: int) -> keras.Model:
    """The model that `set_random_seed(seed)` followed by `build()` gives in a new process."""
    keras.utils.set_random_seed(seed)
    with keras_tracing.names_of_a_new_process():
        return build()


class SeededBuild:
    """One model, and the initial variables of the same model under any other seed.

    Building a Keras model takes tens of milliseconds. Here it is built once while the seed of each
    initializer is recorded. For other seeds the draws are replayed, and the initializers are run
    in one TensorFlow function, trial by trial, so that each draws what it draws in a build.

    Args:
        build: Gives a new, built model; it is called after a seed has been set.
        seed: The seed of the recorded build.
        compile_it: Compiles a model that `build` has given, unless that did it.

    Attributes:
        model: The model, as built under `seed`.
        variables: Its trainable, then its non-trainable variables.
        is_compiled_by_builder: Whether `build` compiled it.
        held: What it holds beside its variables, before it is used.
        optimizer_start: The values of its optimizer's variables; none if it is not compiled.
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        seed: int,
        compile_it: Callable[[keras.Model], None] = lambda _: None,
    ) -> None:
        self._build, self._seed, self._compile = build, seed, compile_it
        with keras_seeds.recording_build() as self._record:
            self.model = build_seeded(build, seed)
        expected = keras_seeds.streams_after(seed, len(self._record.draws))
        self.is_compiled_by_builder = self.model.compiled
        compile_it(self.model)
        # Now, because use of the model changes some of it.
        self.variables = _variables_of(self.model)
        self._built_values = {id(variable): variable.numpy() for variable in self.variables}
        self.held = held_values(self.model)
        self.optimizer_start = tuple(variable.numpy() for variable in _optimizers_of(self.model))
        self._metrics_start = [variable.numpy() for variable in _metrics_of(self.model)]
        self._streams = keras_seeds.state_of_streams()
        self._draws_itself = self._streams != expected
        self._draw_of_generator = {
            state: self._record.draws.index(value)
            for state, value in keras_seeds.seed_generator_states(self.model).items()
            if value in self._record.draws
        }
        draws = tf.TensorSpec([None, len(self._record.draws)], tf.int64)
        self._initialize = tf.function(
            self._initialize_in_turn, autograph=False, input_signature=[draws]
        )
        self._replay_is_exact: bool | None = None
        self._difference: str | None = None
        self._is_compared = False  # with a model of another seed

    def initial_variables(self, seeds: Sequence[int]) -> list[npt.NDArray[np.generic]]:
        """Arrays (trials, ...) for each of `variables`: the values that a build under a seed gives.

        The replay is checked against a real build under the last seed. If they differ, because the
        builder draws from other streams (NumPy's, say), it is called once per trial.

        Raises:
            CannotFuse: The builder gives another model under another seed, or the model has made
                more variables since it was built.
            InputError: It gives another model, or other initial weights, each time.
        """
        if difference := self.difference_under(seeds[-1]):
            raise CannotFuse(difference)
        if len(_variables_of(self.model)) != len(self.variables):
            raise CannotFuse("its first call makes variables; let its layers be built by `build`")
        if self._draws_itself or not self._replay_is_exact:
            return self._rebuild(seeds)
        return self._replay(seeds)

    def difference_under(self, seed: int) -> str:
        """How the model differs under another seed, apart from its variables' values; found once.

        Returns:
            The difference in words; empty if there is none.

        Raises:
            InputError: The builder gives another model, or other initial weights, each time it is
                called.
        """
        if self._difference is None or not (self._is_compared or seed == self._seed):
            self._is_compared = seed != self._seed
            other = self._build_other(seed)
            # A builder may set the streams itself, and then draws the same under every seed.
            is_set = self._is_compared and keras_seeds.state_of_streams() == self._streams
            self._draws_itself = self._draws_itself and not is_set
            self._difference = self._difference_to(other, difference_of_seeds)
            self._replay_is_exact = not self._difference and _are_close(
                [replayed[0] for replayed in self._replay([seed])],
                [variable.numpy() for variable in _variables_of(other)],
            )
            if not self._replay_is_exact:
                self._require_the_same_again()
        return self._difference

    @property
    def draws_itself(self) -> bool:
        """Whether the builder draws numbers itself, and not only Keras's initializers do.

        Two seeds may then happen to give the same model, and a third another.
        """
        return self._draws_itself

    def why_other_start(self, other: keras.Model) -> str:
        """The variable that another build under the same seed begins otherwise; empty if none.

        Among those of the model, of its optimizer, but for the learning rate, and of its metrics.
        """
        variables = [*_variables_of(other), *_optimizers_of(other), *_metrics_of(other)]
        starts = [self._built_values[id(variable)] for variable in self.variables]
        expected = [*starts, *self.optimizer_start, *self._metrics_start]
        for value, variable in zip(expected, variables, strict=False):
            is_rate = other.compiled and _is_rate(variable, other)
            is_same = value.shape == variable.shape and _are_close([value], [variable.numpy()])
            if not is_rate and not is_same:
                return str(variable.path)
        return "" if len(expected) == len(variables) else "a variable that only one model has"

    def _build_other(self, seed: int) -> keras.Model:
        other = build_seeded(self._build, seed)
        self._compile(other)
        return other

    def _require_the_same_again(self) -> None:
        """Refuses a builder whose result depends on more than its arguments and the seed."""
        again = self._build_other(self._seed)
        if difference := self._difference_to(again, difference_of_calls):
            difference = self._difference or difference
            raise InputError(
                "model.builder gives another model when it is called again with the same"
                f" arguments: {difference}; what it makes may depend on nothing else"
            )
        if path := self.why_other_start(again):
            raise InputError(
                "model.builder gives other initial weights when it is called again with the"
                f" same arguments and seed: those of {path!r}, so a trial would"
                " depend on those before it; let it draw from Keras's initializers or from"
                " np.random, random or tf.random themselves, which the trial's seed sets, and"
                " not from a generator of its file or one without a seed"
            )

    def _difference_to(
        self, other: keras.Model, difference_of: Callable[[Values, Values], str]
    ) -> str:
        """How another build differs, apart from its variables' values; empty if it does not."""
        shapes = [value.shape for value in self._built_values.values()]
        other_shapes = [tuple(v.shape) for v in _variables_of(other)]
        if shapes != other_shapes:
            return f"its variables are of shapes {shapes} and {other_shapes}"
        if difference := difference_of(self.held, held_values(other)):
            return difference
        copied = keras_model.copied_weights(other.optimizer) if other.compiled else {}
        pairs = zip(self.optimizer_start, _optimizers_of(other), strict=True)
        for index, (start, variable) in enumerate(pairs):
            if index not in copied and not np.array_equal(start, variable.numpy()):
                what = "the learning rate" if _is_rate(variable, other) else variable.path
                return f"{what} is {start} and {variable.numpy()}"
        return ""

    def _rebuild(self, seeds: Sequence[int]) -> list[npt.NDArray[np.generic]]:
        per_trial = []
        for seed in seeds:
            model = self._build_other(seed)
            if difference := self._difference_to(model, difference_of_seeds):
                raise CannotFuse(difference)
            per_trial.append([variable.numpy() for variable in _variables_of(model)])
        return [np.stack(arrays) for arrays in zip(*per_trial, strict=True)]

    def _replay(self, seeds: Sequence[int]) -> list[npt.NDArray[np.generic]]:
        num_draws = len(self._record.draws)
        draws = np.array([keras_seeds.replay_draws(s, num_draws) for s in seeds], np.int64)
        random_values = iter(self._initialize(tf.constant(draws))) if num_draws else iter(())
        return [
            next(random_values).numpy()
            if self._draw_of_initializer(variable) is not None
            else self._unvarying_or_generator(variable, draws)
            for variable in self.variables
        ]

    def _initialize_in_turn(self, draws: tf.Tensor) -> list[tf.Tensor]:
        """Draws (trials, draws) -> values (trials, ...) of each randomly initialized variable."""
        forms = [
            tf.TensorSpec(variable.shape, variable.dtype)
            for variable in self.variables
            if self._draw_of_initializer(variable) is not None
        ]
        if not forms:  # what was drawn are seeds alone, such as that of a dropout
            return []
        return list(tf.map_fn(self._initialize_one_trial, draws, fn_output_signature=forms))

    def _initialize_one_trial(self, draws: tf.Tensor) -> list[tf.Tensor]:
        return [
            keras_seeds.initialize_with_seed(
                self._record.initializers[id(variable)], variable, draws[draw]
            )
            for variable in self.variables
            if (draw := self._draw_of_initializer(variable)) is not None
        ]

    def _draw_of_initializer(self, variable: keras.Variable) -> int | None:
        return keras_seeds.seed_draw_of(self._record.initializers.get(id(variable)))

    def _unvarying_or_generator(
        self, variable: keras.Variable, draws: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.generic]:
        draw = self._draw_of_generator.get(id(variable))
        if draw is not None:  # a seed generator's state is (seed, number of calls)
            return np.stack([draws[:, draw], np.zeros(len(draws), np.int64)], axis=1)
        value = self._built_values[id(variable)]
        return np.broadcast_to(value, (len(draws), *value.shape))


def _variables_of(model: keras.Model) -> list[keras.Variable]:
    return [*model.trainable_variables, *model.non_trainable_variables]


def _optimizers_of(model: keras.Model) -> list[keras.Variable]:
    return list(model.optimizer.variables) if model.compiled else []


def _metrics_of(model: keras.Model) -> list[keras.Variable]:
    given = keras_model.given_metrics(model) if model.compiled else []
    return [
        v for metric in given if isinstance(metric, keras.metrics.Metric) for v in metric.variables
    ]


def _is_rate(variable: keras.Variable, model: keras.Model) -> bool:
    return variable is keras_model.learning_rate_variable(model.optimizer)


def _are_close(
    arrays: Sequence[npt.NDArray[np.generic]], others: Sequence[npt.NDArray[np.generic]]
) -> bool:
    return all(
        np.array_equal(array, other)  # mostly, and fast
        or np.allclose(array, other, rtol=1e-5, atol=1e-6, equal_nan=True)
        for array, other in zip(arrays, others, strict=True)
    )
