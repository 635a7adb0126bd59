"""Cases of the oracle's table with training steps of their own, as public tutorials have them.

`build` and `data` are a job's builder and generator.
"""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, losses, metrics, ops, optimizers, random

BATCH_SIZE, EPOCHS = 8, 3
_NUM_ROWS = {"train": 44, "validation": 19, "test": 5}
_NUM_FEATURES, _NUM_CLASSES = 6, 3


class StepCase(NamedTuple):
    """One line of the table.

    Attributes:
        build: Gives a compiled model.
        engine: That `auto` must take.
        select: The metric that the job selects by.
        weighted: Whether rows have weights.
        tolerance: Of weights and logs.
        kind: What the table calls it.
    """

    build: Callable[[], keras.Model]
    engine: str = "fused"
    select: str = "val_loss"
    weighted: bool = False
    tolerance: float = 1e-5
    kind: str = "own steps"


def build(case: str) -> keras.Model:
    """The compiled model of a case: a job's builder."""
    return STEP_CASES[case].build()


def data(seed: int, *, case: str) -> dict[str, Any]:
    """The data of a case: a job's generator."""
    return rows_of(seed, weighted=STEP_CASES[case].weighted)


def rows_of(seed: int, *, weighted: bool) -> dict[str, Any]:
    """Rows of three classes, whose last batches are partial."""
    rng = np.random.default_rng(seed)

    def part(num_rows: int) -> Any:
        x = rng.normal(size=(num_rows, _NUM_FEATURES)).astype("float32")
        y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0.5)
        weights = rng.uniform(0.2, 2.0, num_rows).astype("float32")
        return (x, y, weights) if weighted else (x, y)

    return {name: part(num_rows) for name, num_rows in _NUM_ROWS.items()}


def _net(units: int = _NUM_CLASSES, last: str | None = None) -> keras.Model:
    hidden = layers.Dense(8, "tanh")
    return keras.Sequential([keras.Input((_NUM_FEATURES,)), hidden, layers.Dense(units, last)])


