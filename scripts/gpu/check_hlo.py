"""Runs trialrun's fused programs with JAX's compiler, where there is JAX and no TensorFlow.

    python check_hlo.py FOLDER [--seconds 220] [--json FILE]

FOLDER is what `scripts/check_gpu --dump FOLDER` wrote on another machine; this program lies in it.
Each program is compiled for what is here, run, timed and compared with the results of that
machine's CPU. It prints a table and writes a JSON file (absent: FOLDER/check_hlo.json), and ends
within its time: what it has not reached by then is not seen. It exits with 1 if a program fails or
gives other losses. `trip counts` is how often each loop runs, if XLA knows it; where it does not, a
GPU asks its host after each time.

A name is the number of trials, then how the program differs from what a GPU would get: `tiny`,
products of tiny matrices are sums, as on a CPU; `bounded`, loops are told `maximum_iterations`;
`notf32`, products keep all bits.

It needs JAX 0.10 or 0.11, of which it uses private names: there is no public way to run HLO.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from read_hlo import loops_of, step_loop

# As for trialrun's own comparison with Keras: losses of the first steps agree to this.
TOLERANCE = 1e-3
COLUMNS = (
    *(("program", "name", ""), ("", "state", ""), ("compile s", "compile_s", ".1f")),
    *(("us/step", "us_per_step", ",.1f"), ("us/step and trial", "us_per_step_and_trial", ".3f")),
    *(("kernels", "kernels_per_step", "d"), ("trip counts", "trip_counts", "")),
    *(("of losses", "loss_difference", ".0e"), ("of weights", "weight_difference", ".0e")),
)


def main() -> None:
    """Starts itself as a worker, which can be ended, and tells what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=220, help="the time for all programs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="absent: FOLDER/check_hlo.json")
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)  # of the worker
    options = parser.parse_args()
    if options.found:
        work(options.folder, options.found, time.monotonic() + options.seconds)
        return
    results = options.json or options.folder / "check_hlo.json"
    found, how_it_ended = run_worker(options.folder, options.seconds, results)
    import numpy as np

    rows = complete(list(np.load(options.folder / "programs.npz").files), found, how_it_ended)
    manifest = json.loads((options.folder / "manifest.json").read_text())
    machine = next((row.pop("machine") for row in rows if "machine" in row), platform.node())
    for row in rows:
        row.pop("machine", None)
    print(f"{machine}; the programs were made with {manifest['made_with']}\n{table(rows)}")
    for row in rows:
        if row["found"]:
            print(f"{row['name']}: {row['found']}")
    content = {"machine": machine, "manifest": manifest, "programs": rows}
    results.write_text(json.dumps(content, indent=1) + "\n")
    sys.exit(any(row["state"] == "failed" for row in rows))


def run_worker(folder: Path, seconds: float, results: Path) -> tuple[list[dict[str, Any]], str]:
    """What a worker found, and how it ended; empty if it came to its end."""
    found = results.with_suffix(".lines")
    found.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), str(folder.resolve())]
    worker = subprocess.Popen([*command, "--seconds", str(seconds), "--found", str(found)])
    try:
        code = worker.wait(seconds)
        how_it_ended = f"exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        how_it_ended = "time is over"
    lines = found.read_text().splitlines() if found.exists() else []
    found.unlink(missing_ok=True)
    return [json.loads(line) for line in lines], how_it_ended


