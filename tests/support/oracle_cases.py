"""The table of the oracle: models of all kinds, each compiled as one writes it in plain Keras.

`build` and `data` are a job's builder and generator, so that a case is trained by trialrun like
anyone's model. `tests/training/test_oracle.py` holds some lines of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, losses, metrics, optimizers, regularizers

schedules = optimizers.schedules

# 44 rows in batches of 8: five whole ones and a partial one of 4.
BATCH_SIZE, EPOCHS = 8, 3
_NUM_ROWS = {"train": 44, "validation": 19, "test": 5}
_NUM_CLASSES = 3


class Case(NamedTuple):
    """One line of the table.

    Attributes:
        kind: `layer`, `optimizer`, ...
        build: Gives a compiled model.
        data: A key of `DATA`.
        tolerance: Of weights and logs.
        engine: That `auto` must take.
    """

    kind: str
    build: Callable[[], keras.Model]
    data: str = "table"
    tolerance: float = 1e-5
    engine: str = "fused"


def build(case: str) -> keras.Model:
    """The compiled model of a case: a job's builder."""
    return CASES[case].build()


def data(seed: int, *, case: str) -> dict[str, Any]:
    """The data of a case: a job's generator."""
    make = DATA[CASES[case].data]
    rng = np.random.default_rng(seed)
    return {part: make(rng, num_rows) for part, num_rows in _NUM_ROWS.items()}


# Data -------------------------------------------------------------------------------------------


def _labels(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    return rng.integers(0, _NUM_CLASSES, num_rows)


def _inputs(*shape: int) -> Callable[[np.random.Generator, int], Any]:
    return lambda rng, n: (rng.normal(size=(n, *shape)).astype("float32"), _labels(rng, n))


def _images(rng: np.random.Generator, n: int) -> Any:
    return rng.uniform(0, 255, size=(n, 8, 8, 3)).astype("float32"), _labels(rng, n)


def _tokens(rng: np.random.Generator, n: int) -> Any:
    ids = rng.integers(1, 20, (n, 7))
    ids[:, 5:] *= rng.integers(0, 2, (n, 1))  # 0 pads some rows
    return ids.astype("int32"), _labels(rng, n)


def _one_hot(rng: np.random.Generator, n: int) -> Any:
    x, y = _inputs(6)(rng, n)
    return x, np.eye(_NUM_CLASSES, dtype="float32")[y]


def _binary(rng: np.random.Generator, n: int) -> Any:
    x = rng.normal(size=(n, 6)).astype("float32")
    return x, (x[:, :1] + rng.normal(size=(n, 1)) > 0).astype("int32")


def _signs(rng: np.random.Generator, n: int) -> Any:
    x, y = _binary(rng, n)
    return x, (2 * y - 1).astype("float32")


def _regression(rng: np.random.Generator, n: int) -> Any:
    x = rng.normal(size=(n, 6)).astype("float32")
    return x, (x[:, :1] * 2 + rng.normal(size=(n, 1))).astype("float32")


def _positive(rng: np.random.Generator, n: int) -> Any:
    x, y = _regression(rng, n)
    return x, np.abs(y) + 0.1


def _two_inputs(rng: np.random.Generator, n: int) -> Any:
    x = {"a": rng.normal(size=(n, 6)), "b": rng.normal(size=(n, 4))}
    return {name: array.astype("float32") for name, array in x.items()}, _labels(rng, n)


def _two_outputs(rng: np.random.Generator, n: int) -> Any:
    x, y = _inputs(6)(rng, n)
    return x, {"a": y, "b": rng.normal(size=(n, 1)).astype("float32")}


DATA: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "table": _inputs(6),
    "sequence": _inputs(7, 4),
    "image": _inputs(8, 8, 2),
    "volume": _inputs(5, 5, 5, 2),
    "frames": _inputs(3, 6, 2),
    "photo": _images,
    "tokens": _tokens,
    "one_hot": _one_hot,
    "binary": _binary,
    "signs": _signs,
    "regression": _regression,
    "positive": _positive,
    "two_inputs": _two_inputs,
    "two_outputs": _two_outputs,
}
_SHAPES = {
    "table": (6,),
    "sequence": (7, 4),
    "image": (8, 8, 2),
    "volume": (5, 5, 5, 2),
    "frames": (3, 6, 2),
    "photo": (8, 8, 3),
    "tokens": (7,),
    "one_hot": (6,),
    "binary": (6,),
    "signs": (6,),
    "regression": (6,),
    "positive": (6,),
}

