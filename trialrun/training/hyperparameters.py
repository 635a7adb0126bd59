"""Numbers of a model that are another for each trial of a program: rates, penalties, momenta.

Keras keeps such a number as a Python float in a layer, a regularizer, the optimizer or the loss.
Here it is found by building the model again with another number, and while a program is traced a
`TracedNumber` takes its place: a float to Python, one trial's tensor to TensorFlow. What Python
decides by it (`if rate > 0`) is noted, and must hold for every trial.
"""

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from trialrun.errors import CannotShare
from trialrun.identity import NumberPath, numbers_inside, numbers_key, with_number
from trialrun.plan import Variant
from trialrun.training import internals

Values = Mapping[str, float]  # by the name of a place
# `numbers_key` of a variant -> its numbers at some places
Numbers = dict[tuple[float, ...], list[float]]

# ------------------------------------------------------------------------------------- places


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a number is kept.

    Attributes:
        name: `layers[1].rate`: the same in every build of a model.
        owner: The object, or the mapping, that holds it.
        key: Its attribute, or its key.
        value: What it holds.
        path: The number of the settings that is kept there.
    """

    name: str
    owner: Any
    key: str
    value: float
    path: NumberPath = ()

    def put(self, value: float) -> None:
        """Puts a number there, past what Keras does when an attribute is set."""
        holder = self.owner if isinstance(self.owner, dict) else vars(self.owner)
        holder[self.key] = value


def places_of(model: keras.Model) -> dict[str, Place]:
    """Every number that a compiled model, its optimizer and its loss keep, by its name."""
    places: dict[str, Place] = {}
    seen: set[int] = set()

    def walk(value: Any, name: str) -> None:
        if id(value) in seen or not isinstance(value, (*_HOLDERS, dict, list, tuple)):
            return
        seen.add(id(value))
        if isinstance(value, list | tuple):
            for number, item in enumerate(value):
                walk(item, f"{name}[{number}]")
            return
        items = value if isinstance(value, dict) else vars(value)
        for key, item in items.items():
            where = f"{name}.{key}" if name else str(key)
            if isinstance(item, int | float) and not isinstance(item, bool):
                places[where] = Place(where, value, key, item)
            elif not (key in _NOT_FOLLOWED or str(key).startswith("_self_")):
                walk(item, where)

    if model.compiled:
        walk(model.optimizer, "optimizer")
        walk(model.loss, "loss")
    model_and_layers = internals.all_layers(model)
    for number, layer in enumerate(sorted(model_and_layers, key=lambda one: one is model)):
        walk(layer, f"layers[{number}]")
    return places


_HOLDERS = (
    keras.layers.Layer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.initializers.Initializer,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.losses.Loss,
)
# What Keras notes about a model's graph and about variables, by names that no two builds share; and
# layers in layers, which are walked as layers.
_NOT_FOLLOWED = (
    *("_inbound_nodes", "_outbound_nodes", "_layers", "_tracker", "_metrics", "_losses"),
    *("_trainable_variables_indices", "_compile_config", "_functional", "_operations"),
)


@contextlib.contextmanager
def numbers_put(places: Sequence[Place], numbers: Sequence[float]) -> Iterator[None]:
    """While it lasts, places hold other numbers."""
    try:
        for place, number in zip(places, numbers, strict=True):
            place.put(number)
        yield
    finally:
        for place in places:
            place.put(place.value)


def find_varying(
    model: keras.Model,
    variants: Sequence[Variant],
    build: Callable[[Variant], keras.Model],
) -> tuple[tuple[Place, ...], Numbers]:
    """The places whose numbers differ between variants of one signature.

    Each number that differs in the settings is changed alone, to see where it ends up.

    Args:
        model: That of the first variant, compiled.
        variants: At least one.
        build: The compiled model of a variant, made under the same seed as `model`.

    Returns:
        The places, and the numbers of each variant there.

    Raises:
        CannotShare: A number ends up nowhere, or where a program cannot be given it.
    """
    first = variants[0]
    distinct = {numbers_key(variant): variant for variant in variants}
    own = places_of(model)
    names: dict[str, None] = {}
    changed_by: dict[str, NumberPath] = {}
    is_plain = True  # each number of the settings is what is kept in its places
    for path, values in _differing(list(distinct.values())).items():
        other = next(value for value in values if value != values[0])
        changed = places_of(build(with_number(first, path, other)))
        found = _changed_places(own, changed, path)
        for name in found:
            is_plain &= own[name].value == values[0] and changed[name].value == other
            is_plain &= name not in changed_by
            changed_by[name] = path
            names[name] = None
    numbers = {}
    for key, variant in distinct.items():
        if is_plain:
            given = numbers_inside(variant)
            numbers[key] = [given[changed_by[name]] for name in names]
        else:
            of_variant = places_of(build(variant))
            _require_same(own, of_variant, "the settings of its trials")
            numbers[key] = [of_variant[name].value for name in names]
    return tuple(replace(own[name], path=changed_by[name]) for name in names), numbers


def _differing(variants: Sequence[Variant]) -> dict[NumberPath, list[float]]:
    """The numbers of the settings that are not the same in all variants: one value per variant."""
    each = [numbers_inside(variant) for variant in variants]
    values = {path: [one[path] for one in each] for path in each[0]}
    return {path: of_path for path, of_path in values.items() if len(set(of_path)) > 1}


def _changed_places(
    own: Mapping[str, Place], changed: Mapping[str, Place], path: NumberPath
) -> list[str]:
    what = ".".join(path)
    _require_same(own, changed, what, (path,))
    found = [name for name, place in own.items() if place.value != changed[name].value]
    if not found:
        raise CannotShare.of(f"where {what} ends up in the model is not known", (path,))
    for name in found:
        if isinstance(own[name].owner, keras.initializers.Initializer):
            raise CannotShare.of(f"{what} changes the initial weights ({name})", (path,))
        if isinstance(own[name].value, int) and isinstance(changed[name].value, int):
            raise CannotShare.of(f"{what} changes an integer ({name})", (path,))
    return found


def _require_same(
    own: Mapping[str, Place],
    other: Mapping[str, Place],
    what: str,
    paths: tuple[NumberPath, ...] = (),
) -> None:
    if different := sorted(own.keys() ^ other.keys()):
        raise CannotShare.of(f"{what} changes what the model is made of ({different[0]})", paths)


def guilty_paths(error: BaseException | None) -> tuple[NumberPath, ...]:
    """The paths of a CannotShare, or of the one that Keras made a new exception of."""
    while error is not None:
        if isinstance(error, CannotShare) and error.paths:
            return error.paths
        error = error.__cause__ or error.__context__
    return ()


# ------------------------------------------------------------------------------------- tracing


@dataclass(frozen=True, slots=True)
class Decision:
    """A comparison that Python made while a program was traced.

    Attributes:
        of: Numbers of a trial -> what was compared.
        comparison: With what it was compared, and how.
        outcome: What came out.
        shown: For messages.
        paths: The numbers of the settings that are compared.
    """

    of: Callable[[Values], float]
    comparison: Callable[[float], bool]
    outcome: bool
    shown: str
    paths: tuple[NumberPath, ...] = ()

    def check(self, values: Values) -> None:
        """Raises CannotShare if another trial's numbers would have been decided otherwise."""
        if self.comparison(self.of(values)) != self.outcome:
            raise CannotShare.of(f"{self.shown} is not the same for all trials", self.paths)


