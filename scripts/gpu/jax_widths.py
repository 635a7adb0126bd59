"""The reference job by hand in JAX, under vmap, for packs of 128 to 16,384 trials.

    python jax_widths.py --results FILE --gpus 0 --seconds N

`check_gpu.py` starts it. TensorFlow is not imported: the two would share the GPU's memory.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "peers"))

import numpy as np
import outcomes
import reference_job
from outcomes import Outcome

CHECK = "the same by JAX vmap"
WIDTHS = (128, 1024, 4096, 16384)  # those of `device_checks`
EPOCHS = 2


def main() -> None:
    """Measures, and keeps the outcome in a file after each width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--gpus", required=True, help="the visible GPUs; empty if there is none")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    by_s = time.monotonic() + options.seconds
    for outcome in check_widths(options.gpus, by_s):
        outcomes.append(options.results, outcome)


def check_widths(gpus: str, by_s: float) -> Iterator[Outcome]:
    """Microseconds per step, width after width, until the time is over."""
    try:
        import jax
    except ImportError:
        yield Outcome(CHECK, "not seen", "JAX is not installed")
        return
    platform = jax.default_backend()
    if gpus and platform == "cpu":
        yield Outcome(CHECK, "not seen", "this JAX sees no GPU")
        return
    us_per_step: dict[int, float] = {}
    compile_s = s_per_trial = 0.0
    for width in WIDTHS:
        begin = time.monotonic()
        if begin + compile_s + s_per_trial * width > by_s:
            break
        step_s, compile_s = seconds_of(width)
        us_per_step[width] = step_s * 1e6
        s_per_trial = (time.monotonic() - begin - compile_s) / width
        yield _judge(us_per_step, platform)


def _judge(us_per_step: dict[int, float], platform: str) -> Outcome:
    width, us = max(us_per_step.items())
    found = f"{width:,} trials {us:,.0f} us per step"
    left = [other for other in WIDTHS if other > width]
    if left:
        found += f" (no time for {', '.join(f'{other:,}' for other in left)})"
    details = {"us_per_step": us_per_step}
    if platform == "cpu":
        return Outcome(CHECK, "not seen", f"{outcomes.NO_GPU}, on the CPU: {found}", details)
    return Outcome(CHECK, "not seen" if left else "ok", found, details)


def seconds_of(width: int) -> tuple[float, float]:
    """Seconds of a step of all trials, validation included, and of compiling it before."""
    import jax
    import jax.numpy as jnp
    import jax_vmap

    base = WIDTHS[0]
    orders = np.stack([jax_vmap.epoch_orders(seed, EPOCHS) for seed in range(base)])
    few = (*jax_vmap.make_inputs(base), jnp.asarray(orders))
    inputs = jax.tree.map(lambda array: jnp.concatenate([array] * (width // base)), few)
    start = time.perf_counter()
    program = jax.jit(jax.vmap(jax_vmap.train)).lower(*inputs).compile()
    compile_s = time.perf_counter() - start
    jax.block_until_ready(program(*inputs))
    wall_s = min(jax_vmap.time_call(program, inputs)[1] for _ in range(2))
    steps = reference_job.NUM_TRAIN // reference_job.BATCH_SIZE
    return wall_s / EPOCHS / steps, compile_s


if __name__ == "__main__":
    main()
