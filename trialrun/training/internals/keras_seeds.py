"""Private names of Keras by which initial weights are recorded, and drawn again under a seed."""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.tensorflow import random as backend_random
from keras.src.backend.tensorflow.core import Variable as BackendVariable
from keras.src.initializers.random_initializers import RandomInitializer
from keras.src.random import seed_generator
from tensorflow.python.eager import context

from trialrun.training.internals.keras_model import all_layers


class SeedDraw(int):
    """A seed that Keras drew for an initializer or a seed generator, and which draw it was."""

    index: int


class BuildRecord:
    """What was drawn and initialized while a model was built.

    Attributes:
        draws: All default seeds, in the order in which Keras drew them.
        initializers: `id(variable)` -> the initializer that made it.
    """

    def __init__(self) -> None:
        self.draws: list[int] = []
        self.initializers: dict[int, Any] = {}


@contextlib.contextmanager
def recording_build() -> Iterator[BuildRecord]:
    """Records the seed draws and initializers of everything built within this context."""
    record = BuildRecord()
    draw_seed, initialize = (
        seed_generator.make_default_seed,
        BackendVariable._initialize_with_initializer,
    )

    def recorded_draw() -> SeedDraw:
        draw = SeedDraw(draw_seed())
        draw.index = len(record.draws)
        record.draws.append(int(draw))
        return draw

    def recorded_initialize(variable: Any, initializer: Any) -> None:
        record.initializers[id(variable)] = initializer
        initialize(variable, initializer)

    with contextlib.ExitStack() as stack:
        for module in _modules_that_draw_seeds(draw_seed):
            stack.enter_context(mock.patch.object(module, "make_default_seed", recorded_draw))
        stack.enter_context(
            mock.patch.object(BackendVariable, "_initialize_with_initializer", recorded_initialize)
        )
        yield record


def _modules_that_draw_seeds(draw_seed: Callable[[], int]) -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("keras.src") and vars(module).get("make_default_seed") is draw_seed
    ]


def replay_draws(seed: int, num_draws: int) -> list[int]:
    """The default seeds Keras would draw after `keras.utils.set_random_seed(seed)`."""
    stream = random.Random(seed)
    return [stream.randint(1, int(1e9)) for _ in range(num_draws)]


def state_of_streams() -> tuple[Any, ...]:
    """The states of the streams from which a builder may draw itself.

    Those of Python and NumPy, that of `keras.random` without a seed, and of `tf.random`.
    """
    of_keras = global_state.get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR)
    return (
        random.getstate(),
        repr(np.random.get_state(legacy=False)),
        None if of_keras is None else of_keras.state.numpy().tolist(),
        context.context()._rng.getstate(),
    )


def streams_after(seed: int, num_draws: int) -> tuple[Any, ...]:
    """`state_of_streams` after `keras.utils.set_random_seed(seed)` and draws by Keras alone."""
    stream = random.Random(seed)
    for _ in range(num_draws):
        stream.randint(1, int(1e9))
    of_numpy = repr(np.random.RandomState(seed).get_state(legacy=False))
    return stream.getstate(), of_numpy, None, random.Random(seed).getstate()


def seed_draw_of(initializer: Any) -> int | None:
    """Which draw seeds this initializer; None when its values do not depend on a drawn seed."""
    if not isinstance(initializer, RandomInitializer):
        return None
    return initializer.seed.index if isinstance(initializer.seed, SeedDraw) else None


def seed_generator_states(model: keras.Model) -> dict[int, int]:
    """`id(state variable)` -> seed value, of every seed generator whose seed Keras drew.

    Keras drew it when the generator was made. That may have been before the model was built, in a
    layer of the user's file.
    """
    return {
        id(generator.state): int(generator.state.numpy()[0])
        for layer in all_layers(model)
        for generator in getattr(layer, "_seed_generators", [])
        if generator._initial_seed is None
    }


def initialize_with_seed(initializer: Any, variable: keras.Variable, seed: tf.Tensor) -> tf.Tensor:
    """What the initializer gives for this variable under a traced scalar seed."""
    state = tf.stack([seed, tf.zeros([], seed.dtype)])
    with mock.patch.object(backend_random, "draw_seed", return_value=state):
        return tf.cast(initializer(variable.shape, dtype=variable.dtype), variable.dtype)
