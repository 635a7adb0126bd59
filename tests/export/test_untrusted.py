"""Model files that would run code of their author's are refused before anything is built."""

import json
import zipfile

import h5py
import keras
import pytest
from keras import layers

from trialrun.errors import InputError
from trialrun.export.load import load_model
from trialrun.export.untrusted import check_model_file, find_foreign

pytestmark = pytest.mark.tensorflow

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras calls HDF5 a legacy format


@keras.saving.register_keras_serializable("untrusted_tests")
class Registered(layers.Layer):
    def call(self, x):
        return x + 1


class NotRegistered(layers.Layer):
    def call(self, x):
        return x


def model_of(*middle):
    model = keras.Sequential([keras.Input((3,)), *middle, layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def functional():
    x = keras.Input((4, 3))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.LSTM(5, kernel_regularizer="l2")(layers.LayerNormalization()(y))
    model = keras.Model(x, [layers.Dense(1, name="a")(y), layers.Dense(2, name="b")(y)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(
        keras.optimizers.SGD(schedule),
        loss={"a": keras.losses.MeanSquaredError(), "b": keras.losses.Huber()},
    )
    return model


@pytest.mark.parametrize("ending", [".h5", ".keras"])
@pytest.mark.parametrize(
    "build",
    [
        functional,
        lambda: model_of(
            layers.Dense(4, kernel_initializer="he_normal", kernel_constraint="max_norm"),
            layers.BatchNormalization(),
            layers.Dropout(0.1),
            Registered(),
        ),
    ],
)
def test_what_keras_has_and_what_was_registered_is_loaded(tmp_path, build, ending):
    path = tmp_path / f"model{ending}"
    build().save(path)
    check_model_file(path)
    assert load_model(path).count_params() > 0


def unpack(path):
    """The configuration of a saved model, and a function that writes another into the file."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            config = json.loads(file.attrs["model_config"])

        def write(config):
            with h5py.File(path, "a") as file:
                file.attrs["model_config"] = json.dumps(config)

        return config, write
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}

    def write(config):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, json.dumps(config) if name == "config.json" else data)

    return json.loads(content["config.json"]), write


@pytest.mark.parametrize("ending", [".h5", ".keras"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"class_name": "Lambda", "module": "keras.layers"}, "keras.layers.Lambda"),
        ({"class_name": "system", "module": "os", "registered_name": "system"}, "os.system"),
        ({"class_name": "NotRegistered", "module": "tests", "registered_name": "a>b"}, "tests.Not"),
        ({"class_name": "get_file", "module": "keras.utils"}, "keras.utils.get_file"),
        ({"class_name": "__lambda__"}, "__lambda__"),
        ({"class_name": "function", "module": "os", "config": "system"}, "os.function"),
    ],
)
def test_what_could_run_code_is_refused_wherever_it_is(tmp_path, ending, change, expected):
    path = tmp_path / f"model{ending}"
    model_of(layers.Dense(4)).save(path)
    config, write = unpack(path)
    layer = config["config"]["layers"][1]
    for place in (layer, layer["config"]["kernel_initializer"]):
        before = dict(place)
        place.update(change)
        write(config)
        with pytest.raises(InputError, match=expected) as refused:
            load_model(path)
        assert "refused" in str(refused.value)
        place.clear()
        place.update(before)
    write(config)
    load_model(path)


def test_what_wraps_a_configuration_for_hdf5_hides_nothing_and_takes_no_arguments():
    inner = {"class_name": "Dense", "module": "keras.layers", "config": {"units": 1}}
    wrapped = {"class_name": "deserialize", "config": {"config": inner}}
    assert find_foreign(wrapped) is None
    inner["class_name"] = "Lambda"
    assert find_foreign(wrapped).name == "keras.layers.Lambda"
    for content in ({"config": inner, "custom_objects": {}}, {"config": "os"}, {}, None, "system"):
        assert find_foreign({"class_name": "deserialize", "config": content}) is not None


def test_operations_of_keras_are_its_own_and_nothing_else_in_those_modules_is():
    module = keras.layers.Layer.__module__.split(".layers")[0] + ".ops.numpy"
    assert find_foreign({"class_name": "Square", "module": module, "config": {}}) is None
    for name, where in (("backend", module), ("Square", "numpy"), ("Square", "evil.ops")):
        assert find_foreign({"class_name": name, "module": where, "config": {}}) is not None


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_what_is_no_model_is_wrong_input(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="is not a saved Keras model"):
        load_model(tmp_path / name)


def test_a_lambda_layer_is_refused(tmp_path):
    path = tmp_path / "model.h5"
    model_of(layers.Lambda(lambda x: x * 2)).save(path)
    with pytest.raises(InputError, match="Lambda"):
        load_model(path)
