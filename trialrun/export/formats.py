"""The formats of a saved model: how each is written, and what Keras cannot write.

Plain Keras loads what is written here. Some things its HDF5 loader cannot read as Keras writes them
(losses of several outputs, registered classes, models of their own class, an optimizer with which
training can continue); these are written in a form that the loader understands.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trialrun.export.load import OPTIMIZER_GROUP
from trialrun.export.untrusted import Foreign, find_foreign, wrap_for_hdf5
from trialrun.job.user_code.frames import told, where_raised
from trialrun.messages import in_short
from trialrun.store.files import replace_atomically, write_text

if TYPE_CHECKING:
    import keras

FormatName = Literal[".weights.h5", ".json", ".keras", ".h5"]
FORMATS: tuple[FormatName, ...] = (".weights.h5", ".json", ".keras", ".h5")
_REGISTER = "@keras.saving.register_keras_serializable()"
_CHOSEN_BY_SHAPES = ("accuracy", "acc", "crossentropy", "ce")


@dataclass(frozen=True, slots=True)
class Serialized:
    """The configuration of a model as Keras serializes it, or why it cannot be serialized.

    Attributes:
        architecture: From `model.to_json()`, without loss, metrics and optimizer; None if there is
            a problem.
        compiled: How the model is compiled; None if it is not compiled or there is a problem.
        problem: Why no architecture can be written that Keras can load; empty if one can.
        compile_problem: Why the model can only be written uncompiled; empty if it need not be.
    """

    architecture: dict[str, Any] | None
    compiled: dict[str, Any] | None
    problem: str
    compile_problem: str


def serialize(model: "keras.Model") -> Serialized:
    """What Keras can write of a model; and what it cannot, with the remedy."""
    compiled, compile_problem = _how_it_is_compiled(model)
    try:
        with _uncompiled(model):
            architecture = json.loads(model.to_json())
    except Exception as error:  # raised by get_config, the user's or Keras's
        return Serialized(None, compiled, _no_config(model, error), compile_problem)
    foreign = find_foreign(architecture)
    if foreign is not None:
        return Serialized(None, compiled, _remedy(foreign), compile_problem)
    return Serialized(architecture, compiled, "", compile_problem)


def write_weights(model: "keras.Model", path: Path) -> None:
    """Writes only the weights of the model, without the optimizer's variables."""
    with replace_atomically(path) as temporary, _uncompiled(model):
        model.save_weights(temporary)


def write_architecture(serialized: Serialized, path: Path) -> None:
    """Writes only the architecture, uncompiled, so that no unwanted optimizer is loaded with it."""
    write_text(path, json.dumps(serialized.architecture, indent=2))


def write_keras(model: "keras.Model", serialized: Serialized, path: Path) -> None:
    """Writes the whole model in Keras's native format, uncompiled if that cannot be serialized."""
    with replace_atomically(path) as temporary:
        if serialized.compiled is not None:
            model.save(temporary)
            return
        with _uncompiled(model):
            model.save(temporary)