class Trace:
    """What becomes of the numbers while a program is traced.

    Attributes:
        places: Where they are kept.
        read: Names of the places whose tensor went into a computation.
        decisions: What Python decided by them.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self.read: set[str] = set()
        self.decisions: list[Decision] = []

    @contextlib.contextmanager
    def tracing(self, tensors: Sequence[tf.Tensor]) -> Iterator[None]:
        """While it lasts, each place holds a number that is one trial's float64 tensor."""
        numbers = [
            TracedNumber(
                place.value,
                tensor,
                frozenset([place.name]),
                functools.partial(_number_of, place.name),
                self,
            )
            for place, tensor in zip(self.places, tensors, strict=True)
        ]
        with numbers_put(self.places, numbers), internals.square_root_of_dropout(_square_root):
            yield

    def require_all_read(self) -> None:
        """Raises CannotShare if a number went into no computation: it would be the first's.

        Keras may keep it in several places, and remember in some of them only what it was given.
        """
        read = {place.path for place in self.places if place.name in self.read}
        for place in self.places:
            if place.path not in read:
                what = ".".join(place.path)
                raise CannotShare.of(
                    f"{what} is built into an operation of the model ({place.name})", (place.path,)
                )

    def paths_of(self, names: Collection[str]) -> tuple[NumberPath, ...]:
        """The numbers of the settings that are kept in places of these names."""
        paths = (place.path for place in self.places if place.name in names)
        return tuple(dict.fromkeys(filter(None, paths)))

    def check(self, numbers: Sequence[float]) -> None:
        """Raises CannotShare if something was decided that does not hold for other numbers."""
        of_trial = dict(zip((place.name for place in self.places), numbers, strict=True))
        for decision in self.decisions:
            decision.check(of_trial)


