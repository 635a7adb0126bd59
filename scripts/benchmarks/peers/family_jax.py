"""One side of `family.py`: what one would write by hand with Keras on JAX.

A trial is a function of its state, data and batch orders: `stateless_call` and `stateless_apply`
under `scan`. `vmap` trains all trials together, `jit` one.
"""

import json
import os
import sys
import time
from typing import Any

import one_core

one_core.pin()
os.environ["KERAS_BACKEND"] = "jax"

import families  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402


class Trainer:
    """Trains one trial of a family; its methods are pure functions."""

    def __init__(self, family: str) -> None:
        self.size = families.FAMILIES[family]
        self.model = families.build(family)
        self.optimizer = keras.optimizers.Adam(1e-3)
        self.optimizer.build(self.model.trainable_variables)
        self.loss = keras.losses.SparseCategoricalCrossentropy()

    def initial_state(self, num_trials: int) -> Any:
        parts = (
            self.model.trainable_variables,
            self.model.non_trainable_variables,
            self.optimizer.variables,
        )
        return tuple(
            [jnp.stack([jnp.asarray(variable.value)] * num_trials) for variable in part]
            for part in parts
        )

    def train(self, state: Any, x: Any, y: Any, x_val: Any, y_val: Any, orders: Any) -> Any:
        """Losses and right answers per epoch, of training and of validation."""
        batch_size = self.size.batch_size
        num_whole, rest = divmod(self.size.num_train, batch_size)

        def epoch(state: Any, order: Any) -> Any:
            rows = order[: num_whole * batch_size].reshape(num_whole, batch_size)
            state, (losses, correct) = jax.lax.scan(self._step, state, (x[rows], y[rows]))
            if rest:
                rows = order[-rest:]
                state, _ = self._step(state, (x[rows], y[rows]))
            val_loss, (_, val_correct) = self._loss(state[0], state[1], x_val, y_val, False)
            return state, (losses.mean(), correct.sum(), val_loss, val_correct)

        return jax.lax.scan(epoch, state, orders)

    def _step(self, state: Any, batch: Any) -> Any:
        trainable, others, of_optimizer = state
        gradient = jax.value_and_grad(self._loss, has_aux=True)
        (loss, (others, correct)), gradients = gradient(trainable, others, *batch, True)
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return (trainable, others, of_optimizer), (loss, correct)

    def _loss(self, trainable: Any, others: Any, x: Any, y: Any, training: bool) -> Any:
        predicted, others = self.model.stateless_call(trainable, others, x, training=training)
        return self.loss(y, predicted), (others, (predicted.argmax(-1) == y).sum())


def batch_orders(size: families.Family, num_trials: int) -> Any:
    """(trials, epochs, rows), int32; the time to draw them is not measured."""
    permutations = [
        [
            np.random.default_rng((trial, epoch)).permutation(size.num_train)
            for epoch in range(size.epochs)
        ]
        for trial in range(num_trials)
    ]
    return jnp.asarray(np.array(permutations, np.int32))


def main(family: str, num_trials: int) -> None:
    trainer = Trainer(family)
    size = trainer.size
    splits = [families.data(seed, family) for seed in range(num_trials)]
    rows = [
        jnp.asarray(np.stack([split[part][index] for split in splits]))
        for part in ("train", "validation")
        for index in (0, 1)
    ]
    orders = batch_orders(size, num_trials)
    together = (trainer.initial_state(num_trials), *rows, orders)
    alone = jax.tree.map(lambda array: array[0], together)
    steps = size.steps_per_epoch * size.epochs
    us, first_s = {}, {}
    for way, function, inputs, trials in (
        ("vmap", jax.vmap(trainer.train), together, num_trials),
        ("jit", trainer.train, alone, 1),
    ):
        start = time.process_time()
        program = jax.jit(function).lower(*inputs).compile()
        first_s[way] = time.process_time() - start
        jax.block_until_ready(program(*inputs))  # the first call pays for fresh memory
        us[way] = min(core_seconds(program, inputs) for _ in range(3)) / trials / steps * 1e6
    print(json.dumps({"us": us, "first_s": first_s}))


def core_seconds(program: Any, inputs: Any) -> float:
    start = time.process_time()
    jax.block_until_ready(program(*inputs))
    return time.process_time() - start


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
