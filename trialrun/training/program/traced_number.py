"""A number that is a Python float to Keras's code, and a traced scalar to the program."""

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Never

import numpy as np
import tensorflow as tf

from trialrun.errors import CannotFuse, CannotShare
from trialrun.training.internals import keras_tracing
from trialrun.trials.signature import NumberPath

NumbersByName = Mapping[str, float]  # name of a `Location` -> its number


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """The location of a number in a model.

    Attributes:
        name: Its name, like `layers[1].rate`; the same in every build of the model.
        owner: The object or mapping that holds the number.
        key: The attribute or key under which the owner holds it.
        value: The number.
        path: The number of the trial's settings that is kept there.
    """

    name: str
    owner: Any
    key: str
    value: float
    path: NumberPath = ()

    @property
    def number(self) -> Any:
        """What is there now."""
        return self._holder[self.key]

    def put(self, value: Any) -> None:
        """Stores a number there directly, without what Keras does when an attribute is set."""
        self._holder[self.key] = value

    @property
    def _holder(self) -> Any:
        return self.owner if isinstance(self.owner, dict) else vars(self.owner)


@contextlib.contextmanager
def numbers_put(locations: Sequence[Location], numbers: Sequence[Any]) -> Iterator[None]:
    """Within this context, the given locations hold other numbers."""
    try:
        for location, number in zip(locations, numbers, strict=True):
            location.put(number)
        yield
    finally:
        for location in locations:
            location.put(location.value)


def guilty_paths(error: BaseException | None) -> tuple[NumberPath, ...]:
    """The paths of a CannotShare, also if Keras has wrapped it in another exception."""
    while error is not None:
        if isinstance(error, CannotShare) and error.paths:
            return error.paths
        error = error.__cause__ or error.__context__
    return ()


@dataclass(frozen=True, slots=True)
class Branch:
    """A comparison by which Python chose its way while a program was traced.

    Attributes:
        of: A trial's numbers -> the value that was compared.
        comparison: The comparison, as a function of that value.
        outcome: Its result.
        shown: The comparison as text, for messages.
        paths: The numbers of the settings that were compared.
    """

    of: Callable[[NumbersByName], float]
    comparison: Callable[[float], bool]
    outcome: bool
    shown: str
    paths: tuple[NumberPath, ...] = ()

    def check(self, numbers: NumbersByName) -> None:
        """Raises CannotShare if the comparison has another result for these numbers."""
        if self.comparison(self.of(numbers)) != self.outcome:
            raise CannotShare.of(f"{self.shown} is not the same for all trials", self.paths)


class Trace:
    """Records how the numbers are used while a program is traced.

    Attributes:
        locations: Where the model keeps them.
        read: Names of the locations whose tensor went into a computation.
        branches: The comparisons that Python made with them.
        refused: The first error that was raised where Python must know a number.
    """

    def __init__(self, locations: Sequence[Location]) -> None:
        self.locations = locations
        self.read: set[str] = set()
        self.branches: list[Branch] = []
        self.refused: CannotFuse | None = None  # also if the user's code has caught it

    @contextlib.contextmanager
    def tracing(self, tensors: Sequence[tf.Tensor]) -> Iterator[None]:
        """Within this context, each location holds a number that is one trial's float64 tensor."""
        numbers = [
            TracedNumber(
                location.value,
                tensor,
                frozenset([location.name]),
                functools.partial(_number_of, location.name),
                self,
            )
            for location, tensor in zip(self.locations, tensors, strict=True)
        ]
        with (
            numbers_put(self.locations, numbers),
            keras_tracing.square_root_of_dropout(_square_root),
        ):
            yield
            for location, number in zip(self.locations, numbers, strict=True):
                if location.number is not number:
                    raise CannotFuse(f"each call of the model changes {location.name} in Python")
        if self.refused is not None:
            raise self.refused

    def refuse(self, what: str) -> Never:
        """Raises CannotShare for all numbers.

        Args:
            what: Why no program can be given them.
        """
        names = frozenset(location.name for location in self.locations)
        raise CannotShare.of(f"{' and '.join(sorted(names))}: {what}", self.paths_of(names))

    def require_all_read(self) -> None:
        """Raises CannotShare if a number went into no computation.

        All trials would then use the first trial's. A number may be kept in several locations, and
        one that is read is enough: in others Keras may only remember what it was given.
        """
        read = {location.path for location in self.locations if location.name in self.read}
        for location in self.locations:
            if location.path not in read:
                what = ".".join(location.path)
                raise CannotShare.of(
                    f"{what} is built into an operation of the model ({location.name})",
                    (location.path,),
                )

    def paths_of(self, names: Collection[str]) -> tuple[NumberPath, ...]:
        """The paths of the settings whose numbers are kept in the locations with these names."""
        paths = (location.path for location in self.locations if location.name in names)
        return tuple(dict.fromkeys(filter(None, paths)))

    def check(self, numbers: Sequence[float]) -> None:
        """Raises CannotShare if Python would have taken another branch for these numbers.

        Args:
            numbers: One per location.
        """
        by_name = dict(zip((location.name for location in self.locations), numbers, strict=True))
        for branch in self.branches:
            branch.check(by_name)


