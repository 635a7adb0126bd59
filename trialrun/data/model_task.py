"""The task of a model: classification, regression, or something else, as plain values.

The task follows from the losses and the outputs that `trialrun.training.model.outputs` reads from
the built model; Keras is not needed here. The task also turns logits into probabilities for
confusion matrices, scores and `predict`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from trialrun.messages import said_by

TaskKind = Literal["binary", "multiclass", "multilabel", "regression", "other"]
OutputKind = Literal["probabilities", "logits", "scores", "values"]
Family = Literal[
    "binary",  # each output is yes or no
    "sparse",  # labels are class numbers
    "categorical",  # labels are one column per class
    "categorical_hinge",
    "distribution",  # labels are distributions
    "hinge",  # labels are 0 and 1, or -1 and 1
    "quantity",
    "count",  # Poisson
    "logarithm",  # compares logarithms of quantities of at least 0
    "other",  # a loss of Keras for neither classes nor quantities
    "own",  # a loss of the user's
]
_QUANTITIES = ("quantity", "count", "logarithm")
_DISTRIBUTIONS = ("sparse", "categorical", "distribution", "categorical_hinge")
# Activations whose outputs are not probabilities, even if a loss takes them as such.
_NO_PROBABILITIES = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish"),
    *("mish", "softplus", "softsign", "tanh", "log_softmax"),
)


@dataclass(frozen=True, slots=True)
class OutputLoss:
    """An output of a built model and its loss.

    Attributes:
        name: How messages name the loss.
        family: What its labels are.
        shape: The shape of the output of one row; None for an axis of variable length.
        output: The name of the output; empty if it is the only one.
        from_logits: Whether the loss takes the output as logits. After a sigmoid or softmax Keras
            never does, even if the loss has `from_logits=True`.
        activation: The activation of the last layer; empty if it is unknown.
        ignored_class: A label that the loss ignores.
    """

    name: str
    family: Family
    shape: tuple[int | None, ...]
    output: str = ""
    from_logits: bool = False
    activation: str = ""
    ignored_class: int | None = None

    @property
    def num_outputs(self) -> int | None:
        """The width of the last axis; None if it is variable."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True, slots=True)
