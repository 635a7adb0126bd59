"""Checks what only a machine with NVIDIA GPUs can prove, and says what it could not see.

    scripts/check_gpu [--minutes 5] [--only NAME,...] [--json FILE]
    scripts/check_gpu --dump FOLDER

Each check runs in a process of its own that has its own share of the time, so that one that dies
or hangs does not lose the others. It prints a table, in which a check is ok, has failed, or was not
seen, for a reason that is said, and writes a JSON file. It exits with 1 if a check has failed.
Without a GPU it runs too, with GPUs that Ray only counts.

`--dump` writes a folder for machines that have JAX and no TensorFlow; there, `python check_hlo.py
FOLDER` runs trialrun's programs.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import outcomes
from dump_folder import TAKEN_ALONG, WRITTEN
from measure import descendants, parse_with_only, read_processes
from outcomes import Ended, Outcome
from rich import box
from rich.console import Console
from rich.table import Table

from trialrun.doctor.gpus import Gpu, ask_driver, visible_gpus

HERE = Path(__file__).resolve().parent
PACKAGES = ("trialrun", "tensorflow", "keras", "ray", "jax", "numpy")
WIDTHS, BY_JAX = "packs of 128 to 16,384 trials", "the same by JAX vmap"
# A process is told to be ready a while before its time is over, and ended when it is.
SHARE_TO_USE = 0.85


@dataclass(frozen=True, slots=True)
class Part:
    """Checks that one process makes.

    Attributes:
        name: For `--only`.
        words: The program in this folder, and its first arguments.
        checks: The names of its checks.
        limit_s: Its time, if all have five minutes.
        num_gpus: How many GPUs it gets; None for all.
    """

    name: str
    words: tuple[str, ...]
    checks: tuple[str, ...]
    limit_s: float
    num_gpus: int | None = 1


PARTS = (
    Part("devices", ("run_checks.py", "devices"), ("TensorFlow",), 25, None),
    Part(
        "pinned",
        ("run_checks.py", "pinned"),
        ("pinning", "memory growth", "two packs on two GPUs"),
        45,
        None,
    ),
    Part(
        "halved",
        ("run_checks.py", "halved"),
        ("a pack refused beforehand", "a pack refused by the GPU"),
        55,
    ),
    Part("oracle", ("device_checks.py", "oracle"), ("oracle, TF32 off",), 30),
    Part("oracle_tf32", ("device_checks.py", "oracle_tf32"), ("oracle, TF32 on",), 30),
    Part("widths", ("device_checks.py", "widths"), (WIDTHS,), 50),
    Part("jax", ("jax_widths.py",), (BY_JAX,), 30),
    Part(
        "loops",
        ("device_checks.py", "loops"),
        ("kernels per step", "known_trip_count of loops"),
        25,
    ),
)
FIRST = "devices"  # it is always made
AFTER_FAILURE = "the check of TensorFlow has failed"
MINUTES = 5.0


def main() -> int:
    """Makes the checks, or writes a folder for another machine."""
    options = parse_arguments()
    if options.dump:
        command = [sys.executable, str(HERE / "dump_hlo.py"), str(options.dump)]
        return subprocess.run(command, env=environment_of([])).returncode
    gpus, machine = describe_machine()
    progress = Console(stderr=True)
    found: list[Outcome] = []
    for part in PARTS:
        if part.name not in options.only and part.name != FIRST:
            continue
        if gpus and outcomes.exit_code(found[:1]):  # what follows might load the CPU instead
            found += [Outcome(check, "not seen", AFTER_FAILURE) for check in part.checks]
            continue
        progress.print(f"{part.name} ...", style="dim")
        limit_s = part.limit_s * options.minutes / MINUTES
        found += run_part(part, gpus[: part.num_gpus], limit_s)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(describe(machine), markup=False, highlight=False)
    outcomes.print_outcomes(console, found)
    print_widths(console, found)
    content = {"machine": machine, "checks": [asdict(outcome) for outcome in found]}
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"All numbers: {options.json}", markup=False, highlight=False)
    return outcomes.exit_code(found)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dump", type=Path, metavar="FOLDER", help="for machines with JAX alone")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="the most that all checks may take"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("check_gpu.json"))
    options = parse_with_only(parser, [part.name for part in PARTS], "make")
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes must be a number above 0, got {options.minutes:g}")
    if not options.json.parent.is_dir():  # else all numbers would be lost in the end
        parser.error(f"--json: there is no folder {options.json.parent}")
    if options.dump and (problem := problem_with_dump(options.dump)):
        parser.error(f"--dump: {problem}; name a folder that is empty or does not exist")
    return options


def problem_with_dump(folder: Path) -> str:
    """Why a folder cannot be filled, which takes minutes; empty if it is made, or was, and can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in folder.iterdir())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"
    others = [name for name in names if name not in (*TAKEN_ALONG, *WRITTEN)]
    return f"{folder} holds {others[0]!r}" if others else ""


