"""The import of TensorFlow without what hardly any training calls."""

import importlib
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras.src.visualization import plot_bounding_box_gallery, plot_image_gallery
from tensorflow.lite.python import lite, util

from trialrun.training.internals import lean_import

pytestmark = pytest.mark.tensorflow


def test_what_is_left_out_is_not_found_while_tensorflow_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(lean_import, "importing", lambda name: monkeypatch.context())
    with lean_import.importing_tensorflow():
        for name in ("matplotlib.no_module", "IPython.no_module", "jax.no_module"):
            with pytest.raises(ModuleNotFoundError, match="is imported when it is used"):
                importlib.import_module(name)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'matplotlib\.no_"):
        importlib.import_module("matplotlib.no_module")


def test_what_needs_scikit_learn_is_imported_when_it_is_used(monkeypatch):
    before = keras.wrappers
    monkeypatch.setattr(keras, "wrappers", before)
    monkeypatch.delitem(sys.modules, "keras.wrappers")
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(lean_import, "importing", lambda name: monkeypatch.context())
    with lean_import.importing_tensorflow():
        wrappers = importlib.import_module("keras.wrappers")
    assert "keras.wrappers" not in sys.modules
    assert wrappers.SKLearnClassifier is before.SKLearnClassifier
    assert "keras.wrappers" in sys.modules


def test_keras_finds_it_when_a_function_wants_it(monkeypatch, tmp_path):
    monkeypatch.setattr(plot_image_gallery, "plt", None)
    monkeypatch.setattr(plot_bounding_box_gallery, "patches", None)
    lean_import.postpone()
    file = tmp_path / "a.png"
    plot_image_gallery.plot_image_gallery(np.zeros((1, 8, 8, 3)), path=file)
    assert file.read_bytes()[1:4] == b"PNG"
    assert plot_bounding_box_gallery.patches.Patch(label="a").get_label() == "a"


def test_tensorflow_finds_jax_when_a_function_wants_it(monkeypatch):
    for module in (lite, util):
        monkeypatch.setattr(module, "_jit", None)
    monkeypatch.setattr(lean_import, "_is_installed", lambda package: False)
    lean_import.postpone()
    assert lite._jit is None
    monkeypatch.setattr(lean_import, "_is_installed", lambda package: True)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(jit=lambda function: (function,)))
    lean_import.postpone()
    assert lite._jit("f") == util._jit("f") == ("f",)