# Models -----------------------------------------------------------------------------------------

Layers = Callable[[], list[layers.Layer]]


def _classifier(
    hidden: Layers,
    data: str = "table",
    *,
    optimizer: Callable[[], optimizers.Optimizer] = lambda: optimizers.Adam(0.01),
    loss: Any = "sparse_categorical_crossentropy",
    metrics: Any = ("accuracy",),
    last: Callable[[], layers.Layer] = lambda: layers.Dense(
        _NUM_CLASSES, activation="softmax", dtype="float32"
    ),
    **compiled: Any,
) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        dtype = "int32" if data == "tokens" else None
        model = keras.Sequential([keras.Input(_SHAPES[data], dtype=dtype), *hidden(), last()])
        model.compile(
            optimizer(),
            loss() if callable(loss) else loss,
            metrics=metrics() if callable(metrics) else list(metrics),
            jit_compile=False,
            **compiled,
        )
        return model

    return build


def _layers(data: str, tolerance: float = 1e-5, engine: str = "fused", **hidden: Layers) -> Any:
    return {
        name: Case("layer", _classifier(of, data), data, tolerance, engine)
        for name, of in hidden.items()
    }


def _pooled(*before: Callable[[], layers.Layer]) -> Layers:
    return lambda: [*(make() for make in before), layers.Flatten()]


