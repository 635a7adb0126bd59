"""The matrix products of the fused engine's step and nothing else, as XLA computes them.

    python scripts/benchmarks/peers/step_products.py [--trials 64] [--repeats 3]

It trains the reference job's model without biases, activations, Adam, logs and validation: a
linear network by plain gradient descent to outputs of zero, on one core. So it has the same
products in the same shapes, for a batch of each trial, vectorized by the same code and compiled by
the same XLA into one loop over steps. What the engine takes beyond that is not spent in products.
(`roofline.py` is the bound that no way of computing them can pass.) Prints one JSON line.
"""

import argparse
import json
import os
from itertools import pairwise

import one_core

core = one_core.pin()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402
import reference_job  # noqa: E402
import tensorflow as tf  # noqa: E402
from roofline import best_s, trial_flop  # noqa: E402

from trialrun.training.vectorize.vectorize import vectorize  # noqa: E402

STEPS_PER_EPOCH = reference_job.NUM_TRAIN // reference_job.BATCH_SIZE
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    batches, weights = make_inputs(args.trials)
    num_steps = tf.constant(STEPS_PER_EPOCH * args.epochs)
    seconds = best_s(lambda: train(num_steps, batches, weights)[0].numpy(), args.repeats)
    print(
        json.dumps(
            {
                "s_per_trial": seconds / args.trials,
                "gflop_per_s": trial_flop(args.epochs) * args.trials / seconds / 1e9,
                "trials": args.trials,
                "epochs": args.epochs,
                "core": core,
            }
        )
    )


def make_inputs(trials: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Batches of an epoch (steps, trials, rows, 1); a layer's weights (trials, inputs, units)."""
    rng = np.random.default_rng(0)
    batches = rng.random((STEPS_PER_EPOCH, trials, reference_job.BATCH_SIZE, 1))
    weights = [
        rng.standard_normal((trials, inputs, units)) / inputs**0.5
        for inputs, units in pairwise(reference_job.LAYER_SIZES)
    ]
    return tf.constant(batches, tf.float32), [tf.constant(each, tf.float32) for each in weights]


@tf.function(jit_compile=True, autograph=False)
def train(num_steps: tf.Tensor, batches: tf.Tensor, weights: list[tf.Tensor]) -> list[tf.Tensor]:
    """The weights after so many steps."""

    def body(count: tf.Tensor, weights: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return count + 1, vectorize(step, (batches[count % STEPS_PER_EPOCH], weights))

    return tf.while_loop(lambda count, _: count < num_steps, body, (0, weights))[1]


def step(x: tf.Tensor, weights: list[tf.Tensor]) -> list[tf.Tensor]:
    """The weights of one trial after a batch x (rows, 1)."""
    outputs = [x]
    for weight in weights:
        outputs.append(outputs[-1] @ weight)
    gradient, new_weights = outputs.pop(), []
    for layer, weight in reversed(list(enumerate(weights))):
        change = tf.matmul(outputs[layer], gradient, transpose_a=True)
        new_weights.insert(0, weight - RATE * change)
        if layer:  # nobody needs the gradient of the rows themselves
            gradient = tf.matmul(gradient, weight, transpose_b=True)
    return new_weights


if __name__ == "__main__":
    main()
