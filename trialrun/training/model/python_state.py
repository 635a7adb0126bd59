"""What Python code of the user's keeps, beside variables: compared before and after first steps.

A program traces a step once, so a number that Python counts up in each step would stay what it was
while the program was traced. What may keep such a number: attributes of the user's objects, lists
and dicts in them, what the user's functions find in their files and in other files of the user's,
and random streams of Python and NumPy. What Keras's own code stores in its objects is left out.
"""

import array
import contextvars
import dis
import functools
import numbers
import operator
import random
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, GeneratorType, SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trialrun.training.model import ownership
from trialrun.training.model.contents import content_of

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, set, frozenset, deque, Mapping)
_OPEN = (SimpleNamespace, threading.local)  # what others define for users to keep anything in
_OF_FIT = frozenset(("history", "stop_training", "stop_evaluating"))


class PythonState:
    """What the user's code has kept until now.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._held: list[Any] = []  # so that no `id` is given to another object
        self._seen = dict(self._look(model))
        self._owners = {owner for owner, _ in self._seen}

    def changed(self, model: keras.Model) -> str:
        """The name of what has changed since, with its owner; empty if nothing has."""
        for key, (shown, now) in self._look(model):
            owner, _ = key
            if owner in self._owners and (key not in self._seen or self._seen[key][1] != now):
                return shown
        return ""

    def counted(self, model: keras.Model) -> str:
        """The name of what has gone on since: a number, a text, a stream, a list that has grown.

        Less than `changed`: what code keeps to look at it later, as a tensor, is none.

        Returns:
            It with its owner; empty if nothing has.
        """
        for key, (shown, now) in self._look(model):
            if key in self._seen and _goes_on(self._seen[key][1], now):
                return shown
        return ""

    def kept(self, model: keras.Model) -> str:
        """The name of a number or array that is now where there was none; empty if none is.

        Code that keeps what it has once computed would compute it only from one trial's numbers.
        """
        for key, (shown, now) in self._look(model):
            _, before = self._seen.get(key, (shown, _mark(None)))
            is_number = isinstance(now, tuple) and now[0] in ("array", "float")
            if is_number and before == _mark(None) and key[0] in self._owners:
                return shown
        return ""

    def _look(self, model: keras.Model) -> Iterator[tuple[tuple[int, str], tuple[str, Any]]]:
        """(`id` of an owner, name) -> how it is called in messages, and what shows a change."""
        streams = {"random": random.getstate(), "numpy.random": repr(np.random.get_state())}
        for name, state in streams.items():
            yield (0, name), (f"the stream of {name}", ("generator", state))
        for one in _held_by(model):
            self._held.append(one.value)
            if one.is_users:
                shown = _shown(one.owner, one.name)
                yield (id(one.owner), one.name), (shown, _mark(one.value))


class _Held(NamedTuple):
    """A value that is reached from a model: who holds it, and under which name.

    Attributes:
        owner: An object, a container, a function or a module.
        name: The name in it.
        value: The value.
        is_users: Whether the user's code has stored it there, and not that of Keras.
    """

    owner: Any
    name: str
    value: Any
    is_users: bool


def _held_by(model: keras.Model) -> Iterator[_Held]:
    seen, waiting = {id(model)}, [(model, True)]
    while waiting:
        owner, is_compared = waiting.pop()
        of_keras, begun_by_keras = _stored_by_keras(owner.__class__)
        names: set[str] = set()
        for name, value in ownership.items_of(owner):
            # A class may have the name of one of its bases again.
            is_number = isinstance(value, int | float) and name in begun_by_keras
            is_users = is_compared and (is_number or name not in of_keras) and name not in names
            is_users &= name != "__builtins__"
            names.add(name)
            yield _Held(owner, name, value, is_users)
            is_module = ownership.is_users_module(value)
            if id(value) in seen or not (is_module or ownership.is_followed(name, value)):
                continue
            seen.add(id(value))
            is_container = isinstance(value, _CONTAINERS)
            is_of_user = ownership.is_of_user(value) or isinstance(value, _OPEN)
            is_compared_too = is_users if is_container else is_of_user
            waiting.append((value, is_module or is_compared_too))


def _shown(owner: Any, name: str) -> str:
    kind = (owner if isinstance(owner, FunctionType | type) else type(owner)).__qualname__
    return f"{kind}{name}" if name.startswith("[") else f"{kind}.{name}"


def _goes_on(before: Any, now: Any) -> bool:
    """Whether two marks are of one thing that has gone on, and not of two things."""
    if not (isinstance(before, tuple) and isinstance(now, tuple) and before[0] == now[0]):
        return False
    if now[0] == "dict":  # what code looks up again, it need not count
        return False
    return before[1] != now[1]


def _mark(value: Any) -> Any:
    """Something that is equal for equal values, and for the same object that has not changed.

    Of what may go on: its kind, and how far it is; perhaps also what is another thing elsewhere.
    """
    if isinstance(value, _PLAIN):
        return type(value).__name__, repr(value)
    if isinstance(value, np.ndarray | np.generic):
        return "array", np.asarray(value).tobytes()
    if isinstance(value, numbers.Number):
        return "number", repr(value)
    if isinstance(value, bytearray | array.array):
        return "array", bytes(value)
    if isinstance(value, np.random.Generator):
        return "generator", repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return "generator", repr(value.get_state())
    if isinstance(value, random.Random):
        return "generator", value.getstate()
    if isinstance(value, contextvars.ContextVar):
        return "context", _mark(value.get(None))
    if isinstance(value, GeneratorType):
        return "generator", _state_of_generator(value), id(value)
    if isinstance(value, _CONTAINERS):
        return _mark_of_container(value)
    if isinstance(value, Iterator) and not ownership.is_of_user(value):
        return "iterator", _state_of_iterator(value), id(value)
    return id(value)


def _mark_of_container(value: Any) -> Any:
    if isinstance(value, Mapping):
        return "dict", len(value), id(value)
    is_shape = type(value) is tuple and all(isinstance(item, int | None) for item in value)
    if isinstance(value, tuple) and not is_shape and all(isinstance(i, _PLAIN) for i in value):
        return "tuple", repr(value)
    return "list", len(value), id(value)


def _state_of_generator(value: "GeneratorType[Any, Any, Any]") -> Any:
    frame = value.gi_frame
    if frame is None:
        return None
    known = {name: _mark(own) for name, own in frame.f_locals.items() if isinstance(own, _PLAIN)}
    return frame.f_lasti, repr(known)


def _state_of_iterator(value: Iterator[Any]) -> Any:
    """How far an iterator of Python's own is; nothing if it does not tell."""
    if hasattr(value, "__length_hint__"):
        return operator.length_hint(value)
    return content_of(value)


@functools.cache
def _stored_by_keras(kind: type) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes that the code of Keras and TensorFlow stores in an object of a class.

    Returns:
        All of them, and those that it only stores where the object is made.
    """
    if not issubclass(kind, keras.layers.Layer | keras.metrics.Metric | tf.Module):
        return frozenset(), frozenset()
    made, later = set[str](), set(_OF_FIT)
    for base in kind.__mro__:
        if base.__module__.startswith(("keras.", "tensorflow.")):
            for name, value in vars(base).items():
                (made if name == "__init__" else later).update(_stored_in(value))
    return frozenset(made | later), frozenset(made - later)


def _stored_in(value: Any) -> set[str]:
    """The names of attributes that a function or property of a class stores."""
    functions = [value, *(getattr(value, name, None) for name in ("fget", "fset", "__func__"))]
    names: set[str] = set()
    codes = [code for f in functions if (code := _code_of(f)) is not None]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        names |= {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR"}
    return names


def _code_of(function: Any) -> CodeType | None:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__code__", None)
