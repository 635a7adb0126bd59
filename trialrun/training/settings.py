"""The settings that Keras and TensorFlow keep for the whole process, of each trial by itself.

A builder, or the file that it stands in, may set a dtype policy or `floatx` as scripts do. That
holds for the models that it builds, while they are built, compiled, traced and trained, and for
nothing else that this process ever does.
"""

import contextlib
import dataclasses
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trialrun.references import load_function, parse_reference
from trialrun.training import internals


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user's code may have set for the whole process.

    Attributes:
        dtype_policy: The default policy; None where none was set and `floatx` says it.
        floatx, epsilon, image_data_format: Keras's.
        run_functions_eagerly: TensorFlow's.
    """

    dtype_policy: Any
    floatx: str
    epsilon: float
    image_data_format: str
    run_functions_eagerly: bool

    @classmethod
    def now(cls) -> "Settings":
        """Those of this process, and for the dtype policy of this thread."""
        return cls(
            internals.global_dtype_policy(),
            keras.config.floatx(),
            keras.config.epsilon(),
            keras.config.image_data_format(),
            tf.config.functions_run_eagerly(),
        )

    def put(self) -> None:
        """Sets them."""
        internals.set_global_dtype_policy(self.dtype_policy)
        keras.config.set_floatx(self.floatx)
        keras.config.set_epsilon(self.epsilon)
        keras.config.set_image_data_format(self.image_data_format)
        if tf.config.functions_run_eagerly() != self.run_functions_eagerly:
            tf.config.run_functions_eagerly(self.run_functions_eagerly)


_OF_MODEL: "weakref.WeakKeyDictionary[keras.Model, Settings]" = weakref.WeakKeyDictionary()
_CHANGED_BY_IMPORT: dict[tuple[str, str], dict[str, Any]] = {}


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """After it, the settings of the process are what they were before."""
    before = Settings.now()
    try:
        yield
    finally:
        before.put()


def import_with_settings(references: Iterable[str], job_folder: Path) -> None:
    """Puts in force what the files of some functions set when they are imported.

    A file is executed once in a process; what it set then is noted, and set again each time.

    Raises:
        InputError: One of them cannot be imported.
    """
    for reference in references:
        key = (parse_reference(reference).source, str(job_folder))
        before = Settings.now()
        if key not in _CHANGED_BY_IMPORT:
            with internals.names_of_a_new_process():
                load_function(reference, job_folder)
            after = Settings.now()
            _CHANGED_BY_IMPORT[key] = {
                field.name: getattr(after, field.name)
                for field in dataclasses.fields(Settings)
                if getattr(after, field.name) != getattr(before, field.name)
            }
        dataclasses.replace(before, **_CHANGED_BY_IMPORT[key]).put()


def note_settings(model: keras.Model) -> None:
    """Notes that the settings in force are those that a model was built under."""
    _OF_MODEL[model] = Settings.now()


@contextlib.contextmanager
def settings_of(model: keras.Model) -> Iterator[None]:
    """While it lasts, those settings are in force that a model was built under."""
    with settings_kept():
        if model in _OF_MODEL:
            _OF_MODEL[model].put()
        yield


@contextlib.contextmanager
def settings_to_trace(model: keras.Model) -> Iterator[None]:
    """The same, but that functions are traced: a compiled program has no other way to run them."""
    with settings_of(model):
        tf.config.run_functions_eagerly(False)
        yield
