"""What a model's state is made of: Keras's own variables, or something that Keras cannot know.

The state of a model of Keras's own classes is its variables and its optimizer's: setting them sets
the model back. A class or function of the user's may keep anything: a second optimizer, a
`tf.Variable`, an attribute that `train_step` counts up. Such a model is built anew for each trial.
"""

import numbers
import weakref
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trialrun.errors import InputError
from trialrun.training import internals

_STATELESS = (
    *(type(None), str, bytes, numbers.Number, np.generic, np.ndarray, np.dtype),
    *(tf.DType, tf.Tensor, tf.TensorShape, keras.KerasTensor, keras.Variable),
    *(weakref.ref, ModuleType),
)
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, type)
_RUN_ANYTHING = (keras.layers.Lambda, keras.layers.TFSMLayer, keras.layers.TorchModuleWrapper)
_CONTAINERS = (list, tuple, set, frozenset)
# What `fit` makes of a model, and bookkeeping of layers that other layers hold as well.
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


def why_unknown(model: keras.Model) -> str:
    """What a compiled model holds that is not of Keras's own making; empty if nothing is."""
    for owner, name, value in _reachable(model):
        if _is_foreign(value):
            return f"{type(owner).__name__}.{name} is {_described(value)}"
    return f"the model is {_described(model)}" if _is_foreign(model) else ""


def has_other_state(model: keras.Model) -> bool:
    """Whether a compiled model holds variables that are neither its own nor its optimizer's."""
    known = {id(v) for v in (*model.variables, *model.metrics_variables)}
    if model.optimizer is not None:
        known |= {id(variable) for variable in model.optimizer.variables}
    for _, _, value in _reachable(model):
        if isinstance(value, keras.Variable | keras.optimizers.Optimizer):
            of_one = getattr(value, "variables", [value])
            if any(id(variable) not in known for variable in of_one):
                return True
        if isinstance(value, tf.Variable):
            return True
    return False


_OF_EARLIER_MODELS: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()


def refuse_shared(model: keras.Model, source: str) -> None:
    """Refuses a model that holds variables of one that was built before it.

    Args:
        model: Fresh from its builder.
        source: Names the builder in the message.

    Raises:
        InputError: It does.
    """
    variables = internals.all_variables(model)
    for variable in variables:
        earlier = _OF_EARLIER_MODELS.get(id(variable))
        if earlier is not None and earlier is variable:
            raise InputError(
                f"{source}: {variable.path!r} belongs to a model that it returned before, so a"
                " trial would go on where another one stopped; let the builder make its layers,"
                " metrics and optimizers inside the function, each time it is called; of a"
                " pretrained model let it take a copy (keras.models.clone_model, then set_weights)"
            )
    _OF_EARLIER_MODELS.update({id(variable): variable for variable in variables})


def _reachable(model: keras.Model) -> Iterator[tuple[Any, str, Any]]:
    """Owner, attribute and value of all that Keras's objects and the user's hold, each once."""
    seen, waiting = {id(model)}, [model]
    while waiting:
        owner = waiting.pop()
        for name, value in _items(owner):
            if id(value) in seen or name in _NOT_FOLLOWED or name.startswith("_self_"):
                continue
            seen.add(id(value))
            yield owner, name, value
            if not isinstance(value, (*_STATELESS, *_FUNCTIONS, tf.Variable)):
                waiting.append(value)


def _items(owner: Any) -> list[tuple[str, Any]]:
    if isinstance(owner, Mapping):
        return [(str(key), value) for key, value in owner.items()]
    if isinstance(owner, _CONTAINERS):
        return [(f"[{place}]", value) for place, value in enumerate(owner)]
    return list(vars(owner).items()) if hasattr(owner, "__dict__") else []


def _is_foreign(value: Any) -> bool:
    if isinstance(value, (*_STATELESS, Mapping, *_CONTAINERS)):
        return False
    if isinstance(value, _RUN_ANYTHING):
        return True
    of = value if isinstance(value, _FUNCTIONS) else type(value)
    module = str(getattr(of, "__module__", None))
    if module.startswith("tensorflow."):
        return not isinstance(value, _FUNCTIONS)
    return not module.startswith(("keras.", "builtins", "inspect", "None"))


def _described(value: Any) -> str:
    of = value if isinstance(value, _FUNCTIONS) else type(value)
    return f"{getattr(of, '__module__', '')}.{getattr(of, '__qualname__', of)}"
