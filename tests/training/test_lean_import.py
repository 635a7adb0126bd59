"""The import of TensorFlow without what hardly any training calls."""

import importlib
import sys

import numpy as np
import pytest
from keras.src.visualization import plot_bounding_box_gallery, plot_image_gallery

from trialrun.training.internals import lean_import


def test_what_is_left_out_is_not_found_while_tensorflow_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(lean_import, "importing", lambda name: monkeypatch.context())
    with lean_import.importing_tensorflow():
        for name in ("matplotlib.no_module", "IPython.no_module"):
            with pytest.raises(ModuleNotFoundError, match="is imported when it is used"):
                importlib.import_module(name)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'matplotlib\.no_"):
        importlib.import_module("matplotlib.no_module")


def test_keras_finds_it_when_a_function_wants_it(monkeypatch, tmp_path):
    monkeypatch.setattr(plot_image_gallery, "plt", None)
    monkeypatch.setattr(plot_bounding_box_gallery, "patches", None)
    lean_import.postpone()
    file = tmp_path / "a.png"
    plot_image_gallery.plot_image_gallery(np.zeros((1, 8, 8, 3)), path=file)
    assert file.read_bytes()[1:4] == b"PNG"
    assert plot_bounding_box_gallery.patches.Patch(label="a").get_label() == "a"
