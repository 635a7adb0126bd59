"""A loop over time whose gradient is another such loop."""

from collections.abc import Sequence
from typing import Any, Never

import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import tensorflow_graph
from trialrun.training.recurrence.loop_step import LoopStep
from trialrun.training.recurrence.scan import Scan


def run_loop(
    step: LoopStep,
    sliced: Sequence[tf.Tensor],
    constant: Sequence[tf.Tensor],
    carried: Sequence[tf.Tensor],
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """What is carried at the end, and what all steps recorded (time, ...).

    Args:
        step: What each step computes.
        sliced: What a step takes its own slice of (time, ...).
        constant: What all steps take.
        carried: What the first step takes of a step before.
    """
    num_steps = sliced[0].shape[0]
    num_carried, num_shown = len(carried), len(carried) + len(step.recorded)
    forward = Scan(
        step.forward, num_steps, len(sliced), len(constant), [*step.recorded, *step.kept]
    ).traced([*sliced, *constant, *carried])

    @tf.custom_gradient
    def run(*inputs: tf.Tensor) -> Any:
        with tensorflow_graph.unrecorded():
            results = list(forward(*inputs))
        inputs_of_all_steps, kept = inputs[: len(sliced) + len(constant)], results[num_shown:]

        def gradient(*d: tf.Tensor) -> list[tf.Tensor | None]:
            return _run_back(
                step, num_steps, inputs_of_all_steps, kept, (d[:num_carried], d[num_carried:])
            )

        return results[:num_shown], gradient

    results = list(run(*sliced, *constant, *carried))
    return results[:num_carried], results[num_carried:]


def _run_back(
    step: LoopStep,
    num_steps: int,
    inputs: Sequence[tf.Tensor],
    kept: Sequence[tf.Tensor],
    d: tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]],
) -> list[tf.Tensor | None]:
    """The gradients by what was sliced, constant and carried; None where there is none.

    Args:
        step: What each step has computed.
        num_steps: How many there were.
        inputs: What was sliced, and what was constant.
        kept: What the steps have kept.
        d: The gradients by what was carried at the end, and by what was recorded.
    """
    sliced, constant = inputs[: len(step.sliced)], inputs[len(step.sliced) :]
    d_carried, d_recorded = d
    by_time = [*sliced, *kept, *d_recorded]
    sums = [tf.zeros(step.constant[i].shape, step.constant[i].dtype) for i in step.summed]
    recorded = [by for by in step.d_sliced if by is not None]
    given = [*by_time, *constant, *d_carried, *sums]
    back = Scan(
        step.backward, num_steps, len(by_time), len(constant), recorded, is_backwards=True
    ).traced(given)

    @tf.custom_gradient
    def run(*inputs: tf.Tensor) -> Any:
        with tensorflow_graph.unrecorded():
            return list(back(*inputs)), _refuse

    found = iter(run(*given))
    by_carried = [next(found) for _ in d_carried]
    by_constant = [None if by is None else next(found) for by in step.d_constant]
    by_sliced = [None if by is None else next(found) for by in step.d_sliced]
    return [*by_sliced, *by_constant, *by_carried]


def _refuse(*_: Any) -> Never:
    raise CannotFuse("the gradient of a recurrent layer's gradient")