class Classifier(keras.Model):
    """What most of the cases have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net()

    def call(self, x: Any, training: bool = False) -> Any:
        return self.net(x, training=training)

    def loss_of(self, x: Any, y: Any) -> Any:
        """The mean loss of a batch."""
        each = losses.sparse_categorical_crossentropy(y, self(x, training=True), from_logits=True)
        return ops.mean(each)


def _compiled(model: keras.Model, **given: Any) -> keras.Model:
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    given = {"optimizer": optimizers.Adam(0.01), "loss": loss, "jit_compile": False, **given}
    model.compile(**given)
    return model


# Generative models ------------------------------------------------------------------------------


class Sampling(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.seed_generator = random.SeedGenerator()

    def call(self, mean: Any, log_variance: Any) -> Any:
        noise = random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


class SamplingOfTensorFlow(layers.Layer):
    """As in most tutorials."""

    def call(self, mean: Any, log_variance: Any) -> Any:
        noise = tf.random.normal(shape=(tf.shape(mean)[0], tf.shape(mean)[1]))
        return mean + tf.exp(0.5 * log_variance) * noise


class VAE(keras.Model):
    """A variational autoencoder; it has metrics of its own alone."""

    def __init__(self, beta: float = 1.0, sampling: type[layers.Layer] = Sampling) -> None:
        super().__init__()
        self.beta = beta
        self.encoder, self.decoder, self.sampling = _net(4), _decoder(), sampling()
        self.sampling.built = True  # `call`, by which Keras builds a model, does without it
        self.loss_tracker = metrics.Mean(name="loss")
        self.kl_tracker = metrics.Mean(name="kl_loss")

    @property
    def metrics(self) -> Any:
        return [self.loss_tracker, self.kl_tracker]

    def call(self, x: Any) -> Any:
        return self.decoder(self.encoder(x)[:, :2])

    def _losses_of(self, x: Any) -> Any:
        mean, log_variance = ops.split(self.encoder(x), 2, axis=1)
        again = self.decoder(self.sampling(mean, log_variance))
        kl = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
        kl = ops.mean(ops.sum(kl, axis=1))
        return ops.mean(ops.sum(ops.square(x - again), axis=1)) + self.beta * kl, kl

    def _logs(self, loss: Any, kl: Any) -> Any:
        self.loss_tracker.update_state(loss)
        self.kl_tracker.update_state(kl)
        return {"loss": self.loss_tracker.result(), "kl_loss": self.kl_tracker.result()}

    def train_step(self, data: Any) -> Any:
        x, _ = data
        with tf.GradientTape() as tape:
            loss, kl = self._losses_of(x)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self._logs(loss, kl)

    def test_step(self, data: Any) -> Any:
        return self._logs(*self._losses_of(data[0]))


def _decoder() -> keras.Model:
    hidden = layers.Dense(8, "tanh")
    return keras.Sequential([keras.Input((2,)), hidden, layers.Dense(_NUM_FEATURES)])


class GAN(keras.Model):
    """Two optimizers of its own beside the one of Keras, which it does not use."""

    def __init__(self, num_critic_steps: int = 1, penalty: float = 0.0) -> None:
        super().__init__()
        self.generator, self.discriminator = _decoder(), _net(1)
        self.seed_generator = random.SeedGenerator(1337)
        self.num_critic_steps, self.penalty = num_critic_steps, penalty

    def compile(self, d_optimizer: Any, g_optimizer: Any, **given: Any) -> None:
        super().compile(**given)
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.d_loss, self.g_loss = metrics.Mean(name="d_loss"), metrics.Mean(name="g_loss")

    def call(self, x: Any) -> Any:
        return self.discriminator(x)

    def fakes(self, x: Any, training: bool) -> Any:
        """As many as there are rows."""
        noise = random.normal((ops.shape(x)[0], 2), seed=self.seed_generator)
        return self.generator(noise, training=training)

    def d_loss_of(self, x: Any, fakes: Any) -> Any:
        """Of the discriminator, or of a critic."""
        if self.penalty:
            return ops.mean(self.discriminator(fakes)) - ops.mean(self.discriminator(x))
        real, fake = ops.softplus(-self.discriminator(x)), ops.softplus(self.discriminator(fakes))
        return ops.mean(real) + ops.mean(fake)

    def g_loss_of(self, fakes: Any) -> Any:
        """Of the generator."""
        if self.penalty:
            return -ops.mean(self.discriminator(fakes))
        return ops.mean(ops.softplus(-self.discriminator(fakes)))

    def penalty_of(self, x: Any, fakes: Any) -> Any:
        """How far the critic's gradient is from the length 1, between real and fake rows."""
        share = random.uniform((ops.shape(x)[0], 1), seed=self.seed_generator)
        between = x + share * (fakes - x)
        with tf.GradientTape() as tape:
            tape.watch(between)
            rated = self.discriminator(between, training=True)
        length = ops.sqrt(ops.sum(ops.square(tape.gradient(rated, [between])[0]), axis=1) + 1e-6)
        return ops.mean(ops.square(length - 1))

    def train_step(self, data: Any) -> Any:
        x, _ = data
        weights = self.discriminator.trainable_variables
        for _ in range(self.num_critic_steps):
            fakes = self.fakes(x, training=False)
            with tf.GradientTape() as tape:
                d_loss = self.d_loss_of(x, fakes)
                if self.penalty:
                    d_loss += self.penalty * self.penalty_of(x, fakes)
            self.d_optimizer.apply(tape.gradient(d_loss, weights), weights)
        weights = self.generator.trainable_variables
        with tf.GradientTape() as tape:
            g_loss = self.g_loss_of(self.fakes(x, training=True))
        self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)
        self.d_loss.update_state(d_loss)
        self.g_loss.update_state(g_loss)
        return {"d_loss": self.d_loss.result(), "g_loss": self.g_loss.result()}

    def test_step(self, data: Any) -> Any:
        fakes = self.fakes(data[0], training=False)
        self.g_loss.update_state(self.g_loss_of(fakes))
        return {"g_loss": self.g_loss.result()}