_DENSE = _layers(
    "table",
    Dense=lambda: [layers.Dense(8, "relu")],
    EinsumDense=lambda: [layers.EinsumDense("ab,bc->ac", output_shape=8, bias_axes="c")],
    Dropout=lambda: [layers.Dense(16, "relu"), layers.Dropout(0.4)],
    AlphaDropout=lambda: [layers.Dense(16, "selu"), layers.AlphaDropout(0.3)],
    GaussianNoise=lambda: [layers.Dense(16, "relu"), layers.GaussianNoise(0.4)],
    GaussianDropout=lambda: [layers.Dense(16, "relu"), layers.GaussianDropout(0.3)],
    BatchNormalization=lambda: [
        layers.Dense(8, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
    ],
    LayerNormalization=lambda: [layers.Dense(8), layers.LayerNormalization()],
    RMSNormalization=lambda: [layers.Dense(8), layers.RMSNormalization()],
    GroupNormalization=lambda: [layers.Dense(8), layers.GroupNormalization(4)],
    UnitNormalization=lambda: [layers.Dense(8), layers.UnitNormalization()],
    SpectralNormalization=lambda: [layers.SpectralNormalization(layers.Dense(8, "relu"))],
    PReLU=lambda: [layers.Dense(8), layers.PReLU()],
    LeakyReLU=lambda: [layers.Dense(8), layers.LeakyReLU(0.2)],
    ELU=lambda: [layers.Dense(8), layers.ELU()],
    Activation_gelu=lambda: [layers.Dense(8, "gelu")],
    Activation_swish=lambda: [layers.Dense(8, "swish")],
    Reshape_Permute=lambda: [
        layers.Dense(8),
        layers.Reshape((2, 4)),
        layers.Permute((2, 1)),
        layers.Flatten(),
    ],
    RepeatVector=lambda: [layers.RepeatVector(3), layers.Dense(4, "relu"), layers.Flatten()],
    L1L2=lambda: [layers.Dense(8, "relu", kernel_regularizer=regularizers.L1L2(1e-3, 1e-2))],
    OrthogonalRegularizer=lambda: [
        layers.Dense(4, "relu", kernel_regularizer=regularizers.OrthogonalRegularizer(0.02))
    ],
    bias_regularizer=lambda: [layers.Dense(8, "relu", bias_regularizer="l2")],
    activity_regularizer=lambda: [
        layers.Dense(8, "relu", activity_regularizer=regularizers.L2(1e-2))
    ],
    ActivityRegularization=lambda: [
        layers.Dense(8, "relu"),
        layers.ActivityRegularization(l1=0.01),
    ],
    MaxNorm=lambda: [layers.Dense(8, "relu", kernel_constraint=keras.constraints.MaxNorm(0.5))],
    UnitNorm=lambda: [layers.Dense(8, "relu", kernel_constraint=keras.constraints.UnitNorm())],
    NonNeg=lambda: [layers.Dense(8, "relu", kernel_constraint=keras.constraints.NonNeg())],
    MinMaxNorm=lambda: [
        layers.Dense(8, "relu", kernel_constraint=keras.constraints.MinMaxNorm(0.2, 0.8))
    ],
    frozen=lambda: [layers.Dense(8, "relu", trainable=False), layers.Dense(5)],
    Normalization=lambda: [layers.Normalization(mean=0.5, variance=2.0), layers.Dense(4)],
    Rescaling=lambda: [layers.Rescaling(0.5, 0.1), layers.Dense(4)],
    Discretization_CategoryEncoding=lambda: [
        layers.Discretization(bin_boundaries=[-0.5, 0.5], output_mode="multi_hot")
    ],
    own_layer=lambda: [_Scale(), layers.Dense(4)],
    loss_added_in_a_layer=lambda: [layers.Dense(8), _AddsLoss()],
    draws_of_constant_seeds=lambda: [_DrawsTheSame(), layers.Dense(4)],
)
_CONVOLUTIONS = {
    **_layers(
        "image",
        Conv2D=_pooled(lambda: layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D),
        Conv2D_same_strided=_pooled(lambda: layers.Conv2D(4, 3, strides=2, padding="same")),
        Conv2D_dilated=_pooled(lambda: layers.Conv2D(4, 3, dilation_rate=2)),
        Conv2D_groups=_pooled(lambda: layers.Conv2D(4, 3, groups=2)),
        Conv2D_normalized=_pooled(
            lambda: layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization,
            layers.ReLU,
            layers.GlobalMaxPooling2D,
        ),
        Conv2DTranspose=_pooled(lambda: layers.Conv2DTranspose(3, 3, strides=2)),
        DepthwiseConv2D=_pooled(lambda: layers.DepthwiseConv2D(3)),
        SeparableConv2D=_pooled(lambda: layers.SeparableConv2D(4, 3)),
        AveragePooling2D=_pooled(lambda: layers.Conv2D(4, 3), lambda: layers.AveragePooling2D(2)),
        GlobalAveragePooling2D=_pooled(lambda: layers.Conv2D(4, 3), layers.GlobalAveragePooling2D),
        SpatialDropout2D=_pooled(lambda: layers.Conv2D(6, 3), lambda: layers.SpatialDropout2D(0.4)),
        ZeroPadding2D_Cropping2D=_pooled(
            layers.ZeroPadding2D, lambda: layers.Conv2D(4, 3), lambda: layers.Cropping2D(1)
        ),
        UpSampling2D=_pooled(lambda: layers.Conv2D(3, 3), lambda: layers.UpSampling2D(2)),
        UpSampling2D_bilinear=_pooled(
            lambda: layers.Conv2D(3, 3), lambda: layers.UpSampling2D(2, interpolation="bilinear")
        ),
        Resizing=_pooled(lambda: layers.Resizing(5, 5)),
        CenterCrop=_pooled(lambda: layers.CenterCrop(6, 6)),
        RandomFlip=_pooled(lambda: layers.RandomFlip()),
    ),
    **_layers(
        "photo",
        RandomBrightness=_pooled(
            lambda: layers.RandomBrightness(0.2), lambda: layers.Rescaling(1 / 255)
        ),
        RandomContrast=_pooled(
            lambda: layers.RandomContrast(0.2), lambda: layers.Rescaling(1 / 255)
        ),
    ),
    **_layers(
        "volume",
        Conv3D=_pooled(lambda: layers.Conv3D(3, 2), layers.MaxPooling3D),
        Conv3DTranspose=_pooled(lambda: layers.Conv3DTranspose(2, 2)),
        AveragePooling3D=_pooled(lambda: layers.Conv3D(3, 2), lambda: layers.AveragePooling3D(2)),
    ),
}


class NormalizedCell(layers.LSTMCell):
    """Makes a layer and leaves it to its first call to build it."""

    def __init__(self, units: int, **given: Any) -> None:
        super().__init__(units, **given)
        self.normalization = layers.LayerNormalization()

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        output, states = super().call(inputs, states, training=training)
        return self.normalization(output), states


_SEQUENCES = {
    **_layers(
        "sequence",
        Conv1D=_pooled(lambda: layers.Conv1D(4, 3), layers.MaxPooling1D),
        Conv1D_causal=_pooled(lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
        Conv1DTranspose=_pooled(lambda: layers.Conv1DTranspose(3, 3)),
        DepthwiseConv1D=_pooled(lambda: layers.DepthwiseConv1D(3)),
        SeparableConv1D=_pooled(lambda: layers.SeparableConv1D(4, 3)),
        AveragePooling1D=_pooled(lambda: layers.Conv1D(4, 3), lambda: layers.AveragePooling1D(2)),
        SpatialDropout1D=_pooled(lambda: layers.Dense(8), lambda: layers.SpatialDropout1D(0.3)),
        TimeDistributed=_pooled(lambda: layers.TimeDistributed(layers.Dense(5, "relu"))),
        SimpleRNN=lambda: [layers.SimpleRNN(6)],
        LSTM=lambda: [layers.LSTM(6)],
        LSTM_stacked=lambda: [layers.LSTM(5, return_sequences=True), layers.LSTM(4)],
        LSTM_backwards=lambda: [layers.LSTM(6, go_backwards=True)],
        LSTM_dropout=lambda: [layers.LSTM(6, dropout=0.2, recurrent_dropout=0.2)],
        LSTM_Bidirectional=lambda: [layers.Bidirectional(layers.LSTM(5))],
        GRU=lambda: [layers.GRU(6)],
        GRU_reset_before=lambda: [layers.GRU(6, reset_after=False)],
        GRU_dropout=lambda: [layers.GRU(6, dropout=0.2, recurrent_dropout=0.1)],
        RNN_of_cells=lambda: [layers.RNN([layers.GRUCell(4), layers.LSTMCell(5)])],
        RNN_with_a_layer_in_its_cell=lambda: [layers.RNN(NormalizedCell(5))],
        Masking_LSTM=lambda: [layers.Masking(), layers.LSTM(5)],
    ),
    **_layers("frames", ConvLSTM1D=_pooled(lambda: layers.ConvLSTM1D(3, 2))),
    **_layers(
        "tokens",
        Embedding=_pooled(lambda: layers.Embedding(20, 5)),
        Embedding_averaged=lambda: [layers.Embedding(20, 5), layers.GlobalAveragePooling1D()],
        Embedding_masked_average=lambda: [
            layers.Embedding(20, 5, mask_zero=True),
            layers.GlobalAveragePooling1D(),
        ],
        Embedding_masked_LSTM=lambda: [layers.Embedding(20, 5, mask_zero=True), layers.LSTM(6)],
        Embedding_masked_GRU=lambda: [layers.Embedding(20, 5, mask_zero=True), layers.GRU(6)],
        CategoryEncoding=lambda: [layers.CategoryEncoding(20, output_mode="count")],
    ),
}


@keras.saving.register_keras_serializable("oracle")
class _Scale(layers.Layer):
    """A layer of one's own: a learnt factor per feature."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(x * self.factor)


@keras.saving.register_keras_serializable("oracle")
class _DrawsTheSame(layers.Layer):
    """Random features and a dropout, by seeds that are the same in each call; padded with 5."""

    def call(self, x: Any, training: bool = False) -> Any:
        kernel = keras.random.normal((x.shape[-1], 8), seed=42)
        own = keras.initializers.GlorotUniform(seed=3)((x.shape[-1], 8))
        features = keras.ops.cos(keras.ops.matmul(x, kernel + own))
        if training:
            features = keras.random.dropout(features, 0.3, seed=7)
        return keras.ops.pad(features, ((0, 0), (0, 2)), constant_values=5.0)


@keras.saving.register_keras_serializable("oracle")
class _AddsLoss(layers.Layer):
    """Asks for small outputs."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return x


def _attention() -> keras.Model:
    x = keras.Input((7, 4))
    hidden = layers.Dense(8)(x)
    hidden = hidden + layers.MultiHeadAttention(2, 4, dropout=0.1)(hidden, hidden)
    hidden = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(hidden))
    return _attending(keras.Model(x, layers.Dense(_NUM_CLASSES, activation="softmax")(hidden)))


def _causal_attention() -> keras.Model:
    x = keras.Input((7, 4))
    hidden = layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    hidden = layers.Flatten()(hidden)
    return _attending(keras.Model(x, layers.Dense(_NUM_CLASSES, activation="softmax")(hidden)))


def _grouped_attention() -> keras.Model:
    x = keras.Input((7, 4))
    hidden = layers.GroupQueryAttention(4, 4, 2)(x, x)
    hidden = layers.Flatten()(hidden)
    return _attending(keras.Model(x, layers.Dense(_NUM_CLASSES, activation="softmax")(hidden)))


def _dot_attention(kind: type[layers.Layer]) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        x = keras.Input((7, 4))
        query, value = layers.Dense(4)(x), layers.Dense(4)(x)
        hidden = layers.Flatten()(kind(dropout=0.1)([query, value]))
        return _compiled(keras.Model(x, layers.Dense(_NUM_CLASSES, activation="softmax")(hidden)))

    return build


def _residual() -> keras.Model:
    x = keras.Input((6,))
    hidden = layers.Dense(6, "relu")(x)
    hidden = layers.Add()([hidden, x])
    hidden = layers.Concatenate()([hidden, layers.Multiply()([hidden, x]), layers.Dot(1)([x, x])])
    return _compiled(keras.Model(x, layers.Dense(_NUM_CLASSES, activation="softmax")(hidden)))


def _shared_layer() -> keras.Model:
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((4,), name="b")}
    shared = layers.Dense(5, "tanh")
    left, right = layers.Dense(4)(inputs["a"]), inputs["b"]
    hidden = layers.Maximum()([shared(left), shared(right)])
    return _compiled(keras.Model(inputs, layers.Dense(_NUM_CLASSES, activation="softmax")(hidden)))


