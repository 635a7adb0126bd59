"""What a compiled model holds beside its variables, to compare two builds of one builder.

A program is traced from one model, and computes for all trials with the numbers, texts, arrays and
functions that this model holds: in attributes, lists, tables, closures and globals, in Keras's
objects and in those of the user, in metrics and in what acts in inference only. So what differs
between builds with other settings, or under another seed, must be an input of the program, or
keeps trials out of it. Variables are compared elsewhere, and initializers by what they draw.
"""

import dataclasses
import datetime
import functools
import numbers
import random
import uuid
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trialrun.training.internals import keras_model
from trialrun.training.internals.keras_seeds import SeedDraw
from trialrun.training.model import ownership
from trialrun.training.model.contents import content_of
from trialrun.training.process_settings import settings_of

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
_BY_TEXT = (slice, range, numbers.Number, np.dtype, tf.DType, tf.TensorShape)
_VARIABLES = (keras.Variable, keras.KerasTensor, tf.Variable, tf.Tensor)
_BOUND = (BuiltinFunctionType, MethodWrapperType)  # of an object, perhaps
_GOING_ON = (
    *(Iterator, random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator),
    *(datetime.date, datetime.time, uuid.UUID),
)
_SEQUENCES = (list, tuple, set, frozenset, deque)
_MOST_SHOWN = 60  # characters of a list in messages
_MOST_ENTRIES = 100  # of a dict whose entries are looked at one by one
# What Keras records about a graph, a model's variables and its configuration, or finds elsewhere;
# and what a `tf.function` of a class keeps of the models that have called it.
_NOT_FOLLOWED = frozenset(
    (
        *("_inbound_nodes", "_outbound_nodes", "_layers", "_tracker", "_metrics", "_losses"),
        *("_trainable_variables_indices", "_compile_config", "_functional", "_operations"),
        *("_auto_config", "_compile_metrics", "_compile_loss", "_loss_tracker", "optimizer"),
        *("_nodes", "_nodes_by_depth", "_operations_by_depth", "_container_nodes"),
        # Keys of variables, which differ from build to build: see `given_to_compile`.
        *("_exclude_from_weight_decay", "_exclude_from_weight_decay_cache"),
        "_exclude_from_weight_decay_pattern",
        *("_descriptor_cache", "_function_captures", "_created_variables", "_lock"),
        *("_variable_creation_config", "_no_variable_creation_config"),
    )
)
_NAMES = frozenset(("name", "_name", "_path", "__doc__", "__module__", "__qualname__"))


class Held(NamedTuple):
    """A value that a model holds, as it was when it was looked at.

    Attributes:
        owner: The object, container or function that holds it.
        key: Under which name.
        mark: Equal for equal values.
        is_drawn: Whether it is a seed that Keras has drawn.
        is_incidental: Whether it may count or tell the time: a text, or what functions find in
            their file.
    """

    owner: Any
    key: Any
    mark: Any
    is_drawn: bool
    is_incidental: bool


def held_values(model: keras.Model) -> dict[str, Held]:
    """What a model leads to, by names that are the same in every build.

    Args:
        model: It is built, and compiled or not, and has not been used yet.
    """
    found: dict[str, Held] = {}
    seen: set[int] = set()
    layers = _layers_of(model)
    graphs = {f"{name}.graph": keras_model.connections(layer) for name, layer in layers.items()}
    graphs = {name: calls for name, calls in graphs.items() if calls}
    roots = {**layers, **graphs, **keras_model.given_to_compile(model)}
    roots["settings"] = dataclasses.asdict(settings_of(model))
    for root, value in roots.items():
        waiting = [_Step(None, root, root, value, False)]
        while waiting:
            step = waiting.pop()
            found.setdefault(step.path, _held(step))
            if isinstance(step.value, _PLAIN) or id(step.value) in seen:
                continue
            if _is_followed(step.key, step.value):
                seen.add(id(step.value))
                waiting += reversed(list(_steps_into(step)))
    return found