def write_h5(model: "keras.Model", serialized: Serialized, path: Path) -> None:
    """Writes the whole model in legacy HDF5, so that plain Keras can load and train it.

    The optimizer's state is written to a group of its own for `trialrun.load_model`. If the file
    held `optimizer_weights`, Keras 3.15 would build the optimizer before the model has variables,
    and could not train the model.
    """
    import h5py  # a dependency of Keras

    assert serialized.architecture is not None
    with replace_atomically(path) as temporary:
        with _uncompiled(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns that HDF5 is a legacy format
            model.save(temporary, include_optimizer=False)
        with h5py.File(temporary, "a") as file:
            file.attrs["model_config"] = _as_attribute(wrap_for_hdf5(serialized.architecture))
            if serialized.compiled is None:
                return
            file.attrs["training_config"] = _as_attribute(_training_config(serialized.compiled))
            group = file.create_group(OPTIMIZER_GROUP)
            for number, variable in enumerate(model.optimizer.variables):
                group.create_dataset(str(number), data=variable.numpy())


def _as_attribute(config: Mapping[str, Any]) -> bytes:
    return json.dumps(config).encode()


@contextmanager
def _uncompiled(model: "keras.Model") -> Iterator[None]:
    """Makes the model appear uncompiled inside this context."""
    optimizer, compiled = getattr(model, "optimizer", None), model.compiled
    model.optimizer, model.compiled = None, False
    try:
        yield
    finally:
        model.optimizer, model.compiled = optimizer, compiled


# What Keras cannot write -------------------------------------------------------------------------


def _how_it_is_compiled(model: "keras.Model") -> tuple[dict[str, Any] | None, str]:
    import keras

    if not model.compiled:
        return None, ""
    if type(model).compile is not keras.Model.compile and (
        type(model).compile_from_config is keras.Model.compile_from_config
    ):
        name = type(model).__name__
        return None, (
            f"{name} has a compile() of its own, which Keras does not call when it loads a model;"
            f" give {name} get_compile_config and compile_from_config too"
        )
    try:
        config = model.get_compile_config()
        foreign = find_foreign(config)
        json.dumps(config)
    except Exception as error:  # raised by get_config, the user's or Keras's
        return None, f"its loss, metrics or optimizer: {told(error)}"
    if foreign is not None:
        return None, _remedy(foreign._replace(where="its loss, a metric or its optimizer"))
    return config or None, ""


def _no_config(model: "keras.Model", error: Exception) -> str:
    """The message about the class whose configuration Keras cannot get, with what to do."""
    culprit = _culprit(model)
    name = type(culprit).__name__
    what = (
        f"{culprit.name!r} of the class {name} gives no configuration ({in_short(error)}); give"
        f" {name} a get_config that returns all arguments of its __init__ as plain values, and"
        f" {_REGISTER}"
    )
    return "\n".join(filter(None, [what, where_raised(error)]))


def _culprit(layer: "keras.Layer") -> "keras.Layer":
    """The innermost layer that Keras cannot serialize."""
    import keras

    for inner in getattr(layer, "layers", ()):
        try:
            json.dumps(keras.saving.serialize_keras_object(inner))
        except Exception:  # any error shows that the culprit is this layer or inside it
            return _culprit(inner)
    return layer


def _remedy(foreign: Foreign) -> str:
    if foreign.name.endswith(("Lambda", "__lambda__")):
        return (
            f"{foreign.where} is {foreign.name}, and Keras loads no code from a model file; use"
            f" keras.ops, or a layer class of your own with {_REGISTER}"
        )
    return f"{foreign.where} is {foreign.name}, which is not registered; give it {_REGISTER}"


# HDF5 --------------------------------------------------------------------------------------------


def _training_config(compiled: Mapping[str, Any]) -> dict[str, Any]:
    """How a model is compiled, as Keras's HDF5 loader understands it.

    The loader looks up names of functions among classes (it finds `mse` only if it is the single
    metric of a single loss). Therefore each name is replaced by the object for which it stands,
    under the same name.
    """
    loss = _map_objects(_loss_object, compiled.get("loss"))
    return {
        "loss": [loss] if isinstance(loss, str) else loss,
        "loss_weights": compiled.get("loss_weights"),
        "metrics": _map_objects(_metric_object, compiled.get("metrics")),
        "weighted_metrics": _map_objects(_metric_object, compiled.get("weighted_metrics")),
        "optimizer_config": compiled["optimizer"],
    }


def _map_objects(make: Callable[[Any], Any], value: Any) -> Any:
    """A structure of serialized losses or metrics, each replaced by `make` of it; None is kept."""
    if value is None:
        return None
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _map_objects(make, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_objects(make, item) for item in value]
    return make(value)


def _loss_object(loss: Any) -> Any:
    import keras

    if not isinstance(loss, str) or loss in _CHOSEN_BY_SHAPES:
        return loss
    return keras.saving.serialize_keras_object(keras.losses.get(loss))


def _metric_object(metric: Any) -> Any:
    import keras

    if isinstance(metric, dict) and metric["class_name"] == "function":
        # The loader finds a registered function as it is; a function of Keras's needs its name.
        is_registered = metric["config"] in keras.saving.get_custom_objects()
        metric = metric if is_registered else metric["config"]
    if not isinstance(metric, str) or metric in _CHOSEN_BY_SHAPES:
        return metric
    found = keras.metrics.get(metric)
    if not isinstance(found, keras.metrics.Metric):
        found = keras.metrics.MeanMetricWrapper(found, name=metric)
    serialized: dict[str, Any] = keras.saving.serialize_keras_object(found)
    serialized["config"]["name"] = metric  # its name in the logs
    return serialized
