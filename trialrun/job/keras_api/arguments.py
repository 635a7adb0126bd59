"""The arguments of Keras 3.15's optimizers, schedules, losses and metrics, known without Keras.

Each class has a line with its arguments and their kinds (`_KINDS`); `?` marks an argument that may
be null and `!` one that must be given. A test compares names and `!` with the installed Keras.
Left out are arguments that the job gives elsewhere (the learning rate, a metric's name in the logs)
and those whose result no table can hold (a metric that gives one number per class).
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from trialrun.messages import show, suggest


@dataclass(frozen=True, slots=True)
class Argument:
    """What an argument may be.

    Attributes:
        kind: A key of `_KINDS`.
        nullable: Whether it may be null.
        required: Whether it must be given.
    """

    kind: str
    nullable: bool
    required: bool


Arguments = Mapping[str, Argument]


def check_arguments(owner: str, given: Mapping[str, Any], known: Arguments) -> None:
    """Raises ValueError unless a class takes these arguments.

    Args:
        owner: The class, as the user wrote it.
        given: Argument -> value.
        known: The class's entry in one of the tables below.

    Raises:
        ValueError: An argument is unknown, wrong or missing. The message continues a sentence that
            begins with the field's name.
    """
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{owner} takes no argument {name!r}; {suggest(name, known)}")
        argument = known[name]
        expected, is_right = _KINDS[argument.kind]
        if not (is_right(value) or (value is None and argument.nullable)):
            or_null = " or null" if argument.nullable else ""
            raise ValueError(f"{owner}'s {name} must be {expected}{or_null}, got {show(value)}")
    for name, argument in known.items():
        if argument.required and name not in given:
            expected, _ = _KINDS[argument.kind]
            raise ValueError(f"{owner} needs an argument {name!r}, {expected}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[float]:
    """Whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_real(value) and math.isfinite(value)


def _number_where(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and holds(value)


def _integer_where(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _is_integer(value) and holds(value)


def _list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list | tuple) and len(value) > 0 and all(map(is_right, value))
    )


def _one_of(*words: str) -> tuple[str, Callable[[Any], bool]]:
    return " or ".join(map(repr, words)), lambda value: isinstance(value, str) and value in words


# Kind -> how messages describe it, and a function that tells whether a value is of this kind.
_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "number": ("a finite number", _is_number),
    "positive": ("a number greater than 0", _number_where(lambda value: value > 0)),
    "nonnegative": ("a number of at least 0", _number_where(lambda value: value >= 0)),
    "nonpositive": ("a number of at most 0", _number_where(lambda value: value <= 0)),
    "share": ("a number from 0 to 1", _number_where(lambda value: 0 <= value <= 1)),
    "beta": ("a number from 0 to below 1", _number_where(lambda value: 0 <= value < 1)),
    "whole": ("an integer of at least 0", _integer_where(lambda value: value >= 0)),
    "count": ("an integer of at least 1", _integer_where(lambda value: value >= 1)),
    "several": ("an integer of at least 2", _integer_where(lambda value: value >= 2)),
    "integer": ("an integer", _is_integer),
    "integers": ("a list of integers", _list_of(_is_integer)),
    "numbers": ("a list of numbers", _list_of(_is_number)),
    "rising": (
        "a list of numbers above 0, each greater than the one before",
        lambda value: (
            _list_of(_number_where(lambda number: number > 0))(value)
            and all(a < b for a, b in itertools.pairwise(value))
        ),
    ),
    "rates": (
        "a list of numbers of at least 0",
        _list_of(_number_where(lambda number: number >= 0)),
    ),
    "texts": ("a list of texts", _list_of(lambda value: isinstance(value, str))),
    "text": ("text", lambda value: isinstance(value, str)),
    "axes": (
        "an integer or a list of integers",
        lambda value: _is_integer(value) or _list_of(_is_integer)(value),
    ),
    "average": _one_of("micro", "macro", "weighted"),
    "aggregation": _one_of("uniform_average", "variance_weighted_average"),
    "reduction": _one_of("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"),
}


