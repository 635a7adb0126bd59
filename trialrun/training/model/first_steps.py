"""What only the first steps of a model show: what its optimizers update, and what Python keeps.

A model with steps of its own may hold optimizers that Keras does not know. They make their
variables in the first step, for the weights that they are given there. So another model of the same
builder takes first steps in `model.fit`, and what it has shown holds for all models of the builder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from trialrun.errors import CannotFuse
from trialrun.training.internals import keras_model
from trialrun.training.model.ownership import is_of_user
from trialrun.training.model.python_state import PythonState

# Bookkeeping of Keras, under names that differ from build to build or lead to what is found anyway.
_NOT_FOLLOWED = frozenset(
    (
        *("_inbound_nodes", "_outbound_nodes", "_layers", "_tracker", "_compile_config"),
        *("_functional", "_operations", "train_function", "test_function", "predict_function"),
    )
)


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """What the first steps of a model have shown.

    Attributes:
        updated: Name of an optimizer -> what it updates, as indices in `model.variables`.
        num_variables: How many variables the model and its metrics have after these steps.
        why_impure: What its steps do beside computing with variables; empty if nothing is known.
    """

    updated: Mapping[str, tuple[int, ...]]
    num_variables: tuple[int, int]
    why_impure: str = ""

    @classmethod
    def of(cls, model: keras.Model, before: PythonState) -> "FirstSteps":
        """What a model has shown in steps that it has taken.

        Args:
            model: The model, after them.
            before: What Python kept before them.
        """
        indices = {id(variable): index for index, variable in enumerate(model.variables)}
        updated, unknown = {}, []
        for name, optimizer in optimizers_of(model).items():
            weights = keras_model.built_for(optimizer)
            unknown += [w.path for w in weights if id(w) not in indices]
            updated[name] = tuple(indices[id(w)] for w in weights if id(w) in indices)
        impure = why_impure(model, before)
        if unknown and not impure:
            impure = f"its steps update {unknown[0]!r}, which is not among the model's variables"
        return cls(updated, _num_variables(model), impure)


def why_impure(model: keras.Model, before: PythonState) -> str:
    """What the steps of a model do beside computing with its variables; empty if nothing is known.

    Args:
        model: A model that has taken steps.
        before: What Python kept before them.
    """
    if loops := keras_model.own_loops(model):
        return f"{type(model).__name__} has its own `{loops[0]}`"
    if keras_model.runs_eagerly(model):
        name = type(model).__name__
        return f"{name} was compiled with run_eagerly, and has its own steps or metrics"
    if changed := before.changed(model):
        return (
            f"its steps or metrics change {changed} in Python, which a program would do once and"
            " not in each step; keep what changes in a variable, or out of them"
        )
    return ""


def build_others(model: keras.Model, first: FirstSteps) -> list[keras.Variable]:
    """The variables of a model's further optimizers, which are built for it, and of all metrics.

    Each once, and none that is among the variables of the model or of `model.optimizer`.

    Args:
        model: A compiled model that has taken no step yet.
        first: What another model of its builder has shown.

    Raises:
        CannotFuse: The model is made otherwise than the one that took steps.
    """
    variables, optimizers = model.variables, optimizers_of(model)
    for name, indices in first.updated.items():
        if name not in optimizers or any(index >= len(variables) for index in indices):
            raise CannotFuse(f"the optimizer {name} is made in the first step; let the builder")
        if indices and not optimizers[name].built:
            optimizers[name].build([variables[index] for index in indices])
    if _num_variables(model) != first.num_variables:
        raise CannotFuse(
            "its first step makes variables; let the builder build every layer and metric"
        )
    known = {id(variable) for variable in (*variables, *model.optimizer.variables)}
    held = [v for optimizer in optimizers.values() for v in optimizer.variables]
    held += _metrics_variables(model)
    others = {id(variable): variable for variable in held}
    return [variable for key, variable in others.items() if key not in known]


def optimizers_of(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """Every optimizer that a model holds, by a name that is the same in every build."""
    return {
        name: held for name, held in _held_by(model) if isinstance(held, keras.optimizers.Optimizer)
    }


def _num_variables(model: keras.Model) -> tuple[int, int]:
    return len(model.variables), len(_metrics_variables(model))


def _metrics_variables(model: keras.Model) -> list[keras.Variable]:
    held = (metric for _, metric in _held_by(model) if isinstance(metric, keras.metrics.Metric))
    found = [variable for metric in (*model.metrics, *held) for variable in metric.variables]
    return list({id(variable): variable for variable in found}.values())


def _held_by(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Name and object of all optimizers and metrics that a model leads to, each once."""
    layers = [layer for layer in keras_model.all_layers(model) if layer is not model]
    seen: set[int] = set()

    def walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        is_found = isinstance(value, keras.optimizers.Optimizer | keras.metrics.Metric)
        if id(value) in seen or not (is_found or _is_followed(value)):
            return
        seen.add(id(value))
        if is_found:
            yield name, value
            return
        for key, item in _items(value):
            if key not in _NOT_FOLLOWED and not key.startswith("_self_"):
                yield from walk(item, f"{name}.{key}" if name else key)

    yield from walk(model, "")
    for number, layer in enumerate(layers):
        yield from walk(layer, f"layers[{number}]")


def _is_followed(value: Any) -> bool:
    return isinstance(value, keras.layers.Layer | Mapping | list | tuple) or is_of_user(value)


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    return list(vars(value).items()) if hasattr(value, "__dict__") else []
