"""What a model file would build when it is loaded, looked at before anything is built.

Keras's own safe mode refuses Lambda layers in `.keras` files and reads any class name that a file
gives. Here a file of either format may name only Keras's layers, losses, optimizers and their kin,
Keras's functions, and classes that the program that loads it has registered itself. What is not
looked at, and cannot be promised: faults in the HDF5 and zip libraries that read the bytes, and
what a registered class does with its arguments.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trialrun.errors import InputError

# How Keras writes values that are no objects of classes: tensors, tuples, bytes.
_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__tuple__", "__bytes__", "__slice__"}
_VALUES |= {"__ellipsis__", "__typespec__"}
_CONFIG_KEYS = ("model_config", "training_config")


def check_model_file(path: Path) -> None:
    """Refuses a model file that would run code of its author's.

    Args:
        path: A whole model, `.h5` or `.keras`.

    Raises:
        InputError: It is no such file, or it names something else than the docstring above allows;
            the message says what.
    """
    for name, where in _named(_read_config(path), "model"):
        if not _is_known(name):
            raise InputError(
                f"{path}: refused: {where} is {_describe(name)}, which is neither Keras's own nor"
                " registered with keras.saving.register_keras_serializable by this program."
                " It could run any code."
            )


def _read_config(path: Path) -> Any:
    import h5py  # comes with Keras

    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        with h5py.File(path) as file:
            texts = [file.attrs[key] for key in _CONFIG_KEYS if key in file.attrs]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is no saved Keras model: {error}") from error
    if not texts:
        raise InputError(f"{path}: is no saved Keras model: it has no configuration")
    return [json.loads(text) for text in texts]


def _named(config: Any, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every part of a configuration that names a class or a function, with a name to tell it by."""
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
    if name in _VALUES:
        return True
    if {name, named.get("registered_name")} & keras.saving.get_custom_objects().keys():
        return True
    homes = [keras.layers, keras.models, keras.initializers, keras.regularizers, keras.losses]
    homes += [keras.constraints, keras.optimizers, keras.metrics, keras.dtype_policies]
    homes += [keras.optimizers.schedules, keras.random]
    if name == "function":
        functions = (keras.activations, keras.losses, keras.metrics)
        is_plain = isinstance(named.get("config"), str)
        return is_plain and any(hasattr(home, named["config"]) for home in functions)
    if name == "Functional":
        return True
    found = next((getattr(home, name) for home in homes if hasattr(home, str(name))), None)
    return isinstance(found, type) and found is not keras.layers.Lambda


def _describe(named: dict[str, Any]) -> str:
    module = named.get("module")
    return f"{module}.{named['class_name']}" if module else f"{named['class_name']}"
