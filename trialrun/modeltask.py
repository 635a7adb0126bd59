"""What a built model is: a classifier, a regression, or something else. Without Keras: values.

It follows from the loss of each output and from what the outputs are, which `trialrun.builttask`
reads from the model. Here logits become probabilities, for whoever needs them: confusion matrices,
scores, and `predict`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Kind = Literal["binary", "multiclass", "multilabel", "regression", "other"]
Outputs = Literal["probabilities", "logits", "scores", "values"]
Family = Literal[
    "binary",  # each output is yes or no
    "sparse",  # labels are class numbers
    "categorical",  # labels are one column per class
    "categorical_hinge",
    "distribution",  # labels are distributions
    "hinge",  # labels are 0 and 1, or -1 and 1
    "quantity",
    "count",  # Poisson
    "logarithm",  # of quantities from 0
    "other",  # of Keras, but for neither classes nor quantities
    "own",  # a user's
]
_QUANTITIES = ("quantity", "count", "logarithm")
_DISTRIBUTIONS = ("sparse", "categorical", "distribution", "categorical_hinge")
# What these give is no probability, though a loss may take it for one.
_NO_PROBABILITIES = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish"),
    *("mish", "softplus", "softsign", "tanh", "log_softmax"),
)


@dataclass(frozen=True, slots=True)
class OutputLoss:
    """An output of a built model and its loss.

    Attributes:
        name: How messages call the loss.
        family: What its labels are.
        shape: Of the output of a row; None where an axis is open.
        output: Name of the output; empty for the only one.
        from_logits: Whether the loss takes the output for logits, as Keras does it: after a sigmoid
            or softmax it never does, whatever the loss was told.
        activation: Of the last layer; empty where that is not known.
        ignored_class: A label that the loss leaves out.
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
        """Width of the last axis."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True, slots=True)
class ModelTask:
    """What a model is for, and what its outputs are.

    Attributes:
        kind: Two classes told by one output, one class of several, several labels that are each
            there or not, quantities, or something else: such a model has no confusion matrix.
        outputs: `scores` order the classes and are no probabilities.
        num_outputs: Columns of the predictions; 0 where they are not in one row.
        threshold: Of `binary`: above it, the second class.
        reason: The loss, and what is known of the output.
        warning: What is likely to be an error of the model's; empty if nothing is.
    """

    kind: Kind
    outputs: Outputs
    num_outputs: int
    threshold: float
    reason: str
    warning: str = ""

    @property
    def num_classes(self) -> int:
        """Classes that are told apart; 0 for no classifier of one class per row."""
        return {"binary": 2, "multiclass": self.num_outputs}.get(self.kind, 0)

    def describe(self) -> str:
        """The task and why it is that, e.g. `classifier of 3 classes (loss ..., from_logits)`."""
        words = {
            "binary": "classifier of 2 classes",
            "multiclass": f"classifier of {self.num_outputs} classes",
            "multilabel": f"{self.num_outputs} labels that are each there or not",
            "regression": "regression",
            "other": "neither classifier nor regression: no confusion matrix, no class scores",
        }[self.kind]
        return f"{words} ({self.reason})"

    def probabilities(self, predictions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The model's outputs, with a probability in the place of each logit.

        Args:
            predictions: (rows, outputs).

        Returns:
            (rows, outputs): float64 for logits; anything else as it is.
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
        """The predicted class (rows,) of each row of a classifier's outputs (rows, outputs)."""
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
            ValueError: It is not one.
        """
        try:
            task = cls(**value)
        except TypeError as error:
            raise ValueError(f"is no task of a model: {error}") from error
        if task.kind not in get_args(Kind) or task.outputs not in get_args(Outputs):
            raise ValueError(f"is no task of a model: {task.kind}, {task.outputs}")
        return task


def task_of(losses: Sequence[OutputLoss]) -> ModelTask:
    """What a model with these losses is for; one of several outputs is something else.

    An own loss says nothing of its labels: there, a softmax or a single sigmoid does.
    """
    if not losses:
        return _other("no loss that compares outputs with labels")
    if len(losses) > 1 or losses[0].output:  # of a model that has others without a loss
        parts = (f"{one.output}: {_task_of_output(one).describe()}" for one in losses)
        return _other(f"several outputs; {'; '.join(parts)}")
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


def _kind(loss: OutputLoss) -> Kind | None:
    """The kind of classifier; None for none that is judged row by row."""
    width = loss.num_outputs
    if len(loss.shape) > 1 or width is None:
        return None
    if width == 1:
        is_binary = loss.family in ("binary", "hinge")
        return "binary" if is_binary or _is_own(loss, "sigmoid") else None
    if loss.family in _DISTRIBUTIONS or _is_own(loss, "softmax"):
        return "multiclass"
    if loss.family == "binary":  # columns that exclude each other are one class of several
        return "multiclass" if loss.activation == "softmax" else "multilabel"
    return None


def _is_own(loss: OutputLoss, activation: str) -> bool:
    return loss.family == "own" and loss.activation == activation


def _outputs(loss: OutputLoss) -> Outputs:
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
