"""Checks of one device, in a process that TensorFlow has to itself.

    python device_checks.py {oracle,oracle_tf32,widths,loops} --results FILE --gpus 0 --seconds N

`check_gpu.py` starts it; each kind is a process of its own. What takes longer than `--seconds` is
left out, and said to be.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import numpy as np
import outcomes
import tensorflow as tf
from outcomes import OracleCase, Outcome
from read_hlo import loops_of, step_loop

from trialrun.job import load_job
from trialrun.training.batch_orders import BatchOrders
from trialrun.training.compiled.prepare import PreparedPack, prepare
from trialrun.training.devices import claim_gpus
from trialrun.training.pack_data import load_pack_data
from trialrun.trials.packing import pack_trials
from trialrun.trials.plan import plan_trials
from trialrun.trials.task import PackTask

WIDTHS = (128, 1024, 4096, 16384)
BASE_WIDTH = WIDTHS[0]
JOB = Path(__file__).resolve().parents[2] / "jobs" / "medical_trial.yaml"
EPOCHS = 2


def main() -> None:
    """Makes one kind of check, and keeps its outcomes in a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds: dict[str, Callable[[list[str], float], Iterator[Outcome]]] = {
        "oracle": lambda *args: check_oracle("oracle, TF32 off", *args, tf32=False),
        "oracle_tf32": lambda *args: check_oracle("oracle, TF32 on", *args, tf32=True),
        "widths": check_widths,
        "loops": check_loops,
    }
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--gpus", required=True, help="the visible GPUs; empty if there is none")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    gpus = [name for name in options.gpus.split(",") if name]
    claim_gpus(gpus)
    if gpus and not tf.config.list_physical_devices("GPU"):
        sys.exit("TensorFlow sees no GPU")
    by_s = time.monotonic() + options.seconds
    for outcome in kinds[options.kind](gpus, by_s):
        outcomes.append(options.results, outcome)


# ----------------------------------------------------------------------------------------- oracle


def check_oracle(check: str, gpus: list[str], by_s: float, *, tf32: bool) -> Iterator[Outcome]:
    """Cases of the oracle's table, in turns of its kinds, until the time is over."""
    from oracle_table import TABLE

    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    kinds = {
        line.kind: [n for n, other in TABLE.items() if other.kind == line.kind]
        for line in TABLE.values()
    }
    names = filter(None, itertools.chain(*itertools.zip_longest(*kinds.values())))
    cases: list[OracleCase] = []
    longest_s = 0.0
    for name in names:
        start = time.monotonic()
        if start + longest_s > by_s:
            break
        cases.append(_compare(name))
        longest_s = max(longest_s, time.monotonic() - start)
        yield outcomes.judge_oracle(check, cases, len(TABLE), len(gpus), tf32=tf32)


def _compare(name: str) -> OracleCase:
    from oracle import compare
    from oracle_table import TABLE

    line = TABLE[name]
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = compare(line, Path(folder))
    except Exception as error:  # a case may fail in any way; the others are still trained
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        return OracleCase(name, "none", line.engine, float("inf"), line.tolerance, reason)
    difference = max(result.weights, result.logs)
    return OracleCase(name, result.engine, line.engine, difference, line.tolerance, result.reason)


# ----------------------------------------------------------------------------------------- widths


def prepare_reference(epochs: int) -> PreparedPack:
    """The reference job's pack of the smallest width, with its program traced."""
    overrides: dict[str, Any] = {
        "seeds": BASE_WIDTH,
        "training.epochs": epochs,
        "training.engine": "fused",
        "search.parameters": {},
    }
    job = load_job(JOB, overrides)
    packs = pack_trials(plan_trials(job.spec), num_devices=1, max_trials_per_pack=BASE_WIDTH)
    task = PackTask(packs[0], job.folder, job.spec.select)
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    return prepare(task, data, "fused", {})


def arguments_of(prepared: PreparedPack, epochs: int) -> tuple[Any, ...]:
    """What the program takes: state, training rows, batch orders and validation rows."""
    own = prepared.slices[0]
    orders = np.stack([own.orders.next_epoch() for _ in range(epochs)])
    return own.state, own.train, tf.constant(orders), own.val


def widened(arguments: Sequence[Any], width: int) -> tuple[Any, ...]:
    """The same for more trials: those of the smallest width again and again."""
    times = width // BASE_WIDTH

    def repeat(axis: int) -> Callable[[Any], Any]:
        return lambda tensor: tf.tile(
            tensor, [times if a == axis else 1 for a in range(tensor.shape.rank)]
        )

    state, train, orders, val = arguments
    by_trial = tf.nest.map_structure(repeat(0), (state, train, val))
    return by_trial[0], by_trial[1], repeat(1)(orders), by_trial[2]


@dataclass(frozen=True, slots=True)
class Measured:
    """A width.

    Attributes:
        width: The trials that are trained at a time.
        us_per_step: Microseconds of a step of all of them, validation included.
        us_per_step_and_trial: The same, divided by the width.
        times_fit: How many times as many steps of trials per second as `model.fit` takes.
        orders_us_per_step: Microseconds that the host needs to draw the batch orders of a step.
        compile_s: Seconds until the first call was over.
    """

    width: int
    us_per_step: float
    us_per_step_and_trial: float
    times_fit: float
    orders_us_per_step: float
    compile_s: float


