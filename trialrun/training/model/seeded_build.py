"""Initial weights of a model under many seeds, as Keras would draw them under each."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.errors import CannotFuse, InputError
from trialrun.training.internals import keras_model, keras_seeds, keras_tracing
from trialrun.training.program.varying import locations_of


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

    Attributes:
        model: The model, as built under `seed`.
    """

    def __init__(self, build: Callable[[], keras.Model], seed: int) -> None:
        self._build, self._seed = build, seed
        with keras_seeds.recording_build() as self._record:
            self.model = build_seeded(build, seed)
        self._built_numbers = _numbers_of(self.model)  # now, because use of the model changes some
        self._built_values = {id(variable): variable.numpy() for variable in self.variables}
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

    @property
    def variables(self) -> list[keras.Variable]:
        """Trainable, then non-trainable variables of the model."""
        return _variables_of(self.model)

    def initial_variables(self, seeds: Sequence[int]) -> list[npt.NDArray[np.generic]]:
        """Arrays (trials, ...) for each of `variables`: the values that a build under a seed gives.

        The replay is checked against a real build under the last seed. If they differ, because the
        builder draws from other streams (NumPy's, say), it is called once per trial.

        Raises:
            CannotFuse: The builder gives another model under another seed.
            InputError: It gives another model, or other initial weights, each time.
        """
        if difference := self.difference_under(seeds[-1]):
            raise CannotFuse(difference)
        return self._replay(seeds) if self._replay_is_exact else self._rebuild(seeds)

    def difference_under(self, seed: int) -> str:
        """How the model differs under another seed, apart from its variables' values; found once.

        Returns:
            The difference in words; empty if there is none.

        Raises:
            InputError: The builder gives another model, or other initial weights, each time it is
                called.
        """
        if self._difference is None:
            other = build_seeded(self._build, seed)
            self._difference = self._difference_to(other)
            self._replay_is_exact = not self._difference and _are_close(
                [replayed[0] for replayed in self._replay([seed])],
                [variable.numpy() for variable in _variables_of(other)],
            )
            if not self._replay_is_exact:
                self._require_the_same_again()
        return self._difference

    def _require_the_same_again(self) -> None:
        """Refuses a builder whose result depends on more than its arguments and the seed."""
        again = build_seeded(self._build, self._seed)
        if difference := self._difference_to(again):
            difference = self._difference or difference
            raise InputError(
                "model.builder gives another model when it is called again with the same"
                f" arguments: {difference}; what it makes may depend on nothing else"
            )
        built = [self._built_values[id(variable)] for variable in self.variables]
        for variable, value in zip(_variables_of(again), built, strict=True):
            if not _are_close([variable.numpy()], [value]):
                raise InputError(
                    "model.builder gives other initial weights when it is called again with the"
                    f" same arguments and seed: those of {variable.path!r}, so a trial would"
                    " depend on those before it; let it draw from Keras's initializers or from"
                    " np.random, random or tf.random themselves, which the trial's seed sets, and"
                    " not from a generator of its file or one without a seed"
                )

    def _difference_to(self, other: keras.Model) -> str:
        """How another build differs, apart from its variables' values; empty if it does not."""
        shapes, other_shapes = (
            [tuple(v.shape) for v in _variables_of(model)] for model in (self.model, other)
        )
        if shapes != other_shapes:
            return f"its variables are of shapes {shapes} and {other_shapes}"
        numbers, others = self._built_numbers, _numbers_of(other)
        for name in sorted(numbers.keys() & others.keys()):
            if numbers[name] != others[name]:
                return f"{name} is {numbers[name]} and {others[name]}"
        if other.compiled:  # by the builder
            models = (self.model, other)
            variables = [keras_model.learning_rate_variable(model.optimizer) for model in models]
            rates = [None if variable is None else float(variable) for variable in variables]
            if rates[0] != rates[1]:
                return f"the learning rate is {rates[0]} and {rates[1]}"
        return ""

    def _rebuild(self, seeds: Sequence[int]) -> list[npt.NDArray[np.generic]]:
        per_trial = []
        for seed in seeds:
            model = build_seeded(self._build, seed)
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


def _are_close(
    arrays: Sequence[npt.NDArray[np.generic]], others: Sequence[npt.NDArray[np.generic]]
) -> bool:
    return all(
        np.allclose(array, other, rtol=1e-5, atol=1e-6, equal_nan=True)
        for array, other in zip(arrays, others, strict=True)
    )


def _numbers_of(model: keras.Model) -> dict[str, Any]:
    """The numbers that a builder gave a model, by the names of their locations; none are drawn."""
    return {
        name: location.value
        for name, location in locations_of(model).items()
        if not isinstance(location.owner, keras.initializers.Initializer)
        and not isinstance(location.value, keras_seeds.SeedDraw)
    }