def differing(
    values: Mapping[str, Held],
    others: Mapping[str, Held],
    *,
    but_for: Collection[tuple[int, Any]] = (),
) -> str:
    """The name of what two models of one builder hold in different values; empty if nothing.

    Args:
        values: Of a model.
        others: Of another one, built under the same seed.
        but_for: `id` of an owner and key of the first model's numbers that may differ.
    """
    found = (
        path
        for path in _differing(values, others)
        if path not in values or (id(values[path].owner), values[path].key) not in but_for
    )
    # That there is another variable tells less than the setting which makes it.
    return min(found, key=lambda path: "_variables[" in path, default="")


def difference_of_seeds(values: Mapping[str, Held], others: Mapping[str, Held]) -> str:
    """The difference between models of two seeds, but for the seeds that Keras drew, in words."""
    for path in _differing(values, others):
        if path not in values or not values[path].is_drawn:
            return _in_words(path, values, others)
    return ""


def difference_of_calls(values: Mapping[str, Held], others: Mapping[str, Held]) -> str:
    """The difference between two builds with the same arguments and seed, in words."""
    for path in _differing(values, others):
        if not any(of[path].is_incidental for of in (values, others) if path in of):
            return _in_words(path, values, others)
    return ""


def _differing(values: Mapping[str, Held], others: Mapping[str, Held]) -> Iterator[str]:
    for path in (*values, *(path for path in others if path not in values)):
        own, other = values.get(path), others.get(path)
        if own is None or other is None or own.mark != other.mark:
            yield path


def _in_words(path: str, values: Mapping[str, Held], others: Mapping[str, Held]) -> str:
    shown = [str(of[path].mark) for of in (values, others) if path in of]
    return f"{path} is {' and '.join(shown)}" if len(shown) == 2 else f"only one has {path}"


class _Step(NamedTuple):
    owner: Any
    key: Any
    path: str
    value: Any
    is_outside: bool  # whether a function or class finds it in its file


def _layers_of(model: keras.Model) -> dict[str, Any]:
    """All layers of a model under their names in messages, and at last the model."""
    layers = sorted(keras_model.all_layers(model), key=lambda layer: layer is model)
    return {f"layers[{number}]": layer for number, layer in enumerate(layers)}


def _held(step: _Step) -> Held:
    is_drawn = isinstance(step.value, SeedDraw)
    is_incidental = step.is_outside or isinstance(step.value, str | bytes)
    return Held(step.owner, step.key, _mark(step.value), is_drawn, is_incidental)


def _steps_into(step: _Step) -> Iterator[_Step]:
    for key, value in _items_of(step.value):
        name = str(key)
        if name in _NOT_FOLLOWED or name in _NAMES or name.startswith("_self_"):
            continue
        of_keras = not ownership.is_of_user(step.value)
        if name.endswith("initializer") and of_keras:  # variables are compared by their values
            continue
        if name == "build" and str(getattr(value, "__module__", "")).startswith("keras."):
            continue  # of a class's first object, Keras wraps another one than of the next
        path = f"{step.path}{name}" if name.startswith("[") else f"{step.path}.{name}"
        is_outside = step.is_outside or isinstance(step.value, FunctionType | type | ModuleType)
        yield _Step(step.value, key, path, value, is_outside)


def _items_of(owner: Any) -> list[tuple[Any, Any]]:
    if isinstance(owner, Mapping):
        return list(owner.items())
    items: list[tuple[Any, Any]] = []  # of equal names, the first one is the object's own
    if isinstance(owner, functools.partial):
        items += [("func", owner.func), ("args", owner.args), ("keywords", owner.keywords)]
    if isinstance(owner, _BOUND):
        items.append(("__self__", owner.__self__))
    if calls := keras_model.connections(owner):  # a model in a function, say, that no layer holds
        items += [("graph", calls), ("layers", keras_model.layers_of_graph(owner))]
    return items + list(ownership.items_of(owner))


