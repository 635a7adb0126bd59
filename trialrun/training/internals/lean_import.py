"""The import of TensorFlow and Keras without what they import only in case somebody wants it.

Keras imports matplotlib, IPython and scikit-learn, and TensorFlow imports JAX, for functions that
hardly any training calls. That takes up to a third of the time, in every process that trains or
saves a model.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

from trialrun.host import importing

# Module of Keras, its name for what it could not import, what that is.
_LEFT_OUT = (
    ("keras.src.visualization.plot_image_gallery", "plt", "matplotlib.pyplot"),
    ("keras.src.visualization.plot_bounding_box_gallery", "patches", "matplotlib.patches"),
    ("keras.src.saving.file_editor", "ipython", "IPython"),
)
_JAX, _JIT = ("tensorflow.lite.python.util", "tensorflow.lite.python.lite"), "_jit"
_PACKAGES = frozenset(("jax", *(name.partition(".")[0] for _, _, name in _LEFT_OUT)))
_EXECUTED_LATE = "keras.wrappers"  # its classes have bases of scikit-learn's


class _Finder(MetaPathFinder):
    """Tells whoever imports one of the packages that it is not installed.

    A module that needs one as soon as it is executed is executed when something in it is used.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in _PACKAGES:
            raise ModuleNotFoundError(f"{fullname} is imported when it is used", name=fullname)
        if fullname != _EXECUTED_LATE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


@contextlib.contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Within this context TensorFlow and Keras are imported for the first time, in less time.

    What is left out is imported when a function of Keras first uses it.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        with importing("tensorflow"):
            yield
    finally:
        sys.meta_path.remove(finder)
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
