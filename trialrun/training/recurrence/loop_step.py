"""A step of a loop over time, forwards, and backwards for its gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trialrun.training.recurrence.replay import operations_between, replay, values_of

# What costs next to nothing within other operations is computed again rather than kept.
_CHEAP = frozenset(
    {
        *("Add", "AddV2", "Sub", "Mul", "Neg", "Square", "Maximum", "Minimum", "Relu", "Cast"),
        *("Reshape", "ExpandDims", "Squeeze", "Transpose", "Identity", "StopGradient"),
        *("StridedSlice", "Slice", "Split", "SplitV", "ConcatV2", "Pack", "BroadcastTo", "Tile"),
        *("Select", "SelectV2", "LogicalNot", "Fill", "ZerosLike", "OnesLike", "Shape"),
    }
)
# (sliced by time, constant, carried) -> (recorded, carried on).
Core = Callable[
    [list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]], tuple[list[tf.Tensor], list[tf.Tensor]]
]


class LoopStep:
    """What a loop computes in each step, and what a loop backwards computes for its gradient.

    The step and its gradient are traced once, into a graph of their own; both loops take copies of
    its operations. What the way back reads, the way forward keeps, unless it is cheap to compute.

    Args:
        core: Of tensors of one step and one trial.
        sliced, constant, carried: What has the shapes and types of what it takes.

    Attributes:
        sliced, constant, carried: What a step takes.
        recorded, carried_on: What it gives.
        kept: What the way back needs of the way forward.
        d_sliced, d_constant, d_carried: The gradients; None where there is none.
    """

    def __init__(
        self,
        core: Core,
        sliced: Sequence[Any],
        constant: Sequence[Any],
        carried: Sequence[Any],
    ) -> None:
        def trace(*tensors: tf.Tensor) -> tf.Tensor:
            self.sliced = list(tensors[: len(sliced)])
            self.constant = list(tensors[len(sliced) : len(sliced) + len(constant)])
            self.carried = list(tensors[len(sliced) + len(constant) :])
            self.recorded, self.carried_on = core(self.sliced, self.constant, self.carried)
            self._differentiate()
            return tf.constant(0)  # what counts was noted above

        # It must be referred to: tensors alone do not keep their graph.
        self._traced = tf.function(trace, autograph=False).get_concrete_function(
            *(tf.TensorSpec(one.shape, one.dtype) for one in (*sliced, *constant, *carried))
        )
        self.kept = self._what_to_keep()

    def _differentiate(self) -> None:
        outputs = [*self.carried_on, *self.recorded]
        self._d_outputs = [tf.compat.v1.placeholder(t.dtype, t.shape) for t in outputs]
        pairs = zip(outputs, self._d_outputs, strict=True)
        smooth = [(output, d) for output, d in pairs if output.dtype.is_floating]
        inputs = [*self.sliced, *self.constant, *self.carried]
        found = tf.gradients([output for output, _ in smooth], inputs, [d for _, d in smooth])
        gradients = [None if d is None else tf.convert_to_tensor(d) for d in found]
        num_sliced, num_others = len(self.sliced), len(self.sliced) + len(self.constant)
        self.d_sliced = gradients[:num_sliced]
        self.d_constant = gradients[num_sliced:num_others]
        self.d_carried = [
            tf.zeros(tensor.shape, tensor.dtype) if d is None else d
            for tensor, d in zip(self.carried, gradients[num_others:], strict=True)
        ]

    def _what_to_keep(self) -> list[tf.Tensor]:
        inputs = {t.ref() for t in (*self.sliced, *self.constant, *self.carried)}
        given = {t.ref() for t in (*self.sliced, *self.constant, *self._d_outputs)}
        ends = given | inputs
        forward = operations_between([*self.carried_on, *self.recorded], dict.fromkeys(ends))
        ours = inputs | {t.ref() for operation in forward for t in operation.outputs}
        targets = [d for d in (*self.d_sliced, *self.d_constant, *self.d_carried) if d is not None]
        behind = operations_between(targets, dict.fromkeys(ends | ours))
        read = [*targets, *(tensor for operation in behind for tensor in operation.inputs)]
        needed = {tensor.ref(): tensor for tensor in read if tensor.ref() in ours}

        def is_cheap(tensor: tf.Tensor) -> bool:
            if tensor.ref() in inputs or tensor.ref() in available:
                return tensor.ref() in available
            operation = tensor.op
            return (not operation.inputs and operation.type != "Placeholder") or (
                operation.type in _CHEAP and all(map(is_cheap, operation.inputs))
            )

        available, kept = set(given), []
        # First what is dear: it may make others cheap.
        for tensor in sorted(needed.values(), key=lambda tensor: tensor.op.type in _CHEAP):
            if not is_cheap(tensor):
                kept.append(tensor)
                available.add(tensor.ref())
        return kept

    def forward(self, *tensors: tf.Tensor) -> list[tf.Tensor]:
        """A step: (sliced, constant, carried) -> (carried on, recorded, kept)."""
        known = values_of([*self.sliced, *self.constant, *self.carried], tensors)
        return replay([*self.carried_on, *self.recorded, *self.kept], known)

    @property
    def summed(self) -> list[int]:
        """The indices of the constants that have a gradient; it is the sum of all steps'."""
        return [index for index, d in enumerate(self.d_constant) if d is not None]

    def backward(self, *tensors: tf.Tensor) -> list[tf.Tensor]:
        """A step back.

        Takes: sliced, kept, gradients by what was recorded; constant; gradients by what was carried
        on, sums of the gradients by constants.

        Gives: gradients by what was carried, the sums; gradients by what was sliced.
        """
        num_carried = len(self.carried_on)
        d_carried_on, d_recorded = self._d_outputs[:num_carried], self._d_outputs[num_carried:]
        names = [*self.sliced, *self.kept, *d_recorded, *self.constant, *d_carried_on]
        by_sliced = [d for d in self.d_sliced if d is not None]
        by_constant = [self.d_constant[index] for index in self.summed]
        gradients = replay(
            [*self.d_carried, *by_constant, *by_sliced],
            values_of(names, tensors[: len(names)]),
        )
        for index, sum_before in enumerate(tensors[len(names) :], num_carried):
            gradients[index] += sum_before
        return gradients