def _is_followed(key: Any, value: Any) -> bool:
    if isinstance(value, keras.initializers.Initializer) or _is_plain_container(value):
        return False
    if isinstance(value, _BOUND):
        return not isinstance(value.__self__, ModuleType | type | None)
    is_module = ownership.is_users_module(value)
    return is_module or ownership.is_followed(str(key), value)


def _is_plain_container(value: Any) -> bool:
    """Whether a value is taken as a whole: a sequence or a long dict of nothing but plain ones."""
    if isinstance(value, Mapping):
        is_long = len(value) > _MOST_ENTRIES
        return is_long and all(isinstance(item, _PLAIN) for item in value.values())
    return isinstance(value, _SEQUENCES) and all(isinstance(item, _PLAIN) for item in value)


def _mark(value: Any) -> Any:
    """What is equal for values that mean the same in two builds, and short in messages."""
    if isinstance(value, (*_PLAIN, *_BY_TEXT)):
        return repr(value)
    if type(value) is np.ndarray:
        return _of_array(value)
    if isinstance(value, np.ndarray):  # with a mask, say
        return _of_content(value)
    if isinstance(value, tf.Tensor) and hasattr(value, "numpy") and value.dtype.is_numpy_compatible:
        return _of_array(value.numpy())
    if _is_plain_container(value):
        if isinstance(value, set | frozenset):
            return frozenset(map(repr, value))
        items = list(value.items()) if isinstance(value, Mapping) else list(value)
        return _shortened(repr(items))
    if hasattr(type(value), "__array__") and not isinstance(value, _VARIABLES):  # of pandas, say
        return _of_array(value)
    if isinstance(value, FunctionType):
        return f"{_name_of(value)} {_code_of(value.__code__):x}"
    if isinstance(value, memoryview):
        return _of_content(bytes(value))
    if _is_opaque(value):
        return _of_content(value)
    return _name_of(value if callable(value) and hasattr(value, "__qualname__") else type(value))


def _is_opaque(value: Any) -> bool:
    """Whether a value, such as a compiled pattern, has nothing in Python that leads into it.

    What counts or tells the time is none: it differs from build to build, and may only name things.
    """
    known = (*_BOUND, *_SEQUENCES, *_VARIABLES, *_GOING_ON, MethodType, functools.partial)
    if isinstance(value, (*known, type, Mapping, ModuleType)) or ownership.is_of_user(value):
        return False
    is_of_keras = type(value).__module__.startswith(("keras.", "tensorflow."))
    return not (is_of_keras or getattr(value, "__dict__", None))


def _name_of(definition: Any) -> str:
    return f"{getattr(definition, '__module__', '')}.{definition.__qualname__}"


def _of_content(value: Any) -> str:
    """The name of a value's kind and, if that can be told, a checksum of what is in it."""
    content = content_of(value)
    name = _name_of(type(value))
    return name if content is None else f"{name} {zlib.crc32(content):x}"


def _code_of(code: CodeType) -> int:
    """A checksum of what a function does, apart from the functions in it."""
    constants = [one for one in code.co_consts if not isinstance(one, CodeType)]
    return zlib.crc32(code.co_code + repr(constants).encode())


def _of_array(value: Any) -> str:
    array = np.asarray(value)
    if array.dtype.kind == "O":
        return f"an array {array.shape} {zlib.crc32(content_of(array.ravel().tolist()) or b''):x}"
    checksum = zlib.crc32(np.ascontiguousarray(array).tobytes())
    return f"{array.dtype} {array.shape} {checksum:x}"


def _shortened(text: str) -> str:
    return (
        text
        if len(text) < _MOST_SHOWN
        else f"{text[:_MOST_SHOWN]}... {zlib.crc32(text.encode()):x}"
    )
