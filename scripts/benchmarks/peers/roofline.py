"""A peer that cannot be beaten: the job's matrix products at the speed of a large one, on one core.

    python scripts/benchmarks/peers/roofline.py

One layer of i inputs and o units multiplies, for a batch of b rows,

    forward            x (b, i)   @ W (i, o)   -> 2 b i o FLOP
    weight gradient    x' (i, b)  @ g (b, o)   -> 2 b i o FLOP
    input gradient     g (b, o)   @ W' (o, i)  -> 2 b i o FLOP, which the first layer does not need

so one trial needs

    FLOP = rows * epochs * (3 * sum over layers of 2 i o  -  2 i_1 o_1)

Biases, activations, loss, Adam, logs and validation are left out, so this is a lower bound.
Prints one JSON line.
"""

import argparse
import json
import time
from itertools import pairwise

import one_core

core = one_core.pin()

import numpy as np  # noqa: E402
import reference_job  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=reference_job.EPOCHS)
    epochs = parser.parse_args().epochs

    flop = trial_flop(epochs)
    flop_per_s = sgemm_flop_per_s()
    print(
        json.dumps(
            {
                "s_per_trial": flop / flop_per_s,
                "gflop_per_trial": flop / 1e9,
                "sgemm_gflop_per_s": flop_per_s / 1e9,
                "epochs": epochs,
                "core": core,
            }
        )
    )


def trial_flop(epochs: int) -> int:
    """Floating-point operations in the matrix products of one trial's training steps."""
    per_layer = [2 * inputs * units for inputs, units in pairwise(reference_job.LAYER_SIZES)]
    return reference_job.NUM_TRAIN * epochs * (3 * sum(per_layer) - per_layer[0])


def sgemm_flop_per_s(size: int = 1024, repeats: int = 20) -> float:
    """Best speed of a float32 product of two (size, size) matrices through NumPy."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size, size), dtype=np.float32)
    a @ b  # the first product loads the library and its buffers
    return 2 * size**3 / min(product_s(a, b) for _ in range(repeats))


def product_s(a: np.ndarray, b: np.ndarray) -> float:
    start = time.process_time()
    a @ b
    return time.process_time() - start


if __name__ == "__main__":
    main()
