"""Private names of TensorFlow's draws from its own random stream, and of Keras's old backend's."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

from keras.src.legacy import backend as legacy_backend
from tensorflow.python.framework import random_seed
from tensorflow.python.ops import gen_random_ops
from tensorflow.python.ops.parallel_for import control_flow_ops

from trialrun.errors import CannotFuse


@contextlib.contextmanager
def stateful_draws_replaced(replacements: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Within this context, TensorFlow's generated functions of stateful draws are replaced.

    Args:
        replacements: A name such as `random_standard_normal` -> a function with the parameters of
            TensorFlow's. As `seed` it gets the seed that the user gave to the draw, or None.
    """

    def seed_of_the_user(seed: Any) -> tuple[Any, Any]:
        return seed, seed

    with contextlib.ExitStack() as stack:
        for name, function in replacements.items():
            stack.enter_context(mock.patch.object(gen_random_ops, name, function))
        stack.enter_context(mock.patch.object(random_seed, "get_seed", seed_of_the_user))
        stack.enter_context(unseeded_by_numpy())
        loop = functools.partial(_without_draws, control_flow_ops._pfor_impl, list(replacements))
        stack.enter_context(mock.patch.object(control_flow_ops, "_pfor_impl", loop))
        yield


def _without_draws(loop: Callable[..., Any], names: list[str], *args: Any, **given: Any) -> Any:
    """A loop of `tf.vectorized_map`, whose rows would all get the numbers of one draw."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise CannotFuse("it draws from tf.random inside tf.vectorized_map; draw outside of it")

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(gen_random_ops, name, refuse))
        return loop(*args, **given)


@contextlib.contextmanager
def unseeded_by_numpy() -> Iterator[None]:
    """Within this context, functions such as `K.random_normal` leave seeds to TensorFlow.

    Otherwise each call of theirs, which a graph has once, draws a seed from NumPy's stream.
    """
    without_seeds = SimpleNamespace(randint=lambda *_, **__: None)
    numpy_of_keras = SimpleNamespace(**{**vars(legacy_backend.np), "random": without_seeds})
    with mock.patch.object(legacy_backend, "np", numpy_of_keras):
        yield
