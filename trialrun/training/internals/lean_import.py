"""The import of TensorFlow and Keras without what they import only in case somebody wants it.

Keras imports matplotlib, IPython and scikit-learn, and TensorFlow imports JAX, for functions that
hardly any training calls. That takes up to a third of the time, in every process that trains or
saves a model.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from trialrun.host import imported_late, importing

# Module of Keras, its name for what it could not import, what that is.
_LEFT_OUT = (
    ("keras.src.visualization.plot_image_gallery", "plt", "matplotlib.pyplot"),
    ("keras.src.visualization.plot_bounding_box_gallery", "patches", "matplotlib.patches"),
    ("keras.src.saving.file_editor", "ipython", "IPython"),
)
_JAX, _JIT = ("tensorflow.lite.python.util", "tensorflow.lite.python.lite"), "_jit"
_PACKAGES = frozenset(("jax", *(name.partition(".")[0] for _, _, name in _LEFT_OUT)))


class _Absent(MetaPathFinder):
    """Tells whoever imports one of the packages that it is not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname.partition(".")[0] in _PACKAGES:
            raise ModuleNotFoundError(f"{fullname} is imported when it is used", name=fullname)


@contextlib.contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Within this context TensorFlow and Keras are imported for the first time, in less time.

    What is left out is imported when a function of Keras first uses it.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        # The classes of Keras's wrappers have bases of scikit-learn's.
        with importing("tensorflow"), imported_late("keras.wrappers"):
            yield
    finally:
        sys.meta_path.remove(absent)
    postpone()


def postpone() -> None:
    """Gives modules what they could not import, to be imported when it is used."""
    from keras.src.utils.module_utils import LazyModule

    for importer, name, wanted in _LEFT_OUT:
        module = sys.modules.get(importer)
        if module is not None and getattr(module, name, module) is None:
            setattr(module, name, LazyModule(wanted))
    for importer in _JAX:
        module = sys.modules.get(importer)
        if module is not None and getattr(module, _JIT, module) is None and _is_installed("jax"):
            setattr(module, _JIT, _jit)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _jit(*args: Any, **kwargs: Any) -> Any:
    """`jax.jit`."""
    return importlib.import_module("jax").jit(*args, **kwargs)