def _parse(text: str) -> dict[str, Argument]:
    """`name:kind` words, with `?` and `!` behind them, as arguments."""
    arguments = {}
    for word in text.split():
        name, _, kind = word.partition(":")
        arguments[name] = Argument(kind.rstrip("?!"), "?" in kind, "!" in kind)
    return arguments


def _table(common: str, lines: Mapping[str, str]) -> dict[str, Arguments]:
    return {name: _parse(f"{line} {common}") for name, line in lines.items()}


_ADAM = "beta_1:beta beta_2:beta epsilon:nonnegative"

# The keys are names of classes. Keras ignores the case of an optimizer's name.
OPTIMIZER_ARGUMENTS = _table(
    """
    weight_decay:nonnegative? clipnorm:positive? clipvalue:positive? global_clipnorm:positive?
    use_ema:flag ema_momentum:share ema_overwrite_frequency:count? loss_scale_factor:positive?
    gradient_accumulation_steps:several?
    """,
    {
        "Adadelta": "rho:share epsilon:nonnegative",
        "Adafactor": """beta_2_decay:number epsilon_1:nonnegative epsilon_2:nonnegative
            clip_threshold:positive relative_step:flag""",
        "Adagrad": "initial_accumulator_value:nonnegative epsilon:nonnegative",
        "Adam": f"{_ADAM} amsgrad:flag",
        "AdamW": f"{_ADAM} amsgrad:flag",
        "Adamax": _ADAM,
        "Ftrl": """learning_rate_power:nonpositive initial_accumulator_value:nonnegative
            l1_regularization_strength:nonnegative l2_regularization_strength:nonnegative
            l2_shrinkage_regularization_strength:nonnegative beta:nonnegative""",
        "Lamb": _ADAM,
        "Lion": "beta_1:beta beta_2:beta",
        "Muon": """adam_beta_1:beta adam_beta_2:beta adam_weight_decay:nonnegative?
            epsilon:nonnegative exclude_layers:texts? exclude_embeddings:flag muon_a:number
            muon_b:number muon_c:number adam_lr_ratio:nonnegative momentum:beta ns_steps:count
            nesterov:flag rms_rate:nonnegative?""",
        "Nadam": _ADAM,
        "RMSprop": "rho:share momentum:share epsilon:nonnegative centered:flag",
        "SGD": "momentum:share nesterov:flag",
        "ScheduleFreeAdamW": f"{_ADAM} warmup_steps:whole",
    },
)

# What `optimizer.loss_scaling` may hold.
LOSS_SCALING_ARGUMENTS = _parse("initial_scale:positive dynamic_growth_steps:count")

# Steps are batches. An argument that ends in `_steps` may be given as `_epochs` instead, and
# `boundaries` as `boundary_epochs`. The initial rate is training.learning_rate.
SCHEDULE_ARGUMENTS = _table(
    "",
    {
        "CosineDecay": """decay_steps:count! alpha:nonnegative warmup_target:nonnegative?
            warmup_steps:whole""",
        "CosineDecayRestarts": """first_decay_steps:count! t_mul:positive m_mul:nonnegative
            alpha:nonnegative""",
        "ExponentialDecay": "decay_steps:count! decay_rate:nonnegative! staircase:flag",
        "InverseTimeDecay": "decay_steps:count! decay_rate:nonnegative! staircase:flag",
        "PiecewiseConstantDecay": "boundaries:rising! values:rates!",
        "PolynomialDecay": """decay_steps:count! end_learning_rate:nonnegative power:nonnegative
            cycle:flag""",
    },
)

_CROSSENTROPY = "from_logits:flag label_smoothing:share axis:integer"
_FOCAL = f"gamma:nonnegative {_CROSSENTROPY}"