def run_part(part: Part, gpus: Sequence[str], limit_s: float) -> list[Outcome]:
    """What the checks of a process found; those that it did not get to have failed."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        command = [sys.executable, str(HERE / part.words[0]), *part.words[1:]]
        command += ["--results", str(results), "--gpus", ",".join(gpus)]
        command += ["--seconds", f"{SHARE_TO_USE * limit_s:.1f}"]
        ended = run_for(command, environment_of(gpus), limit_s)
        return outcomes.complete(part.checks, outcomes.read(results), ended)


def run_for(command: Sequence[str], env: Mapping[str, str], limit_s: float) -> Ended:
    """Runs a command, and ends it and all that it started when its time is over."""
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            command, cwd=HERE.parents[1], env=env, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            for pid in descendants(process.pid, read_processes()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            said = f"it did not end within {limit_s:.0f} s; with --minutes it gets more"
            return Ended(None, said)
        stderr.seek(0)
        *_, last = ["no message", *stderr.read().strip().splitlines()]
        return Ended(code, f"exit code {code}: {last}")


def environment_of(gpus: Sequence[str]) -> dict[str, str]:
    """The variables of a process that sees these GPUs, without the shell's for Ray and XLA."""
    dropped = ("RAY_", "XLA_", "TF_", "JAX_", "CUDA_VISIBLE_DEVICES")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return env | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def describe_machine() -> tuple[list[str], dict[str, Any]]:
    """The visible GPUs, and what the figures were measured on."""
    driver = ask_driver(os.environ)
    gpus = list(visible_gpus(os.environ, driver.gpus)) if driver.gpus else []
    return gpus, {
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpus": [asdict(gpu) for gpu in driver.gpus if is_named(gpu, gpus)],
        "driver_trouble": driver.trouble,
        "cores": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def is_named(gpu: Gpu, names: Sequence[str]) -> bool:
    return any(name == gpu.index or gpu.uuid.startswith(name) for name in names)


def version_of(package: str) -> str:
    """Its version; empty if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def describe(machine: dict[str, Any]) -> str:
    """The machine in a line."""
    gpus = [f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]]
    packages = [f"{name} {version}" for name, version in machine["packages"].items() if version]
    which = "; ".join(gpus) or machine["driver_trouble"] or "no NVIDIA GPU"
    return f"{which}; {machine['cores']} cores; Python {machine['python']}, {', '.join(packages)}"


def print_widths(console: Console, found: Sequence[Outcome]) -> None:
    """The table of packs by their width."""
    details = {outcome.check: outcome.details for outcome in found}
    rows = details.get(WIDTHS, {}).get("widths", [])
    by_jax = details.get(BY_JAX, {}).get("us_per_step", {})
    if not rows:
        return
    table = Table("trials", box=box.SIMPLE)
    headings = (
        "us per step",
        "per trial",
        "times model.fit",
        "by JAX",
        "host's orders",
        "compiled",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        jax_us = by_jax.get(str(row["width"]))
        table.add_row(
            *(f"{row['width']:,}", f"{row['us_per_step']:,.0f}"),
            *(f"{row['us_per_step_and_trial']:,.2f}", f"{row['times_fit']:,.0f}"),
            *("-" if jax_us is None else f"{jax_us:,.0f}", f"{row['orders_us_per_step']:,.0f}"),
            f"{row['compile_s']:.1f} s",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