def complete(
    names: list[str], found: list[dict[str, Any]], how_it_ended: str
) -> list[dict[str, Any]]:
    """A row for each program; those that the worker did not reach were not seen.

    If it died, the program that it had before it has failed.
    """
    rows = {row["name"]: row for row in found}
    not_reached = [name for name in names if name not in rows]
    died_in = not_reached[0] if not_reached and how_it_ended.startswith("exit") else ""
    for name in names:
        state = "failed" if name == died_in else "not seen"
        why = f"the worker ended with {how_it_ended}" if name == died_in else "there was no time"
        rows.setdefault(name, {"name": name, "state": state, "found": why})
    return [rows[name] for name in names]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text in columns."""
    lines = [[title for title, _, _ in COLUMNS]]
    for row in rows:
        values = [(row.get(key), form) for _, key, form in COLUMNS]
        lines.append(["-" if value is None else shown(value, form) for value, form in values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def shown(value: Any, form: str) -> str:
    """A number in a form, or a list in short."""
    if isinstance(value, list):
        return ", ".join("unknown" if one is None else str(one) for one in value) or "no loop"
    return format(value, form)


# ----------------------------------------------------------------------------------------- worker


def work(folder: Path, found: Path, by_s: float) -> None:
    """Tries one program after the other while there is time, and keeps each row at once."""
    import numpy as np

    manifest = json.loads((folder / "manifest.json").read_text())
    inputs, programs = np.load(folder / "inputs.npz"), np.load(folder / "programs.npz")
    import jax

    jax.config.update("jax_enable_x64", True)
    device = jax.devices()[0]
    machine = f"{device.device_kind} ({device.platform}), {platform.node()}, JAX {jax.__version__}"
    longest_s = 0.0
    for name in programs.files:
        start = time.monotonic()
        if start + longest_s > by_s:
            break
        row = {"name": name, "machine": machine, "found": ""}
        try:
            row |= examine(programs[name].tobytes(), int(name.split("-")[0]), inputs, manifest)
            row |= judge(row, device.platform)
        except Exception as error:  # a program may fail in any way; the others are still tried
            row |= {"state": "failed", "found": f"{type(error).__name__}: {error}"[:500]}
        with found.open("a") as file:
            file.write(json.dumps(row) + "\n")
        longest_s = max(longest_s, time.monotonic() - start)


def judge(row: dict[str, Any], device: str) -> dict[str, str]:
    """Whether a program's results are right; where no GPU is, that proves nothing about one."""
    if not row["loss_difference"] <= TOLERANCE:  # which is so for NaN too
        return {"state": "failed", "found": f"losses differ by more than {TOLERANCE:g}"}
    return {"state": "not seen" if device == "cpu" else "ok", "found": ""}


def examine(
    hlo: bytes, width: int, inputs: Any, manifest: dict[str, Any]
) -> dict[str, float | int | list[int | None]]:
    """What a program does and how long it takes."""
    import jax
    import numpy as np

    start = time.perf_counter()
    executable = compiled(hlo)
    compile_s = time.perf_counter() - start
    times = width // manifest["width"]
    arguments = [
        jax.device_put(widened(inputs[f"argument{i:03d}"].astype(kind), times, axis))
        for i, (kind, axis) in enumerate(
            zip(manifest["argument_types"], manifest["argument_axes"], strict=True)
        )
    ]
    differences = {}
    for index, result in enumerate(executable.execute(arguments)):
        name, axis = manifest["result_names"][index], manifest["result_axes"][index]
        expected = widened(inputs[f"result{index:03d}"], times, axis)
        assert result.shape == expected.shape, (name, result.shape, expected.shape)
        difference = np.abs(np.asarray(result, np.float64) - expected)
        differences[name] = float(np.max(difference))
    seconds = best_of_three(executable, arguments) / manifest["epochs"] / manifest["steps"]
    loops = loops_of(executable.hlo_modules()[0].to_string())
    step = step_loop(loops)
    weights = [differences[f"state{i}"] for i in range(manifest["num_weights"])]
    return {
        "compile_s": compile_s,
        "us_per_step": seconds * 1e6,
        "us_per_step_and_trial": seconds * 1e6 / width,
        "kernels_per_step": step.launches if step else 0,
        "trip_counts": [loop.trip_count for loop in loops],
        "loss_difference": largest(d for name, d in differences.items() if name.endswith("loss")),
        "weight_difference": largest(weights),
    }


def largest(numbers: Any) -> float:
    """The largest of some numbers; NaN if one of them is."""
    values = list(numbers)
    return float("nan") if any(value != value for value in values) else max(values)


def widened(array: Any, times: int, axis: int) -> Any:
    """An array of so many times as many trials."""
    import numpy as np

    return np.tile(array, [times if a == axis else 1 for a in range(array.ndim)])


def best_of_three(executable: Any, arguments: list[Any]) -> float:
    """Seconds of the fastest of three calls."""

    def calls() -> Iterator[float]:
        import jax

        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(executable.execute(arguments))
            yield time.perf_counter() - start

    return min(calls())


def compiled(hlo: bytes) -> Any:
    """A program that is not optimized yet, compiled for the first device."""
    from jax._src import compiler, xla_bridge
    from jax._src.interpreters import mlir
    from jaxlib import _jax
    from jaxlib.mlir import ir

    backend = xla_bridge.get_backend()
    with mlir.make_ir_context():
        module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(hlo))
        options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
        devices = _jax.DeviceList(tuple(backend.devices()[:1]))
        return backend.compile_and_load(module, devices, options)


if __name__ == "__main__":
    main()
