"""Which features of a model's input are looked up as whole numbers, such as words or categories.

Such numbers must not be scaled: the third of thirty words would become 0.07, which an `Embedding`
would take as the first word. An integer `Input` shows that its features are looked up. Otherwise
the model is called with a few rows, and these are compared with the values that reach its
`Embedding` and other layers that look numbers up.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.job import ModelSpec
from trialrun.training.model.build import call_builder

if TYPE_CHECKING:
    import keras

_NUM_ROWS = 64
_LAYERS = ("Embedding", "IntegerLookup", "Hashing", "HashedCrossing", "CategoryEncoding")
_MAY_HOLD_OTHERS = ("Wrapper", "Model", "Lambda")

Features = Sequence[npt.NDArray[np.bool_]]


def looked_up_features(model: ModelSpec, job_folder: Path) -> Callable[[Any], Features]:
    """A function that tells which features of each array of x the model looks up.

    The function builds the model once for all inputs of the same shape.

    Args:
        model: The section `model` of the job.
        job_folder: The folder to which the path of a builder's file is relative.

    Returns:
        A function of unscaled inputs (rows, ...) that returns, for each array, bool (features,);
        features are the last axis. It raises InputError if the builder fails.
    """
    known: dict[tuple[Any, ...], Features] = {}

    def looked_up(x: Any) -> Features:
        import keras

        form = tuple(array.shape[1:] for array in keras.tree.flatten(x))
        if form not in known:
            known[form] = _find(model, job_folder, x)
        return known[form]

    return looked_up


def _find(model: ModelSpec, job_folder: Path, x: Any) -> Features:
    import keras

    arrays = _flat(x)
    given: list[npt.NDArray[Any]] = []
    with _listening(given):
        built = call_builder(model, job_folder)
        integers = _integer_inputs(built, x)
        if _may_look_up(built):
            rows = keras.tree.map_structure(lambda array: _first_rows(array), x)
            _call(built, rows)
    return [
        np.ones(_num_features(array), np.bool_) if is_integer else _matched(array, given)
        for array, is_integer in zip(arrays, integers, strict=True)
    ]


def _flat(x: Any) -> list[Any]:
    """The arrays in the order in which `arrays.leaves` gives them."""
    if isinstance(x, Mapping):
        return list(x.values())
    return list(x) if isinstance(x, tuple) else [x]


def _first_rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The first rows, unscaled; numbers have the type that scaled ones have."""
    rows = array[:_NUM_ROWS]
    return rows if rows.dtype == object else rows.astype(np.float32)


def _num_features(array: npt.NDArray[Any]) -> int:
    return array.shape[-1] if array.ndim > 1 else 1


def _integer_inputs(model: "keras.Model", x: Any) -> list[bool]:
    """For each array of x, whether the `Input` that takes it has an integer type."""
    import keras

    if not getattr(model, "inputs", None):
        return [False] * len(_flat(x))  # such a model has no `Input` before it sees data
    inputs = model.inputs if isinstance(model, keras.Sequential) else model.input
    by_name = inputs if isinstance(inputs, Mapping) else {t.name: t for t in model.inputs}
    if isinstance(x, Mapping):
        taken = [by_name.get(name) for name in x]
    else:
        taken = [*keras.tree.flatten(inputs), *[None] * len(_flat(x))][: len(_flat(x))]
    return [tensor is not None and "int" in str(tensor.dtype) for tensor in taken]


def _may_look_up(model: "keras.Model") -> bool:
    """Whether a model may hold a layer that looks numbers up, so that it must be called."""
    import keras

    if not isinstance(model, keras.Sequential) and not getattr(model, "inputs", None):
        return True  # a subclassed model may make its layers only when it is called
    names = {*_LAYERS, *_MAY_HOLD_OTHERS}
    return any(
        not type(layer).__module__.startswith("keras.")
        or not names.isdisjoint(kind.__name__ for kind in type(layer).__mro__)
        for layer in model.layers
    )


def _call(model: "keras.Model", rows: Any) -> None:
    """Calls the model and ignores errors, which are reported when it is built for the data."""
    try:
        model(rows, training=False)
    except Exception:  # the user's layers may raise anything
        return


@contextmanager
def _listening(given: list[npt.NDArray[Any]]) -> Iterator[None]:
    """Collects in `given` the values with which layers that look numbers up are called."""
    import keras

    kinds = [getattr(keras.layers, name) for name in _LAYERS]
    calls = [kind.call for kind in kinds]
    for kind, call in zip(kinds, calls, strict=True):
        kind.call = _noting(call, given)
    try:
        yield
    finally:
        for kind, call in zip(kinds, calls, strict=True):
            kind.call = call


def _noting(call: Callable[..., Any], given: list[npt.NDArray[Any]]) -> Callable[..., Any]:
    import keras

    first = list(inspect.signature(call).parameters)[1]

    @functools.wraps(call)
    def noting(layer: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = keras.tree.flatten(args[0] if args else kwargs.get(first))
        # A symbolic tensor has no values.
        given.extend(np.asarray(tensor.numpy()) for tensor in tensors if hasattr(tensor, "numpy"))
        return call(layer, *args, **kwargs)

    return noting


def _matched(array: npt.NDArray[Any], given: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Which features reach a layer unchanged, or with one number added to all rows."""
    num_features = _num_features(array)
    if array.dtype == object:
        return np.zeros(num_features, np.bool_)
    columns = _changes(_first_rows(array))
    num_rows = columns.shape[1]
    seen = {
        column.tobytes()
        for values in given
        if values.shape and values.shape[0] == num_rows and values.dtype.kind in "biuf"
        for column in _changes(values)
    }
    does_vary = columns.any(1)
    is_seen = np.array([column.tobytes() in seen for column in columns]) & does_vary
    if is_seen.any() and np.array_equal(is_seen, does_vary):
        return np.ones(num_features, np.bool_)  # features that do not vary are counted as seen
    return np.asarray(is_seen.reshape(-1, num_features).any(0))


def _changes(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The difference of each number from that of the first row, float64 (numbers per row, rows)."""
    columns = array.reshape(len(array), -1).astype(np.float64).T
    return np.ascontiguousarray(columns - columns[:, :1]) + 0.0  # turns -0.0 into 0.0
