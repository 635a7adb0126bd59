"""The inspection of a model file before it is loaded: which classes and functions it names.

Keras's own safe mode refuses Lambda layers in `.keras` files, but accepts any class name that a
file gives. Here a file of either format may name only Keras's own layers, losses, optimizers,
functions and the like, and classes that the loading program has registered itself. This does not
protect against bugs in the HDF5 and zip libraries that read the bytes, nor against what a
registered class does with its arguments.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trialrun.errors import InputError
from trialrun.messages import said_by

# The class names under which Keras writes plain values: tensors, tuples, bytes.
_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__tuple__", "__bytes__", "__slice__"}
_VALUES |= {"__ellipsis__", "__typespec__"}
_NO_MODEL = (OSError, KeyError, TypeError, ValueError, NotImplementedError, zipfile.BadZipFile)
_CONFIG_KEYS = ("model_config", "training_config")
# The name of the module that `references` makes of a Python file.
_OF_FILE = re.compile(r"^trialrun_(.+)_[0-9a-f]{12}$")
# The name of `keras.layers.deserialize` in an HDF5 file, see `wrap_for_hdf5`.
_WRAPPER = "deserialize"


class Foreign(NamedTuple):
    """A class or function in a configuration that is neither Keras's own nor registered.

    Attributes:
        where: What holds it, such as the name of a layer.
        name: Its own name, with its module if that is known.
    """

    where: str
    name: str


def check_model_file(path: Path) -> None:
    """Refuses a model file that could run its author's code.

    Args:
        path: A whole model, `.h5` or `.keras`.

    Raises:
        InputError: The file is no such model, or names something that this module does not allow.
            The message says what.
    """
    try:
        foreign = find_foreign(_read_config(path))
    except RecursionError as error:
        raise InputError(
            f"{path}: refused: its configuration is nested more deeply than that of any model"
        ) from error
    if foreign is not None:
        raise InputError(
            f"{path}: refused: {foreign.where} is {foreign.name}, which is neither Keras's own nor"
            " registered with keras.saving.register_keras_serializable by this program."
            " It could run any code."
        )


def find_foreign(config: Any) -> Foreign | None:
    """The first class or function of a configuration that is neither Keras's nor registered.

    Args:
        config: A model's configuration as Keras serializes it, or how the model is compiled, or a
            list of these.
    """
    for named, where in _named(config, "model"):
        if not _is_known(named):
            return Foreign(where, _describe(named))
    return None


def wrap_for_hdf5(config: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration in a form that Keras's HDF5 loader understands.

    The loader finds registered classes only by names without their package, and cannot build models
    of the user's own classes. `keras.layers.deserialize`, which it finds among the layers, can.

    Args:
        config: From `model.to_json()`.
    """
    is_kerass = str(config.get("module")).startswith("keras")
    if is_kerass and config["class_name"] in ("Functional", "Sequential"):
        return {"class_name": config["class_name"], "config": config["config"]}
    return {"class_name": _WRAPPER, "config": {"config": config}}


def _read_config(path: Path) -> Any:
    import h5py  # a dependency of Keras

    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        with h5py.File(path) as file:
            texts = [file.attrs[key] for key in _CONFIG_KEYS if key in file.attrs]
        config = [json.loads(text) for text in texts]
    except _NO_MODEL as error:
        raise InputError(f"{path}: is not a saved Keras model: {said_by(error)}") from error
    if not config:
        raise InputError(f"{path}: is not a saved Keras model: it has no configuration")
    return config


def _named(config: Any, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every entry of a configuration that names a class or a function, and how to call it."""
    if isinstance(config, list):
        for item in config:
            yield from _named(item, where)
    elif isinstance(config, dict):
        inner = config.get("config")
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            where = f"{inner['name']!r}"
        if "class_name" in config:
            yield config, where
        for key, item in config.items():
            yield from _named(item, f"{key} of {where}" if "class_name" in config else where)


def _is_known(named: dict[str, Any]) -> bool:
    import keras

    name = named["class_name"]
    content: Any = named.get("config")
    registered = keras.saving.get_custom_objects().keys()
    if name in _VALUES or {name, named.get("registered_name")} & registered:
        return True
    if name == _WRAPPER:  # holds a configuration, which is inspected like any other
        is_alone = isinstance(content, dict) and content.keys() == {"config"}
        return (
            is_alone and isinstance(content["config"], dict) and "class_name" in content["config"]
        )
    homes = [keras.layers, keras.models, keras.initializers, keras.regularizers, keras.losses]
    homes += [keras.constraints, keras.optimizers, keras.metrics, keras.dtype_policies]
    homes += [keras.optimizers.schedules, keras.random]
    if name == "function":
        functions = [keras.activations, keras.losses, keras.metrics]
        functions += [keras.ops] if named.get("module") == "keras.ops" else []
        is_plain = isinstance(content, str)
        return is_plain and (
            content in registered or any(hasattr(home, content) for home in functions)
        )
    if name == "Functional" or _is_operation(named):
        return True
    found = next((getattr(home, name) for home in homes if hasattr(home, str(name))), None)
    return isinstance(found, type) and found is not keras.layers.Lambda


def _is_operation(named: dict[str, Any]) -> bool:
    """Whether it is an operation that a function such as `keras.ops.square` adds to a model."""
    import keras

    module = str(named.get("module"))
    if not module.startswith("keras.src.ops."):
        return False
    found = vars(sys.modules.get(module, keras)).get(str(named["class_name"]))
    return isinstance(found, type) and issubclass(found, keras.Operation)


def _describe(named: dict[str, Any]) -> str:
    module, name = named.get("module"), named["class_name"]
    if name == "function":
        name = f"function {named.get('config')!r}"
        module = None if module == "builtins" else module
    module = module and _OF_FILE.sub(r"\1", str(module))
    return f"{module}.{name}" if module else f"{name}"