def _several_outputs() -> keras.Model:
    x = keras.Input((6,))
    hidden = layers.Dense(8, "relu")(x)
    outputs = {
        "a": layers.Dense(_NUM_CLASSES, "softmax", name="a")(hidden),
        "b": layers.Dense(1, name="b")(hidden),
    }
    model = keras.Model(x, outputs)
    model.compile(
        optimizers.Adam(0.01),
        loss={"a": "sparse_categorical_crossentropy", "b": "mse"},
        loss_weights={"a": 1.0, "b": 0.3},
        metrics={"a": ["accuracy"], "b": ["mae"]},
        jit_compile=False,
    )
    return model


@keras.saving.register_keras_serializable("oracle")
class Subclassed(keras.Model):
    """A model of one's own class (Keras cannot train one whose name begins with `_`)."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.hidden = layers.Dense(8, "relu")
        self.dropout = layers.Dropout(0.3)
        self.out = layers.Dense(_NUM_CLASSES, activation="softmax")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.dropout(self.hidden(x), training=training))


def _subclassed() -> keras.Model:
    model = Subclassed()
    model(keras.KerasTensor((None, 6)))
    return _compiled(model)


def _nested() -> keras.Model:
    inner = keras.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.2)])
    x = keras.Input((6,))
    return _compiled(keras.Model(x, layers.Dense(_NUM_CLASSES, activation="softmax")(inner(x))))


def _attending(model: keras.Model) -> keras.Model:
    """Not by Adam: a bias of the keys adds the same to all scores of a query, which softmax takes
    away, so its gradient is nothing but rounding errors, and Adam divides them by their own size.
    """
    return _compiled(model, optimizers.SGD(0.1, momentum=0.9))


def _compiled(model: keras.Model, optimizer: optimizers.Optimizer | None = None) -> keras.Model:
    model.compile(
        optimizer or optimizers.Adam(0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


_MODELS = {
    "MultiHeadAttention": Case("layer", _attention, "sequence"),
    "MultiHeadAttention_causal": Case("layer", _causal_attention, "sequence"),
    "GroupQueryAttention": Case("layer", _grouped_attention, "sequence"),
    "Attention": Case("layer", _dot_attention(layers.Attention), "sequence"),
    "AdditiveAttention": Case("layer", _dot_attention(layers.AdditiveAttention), "sequence"),
    "functional_merges": Case("model", _residual),
    "two_inputs_shared_layer": Case("model", _shared_layer, "two_inputs"),
    "two_outputs": Case("model", _several_outputs, "two_outputs"),
    "subclassed": Case("model", _subclassed),
    "nested": Case("model", _nested),
}


def _with_policy(policy: str, hidden: Layers) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return _classifier(hidden, optimizer=lambda: optimizers.SGD(0.05), metrics=())()
        finally:
            keras.config.set_dtype_policy(before)

    return build


def _two_layers() -> list[layers.Layer]:
    return [layers.Dense(16, "tanh"), layers.Dense(8, "tanh")]


def _dropped() -> list[layers.Layer]:
    return [layers.Dense(16, "tanh"), layers.Dropout(0.3), layers.Dense(8, "tanh")]


# Half precision rounds at other places in a program of its own: by 2^-9 of a bfloat16, by 2^-12 of
# a float16. In 18 steps at a rate of 0.05, weights move by less than 18 * 0.05 of their gradients,
# which are below 1, so they end about one such error apart, and so do their losses, near 1. Where
# weights are bfloat16 themselves, neighbors below 2 are 2^-7 apart. (Adam would divide a rounding
# error by its own size, a ReLU makes a step of it, and an accuracy counts whole rows.)
_BFLOAT16, _FLOAT16 = 2.0**-8, 2.0**-11
_PRECISIONS = {
    name: Case("precision", _with_policy(policy, hidden), tolerance=tolerance)
    for name, policy, hidden, tolerance in (
        ("float64", "float64", _two_layers, 1e-5),
        ("bfloat16", "bfloat16", _two_layers, 2 * _BFLOAT16),
        ("mixed_bfloat16", "mixed_bfloat16", _two_layers, _BFLOAT16),
        ("mixed_bfloat16_dropout", "mixed_bfloat16", _dropped, _BFLOAT16),
        ("mixed_float16", "mixed_float16", _two_layers, _FLOAT16),
        ("mixed_float16_dropout", "mixed_float16", _dropped, _FLOAT16),
    )
}


def _optimized(optimizer: Callable[[], optimizers.Optimizer]) -> Case:
    return Case("optimizer", _classifier(lambda: [layers.Dense(8, "relu")], optimizer=optimizer))


_OPTIMIZERS = {
    name: _optimized(make)
    for name, make in {
        "SGD": lambda: optimizers.SGD(0.05),
        "SGD_momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
        "SGD_nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        "Adam": lambda: optimizers.Adam(0.01),
        "Adam_amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
        "Adam_weight_decay": lambda: optimizers.Adam(0.01, weight_decay=0.05),
        "AdamW": lambda: optimizers.AdamW(0.01, weight_decay=0.05),
        "RMSprop": lambda: optimizers.RMSprop(0.01),
        "RMSprop_centered": lambda: optimizers.RMSprop(0.01, momentum=0.9, centered=True),
        "Adagrad": lambda: optimizers.Adagrad(0.05),
        "Adadelta": lambda: optimizers.Adadelta(1.0),
        "Adamax": lambda: optimizers.Adamax(0.01),
        "Nadam": lambda: optimizers.Nadam(0.01),
        "Ftrl": lambda: optimizers.Ftrl(0.05),
        "Lion": lambda: optimizers.Lion(0.003),
        "Adafactor": lambda: optimizers.Adafactor(0.01),
        "Lamb": lambda: optimizers.Lamb(0.01),
        "Muon": lambda: optimizers.Muon(0.01),
        "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.1),
        "global_clipnorm": lambda: optimizers.Adam(0.01, global_clipnorm=0.1),
        "clipvalue": lambda: optimizers.SGD(0.05, clipvalue=0.01),
        "EMA": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9),
        "EMA_overwrite": lambda: optimizers.Adam(
            0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4
        ),
        "gradient_accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=3),
        "loss_scale_factor": lambda: optimizers.Adam(0.01, loss_scale_factor=128.0),
        "LossScaleOptimizer": lambda: optimizers.LossScaleOptimizer(
            optimizers.SGD(0.05), initial_scale=1024.0, dynamic_growth_steps=5
        ),
    }.items()
}


def _schedule_free() -> keras.Model:
    """With the optimizer built: Keras 3.15's `fit` loses what it assigns when it builds it."""
    hidden: Layers = lambda: [layers.Dense(8, "relu")]  # noqa: E731
    model = _classifier(hidden, optimizer=lambda: optimizers.ScheduleFreeAdamW(0.01))()
    model.optimizer.build(model.trainable_variables)
    return model