class ModelTask:
    """What a model is for, and what its outputs are.

    Attributes:
        kind: `binary` for two classes with one output, `multiclass` for one class of several,
            `multilabel` for several labels that are each present or not, `regression` for
            quantities, or `other`. Only the first two have confusion matrices.
        outputs: What the outputs are; `scores` order the classes but are not probabilities.
        num_outputs: Columns of the predictions; 0 if the predictions of a row have more axes.
        threshold: For `binary`, an output above it means the second class.
        reason: The loss and what is known about the output.
        warning: A probable mistake in the model; empty if there is none.
    """

    kind: TaskKind
    outputs: OutputKind
    num_outputs: int
    threshold: float
    reason: str
    warning: str = ""

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 unless the model is a classifier with one class per row."""
        return {"binary": 2, "multiclass": self.num_outputs}.get(self.kind, 0)

    def describe(self) -> str:
        """The task with its reason, e.g. `classifier of 3 classes (loss ..., from_logits)`."""
        words = {
            "binary": "classifier of 2 classes",
            "multiclass": f"classifier of {self.num_outputs} classes",
            "multilabel": f"{self.num_outputs} labels that are each there or not",
            "regression": "regression",
            "other": "neither classifier nor regression: no confusion matrix, no class scores",
        }[self.kind]
        return f"{words} ({self.reason})"

    def probabilities(self, predictions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The model's outputs, with logits turned into probabilities.

        Args:
            predictions: Outputs of the model (rows, outputs).

        Returns:
            Probabilities, float64 (rows, outputs), for logits; else `predictions`.
        """
        if self.outputs != "logits":
            return predictions
        from scipy.special import expit, softmax

        logits = np.asarray(predictions, np.float64)
        given: npt.NDArray[np.float64] = (
            softmax(logits, axis=-1) if self.kind == "multiclass" else expit(logits)
        )
        return given

    def classes(self, predictions: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The predicted class of each row, int64 (rows,), from outputs (rows, outputs)."""
        if self.kind == "binary":
            return np.asarray(predictions[:, 0] > self.threshold, np.int64)
        return np.asarray(predictions.argmax(1), np.int64)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ModelTask":
        """The task that `to_json` wrote.

        Raises:
            ValueError: The value does not describe a task.
        """
        try:
            task = cls(**value)
        except TypeError as error:
            raise ValueError(f"is not the task of a model: {said_by(error)}") from error
        if task.kind not in get_args(TaskKind) or task.outputs not in get_args(OutputKind):
            raise ValueError(f"is not the task of a model: {task.kind}, {task.outputs}")
        return task


def task_of(losses: Sequence[OutputLoss]) -> ModelTask:
    """The task of a model with these losses; with several outputs its kind is `other`.

    A loss of the user's own does not tell what its labels are; then a softmax or a single sigmoid
    as the last layer does.
    """
    if not losses:
        return _other("no loss that compares outputs with labels")
    if len(losses) > 1 or losses[0].output:  # a named output has others beside it, without a loss
        tasks = (f"{loss.output}: {_task_of_output(loss).describe()}" for loss in losses)
        return _other(f"several outputs; {'; '.join(tasks)}")
    return _task_of_output(losses[0])


def _task_of_output(loss: OutputLoss) -> ModelTask:
    reason = _reason(loss)
    if loss.family in _QUANTITIES:
        width = loss.num_outputs if len(loss.shape) < 2 else 0
        return ModelTask("regression", "values", width or 0, 0.0, reason)
    kind = _kind(loss)
    if kind is None:
        return _other(reason)
    width = loss.num_outputs or 0
    return ModelTask(kind, _outputs(loss), width, _threshold(loss), reason, _warning(loss))


def _other(reason: str) -> ModelTask:
    return ModelTask("other", "values", 0, 0.0, reason)


def _kind(loss: OutputLoss) -> TaskKind | None:
    """The kind of classifier; None if the model does not give one row of outputs per row."""
    width = loss.num_outputs
    if len(loss.shape) > 1 or width is None:
        return None
    if width == 1:
        is_binary = loss.family in ("binary", "hinge")
        return "binary" if is_binary or _is_own(loss, "sigmoid") else None
    if loss.family in _DISTRIBUTIONS or _is_own(loss, "softmax"):
        return "multiclass"
    if loss.family == "binary":  # after a softmax, the columns exclude each other
        return "multiclass" if loss.activation == "softmax" else "multilabel"
    return None


def _is_own(loss: OutputLoss, activation: str) -> bool:
    return loss.family == "own" and loss.activation == activation


def _outputs(loss: OutputLoss) -> OutputKind:
    if loss.from_logits:
        return "logits"
    if "hinge" in loss.family or loss.activation in _NO_PROBABILITIES:
        return "scores"
    is_distribution = loss.family in _DISTRIBUTIONS
    return "scores" if is_distribution and loss.activation == "sigmoid" else "probabilities"


def _threshold(loss: OutputLoss) -> float:
    return 0.0 if loss.from_logits or loss.family == "hinge" else 0.5


def _reason(loss: OutputLoss) -> str:
    shown = f"loss {loss.name}" + (", from_logits" if loss.from_logits else "")
    if loss.family == "own":
        shown = f"{shown}, which is not one of Keras's"
        if loss.activation in ("sigmoid", "softmax"):
            shown += f"; last layer {loss.activation}"
    if len(loss.shape) > 1:
        shown += f"; output of shape {loss.shape} per row"
    return shown


def _warning(loss: OutputLoss) -> str:
    if loss.activation == "softmax" and loss.num_outputs == 1:
        return "the softmax of a single output is always 1: give the last layer a sigmoid"
    if _outputs(loss) != "scores" or "hinge" in loss.family:
        return ""
    fitting = "softmax" if loss.family in _DISTRIBUTIONS else "sigmoid"
    return (
        f"the loss {loss.name} takes the outputs for probabilities, but the last layer is"
        f" {loss.activation}: give it the activation {fitting}, or none and the loss from_logits:"
        " true; until then the model has no class probabilities"
    )
