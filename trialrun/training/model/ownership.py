"""Tells whether a model's state is all in Keras's variables, or also in something of the user's.

A model that is made of Keras's own classes has all its state in its own and its optimizer's
variables, so setting these resets the model. A class or function of the user's may keep anything: a
second optimizer, a `tf.Variable`, an attribute that `train_step` counts up. Such a model is built
anew for each trial.
"""

import functools
import numbers
import sys
import sysconfig
import weakref
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trialrun.errors import InputError
from trialrun.training.internals import keras_model

_STATELESS = (
    *(type(None), str, bytes, numbers.Number, np.generic, np.ndarray, np.dtype),
    *(tf.DType, tf.Tensor, tf.TensorShape, keras.KerasTensor, keras.Variable),
    *(weakref.ref, ModuleType),
)
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, type)
_RUN_ANYTHING = (keras.layers.Lambda, keras.layers.TFSMLayer, keras.layers.TorchModuleWrapper)
_CONTAINERS = (list, tuple, set, frozenset)
# What `fit` adds to a model, and bookkeeping that leads only to layers found elsewhere.
_NOT_FOLLOWED = frozenset(
    (
        "train_function",
        "test_function",
        "predict_function",
        "_inbound_nodes",
        "_outbound_nodes",
        "_distribution_strategy",
        "_distribute_strategy",
    )
)
_OF_EARLIER_MODELS: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()
# `id(variable)` -> checksum of its value; None if models may not share it.
_CHECKSUMS: dict[int, int | None] = {}


def why_unknown(model: keras.Model) -> str:
    """The first object in a compiled model that Keras does not define; empty if there is none."""
    for owner, name, value in _reachable(model):
        if _is_foreign(value):
            return f"{type(owner).__name__}.{name} is {_described(value)}"
    return f"the model is {_described(model)}" if _is_foreign(model) else ""


def has_other_state(model: keras.Model) -> bool:
    """Whether a compiled model has state beside its own variables and its optimizer's.

    Variables of something else, or of a metric whose own `reset_state` may keep them from epoch to
    epoch.
    """
    if any(map(_may_keep_state, keras_model.given_metrics(model))):
        return True
    known = {id(v) for v in (*model.variables, *model.metrics_variables)}
    if model.optimizer is not None:
        known |= {id(variable) for variable in model.optimizer.variables}
    for _, _, value in _reachable(model):
        if isinstance(value, keras.Variable | keras.optimizers.Optimizer):
            variables = getattr(value, "variables", [value])
            if any(id(variable) not in known for variable in variables):
                return True
        if isinstance(value, tf.Variable):
            return True
    return False


def _may_keep_state(metric: Any) -> bool:
    reset = getattr(metric, "reset_state", None)
    return reset is not None and not str(reset.__module__).startswith("keras.")


def refuse_shared(model: keras.Model, source: str) -> None:
    """Raises InputError if a model holds variables of a model that was built before it.

    Two kinds may be shared as long as their values do not change: frozen weights, like those of a
    pretrained model, and variables that the user's functions and classes find in their file.

    Args:
        model: The model, as its builder returned it.
        source: The builder, as the message names it.

    Raises:
        InputError: The model holds other variables of an earlier model.
    """
    frozen = {id(v): _checksum(v) for v in keras_model.frozen_variables(model)}
    for variable in keras_model.all_variables(model):
        if not _is_fresh(variable, frozen.get(id(variable))):
            raise InputError(
                f"{source}: {variable.path!r} belongs to a model that it returned before, so a"
                " trial would continue where another stopped; let the builder make its layers,"
                " metrics and optimizers inside the function, each time it is called. Only the"
                " weights of layers that stay frozen (trainable = False) may be shared; of another"
                " pretrained model let it take a copy (keras.models.clone_model, then set_weights)"
            )
    for owner, name, variable in _other_variables(model):
        if not _is_fresh(variable, _checksum(variable)):
            raise InputError(
                f"{source}: a model that it returned before has changed {name!r} of"
                f" {_described(owner)}, which is not made by the builder, so a trial would continue"
                " where another stopped; let the builder make it, each time it is called"
            )


def _is_fresh(variable: Any, checksum: int | None) -> bool:
    """Whether no earlier model has the variable, or it may be shared and has not changed since.

    Args:
        variable: A variable of Keras or TensorFlow.
        checksum: The checksum of its value; None if it may not be shared.
    """
    key = id(variable)
    is_known = _OF_EARLIER_MODELS.get(key) is variable
    if is_known and (checksum is None or _CHECKSUMS.get(key) != checksum):
        return False
    _OF_EARLIER_MODELS[key] = variable
    _CHECKSUMS[key] = checksum
    return True


def _checksum(variable: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(variable.numpy()).tobytes())