class GANOfTensorFlow(GAN):
    """Draws its latent vectors from TensorFlow's own stream."""

    def fakes(self, x: Any, training: bool) -> Any:
        noise = tf.random.normal(shape=(tf.shape(x)[0], 2))
        return self.generator(noise, training=training)


def _gan(kind: type[GAN] = GAN, **given: Any) -> keras.Model:
    model = kind(**given)
    adam = optimizers.Adam(0.01, beta_1=0.5)
    model.compile(d_optimizer=adam, g_optimizer=optimizers.RMSprop(0.005), jit_compile=False)
    return model


# Representations --------------------------------------------------------------------------------


class Contrastive(keras.Model):
    """Two noisy views of a row are to be near each other, as in SimCLR."""

    temperature = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.encoder, self.head = layers.GaussianNoise(0.1), _net(4), layers.Dense(4)
        self.head.build((None, 4))
        self.hits = metrics.SparseCategoricalAccuracy(name="hits")

    def call(self, x: Any) -> Any:
        return self.encoder(x)

    def _views(self, x: Any) -> Any:
        projected = self.head(self.encoder(self.noise(x, training=True)))
        return ops.normalize(projected, axis=1)

    def _compare(self, x: Any) -> Any:
        likeness = ops.matmul(self._views(x), ops.transpose(self._views(x))) / self.temperature
        which = ops.arange(ops.shape(x)[0])
        self.hits.update_state(which, likeness)
        both = (likeness, ops.transpose(likeness))
        each = [losses.sparse_categorical_crossentropy(which, s, from_logits=True) for s in both]
        return ops.mean(each[0] + each[1]) / 2

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self._compare(data[0])
        weights = self.encoder.trainable_weights + self.head.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self._loss_tracker.update_state(loss)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, data: Any) -> Any:
        self._loss_tracker.update_state(self._compare(data[0]))
        return {m.name: m.result() for m in self.metrics}


class MomentumEncoder(Classifier):
    """A second encoder follows the first one slowly, as in BYOL."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = _net()
        self.slow.trainable = False
        self.slow.set_weights(self.net.get_weights())

    def _distance(self, x: Any, training: bool) -> Any:
        return ops.mean(ops.square(self.net(x, training=training) - 0.5 * self.slow(x) - 0.1))

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self._distance(data[0], training=True)
        weights = self.net.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        for slow, fast in zip(self.slow.weights, self.net.weights, strict=True):
            slow.assign(0.9 * slow + 0.1 * fast)
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}

    def test_step(self, data: Any) -> Any:
        self._loss_tracker.update_state(self._distance(data[0], training=False))
        return {"loss": self._loss_tracker.result()}


class Distiller(keras.Model):
    """A student learns from labels and from a frozen teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = _net(), _net()
        self.teacher.trainable = False

    def compile(self, temperature: float = 2.0, share: float = 0.3, **given: Any) -> None:
        super().compile(**given)
        self.temperature, self.share = temperature, share
        self.divergence = losses.KLDivergence()

    def call(self, x: Any) -> Any:
        return self.student(x)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        soft = ops.softmax(self.teacher(x, training=False) / self.temperature)
        distance = self.divergence(soft, ops.softmax(y_pred / self.temperature))
        own = super().compute_loss(x, y, y_pred, sample_weight)
        return self.share * own + (1 - self.share) * distance * self.temperature**2

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self.student(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        weights = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, y_pred)


# Steps ------------------------------------------------------------------------------------------


class SharpnessAware(Classifier):
    """Two gradients a step: the second one where the loss is nearby at its worst."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        weights = self.trainable_variables
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y)
        gradients = tape.gradient(loss, weights)
        scale = 0.05 / (tf.linalg.global_norm(gradients) + 1e-12)
        moves = [gradient * scale for gradient in gradients]
        for weight, move in zip(weights, moves, strict=True):
            weight.assign_add(move)
        with tf.GradientTape() as tape:
            worst = self.loss_of(x, y)
        gradients = tape.gradient(worst, weights)
        for weight, move in zip(weights, moves, strict=True):
            weight.assign_sub(move)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, self(x, training=False))


class Clipped(Classifier):
    """Gradients clipped by hand, in a function of TensorFlow's, and a log that is no metric."""

    @tf.function
    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y)
        weights = self.trainable_variables
        gradients, norm = tf.clip_by_global_norm(tape.gradient(loss, weights), 0.1)
        self.optimizer.apply(gradients, weights)
        return {"loss": loss, "norm": norm}


