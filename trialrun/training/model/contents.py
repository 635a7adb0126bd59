"""What is in a value of Python's, as bytes: equal bytes, equal content."""

import io
import pickle
import warnings
from typing import Any


def content_of(value: Any) -> bytes | None:
    """What pickle makes of a value that holds nothing of Keras or TensorFlow; None if it cannot.

    Those may hold the time at which they were pickled, and much.
    """
    file = io.BytesIO()
    pickler = _OfPython(file)
    pickler.fast = True  # what is equal has equal bytes, also where it is not the same
    try:
        with warnings.catch_warnings(action="ignore"):  # later Pythons advise against iterators
            pickler.dump(value)
    except Exception:  # whatever the `__reduce__` of a class raises
        return None
    return file.getvalue()


class _OfPython(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        bases = type(value).__mro__
        if any(base.__module__.startswith(("keras.", "tensorflow.")) for base in bases):
            raise pickle.PicklingError
        return NotImplemented