def _other_variables(model: keras.Model) -> Iterator[tuple[Any, str, Any]]:
    """Owner, attribute name and variable for all but the model's, optimizer's and metrics' own."""
    known = {id(v) for v in (*keras_model.all_variables(model), *model.metrics_variables)}
    for owner, name, value in _reachable(model):
        if isinstance(value, tf.Variable | keras.Variable) and id(value) not in known:
            yield owner, name, value


def _reachable(model: keras.Model) -> Iterator[tuple[Any, str, Any]]:
    """Owner, attribute name and value of everything that a model leads to, each value once."""
    seen, waiting = {id(model)}, [model]
    while waiting:
        owner = waiting.pop()
        for name, value in items_of(owner):
            if id(value) in seen or _is_bookkeeping(name):
                continue
            seen.add(id(value))
            yield owner, name, value
            if is_followed(name, value):
                waiting.append(value)


def _is_bookkeeping(name: str) -> bool:
    return name in _NOT_FOLLOWED or name.startswith("_self_")


def is_followed(name: str, value: Any) -> bool:
    """Whether what a value under this name leads to may be something of the user's."""
    if isinstance(value, _FUNCTIONS) and not _is_users(value.__module__):
        return False
    return not (_is_bookkeeping(name) or isinstance(value, (*_STATELESS, tf.Variable)))


def is_of_user(value: Any) -> bool:
    """Whether a function, or the class of an object, is defined in a file of the user's."""
    definition = value if isinstance(value, _FUNCTIONS) else type(value)
    return _is_users(definition.__module__)


def is_users_module(value: Any) -> bool:
    """Whether a value is a module that is a file of the user's."""
    return isinstance(value, ModuleType) and _is_users(value.__name__)


def items_of(owner: Any) -> list[tuple[str, Any]]:
    """Names and values of what an object holds; of a function, what it finds in its file."""
    if isinstance(owner, Mapping):
        return [(str(key), value) for key, value in owner.items()]
    if isinstance(owner, (*_CONTAINERS, deque)):
        return [(f"[{index}]", value) for index, value in enumerate(owner)]
    if isinstance(owner, MethodType):
        return [("__self__", owner.__self__), ("__func__", owner.__func__)]
    if isinstance(owner, FunctionType):
        return _found_by(owner)
    if isinstance(owner, property):
        functions = (("fget", owner.fget), ("fset", owner.fset))
        return [(name, function) for name, function in functions if function is not None]
    if isinstance(owner, staticmethod | classmethod):
        return [("__func__", owner.__func__)]
    own = list(vars(owner).items()) if hasattr(owner, "__dict__") else []
    if not isinstance(owner, type):
        slots = _slots_of_users(owner.__class__)
        own += [(name, getattr(owner, name)) for name in slots if hasattr(owner, name)]
    return own + [item for kind in _users_classes(owner.__class__) for item in vars(kind).items()]


@functools.cache
def _users_classes(kind: type) -> tuple[type, ...]:
    return tuple(base for base in kind.__mro__ if _is_users(base.__module__))


@functools.cache
def _slots_of_users(kind: type) -> tuple[str, ...]:
    """The names of what objects hold beside their attributes, by classes of the user's."""
    given = [vars(base).get("__slots__", ()) for base in _users_classes(kind)]
    names = {name for slots in given for name in ([slots] if isinstance(slots, str) else slots)}
    return tuple(sorted(names - {"__dict__", "__weakref__"}))


@functools.cache
def _is_users(module: str | None) -> bool:
    """Whether a module is a file outside the standard library and installed packages."""
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    if file is None:
        return False
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    path = Path(file).resolve()
    return not any(path.is_relative_to(Path(home).resolve()) for home in paths)


def _found_by(function: FunctionType) -> list[tuple[str, Any]]:
    """Names and values that a user's function uses from its file or from enclosing functions.

    And those that it keeps itself: its defaults and attributes.
    """
    codes, names = [function.__code__], set[str]()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    found = [(name, function.__globals__[name]) for name in names & function.__globals__.keys()]
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    found += [(f"default {index}", value) for index, value in enumerate(defaults)]
    found += vars(function).items()
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    return found + [(name, cell.cell_contents) for name, cell in cells if _is_filled(cell)]


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # the name is assigned later
        return False


def _is_foreign(value: Any) -> bool:
    if isinstance(value, (*_STATELESS, Mapping, *_CONTAINERS)):
        return False
    if isinstance(value, _RUN_ANYTHING):
        return True
    definition = value if isinstance(value, _FUNCTIONS) else type(value)
    module = str(getattr(definition, "__module__", None))
    if module.startswith("tensorflow."):
        return not isinstance(value, _FUNCTIONS)
    return not module.startswith(("keras.", "builtins", "inspect", "None"))


def _described(value: Any) -> str:
    definition = value if isinstance(value, _FUNCTIONS) else type(value)
    name = getattr(definition, "__qualname__", definition)
    return f"{getattr(definition, '__module__', '')}.{name}"