def _number_of(name: str, numbers: NumbersByName) -> float:
    return numbers[name]


def _arithmetic(
    function: Callable[[Any, Any], Any], *, reflected: bool = False
) -> Callable[..., Any]:
    """The method of `TracedNumber` for an arithmetic operator with two operands."""

    def method(self: "TracedNumber", other: Any) -> Any:
        other = _as_python_does(other)
        if _is_plain(other):
            return _compute(function, [other, self] if reflected else [self, other])
        if not isinstance(other, np.ndarray):
            return NotImplemented  # as a float; then the tensor or variable computes
        array = tf.convert_to_tensor(other)
        own = self.__tf_tensor__(array.dtype)
        return function(array, own) if reflected else function(own, array)

    return method


def _comparison(function: Callable[[Any, Any], Any], sign: str) -> Callable[..., Any]:
    """The method of `TracedNumber` for a comparison."""

    def method(self: "TracedNumber", other: Any) -> Any:
        if isinstance(other, TracedNumber):
            difference = _compute(operator.sub, [self, other])
            return difference._branch(lambda value: function(value, 0.0), f" {sign}")
        other = _as_python_does(other)
        if _is_plain(other):
            return self._branch(lambda value: function(value, other), f" {sign} {other}")
        if not isinstance(other, np.ndarray):
            return NotImplemented
        array = tf.convert_to_tensor(other)
        return function(self.__tf_tensor__(array.dtype), array)

    return method


def _operation(function: Callable[[Any], Any]) -> Callable[["TracedNumber"], "TracedNumber"]:
    """The method of `TracedNumber` for an operator with one operand."""

    def method(self: "TracedNumber") -> "TracedNumber":
        return _compute(function, [self])

    return method


def _reading(what: str) -> Callable[..., Never]:
    """The method of `TracedNumber` for an operation that must know one trial's number."""

    def method(self: "TracedNumber", *_: Any, **__: Any) -> Never:
        error = CannotShare.of(f"{self._shown} is {what}", self._paths)
        self.trace.refused = self.trace.refused or error
        raise error

    return method