_OPTIMIZERS["ScheduleFreeAdamW"] = Case("optimizer", _schedule_free, engine="keras")
_SCHEDULES = {
    name: _optimized(make)._replace(kind="schedule")
    for name, make in {
        "ExponentialDecay": lambda: optimizers.Adam(schedules.ExponentialDecay(0.02, 5, 0.8)),
        "CosineDecay_warmup": lambda: optimizers.Adam(
            schedules.CosineDecay(0.001, 15, warmup_target=0.02, warmup_steps=4)
        ),
        "CosineDecayRestarts": lambda: optimizers.Adam(schedules.CosineDecayRestarts(0.02, 4)),
        "PiecewiseConstantDecay": lambda: optimizers.SGD(
            schedules.PiecewiseConstantDecay([5, 10], [0.05, 0.02, 0.01])
        ),
        "PolynomialDecay": lambda: optimizers.Adam(schedules.PolynomialDecay(0.02, 12, 0.001)),
        "InverseTimeDecay": lambda: optimizers.Adam(schedules.InverseTimeDecay(0.02, 4, 0.5)),
    }.items()
}


def _head(
    kind: str, data: str, *, last: Callable[[], layers.Layer], loss: Any, metrics: Any = ()
) -> Case:
    hidden: Layers = lambda: [layers.Dense(8, "relu")]  # noqa: E731
    return Case(kind, _classifier(hidden, data, last=last, loss=loss, metrics=metrics), data)