def check_widths(gpus: list[str], by_s: float) -> Iterator[Outcome]:
    """Microseconds per step of the reference job, for packs of 128 to 16,384 trials."""
    check = "packs of 128 to 16,384 trials"
    prepared = prepare_reference(EPOCHS)
    arguments = arguments_of(prepared, EPOCHS)
    batch_size = prepared.task.pack.trials[0].variant.training.batch_size
    steps = -(-prepared.slices[0].order_shape[1] // batch_size)
    fit_us = seconds_per_epoch_of_fit(prepared) / steps * 1e6
    orders_us = seconds_of_orders(prepared) / steps * 1e6
    measured: list[Measured] = []
    compile_s = s_per_trial = 0.0
    for width in WIDTHS:
        begin = time.monotonic()
        if begin + compile_s + s_per_trial * width > by_s:
            break
        first_s, call_s = seconds_of_calls(prepared, widened(arguments, width))
        compile_s = first_s - call_s
        s_per_trial = (time.monotonic() - begin - compile_s) / width
        us = call_s / EPOCHS / steps * 1e6
        measured.append(
            Measured(
                *(width, us, us / width, fit_us / (us / width)),
                *(orders_us * width / BASE_WIDTH, compile_s),
            )
        )
        details = {"fit_us_per_step": fit_us, "widths": [asdict(one) for one in measured]}
        yield _judge_widths(check, measured, fit_us, details, gpus)


def _judge_widths(
    check: str, measured: Sequence[Measured], fit_us: float, details: Any, gpus: list[str]
) -> Outcome:
    last = measured[-1]
    found = (
        f"model.fit {fit_us:,.0f} us per step; {last.width:,} trials {last.us_per_step:,.0f},"
        f" which is {last.times_fit:,.0f} times as fast"
    )
    if last.width < WIDTHS[-1]:
        found += f" (no time for {', '.join(f'{w:,}' for w in WIDTHS[len(measured) :])})"
    if not gpus:
        return Outcome(check, "not seen", f"{outcomes.NO_GPU}, on the CPU: {found}", details)
    return Outcome(check, "ok" if last.width == WIDTHS[-1] else "not seen", found, details)


def seconds_of_calls(prepared: PreparedPack, arguments: tuple[Any, ...]) -> tuple[float, float]:
    """Seconds of the first call, which compiles, and of the faster of two others."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        _, logs = prepared.program.train_epochs(*arguments)
        for values in logs.values():
            values.numpy()  # waits until it is computed
        seconds.append(time.perf_counter() - start)
    return seconds[0], min(seconds[1:])


def seconds_per_epoch_of_fit(prepared: PreparedPack) -> float:
    """Seconds of an epoch of `model.fit` of one trial on the same device, once it is traced."""
    model, splits = prepared.plain_model(0), prepared.data.of_trial(0)
    batch_size = prepared.task.pack.trials[0].variant.training.batch_size

    def fit() -> float:
        start = time.perf_counter()
        model.fit(
            *splits.part("train"),
            validation_data=splits.part("val"),
            batch_size=batch_size,
            verbose=0,
        )
        return time.perf_counter() - start

    fit()
    return min(fit(), fit())


def seconds_of_orders(prepared: PreparedPack) -> float:
    """Seconds that drawing an epoch's batch orders for the smallest width takes."""
    orders = BatchOrders(range(BASE_WIDTH), prepared.slices[0].order_shape[1])
    start = time.perf_counter()
    orders.next_epoch()
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------ loops


def check_loops(gpus: list[str], by_s: float) -> Iterator[Outcome]:
    """Kernels per step, and whether XLA knows how often each loop runs, in its optimized HLO."""
    prepared = prepare_reference(EPOCHS)
    arguments = arguments_of(prepared, EPOCHS)
    platform = "gpu" if gpus else "cpu"
    launches: dict[int, int] = {}
    counts: dict[str, list[int | None]] = {}
    for width in (WIDTHS[0], WIDTHS[-1]):
        if counts and time.monotonic() > by_s:
            break
        wide = widened(arguments, width)
        compiler = prepared.program._train_epochs.experimental_get_compiler_ir(*wide)
        loops = loops_of(compiler(stage="optimized_hlo"))
        step = step_loop(loops)
        launches[width] = step.launches if step else 0
        counts[f"{width:,} trials"] = [loop.trip_count for loop in loops]
        yield _judge_launches(launches, platform)
        yield outcomes.judge_loops("known_trip_count of loops", counts, platform)


def _judge_launches(launches: dict[int, int], platform: str) -> Outcome:
    check = "kernels per step"
    found = ", ".join(f"{num} of {width:,} trials" for width, num in launches.items())
    details = {"launches": launches}
    if platform == "cpu":
        return Outcome(check, "not seen", f"{outcomes.NO_GPU}; calls on the CPU: {found}", details)
    return Outcome(check, "ok" if all(launches.values()) else "failed", found, details)


if __name__ == "__main__":
    main()
