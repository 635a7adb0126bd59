"""Writes the fused programs of the reference job for machines that have JAX and no TensorFlow.

    scripts/check_gpu --dump FOLDER

A folder of a few small files: the programs before XLA has optimized them, what they take, what they
give on this machine's CPU, and `check_hlo.py`, which runs them elsewhere. A trial's result does not
depend on its neighbors, so that inputs and results of 128 trials serve all widths.
"""

import contextlib
import functools
import io
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from device_checks import BASE_WIDTH, EPOCHS, WIDTHS, arguments_of, prepare_reference

# isort: split
import dump_folder
import numpy as np
import tensorflow as tf

from trialrun.training.compiled.prepare import PreparedPack
from trialrun.training.program.epochs import Epochs
from trialrun.training.vectorize import products


def dump(folder: Path) -> list[Path]:
    """Fills a folder, which is made; gives its files.

    Raises:
        RuntimeError: They would be too large to be carried around.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepared = prepare_reference(EPOCHS)
    arguments = arguments_of(prepared, EPOCHS)
    write_inputs(folder, prepared, arguments)
    write_programs(folder, prepared, arguments, WIDTHS)
    return dump_folder.finish(folder)


def write_inputs(folder: Path, prepared: PreparedPack, arguments: Sequence[Any]) -> None:
    """Writes `inputs.npz`: what the program of the smallest width takes, and gives on the CPU."""
    given = [tensor.numpy() for tensor in tf.nest.flatten(arguments)]
    results = prepared.program.train_epochs(*arguments)
    expected = [tensor.numpy() for tensor in tf.nest.flatten(results)]
    arrays = {f"argument{i:03d}": smaller(array) for i, array in enumerate(given)}
    arrays |= {f"result{i:03d}": array for i, array in enumerate(expected)}
    np.savez_compressed(folder / "inputs.npz", **arrays)
    state, logs = results
    manifest = {
        "width": BASE_WIDTH,
        "epochs": EPOCHS,
        "steps": num_steps(prepared),
        "argument_types": [str(array.dtype) for array in given],
        "argument_axes": trial_axes(arguments),
        "result_names": [
            *(f"state{i}" for i in range(len(tf.nest.flatten(state)))),
            *sorted(logs),  # the order of `tf.nest`
        ],
        "result_axes": [*(0 for _ in tf.nest.flatten(state)), *(1 for _ in logs)],
        "num_weights": len(state.trainable),
        "made_with": f"TensorFlow {tf.__version__}, {platform.machine()}",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def smaller(array: Any) -> Any:
    """Row numbers in two bytes instead of four; other arrays as they are."""
    is_small = array.dtype == np.int32 and array.min() >= 0 and array.max() < 1 << 16
    return array.astype(np.uint16) if is_small else array


def trial_axes(arguments: Sequence[Any]) -> list[int]:
    """The axis of trials of each argument: 1 for batch orders (epochs, trials, rows), else 0."""
    axes = [0, 0, 1, 0]
    return [a for a, part in zip(axes, arguments, strict=True) for _ in tf.nest.flatten(part)]


def write_programs(
    folder: Path, prepared: PreparedPack, arguments: Sequence[Any], widths: Sequence[int]
) -> None:
    """Writes `programs.npz`: the bytes of each program by its name, most important ones first."""
    programs = {}
    for (tiny, is_bounded, tf32), width in in_order(widths):
        words = [f"{width}", "tiny" if tiny else "", "bounded" if is_bounded else ""]
        name = "-".join(filter(None, [*words, "" if tf32 else "notf32"]))
        bound = num_steps(prepared) if is_bounded else None
        with traced_for(tiny=tiny, bound=bound, tf32=tf32):
            programs[name] = np.frombuffer(hlo_of(prepared, arguments, width), np.uint8)
    np.savez_compressed(folder / "programs.npz", **programs)


def in_order(widths: Sequence[int]) -> list[tuple[tuple[bool, bool, bool], int]]:
    """Ways of `traced_for` and widths; first what is tried even if there is little time.

    First as a GPU would get it, then what differs from that at the smallest and the largest width.
    """
    first, *others = [
        *((False, False, True), (False, False, False), (True, False, True)),
        *((False, True, True), (True, True, True)),
    ]
    ends, middle = (widths[0], widths[-1]), widths[1:-1]
    return [
        *((first, width) for width in widths),
        *((way, width) for group in (ends, middle) for way in others for width in group),
    ]


def num_steps(prepared: PreparedPack) -> int:
    """The steps of an epoch, which is the longest loop."""
    batch_size = prepared.task.pack.trials[0].variant.training.batch_size
    return -(-prepared.slices[0].order_shape[1] // batch_size)


@contextlib.contextmanager
def traced_for(*, tiny: bool, bound: int | None, tf32: bool) -> Iterator[None]:
    """Within this context programs are traced in another way.

    Args:
        tiny: Whether products of tiny matrices become sums, as they do where no GPU is.
        bound: What loops are told as `maximum_iterations`; None for nothing. It must be as large as
            the longest loop.
        tf32: Whether products may use TF32.
    """
    rule = "_multiply_and_sum_is_faster"
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    with contextlib.ExitStack() as stack:
        if not tiny:
            stack.enter_context(mock.patch.object(products, rule, return_value=False))
        if bound is not None:
            bounded = functools.partial(tf.while_loop, maximum_iterations=bound)
            stack.enter_context(mock.patch.object(tf, "while_loop", bounded))
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)


def hlo_of(prepared: PreparedPack, arguments: Sequence[Any], width: int) -> bytes:
    """The program for a width, before XLA has optimized it; it is traced anew."""
    flat = tf.nest.flatten(arguments)
    specs = []
    for tensor, axis in zip(flat, trial_axes(arguments), strict=True):
        shape = [width if a == axis else n for a, n in enumerate(tensor.shape)]
        specs.append(tf.TensorSpec(shape, tensor.dtype))
    known = prepared.program._epochs
    epochs = Epochs(  # a new one, because it keeps the steps that it has traced
        known._model,
        one_trial=known._one_trial,
        batch_size=known._batch_size,
        shared_data=known._shared_data,
        evaluation_batch_size=known._evaluation_batch_size,
    )
    train = tf.function(
        lambda *given: epochs.train(*tf.nest.pack_sequence_as(arguments, given)),
        jit_compile=True,
        autograph=False,
    )
    with prepared.program._tracing():
        hlo: bytes = train.experimental_get_compiler_ir(*specs)(stage="hlo_serialized")
    return hlo


def main() -> None:
    """Fills the folder that it is given, and says how it goes on."""
    folder = Path(sys.argv[1])
    files = dump(folder)
    told = io.StringIO()
    for path in files:
        told.write(f"{path.stat().st_size:12,}  {path.name}\n")
    print(f"{told.getvalue()}Where JAX is: python check_hlo.py FOLDER")


if __name__ == "__main__":
    main()
