"""Peer: the reference job written by hand in JAX: one trial as a function, `vmap`, `scan`, `jit`.

    python scripts/benchmarks/peers/jax_vmap.py [--trials 64] [--repeats 3]

The same work as trialrun's fused engine: every trial has its own data, initial weights and batch
order; Adam by Keras's formula; training and validation loss and accuracy for every epoch. The
whole training is one compiled program. Permutations are drawn on the host beforehand; their
core-seconds are reported separately, and the timing does not include them or the compilation.
Prints one JSON line.

Shapes are those of one trial; `vmap` adds the trial axis in front.
"""

import argparse
import json
import time
from typing import NamedTuple

import one_core

core = one_core.pin() if __name__ == "__main__" else None  # `scripts/check_gpu` takes all cores

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import reference_job  # noqa: E402

BATCH_SIZE = reference_job.BATCH_SIZE
LEARNING_RATE = reference_job.LEARNING_RATE
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # Keras's defaults


class TrainState(NamedTuple):
    """What a training step changes; `mean` and `variance` are Adam's moments."""

    weights: list
    mean: list
    variance: list
    num_steps: jax.Array


class Sums(NamedTuple):
    """Sums over samples; divided by the number of samples they are an epoch's loss and accuracy."""

    loss: jax.Array
    correct: jax.Array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    start = time.process_time()
    orders = np.stack([epoch_orders(seed, args.epochs) for seed in range(args.trials)])
    orders_s = time.process_time() - start
    inputs = (*make_inputs(args.trials), jnp.asarray(orders))
    start = time.perf_counter()
    program = jax.jit(jax.vmap(train)).lower(*inputs).compile()
    compile_s = time.perf_counter() - start
    logs = jax.block_until_ready(program(*inputs))  # the first call pays for fresh memory

    core_s, wall_s = zip(*(time_call(program, inputs) for _ in range(args.repeats)), strict=True)
    print(
        json.dumps(
            {
                "s_per_trial": min(core_s) / args.trials,
                "median_s_per_trial": float(np.median(core_s)) / args.trials,
                "wall_s_per_trial": min(wall_s) / args.trials,
                "orders_s_per_trial": orders_s / args.trials,
                "compile_s": compile_s,
                "trials": args.trials,
                "epochs": args.epochs,
                "core": core,
                **{name: float(values[:, -1].mean()) for name, values in logs.items()},
            }
        )
    )


def make_inputs(trials: int) -> tuple[jax.Array, ...]:
    """Keys, training rows and validation rows, stacked over trials."""
    data = [reference_job.training_data(seed) for seed in range(trials)]
    (x, y), (x_val, y_val) = jax.tree.map(lambda *rows: jnp.stack(rows), *data)
    return jax.random.split(jax.random.key(0), trials), x, y, x_val, y_val


def epoch_orders(seed: int, epochs: int) -> np.ndarray:
    """Row numbers in the order of training, int32 (epochs, rows)."""
    rng = np.random.default_rng(seed)
    rows = np.arange(reference_job.NUM_TRAIN, dtype=np.int32)
    return np.stack([rng.permutation(rows) for _ in range(epochs)])


def train(key, x, y, x_val, y_val, orders):
    """Loss and accuracy on training and validation rows, each (epochs,)."""

    def epoch(state, order):
        batches = x[order].reshape(-1, BATCH_SIZE, x.shape[-1]), y[order].reshape(-1, BATCH_SIZE)
        state, sums = jax.lax.scan(step, state, batches)
        train_sums = jax.tree.map(jnp.sum, sums)
        _, val_sums = evaluate(state.weights, x_val, y_val)
        return state, (train_sums, val_sums)

    _, (train_sums, val_sums) = jax.lax.scan(epoch, initial_state(key), orders)
    return {
        "loss": train_sums.loss / len(y),
        "accuracy": train_sums.correct / len(y),
        "val_loss": val_sums.loss / len(y_val),
        "val_accuracy": val_sums.correct / len(y_val),
    }


def initial_state(key) -> TrainState:
    """Glorot-uniform weights, zero biases and moments, as in Keras."""
    sizes = reference_job.LAYER_SIZES
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(sizes) - 1)
    weights = [
        (glorot(layer_key, (inputs, units)), jnp.zeros(units))
        for layer_key, inputs, units in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return TrainState(weights, zeros, zeros, jnp.zeros(()))


def step(state: TrainState, batch) -> tuple[TrainState, Sums]:
    """One batch: gradient of the mean loss, then Adam as `keras.optimizers.Adam` computes it."""
    gradients, sums = jax.grad(evaluate, has_aux=True)(state.weights, *batch)
    num_steps = state.num_steps + 1
    mean = jax.tree.map(lambda m, g: m + (g - m) * (1 - BETA_1), state.mean, gradients)
    variance = jax.tree.map(lambda v, g: v + (g * g - v) * (1 - BETA_2), state.variance, gradients)
    rate = LEARNING_RATE * jnp.sqrt(1 - BETA_2**num_steps) / (1 - BETA_1**num_steps)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), state.weights, mean, variance
    )
    return TrainState(weights, mean, variance, num_steps), sums


def evaluate(weights, x, y) -> tuple[jax.Array, Sums]:
    """Mean cross-entropy of the rows, and the sums of their losses and right answers."""
    *hidden, (last_kernel, last_bias) = weights
    for kernel, bias in hidden:
        x = jax.nn.relu(x @ kernel + bias)
    logits = x @ last_kernel + last_bias
    log_probabilities = jax.nn.log_softmax(logits)
    # This is the fastest way: `take_along_axis` becomes a gather under vmap and costs 4% more.
    losses = -jnp.sum(log_probabilities * jax.nn.one_hot(y, logits.shape[-1]), axis=1)
    correct = (logits.argmax(axis=1) == y).astype(jnp.float32)
    return losses.mean(), Sums(losses.sum(), correct.sum())


def time_call(program, inputs) -> tuple[float, float]:
    """Core-seconds and wall seconds of one training of all trials."""
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(program(*inputs))
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
