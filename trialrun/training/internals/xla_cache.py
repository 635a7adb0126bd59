"""Private parts of TensorFlow and XLA on which it rests that what was compiled is found again.

TensorFlow looks for a compiled function under a hash of its name and of its operations. Names hold
a number that TensorFlow counts up per process, in whatever order threads trace.
"""

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import concrete_function
from tensorflow.python.ops import control_flow_util_v2

# What makes the names of functions, of branches and of loops.
_NAMES = (
    (concrete_function, "_inference_name"),
    (concrete_function, "_forward_name"),
    (concrete_function, "_backward_name"),
    (control_flow_util_v2, "unique_fn_name"),
    (control_flow_util_v2, "unique_grad_fn_name"),
)
_NUMBER = re.compile(r"\d+$")
_SUFFIX = ".pb"
# An entry begins with its key, of some 60 bytes, and the name of the program.
_HEAD_BYTES = 1000


@contextmanager
def numbered_from(first: int) -> Iterator[None]:
    """Within this context, functions that this thread traces are numbered from a given number on.

    Tensors are still numbered by TensorFlow, because how many there are depends on what the process
    has done before.

    Args:
        first: The first number. No number may be given twice in a process.
    """
    owner, numbers = threading.get_ident(), itertools.count(first)

    def numbered(make_name: Callable[..., str]) -> Callable[..., str]:
        def name(*parts: str) -> str:
            usual = make_name(*parts)
            is_own = threading.get_ident() == owner
            return _NUMBER.sub(str(next(numbers)), usual) if is_own else usual

        return name

    with contextlib.ExitStack() as stack:
        for module, function in _NAMES:
            own = numbered(getattr(module, function))
            stack.enter_context(mock.patch.object(module, function, own))
        yield


def put_file(folder: str, name: str, content: bytes) -> None:
    """Puts a file of the cache where TensorFlow will look for it.

    Args:
        folder: The folder that TensorFlow was given by `--tf_xla_persistent_cache_directory`.
        name: The name that TensorFlow gave the file.
        content: Its bytes.
    """
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
        file.write(content)


def take_files(folder: str, function: Any) -> dict[str, bytes]:
    """Name -> content of the files about a traced function; they are removed from the folder."""
    if not tf.io.gfile.exists(folder):
        return {}
    found = {}
    for name in tf.io.gfile.listdir(folder):
        if not name.endswith(_SUFFIX):  # another thread is writing it
            continue
        with tf.io.gfile.GFile(f"{folder}/{name}", "rb") as file:
            content = file.read()
        if tf.compat.as_bytes(function.name) in content[:_HEAD_BYTES]:
            tf.io.gfile.remove(f"{folder}/{name}")
            found[name] = content
    return found
