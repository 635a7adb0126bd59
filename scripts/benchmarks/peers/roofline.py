"""A peer that cannot be beaten: the job's matrix products at the peak of one core.

    python scripts/benchmarks/peers/roofline.py

One layer of i inputs and o units multiplies, for a batch of b rows,

    forward            x (b, i)   @ W (i, o)   -> 2 b i o FLOP
    weight gradient    x' (i, b)  @ g (b, o)   -> 2 b i o FLOP
    input gradient     g (b, o)   @ W' (o, i)  -> 2 b i o FLOP, which the first layer does not need

so one trial needs

    FLOP = rows * epochs * (3 * sum over layers of 2 i o  -  2 i_1 o_1)

Biases, activations, loss, Adam, logs and validation are left out, so this is a lower bound. The
peak is the best speed of large products, of several sizes, in a program of TensorFlow's XLA, which
compiles the engines too, or in NumPy where that is faster; which is depends on the processor.
The job's own matrices are far too small to be multiplied at that speed: what XLA takes for those
is measured by `step_products.py`. Prints one JSON line.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from itertools import pairwise

import one_core

core = one_core.pin() if __name__ == "__main__" else None  # `step_products.py` reads it too
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402
import reference_job  # noqa: E402
import tensorflow as tf  # noqa: E402

SIZES = (128, 256, 512, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    epochs = parser.parse_args().epochs

    flop = trial_flop(epochs)
    by_size = {size: xla_flop_per_s(size) for size in SIZES}
    xla, by_numpy = max(by_size.values()), numpy_flop_per_s(1024)
    print(
        json.dumps(
            {
                "s_per_trial": flop / max(xla, by_numpy),
                "gflop_per_trial": flop / 1e9,
                "xla_gflop_per_s": xla / 1e9,
                "xla_gflop_per_s_by_size": {size: speed / 1e9 for size, speed in by_size.items()},
                "numpy_gflop_per_s": by_numpy / 1e9,
                "epochs": epochs,
                "core": core,
            }
        )
    )


def trial_flop(epochs: int) -> int:
    """Floating-point operations in the matrix products of one trial's training steps."""
    per_layer = [2 * inputs * units for inputs, units in pairwise(reference_job.LAYER_SIZES)]
    return reference_job.NUM_TRAIN * epochs * (3 * sum(per_layer) - per_layer[0])


def xla_flop_per_s(size: int, repeats: int = 5) -> float:
    """Best speed of float32 products of two (size, size) matrices in one program of XLA."""
    num_products = max(1, 10**10 // size**3)
    rng = np.random.default_rng(0)
    a, b = (tf.constant(square, tf.float32) for square in rng.standard_normal((2, size, size)))

    @tf.function(jit_compile=True, autograph=False)
    def multiply(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        def body(count: tf.Tensor, product: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return count + 1, product @ b

        return tf.while_loop(lambda count, _: count < num_products, body, (0, a))[1]

    b /= size**0.5  # so that the products stay as large as they are
    return 2 * size**3 * num_products / best_s(lambda: multiply(a, b).numpy(), repeats)


def numpy_flop_per_s(size: int, repeats: int = 10) -> float:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size, size), dtype=np.float32)
    return 2 * size**3 / best_s(lambda: a @ b, repeats)


def best_s(call: Callable[[], object], repeats: int) -> float:
    """The fewest core-seconds of a call, after a first one that compiles or loads."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