def _one() -> layers.Layer:
    return layers.Dense(1)


def _sigmoid() -> layers.Layer:
    return layers.Dense(1, "sigmoid")


def _softmax() -> layers.Layer:
    return layers.Dense(_NUM_CLASSES, "softmax")


_LOSSES = {
    **{
        f"loss_{name}": _head("loss", "regression", last=_one, loss=name, metrics=("mae",))
        for name in ("mse", "mae", "mape", "huber", "log_cosh")
    },
    "loss_cosine_similarity": _head(
        "loss", "one_hot", last=lambda: layers.Dense(_NUM_CLASSES), loss="cosine_similarity"
    ),
    **{
        f"loss_{name}": _head("loss", "positive", last=lambda: layers.Dense(1, "relu"), loss=name)
        for name in ("msle", "poisson", "tversky", "dice")
    },
    **{
        f"loss_{name}": _head("loss", "signs", last=_one, loss=name)
        for name in ("hinge", "squared_hinge")
    },
    "loss_binary_crossentropy": _head(
        "loss", "binary", last=_sigmoid, loss="binary_crossentropy", metrics=("accuracy",)
    ),
    "loss_binary_crossentropy_logits": _head(
        "loss", "binary", last=_one, loss=lambda: losses.BinaryCrossentropy(from_logits=True)
    ),
    "loss_binary_focal": _head(
        "loss", "binary", last=_sigmoid, loss=lambda: losses.BinaryFocalCrossentropy()
    ),
    "loss_categorical_smoothed": _head(
        "loss",
        "one_hot",
        last=_softmax,
        loss=lambda: losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=("accuracy",),
    ),
    "loss_categorical_focal": _head(
        "loss", "one_hot", last=_softmax, loss=lambda: losses.CategoricalFocalCrossentropy()
    ),
    "loss_categorical_hinge": _head("loss", "one_hot", last=_softmax, loss="categorical_hinge"),
    "loss_kl_divergence": _head("loss", "one_hot", last=_softmax, loss="kl_divergence"),
    "loss_sparse_logits": _head(
        "loss",
        "table",
        last=lambda: layers.Dense(_NUM_CLASSES),
        loss=lambda: losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=("accuracy",),
    ),
}
_METRICS = {
    "metric_AUC_precision_recall": _head(
        "metric",
        "binary",
        last=_sigmoid,
        loss="binary_crossentropy",
        metrics=lambda: [metrics.AUC(), metrics.Precision(), metrics.Recall(), "binary_accuracy"],
    ),
    "metric_AUC_PR": _head(
        "metric",
        "binary",
        last=_sigmoid,
        loss="binary_crossentropy",
        metrics=lambda: [metrics.AUC(curve="PR", num_thresholds=50)],
    ),
    "metric_confusion_counts": _head(
        "metric",
        "binary",
        last=_sigmoid,
        loss="binary_crossentropy",
        metrics=lambda: [
            metrics.TruePositives(),
            metrics.FalseNegatives(),
            metrics.PrecisionAtRecall(0.5),
        ],
    ),
    "metric_F1_TopK": _head(
        "metric",
        "one_hot",
        last=_softmax,
        loss="categorical_crossentropy",
        metrics=lambda: [
            metrics.F1Score(average="macro"),
            metrics.TopKCategoricalAccuracy(2),
            metrics.CategoricalCrossentropy(),
        ],
    ),
    "metric_sparse_top_k": _head(
        "metric",
        "table",
        last=_softmax,
        loss="sparse_categorical_crossentropy",
        metrics=lambda: [
            metrics.SparseTopKCategoricalAccuracy(2),
            metrics.SparseCategoricalCrossentropy(),
        ],
    ),
    "metric_MeanIoU": _head(
        "metric",
        "one_hot",
        last=_softmax,
        loss="categorical_crossentropy",
        metrics=lambda: [metrics.OneHotMeanIoU(_NUM_CLASSES)],
    ),
    "metric_regression": _head(
        "metric",
        "regression",
        last=_one,
        loss="mse",
        metrics=lambda: [
            metrics.R2Score(),
            metrics.RootMeanSquaredError(),
            metrics.MeanAbsoluteError(),
            metrics.PearsonCorrelation(),
        ],
    ),
}
CASES: dict[str, Case] = {
    **_DENSE,
    **_CONVOLUTIONS,
    **_SEQUENCES,
    **_MODELS,
    **_PRECISIONS,
    **_OPTIMIZERS,
    **_SCHEDULES,
    **_LOSSES,
    **_METRICS,
}