class Noisy(Classifier):
    """Adds the same noise to the gradients in every step."""

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self.loss_of(*data)
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        noise = [0.01 * random.normal(weight.shape, seed=5) for weight in weights]
        summed = [gradient + own for gradient, own in zip(gradients, noise, strict=True)]
        self.optimizer.apply(summed, weights)
        return {"loss": loss}


class OwnLoss(Classifier):
    """No step of its own: a loss that keeps a metric."""

    def __init__(self) -> None:
        super().__init__()
        self.size = metrics.Mean(name="size")

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        size = ops.mean(ops.square(y_pred))
        self.size.update_state(size)
        return super().compute_loss(x, y, y_pred, sample_weight) + 0.01 * size


class OwnMetrics(keras.Model):
    """A metric of its own kind, made of Keras's parts and updated in the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net(1)
        self.loss_tracker, self.worst = metrics.Mean(name="loss"), Largest(name="worst")

    @property
    def metrics(self) -> Any:
        return [self.loss_tracker, self.worst]

    def call(self, x: Any) -> Any:
        return self.net(x)

    def _update(self, loss: Any, errors: Any) -> Any:
        self.loss_tracker.update_state(loss)
        self.worst.update_state(errors)
        return {"loss": self.loss_tracker.result(), "worst": self.worst.result()}

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            errors = ops.cast(y, "float32")[:, None] - self(x, training=True)
            loss = ops.mean(ops.square(errors))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return self._update(loss, errors)

    def test_step(self, data: Any) -> Any:
        errors = ops.cast(data[1], "float32")[:, None] - self(data[0], training=False)
        return self._update(ops.mean(ops.square(errors)), errors)


class Largest(metrics.Metric):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.value = self.add_variable((), "zeros", name="value")

    def update_state(self, errors: Any) -> None:
        self.value.assign(ops.maximum(self.value, ops.max(ops.abs(errors))))

    def result(self) -> Any:
        return self.value


class TwoSpeeds(Classifier):
    """One tape, two optimizers: the last layer learns faster."""

    def __init__(self) -> None:
        super().__init__()
        self.others = {"head": optimizers.SGD(0.05)}

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.loss_of(x, y)
        body, head = (layer.trainable_variables for layer in self.net.layers)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, body), body, strict=True))
        self.others["head"].apply(tape.gradient(loss, head), head)
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, self(x, training=False))


class Weighted(Classifier):
    """Keras's own example of a step: weights of rows, and the metrics given to `compile`."""

    def train_step(self, data: Any) -> Any:
        x, y, sample_weight = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight=sample_weight)
        return {m.name: m.result() for m in self.metrics}