class TracedNumber:
    """A float to Python's `isinstance`, and a trial's scalar tensor to TensorFlow.

    Arithmetic with Python numbers gives another traced number, in float64 as Python computes.
    Arithmetic with a tensor gives a tensor of that tensor's type, as for a Python float.

    It is no subclass of float: of one, `math.log`, a text or a remainder would be computed from
    the value that it has in C, by no method of its own, and so from the first trial's number.

    Args:
        value: The first trial's number.
        tensor: The number of each trial, a scalar.
        names: The locations from whose numbers it follows.
        of: Computes it from them.
        trace: Is told how it is used.
    """

    shape = ()
    dtype = float  # Keras promotes it like a Python float

    def __init__(
        self,
        value: float,
        tensor: tf.Tensor,
        names: frozenset[str],
        of: Callable[[NumbersByName], float],
        trace: Trace,
    ) -> None:
        self.value, self.tensor = value, tensor
        self.names, self.of, self.trace = names, of, trace

    __class__: Any = property(lambda _: float)  # what `isinstance(rate, float)` asks for

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        """Called by TensorFlow where it needs a tensor.

        Raises:
            TypeError: It needs whole numbers, which TensorFlow makes of no float either.
        """
        if dtype is not None and not (dtype.is_floating or dtype.is_complex):
            raise TypeError(f"expected {dtype.name}, got {self._shown}, which is a float")
        self.trace.read |= self.names
        return tf.cast(self.tensor, dtype or tf.float32)

    def __copy__(self) -> "TracedNumber":
        return self

    def __deepcopy__(self, _: Any) -> "TracedNumber":
        return self

    __float__ = __complex__ = __array__ = __reduce_ex__ = _reading("read as a constant")
    __int__ = __trunc__ = __index__ = __round__ = __floor__ = __ceil__ = _reading("made an integer")
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _reading(
        "divided with a remainder"
    )
    __str__ = __repr__ = __format__ = hex = _reading("made a text")
    __hash__ = _reading("looked up in a table")
    is_integer = as_integer_ratio = _reading("read as a constant")

    @property
    def _shown(self) -> str:
        return " and ".join(sorted(self.names))

    @property
    def _paths(self) -> tuple[NumberPath, ...]:
        return self.trace.paths_of(self.names)

    def _branch(self, comparison: Callable[[float], bool], shown: str) -> bool:
        outcome = comparison(_plain(self))
        self.trace.branches.append(
            Branch(self.of, comparison, outcome, f"{self._shown}{shown}", self._paths)
        )
        return outcome

    def __bool__(self) -> bool:
        return self._branch(bool, " != 0")

    __add__ = _arithmetic(operator.add)
    __radd__ = _arithmetic(operator.add, reflected=True)
    __sub__ = _arithmetic(operator.sub)
    __rsub__ = _arithmetic(operator.sub, reflected=True)
    __mul__ = _arithmetic(operator.mul)
    __rmul__ = _arithmetic(operator.mul, reflected=True)
    __truediv__ = _arithmetic(operator.truediv)
    __rtruediv__ = _arithmetic(operator.truediv, reflected=True)
    __pow__ = _arithmetic(operator.pow)
    __rpow__ = _arithmetic(operator.pow, reflected=True)
    __neg__ = _operation(operator.neg)
    __abs__ = _operation(operator.abs)
    __lt__ = _comparison(operator.lt, "<")
    __le__ = _comparison(operator.le, "<=")
    __gt__ = _comparison(operator.gt, ">")
    __ge__ = _comparison(operator.ge, ">=")
    __eq__ = _comparison(operator.eq, "==")
    __ne__ = _comparison(operator.ne, "!=")


def _plain(number: Any) -> Any:
    return number.value if isinstance(number, TracedNumber) else number


def _compute(function: Callable[..., Any], numbers: Sequence[Any]) -> TracedNumber:
    """A function of Python numbers, of which at least one is traced, as a traced number."""
    traced = [number for number in numbers if isinstance(number, TracedNumber)]
    tensors = [
        number.tensor if isinstance(number, TracedNumber) else tf.constant(number, tf.float64)
        for number in numbers
    ]

    def of(numbers_by_name: NumbersByName) -> float:
        given = (n.of(numbers_by_name) if isinstance(n, TracedNumber) else n for n in numbers)
        return float(function(*given))

    return TracedNumber(
        function(*map(_plain, numbers)),
        function(*tensors),
        frozenset().union(*(number.names for number in traced)),
        of,
        traced[0].trace,
    )


def _square_root(number: float) -> float:
    """The square root of a number; of a traced number, a traced one."""
    if not isinstance(number, TracedNumber):
        return math.sqrt(number)
    return _compute(lambda n: tf.sqrt(n) if tf.is_tensor(n) else math.sqrt(n), [number])


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float)


def _as_python_does(value: Any) -> Any:
    """NumPy's numbers as Python's, and its whole numbers as those that a float makes of them."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    is_whole = isinstance(value, np.ndarray) and value.dtype.kind in "biu"
    return value.astype("float64") if is_whole else value
