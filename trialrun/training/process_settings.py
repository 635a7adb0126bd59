"""Keeps apart, for each trial, the settings that Keras and TensorFlow hold for the whole process.

A builder, or the file that defines it, may set a dtype policy or `floatx` as scripts do. Such
settings apply to the models that it builds, while they are built, compiled, traced and trained,
and to nothing else that this process does.
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

from trialrun.job.user_code.functions import load_function, parse_reference
from trialrun.training.internals import keras_model, keras_tracing


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What a user's code may have set for the whole process.

    Attributes:
        dtype_policy: The default policy; None if none was set and `floatx` decides.
        floatx, epsilon, image_data_format: Keras's.
        run_functions_eagerly: TensorFlow's.
    """

    dtype_policy: Any
    floatx: str
    epsilon: float
    image_data_format: str
    run_functions_eagerly: bool

    @classmethod
    def now(cls) -> "ProcessSettings":
        """The current settings of this process; the dtype policy is that of this thread."""
        return cls(
            keras_model.global_dtype_policy(),
            keras.config.floatx(),
            keras.config.epsilon(),
            keras.config.image_data_format(),
            tf.config.functions_run_eagerly(),
        )

    def put(self) -> None:
        """Puts these settings in force."""
        keras_model.set_global_dtype_policy(self.dtype_policy)
        keras.config.set_floatx(self.floatx)
        keras.config.set_epsilon(self.epsilon)
        keras.config.set_image_data_format(self.image_data_format)
        if tf.config.functions_run_eagerly() != self.run_functions_eagerly:
            tf.config.run_functions_eagerly(self.run_functions_eagerly)


_OF_MODEL: "weakref.WeakKeyDictionary[keras.Model, ProcessSettings]" = weakref.WeakKeyDictionary()
_CHANGED_BY_IMPORT: dict[tuple[str, str], dict[str, Any]] = {}


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """On leaving this context, the settings of the process are what they were before."""
    before = ProcessSettings.now()
    try:
        yield
    finally:
        before.put()


def import_with_settings(references: Iterable[str], job_folder: Path) -> None:
    """Puts in force the settings that the files of some functions make when they are imported.

    A file is executed once per process. What it set then is recorded, and set again each time.

    Raises:
        InputError: A file cannot be imported.
    """
    for reference in references:
        key = (parse_reference(reference).source, str(job_folder))
        before = ProcessSettings.now()
        if key not in _CHANGED_BY_IMPORT:
            with keras_tracing.names_of_a_new_process():
                load_function(reference, job_folder)
            after = ProcessSettings.now()
            _CHANGED_BY_IMPORT[key] = {
                field.name: getattr(after, field.name)
                for field in dataclasses.fields(ProcessSettings)
                if getattr(after, field.name) != getattr(before, field.name)
            }
        dataclasses.replace(before, **_CHANGED_BY_IMPORT[key]).put()


def note_settings(model: keras.Model) -> None:
    """Records that the settings in force are those that a model was built under."""
    _OF_MODEL[model] = ProcessSettings.now()


def settings_of(model: keras.Model) -> ProcessSettings:
    """The settings that a model was built under; those in force if that is not recorded."""
    return _OF_MODEL.get(model) or ProcessSettings.now()


@contextlib.contextmanager
def settings_in_force(model: keras.Model) -> Iterator[None]:
    """Within this context, the settings that a model was built under are in force."""
    with settings_kept():
        if model in _OF_MODEL:
            _OF_MODEL[model].put()
        yield


@contextlib.contextmanager
def settings_to_trace(model: keras.Model) -> Iterator[None]:
    """Like `settings_in_force`, but no function runs eagerly, as programs must be traced."""
    with settings_in_force(model):
        tf.config.run_functions_eagerly(False)
        yield