class Adversarial(Classifier):
    """Trains on rows that are moved to where the loss grows."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            loss = self.loss_of(x, y)
        moved = x + 0.1 * ops.sign(tape.gradient(loss, x))
        with tf.GradientTape() as tape:
            loss = self.loss_of(moved, y)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, self(moved))


class Accumulating(Classifier):
    """Sums the gradients of two batches by hand."""

    def build(self, shape: Any) -> None:
        self.count = self.add_weight(shape=(), dtype="int32", trainable=False, name="count")
        self.sums = [
            self.add_weight(shape=w.shape, initializer="zeros", trainable=False, name=f"sum_{i}")
            for i, w in enumerate(self.net.trainable_weights)
        ]

    def train_step(self, data: Any) -> Any:
        x, y = data
        weights = self.net.trainable_weights
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y)
        for total, gradient in zip(self.sums, tape.gradient(loss, weights), strict=True):
            total.assign_add(gradient)
        self.count.assign_add(1)
        is_second = ops.equal(self.count % 2, 0)
        for weight, total in zip(weights, self.sums, strict=True):
            weight.assign_sub(ops.where(is_second, 0.05 * total, 0.0))
            total.assign(ops.where(is_second, 0.0, total))
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, self(x))


class Mixup(Classifier):
    """Mixes each row with the next one, by a share that is drawn for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seed_generator = random.SeedGenerator()

    def share(self) -> Any:
        """Of the row itself."""
        return random.uniform((), 0.5, 1.0, seed=self.seed_generator)

    def train_step(self, data: Any) -> Any:
        x, y = data
        share = self.share()
        with tf.GradientTape() as tape:
            y_pred = self(share * x + (1 - share) * ops.roll(x, 1, axis=0), training=True)
            loss = share * self.compute_loss(x, y, y_pred)
            loss += (1 - share) * self.compute_loss(x, ops.roll(y, 1, axis=0), y_pred)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, y_pred)


class MixupOfTensorFlow(Mixup):
    """Draws its share from TensorFlow's own stream."""

    def share(self) -> Any:
        return tf.random.uniform((), 0.5, 1.0)


class Counting(Classifier):
    """Counts its steps in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def train_step(self, data: Any) -> Any:
        self.steps += 1
        with tf.GradientTape() as tape:
            loss = self.loss_of(*data)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


def _set_on_the_object() -> keras.Model:
    """Methods that its class does not have."""
    model = _compiled(_net(), metrics=["accuracy"])

    def test_step(self: keras.Model, data: Any) -> Any:
        x, y = data
        y_pred = (self(x, training=False) + self(-x, training=False)) / 2
        self._loss_tracker.update_state(self.compute_loss(x, y, y_pred))
        return self.compute_metrics(x, y, y_pred)

    model.test_step = types.MethodType(test_step, model)
    return model


STEP_CASES: dict[str, StepCase] = {
    "set_on_the_object": StepCase(_set_on_the_object),
    "vae": StepCase(lambda: _compiled(VAE(), loss=None)),
    "gan": StepCase(_gan, select="val_g_loss"),
    "wgan_gp": StepCase(lambda: _gan(num_critic_steps=2, penalty=5.0), select="val_g_loss"),
    "contrastive": StepCase(lambda: _compiled(Contrastive(), loss=None)),
    "momentum_encoder": StepCase(lambda: _compiled(MomentumEncoder(), loss=None)),
    "distillation": StepCase(lambda: _compiled(Distiller(), metrics=["accuracy"])),
    "sharpness_aware": StepCase(lambda: _compiled(SharpnessAware(), metrics=["accuracy"])),
    "clipping_by_hand": StepCase(lambda: _compiled(Clipped())),
    "noise_of_a_constant_seed": StepCase(lambda: _compiled(Noisy())),
    "own_compute_loss": StepCase(lambda: _compiled(OwnLoss(), metrics=["accuracy"])),
    "own_metrics": StepCase(lambda: _compiled(OwnMetrics(), loss=None)),
    "two_speeds": StepCase(lambda: _compiled(TwoSpeeds(), metrics=["accuracy"])),
    "weighted_rows": StepCase(
        lambda: _compiled(Weighted(), weighted_metrics=["accuracy"]), weighted=True
    ),
    "adversarial": StepCase(lambda: _compiled(Adversarial(), metrics=["accuracy"])),
    "accumulating": StepCase(lambda: _compiled(Accumulating(), metrics=["accuracy"])),
    "mixup": StepCase(lambda: _compiled(Mixup(), metrics=["accuracy"])),
    "mixup_of_tensorflow": StepCase(lambda: _compiled(MixupOfTensorFlow())),
    "vae_of_tensorflow": StepCase(lambda: _compiled(VAE(sampling=SamplingOfTensorFlow), loss=None)),
    "gan_of_tensorflow": StepCase(lambda: _gan(GANOfTensorFlow), select="val_g_loss"),
    "counting_in_python": StepCase(lambda: _compiled(Counting()), engine="keras"),
}
