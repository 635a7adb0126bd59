"""What a model's code draws from `tf.random`, drawn from a stream of each trial's own.

TensorFlow keeps such a stream for its whole process, which no program can share. So while a step is
traced, those draws are replaced by draws of the same distributions under a seed that is part of the
trial's state, as the state of a `keras.random.SeedGenerator` is. The numbers are not those that
`model.fit` draws. While a program is compared with plain Keras, plain Keras draws them as well.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals.gradient_tapes import functions_inlined
from trialrun.training.internals.random_functions import stateful_draws_replaced
from trialrun.training.internals.tensorflow_graph import is_known_here
from trialrun.training.model.ownership import why_unknown
from trialrun.training.vectorize.stateful_draws import draws_by

_STREAM = 0x7F52  # tells these seeds from those of other streams that a trial's seed keys
_OWN_STREAM = (
    "draws from tf.random come from a stream of each trial's own: distributed as in model.fit,"
    " but other numbers"
)
_DRAWN_INSIDE = (
    "it draws from tf.random inside a branch or a loop (tf.cond, tf.while_loop, tf.map_fn); draw"
    " outside of it, for all rows at once"
)


class TrialStream:
    """The stream of one trial at a time.

    Args:
        model: The model; one that is made of Keras's own classes draws nothing from `tf.random`.

    Attributes:
        variables: Where the stream is: one variable of a key and a count, or none.
        is_used: Whether anything was drawn from it.
    """

    def __init__(self, model: keras.Model) -> None:
        self.is_used = False
        self.variables: list[keras.Variable] = []
        if why_unknown(model):
            start = stream_starts([0])[0]
            self.variables.append(
                keras.Variable(start, dtype="int64", trainable=False, name="stream_of_tf_random")
            )

    @property
    def note(self) -> str:
        """What is to be known of a program's numbers; empty if nothing was drawn from it."""
        return _OWN_STREAM if self.is_used else ""

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Within this context, in which one step is taken, `tf.random` draws from the stream."""
        if not self.variables:
            yield
            return
        next_seed = functools.partial(self._next_seed, set())
        # A function that was traced here would be found again where nothing is replaced.
        with stateful_draws_replaced(draws_by(next_seed)), functions_inlined():
            yield
        if not is_known_here(tf.convert_to_tensor(self.variables[0])):
            raise CannotFuse(_DRAWN_INSIDE)

    def drawing_in_plain_keras(self) -> contextlib.AbstractContextManager[None]:
        """As `drawing`, for plain Keras that a traced program is compared with.

        If the program has drawn nothing, all that plain Keras calls is left as it is, also a
        `tf.function`, so that the comparison sees whatever one does that the program does not.
        """
        return self.drawing() if self.is_used else contextlib.nullcontext()

    def _next_seed(self, given: set[Any], seed_of_user: Any) -> tf.Tensor:
        """The seed of the next draw; the stream is one draw further after it.

        Args:
            given: The seeds of the user's in this step, to which this one is added.
            seed_of_user: That of this draw; None if it has none.

        Raises:
            CannotFuse: The user gave the same seed twice, so that draws are equal or one follows
                the other; or the draw is not made once in each step.
        """
        if seed_of_user is not None and seed_of_user in given:
            raise CannotFuse(
                f"it draws from tf.random twice in a step with the same seed ({seed_of_user}); give"
                " none, or draw once and use the numbers twice"
            )
        given.add(seed_of_user)
        self.is_used = True
        (variable,) = self.variables
        seed = tf.convert_to_tensor(variable)
        if not is_known_here(seed):
            raise CannotFuse(_DRAWN_INSIDE)
        variable.assign(seed + tf.constant([0, 1], tf.int64))
        return seed


def draws_in_a_step(model: keras.Model, batch: tuple[Any, ...]) -> bool:
    """Whether a step of a model draws from `tf.random`; the model takes the step.

    Args:
        model: A compiled model.
        batch: `(x, y)` or `(x, y, sample_weight)` tensors.
    """
    stream = TrialStream(model)
    # What the step raises, if it does, is said where models are checked.
    with contextlib.suppress(Exception), stream.drawing():
        if stream.variables:
            model.train_step(batch)
    return stream.is_used


def stream_starts(seeds: Sequence[int]) -> npt.NDArray[np.int64]:
    """Where the streams of trials begin: int64 (trials, 2).

    Args:
        seeds: The seeds of the trials, each of which alone decides where its stream begins.
    """
    keys = [np.random.SeedSequence([seed, _STREAM]).generate_state(1, np.uint64) for seed in seeds]
    starts = np.zeros((len(seeds), 2), np.int64)
    starts[:, 0] = np.concatenate(keys) >> np.uint64(1)
    return starts