LOSS_ARGUMENTS = _table(
    "reduction:reduction",
    {
        "BinaryCrossentropy": _CROSSENTROPY,
        "BinaryFocalCrossentropy": f"apply_class_balancing:flag alpha:share {_FOCAL}",
        "CTC": "",
        "CategoricalCrossentropy": _CROSSENTROPY,
        "CategoricalFocalCrossentropy": f"alpha:nonnegative {_FOCAL}",
        "CategoricalHinge": "",
        "Circle": "gamma:positive margin:share remove_diagonal:flag",
        "CosineSimilarity": "axis:integer",
        "Dice": "axis:axes?",
        "Hinge": "",
        "Huber": "delta:positive",
        "KLDivergence": "",
        "LogCosh": "",
        "MeanAbsoluteError": "",
        "MeanAbsolutePercentageError": "",
        "MeanSquaredError": "",
        "MeanSquaredLogarithmicError": "",
        "Poisson": "",
        "SparseCategoricalCrossentropy": "from_logits:flag ignore_class:integer? axis:integer",
        "SquaredHinge": "",
        "Tversky": "alpha:nonnegative beta:nonnegative axis:axes?",
    },
)

_AT = "num_thresholds:count class_id:whole?"
_CLASSES = "num_classes:count!"
_IDS = "target_class_ids:integers"
_SPARSE = "ignore_class:integer? sparse_y_true:flag sparse_y_pred:flag axis:integer"
_ONE_HOT = "ignore_class:integer? sparse_y_pred:flag axis:integer"

METRIC_ARGUMENTS = _table(
    "",
    {
        "AUC": """num_thresholds:several curve:text summation_method:text thresholds:numbers?
            multi_label:flag num_labels:count? label_weights:numbers? from_logits:flag""",
        "Accuracy": "",
        "BinaryAccuracy": "threshold:number",
        "BinaryCrossentropy": "from_logits:flag label_smoothing:share",
        "BinaryIoU": f"{_IDS} threshold:number",
        "CategoricalAccuracy": "",
        "CategoricalCrossentropy": _CROSSENTROPY,
        "CategoricalHinge": "",
        "ConcordanceCorrelation": "axis:axes",
        "CosineSimilarity": "axis:integer",
        "F1Score": "average:average! threshold:share?",
        "FBetaScore": "average:average! beta:positive threshold:share?",
        "FalseNegatives": "thresholds:share?",
        "FalsePositives": "thresholds:share?",
        "Hinge": "",
        "IoU": f"{_CLASSES} {_IDS}! {_SPARSE}",
        "KLDivergence": "",
        "LogCoshError": "",
        "MeanAbsoluteError": "",
        "MeanAbsolutePercentageError": "",
        "MeanIoU": f"{_CLASSES} {_SPARSE}",
        "MeanSquaredError": "",
        "MeanSquaredLogarithmicError": "",
        "OneHotIoU": f"{_CLASSES} {_IDS}! {_ONE_HOT}",
        "OneHotMeanIoU": f"{_CLASSES} {_ONE_HOT}",
        "PearsonCorrelation": "axis:axes",
        "Poisson": "",
        "Precision": "thresholds:share? top_k:count? class_id:whole?",
        "PrecisionAtRecall": f"recall:share! {_AT}",
        "R2Score": "class_aggregation:aggregation num_regressors:whole",
        "Recall": "thresholds:share? top_k:count? class_id:whole?",
        "RecallAtPrecision": f"precision:share! {_AT}",
        "RootMeanSquaredError": "",
        "SensitivityAtSpecificity": f"specificity:share! {_AT}",
        "SparseCategoricalAccuracy": "",
        "SparseCategoricalCrossentropy": "from_logits:flag ignore_class:integer? axis:integer",
        "SparseTopKCategoricalAccuracy": "k:count from_sorted_ids:flag",
        "SpecificityAtSensitivity": f"sensitivity:share! {_AT}",
        "SquaredHinge": "",
        "TopKCategoricalAccuracy": "k:count",
        "TrueNegatives": "thresholds:share?",
        "TruePositives": "thresholds:share?",
    },
)