def _number_of(name: str, values: Values) -> float:
    return values[name]


class TracedNumber(float):
    """A float to Python, with the first trial's value; a trial's scalar tensor to TensorFlow.

    Arithmetic with Python's numbers gives another one, in float64 as Python computes; what meets a
    tensor becomes a tensor of its type, as a Python float would.
    """

    tensor: tf.Tensor
    names: frozenset[str]
    of: Callable[[Values], float]
    trace: Trace
    shape = ()
    dtype = float  # Keras promotes it as it does Python's

    def __new__(
        cls,
        value: float,
        tensor: tf.Tensor,
        names: frozenset[str],
        of: Callable[[Values], float],
        trace: Trace,
    ) -> "TracedNumber":
        """A number of some places, computed by `of` from theirs."""
        number = super().__new__(cls, value)
        number.tensor, number.names, number.of, number.trace = tensor, names, of, trace
        return number

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        """Called by TensorFlow where it needs a tensor."""
        self.trace.read |= self.names
        return tf.cast(self.tensor, dtype or tf.float32)

    def __float__(self) -> float:
        raise CannotShare.of(f"{self._shown} is read as a constant", self._paths)

    def __int__(self) -> int:
        raise CannotShare.of(f"{self._shown} is made an integer", self._paths)

    __trunc__ = __index__ = __int__

    @property
    def _shown(self) -> str:
        return " and ".join(sorted(self.names))

    @property
    def _paths(self) -> tuple[NumberPath, ...]:
        return self.trace.paths_of(self.names)

    def _decide(self, comparison: Callable[[float], bool], shown: str) -> bool:
        outcome = comparison(_plain(self))
        self.trace.decisions.append(
            Decision(self.of, comparison, outcome, f"{self._shown}{shown}", self._paths)
        )
        return outcome

    def __bool__(self) -> bool:
        return self._decide(bool, " != 0")

    __hash__ = float.__hash__


def _plain(number: float) -> float:
    return float.__add__(number, 0.0) if isinstance(number, TracedNumber) else number


def _compute(function: Callable[..., Any], numbers: Sequence[Any]) -> TracedNumber:
    """A function of Python's numbers, of which at least one is traced."""
    traced = [number for number in numbers if isinstance(number, TracedNumber)]
    tensors = [
        number.tensor if isinstance(number, TracedNumber) else tf.constant(number, tf.float64)
        for number in numbers
    ]

    def of(values: Values) -> float:
        given = (n.of(values) if isinstance(n, TracedNumber) else n for n in numbers)
        return float(function(*given))

    return TracedNumber(
        function(*map(_plain, numbers)),
        function(*tensors),
        frozenset().union(*(number.names for number in traced)),
        of,
        traced[0].trace,
    )


def _square_root(number: float) -> float:
    """That of Python, of a traced number a traced one."""
    if not isinstance(number, TracedNumber):
        return math.sqrt(number)
    return _compute(lambda n: tf.sqrt(n) if tf.is_tensor(n) else math.sqrt(n), [number])


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _arithmetic(function: Callable[[Any, Any], Any], *, reflected: bool) -> Callable[..., Any]:
    def method(self: TracedNumber, other: Any) -> Any:
        if _is_plain(other):
            return _compute(function, [other, self] if reflected else [self, other])
        other = tf.convert_to_tensor(other)
        own = self.__tf_tensor__(other.dtype)
        return function(other, own) if reflected else function(own, other)

    return method


def _comparison(function: Callable[[Any, Any], Any], sign: str) -> Callable[..., Any]:
    def method(self: TracedNumber, other: Any) -> Any:
        if isinstance(other, TracedNumber):
            difference = _compute(operator.sub, [self, other])
            return difference._decide(lambda value: function(value, 0.0), f" {sign}")
        if other is None or isinstance(other, str):
            return NotImplemented
        if _is_plain(other):
            return self._decide(lambda value: function(value, other), f" {sign} {other}")
        other = tf.convert_to_tensor(other)
        return function(self.__tf_tensor__(other.dtype), other)

    return method


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _function = getattr(operator, _name)
    setattr(TracedNumber, f"__{_name}__", _arithmetic(_function, reflected=False))
    setattr(TracedNumber, f"__r{_name}__", _arithmetic(_function, reflected=True))
for _name, _sign in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    setattr(TracedNumber, f"__{_name}__", _comparison(getattr(operator, _name), _sign))
for _name in ("neg", "abs"):
    _function = getattr(operator, _name)
    setattr(TracedNumber, f"__{_name}__", lambda self, _f=_function: _compute(_f, [self]))
