"""Cases of the oracle's table with images: augmented, resized, or read by a known base.

`build` and `data` are a job's builder and generator.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, optimizers
from oracle_cases import Case

_NUM_ROWS = {"train": 44, "validation": 19, "test": 5}  # the last batches are partial
_NUM_CLASSES = 3
_HEIGHT, _WIDTH = 8, 9

Layers = Callable[[], list[layers.Layer]]


def build(case: str) -> keras.Model:
    """The compiled model of a case: a job's builder."""
    return IMAGE_CASES[case].build()


def data(seed: int, *, case: str) -> dict[str, Any]:
    """The data of a case, bytes of red, green and blue: a job's generator."""
    rng = np.random.default_rng(seed)

    def part(num_rows: int) -> Any:
        images = rng.integers(0, 256, (num_rows, _HEIGHT, _WIDTH, 3)).astype("uint8")
        return images, rng.integers(0, _NUM_CLASSES, num_rows)

    return {name: part(num_rows) for name, num_rows in _NUM_ROWS.items()}


def _classifier(first: Layers) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        inputs = keras.Input((_HEIGHT, _WIDTH, 3), dtype="uint8")
        last = layers.Dense(_NUM_CLASSES, activation="softmax", dtype="float32")
        return _compiled(keras.Sequential([inputs, *first(), last]))

    return build


def _compiled(model: keras.Model) -> keras.Model:
    """Not by Adam, which would divide the rounding errors of small gradients by their own size."""
    model.compile(
        optimizers.SGD(0.05, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def _augmented(*first: Callable[[], layers.Layer]) -> Case:
    return Case(
        "image",
        _classifier(lambda: [*(make() for make in first), layers.Rescaling(1 / 255), *_read()]),
        "photo",
    )


def _of_floats(make: Callable[[], layers.Layer]) -> Case:
    return Case(
        "image", _classifier(lambda: [layers.Rescaling(1 / 255), make(), *_read()]), "photo"
    )


def _read() -> list[layers.Layer]:
    return [layers.Flatten(), layers.Dense(6, "tanh")]


def _convolved() -> list[layers.Layer]:
    return [
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.2, fill_mode="nearest"),
        layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
        layers.RandomContrast(0.2),
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
    ]


def _with_gradients() -> list[layers.Layer]:
    """What is learned stands before what moves, cuts and resizes."""
    return [
        layers.Rescaling(1 / 255),
        layers.Conv2D(3, 3, padding="same", activation="tanh"),
        layers.RandomRotation(0.2, fill_mode="wrap"),
        layers.RandomTranslation(0.2, 0.2, fill_mode="reflect", interpolation="nearest"),
        layers.RandomCrop(6, 7),
        layers.Resizing(9, 7, interpolation="bicubic"),
        layers.RandomSharpness(0.5, value_range=(-1, 1)),
        *_read(),
    ]


def _in_half_precision() -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return _classifier(
            lambda: [
                layers.RandomRotation(0.1),
                layers.RandomZoom(0.2, interpolation="nearest"),
                layers.Rescaling(1 / 255),
                *_read(),
            ]
        )()
    finally:
        keras.config.set_dtype_policy(before)


def _base() -> keras.Model:
    """Of convolutions with normalization, with weights as a file of one's own would give them."""
    base = keras.Sequential(
        [
            keras.Input((_HEIGHT, _WIDTH, 3)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    )
    rng = np.random.default_rng(8)
    base.set_weights([rng.uniform(0.1, 0.5, weight.shape) for weight in base.get_weights()])
    return base


def _transferred(num_trained: int) -> keras.Model:
    """A base whose last layers are trained, in inference, so that its normalizations stay."""
    known = _base()
    known.trainable = num_trained > 0
    for layer in known.layers[:-num_trained] if num_trained else ():
        layer.trainable = False
    inputs = keras.Input((_HEIGHT, _WIDTH, 3), dtype="uint8")
    hidden = layers.Rescaling(1 / 127.5, -1)(layers.RandomRotation(0.1)(inputs))
    hidden = layers.GlobalAveragePooling2D()(known(hidden, training=False))
    outputs = layers.Dense(_NUM_CLASSES, activation="softmax")(layers.Dropout(0.2)(hidden))
    return _compiled(keras.Model(inputs, outputs))


# Half precision rounds at other places: see `oracle_cases`.
_FLOAT16 = 2.0**-11

IMAGE_CASES: dict[str, Case] = {
    "RandomRotation": _augmented(lambda: layers.RandomRotation(0.2)),
    "RandomRotation_nearest": _augmented(
        lambda: layers.RandomRotation(0.2, "constant", "nearest", fill_value=9.0)
    ),
    "RandomZoom": _augmented(lambda: layers.RandomZoom((-0.4, 0.6), (-0.2, 0.3))),
    "RandomZoom_wrap": _augmented(lambda: layers.RandomZoom(0.4, fill_mode="wrap")),
    "RandomTranslation": _augmented(lambda: layers.RandomTranslation(0.3, 0.2)),
    "RandomTranslation_wrap": _augmented(
        lambda: layers.RandomTranslation(0.3, 0.2, "wrap", "nearest")
    ),
    "RandomShear": _augmented(lambda: layers.RandomShear(0.3, 0.2, fill_mode="nearest")),
    "RandomPerspective": _augmented(lambda: layers.RandomPerspective(0.8)),
    # In inference, Keras does not crop.
    "RandomCrop": _augmented(lambda: layers.RandomCrop(6, 5), lambda: layers.Resizing(6, 5)),
    "RandomColorJitter": _augmented(
        lambda: layers.RandomColorJitter(
            brightness_factor=0.2, contrast_factor=0.2, saturation_factor=0.2, hue_factor=0.2
        )
    ),
    "RandomGaussianBlur": _augmented(lambda: layers.RandomGaussianBlur(0.8)),
    "RandomSharpness": _augmented(lambda: layers.RandomSharpness(0.5)),
    "RandomPosterization": _augmented(lambda: layers.RandomPosterization(4)),
    "RandomErasing": _augmented(lambda: layers.RandomErasing(0.8)),
    "Resizing_bicubic": _of_floats(lambda: layers.Resizing(5, 12, interpolation="bicubic")),
    "Resizing_smoothed": _of_floats(
        lambda: layers.Resizing(5, 4, interpolation="lanczos3", antialias=True)
    ),
    "Resizing_padded": _of_floats(lambda: layers.Resizing(6, 6, pad_to_aspect_ratio=True)),
    "Resizing_padded_with_a_color": _of_floats(
        lambda: layers.Resizing(6, 6, pad_to_aspect_ratio=True, fill_value=0.7)
    ),
    # Keras rounds whole numbers that it resizes, but not where it traces a graph.
    "Resizing_bytes": _augmented(lambda: layers.Resizing(6, 6))._replace(engine="keras"),
    "augmented_convolutions": Case("image", _classifier(_convolved), "photo"),
    "augmented_in_the_middle": Case("image", _classifier(_with_gradients), "photo"),
    "augmented_mixed_float16": Case("image", _in_half_precision, "photo", _FLOAT16),
    "frozen_base": Case("image", lambda: _transferred(0), "photo"),
    "fine_tuned_base": Case("image", lambda: _transferred(2), "photo"),
}
