"""Measures trialrun and its peers in one run on this machine, on its CPU.

The reference job beside a `model.fit` script, Ray Tune, KerasTuner, Optuna, scikit-learn and JAX; a
search in rounds; recurrent models; and six families of small models beside what one would write
with Keras on JAX.

    scripts/benchmark [--quick] [--only NAME,...] [--json FILE]

Prints a table of all measurements, a table of where trialrun's time went, and the ratios that
matter; every number in them was measured just before. No number makes it fail: the exit code is 1
only if some program could not be measured, and its row says why. The peers are the programs in
`scripts/benchmarks/peers`.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark_report import print_report
from benchmark_rows import Ratio, Row, Subject, again, compare
from measure import Measured, parse_with_only, run_measured
from rich.console import Console

from trialrun.store import RunFolder
from trialrun.training.compilation_cache.folder import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 900.0
PACKAGES = (
    "trialrun",
    "tensorflow",
    "keras",
    "ray",
    "jax",
    "scikit-learn",
    "keras-tuner",
    "optuna",
    "numpy",
)

ALL_CORES = f"all {len(os.sched_getaffinity(0))}"
ONE_CORE = "1, pinned"

QUICK_EPOCHS = ("--set", "training.epochs=2")
QUICK_STEADY = ("--epochs", "2", "--trials", "16")
FIVE_RATES = "search.parameters.training.learning_rate.values=[1e-4, 2e-4, 3e-4, 5e-4, 1e-3]"

KERAS_FIT = Subject("keras_fit", "model.fit, one script", ALL_CORES)
KERAS_FIT_COMPILED = Subject(
    "keras_fit_compiled",
    "model.fit, compiled, one script",
    ALL_CORES,
    args=("--compiled",),
    quick_args=("--compiled", "--epochs", "2"),
    program="keras_fit",
)
TRIALRUN_60 = Subject(
    "trialrun_60",
    "trialrun, reference job",
    ALL_CORES,
    quick_args=("--set", "seeds=2", *QUICK_EPOCHS),
    is_peer=False,
    is_cold=True,
)
TRIALRUN_60_WARM = again(TRIALRUN_60)
TRIALRUN_1000 = Subject(
    "trialrun_1000",
    "trialrun, larger job",
    ALL_CORES,
    args=("--set", "seeds=200", "--set", FIVE_RATES),
    quick_args=("--set", "seeds=10", "--set", FIVE_RATES, *QUICK_EPOCHS),
    is_peer=False,
    is_cold=True,
)
TRIALRUN_1000_WARM = again(TRIALRUN_1000)
JAX_VMAP = Subject("jax_vmap", "JAX vmap, steady state", ONE_CORE, quick_args=QUICK_STEADY)
FUSED_STEADY = Subject(
    "fused_steady", "trialrun fused, steady state", ONE_CORE, quick_args=QUICK_STEADY
)
SKLEARN_MLP = Subject("sklearn_mlp", "scikit-learn MLPClassifier", ONE_CORE)
STEP_PRODUCTS = Subject(
    "step_products", "the step's matrix products alone", ONE_CORE, quick_args=QUICK_STEADY
)
ROOFLINE = Subject("roofline", "the same at peak speed (a bound)", ONE_CORE)
DIGITS_CNN, TEXT_GRU = (
    Subject(
        job,
        f"trialrun, 32 {title}, steady",
        ONE_CORE,
        args=(job,),
        quick_args=(job, "--epochs", "1", "--trials", "4"),
        program="job_steady",
    )
    for job, title in (("digits_cnn", "digits CNNs"), ("text_gru", "masked GRUs"))
)
RAY_TUNE = Subject(
    "ray_tune",
    "Ray Tune, process per trial",
    ALL_CORES,
    quick_args=("--epochs", "1", "--trials", "3"),
)
KERAS_TUNER = Subject("keras_tuner_search", "KerasTuner, one process", ALL_CORES)
OPTUNA = Subject("optuna_study", "Optuna with model.fit", ALL_CORES)

QUICK_ROUNDS = ("--set", "search.num_variants=4", *QUICK_EPOCHS)
ROUNDS_JOB = Subject(
    "rounds",
    "trialrun, 96 variants in rounds",
    ALL_CORES,
    quick_args=QUICK_ROUNDS,
    is_peer=False,
    job="medical_trial_rounds",
)
WHOLE = ("--set", "search.rounds=null", "--set", "search.confirm=null")
WHOLE_GRID = Subject(
    "whole_grid",
    "trialrun, the same without rounds",
    ALL_CORES,
    args=WHOLE,
    quick_args=(*WHOLE, *QUICK_ROUNDS),
    is_peer=False,
    job="medical_trial_rounds",
)

ONE_SEED = ("--set", "seeds=1")
TWO_GRUS = Subject(
    "two_grus",
    "trialrun, 2 masked GRUs",
    ALL_CORES,
    args=ONE_SEED,
    quick_args=(*ONE_SEED, *QUICK_EPOCHS),
    is_peer=False,
    job="text_gru",
    is_cold=True,
)
BY_KERAS = ("--set", "training.engine=keras")
TWO_GRUS_KERAS = replace(
    TWO_GRUS,
    name="two_grus_keras",
    title="the same, engine keras",
    args=(*ONE_SEED, *BY_KERAS),
    quick_args=(*ONE_SEED, *BY_KERAS, *QUICK_EPOCHS),
)

FAMILIES = tuple(
    Subject(
        name,
        f"family: {title}",
        ONE_CORE,
        args=(name,),
        quick_args=(name, "--trials", "2"),
        program="family",
    )
    for name, title in (
        ("mlp", "small MLP, batch 10"),
        ("cnn", "digits CNN, batch 32"),
        ("augmented_cnn", "augmented CNN, batch 32"),
        ("gru", "masked GRU, 16 steps"),
        ("transformer", "transformer block"),
        ("wide_mlp", "wide MLP, batch 128"),
    )
)

WHOLE_COMMANDS = (
    KERAS_FIT,
    KERAS_FIT_COMPILED,
    TRIALRUN_60,
    TRIALRUN_60_WARM,
    TRIALRUN_1000,
    TRIALRUN_1000_WARM,
)
# Subjects that are compared closely alternate, so that a slow minute of the machine affects both.
ROUNDS: tuple[tuple[int, tuple[Subject, ...]], ...] = (
    (3, WHOLE_COMMANDS),
    (3, (JAX_VMAP, FUSED_STEADY, STEP_PRODUCTS, ROOFLINE)),
    (3, (ROUNDS_JOB, WHOLE_GRID)),
    (3, (TWO_GRUS, TWO_GRUS_KERAS)),
    (1, (DIGITS_CNN, TEXT_GRU, SKLEARN_MLP, RAY_TUNE, KERAS_TUNER, OPTUNA, *FAMILIES)),
)
SUBJECTS = tuple(subject for _, subjects in ROUNDS for subject in subjects)


def main() -> int:
    args = parse_arguments()
    progress = Console(stderr=True)
    console = Console(width=None if sys.stdout.isatty() else 120)  # the tables are wide
    machine = describe_machine()
    rows = measure_all(args.only, quick=args.quick, progress=progress)
    ratios = compare({row.subject.name: row for row in rows})
    print_report(console, machine, rows, ratios, quick=args.quick)
    if args.json:
        write_json(args.json, machine, rows, ratios, quick=args.quick)
    return 1 if any(row.error for row in rows) else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="only check that all runs: few epochs and trials"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all samples to this file"
    )
    return parse_with_only(parser, [subject.name for subject in SUBJECTS], "measure")


# ------------------------------------------------------------------------------------- measuring


def measure_all(names: Sequence[str], *, quick: bool, progress: Console) -> list[Row]:
    """One row per named subject, in the order of `ROUNDS`."""
    rows = {subject: Row(subject) for subject in SUBJECTS if subject.name in names}
    with tempfile.TemporaryDirectory() as cache:
        for repeats, subjects in ROUNDS:
            for repeat in range(1 if quick else repeats):
                for subject in subjects:
                    if subject in rows and not rows[subject].error:
                        progress.print(f"{subject.name} ({repeat + 1}) ...", style="dim")
                        measure_once(rows[subject], Path(cache), quick=quick)
    return list(rows.values())


def measure_once(row: Row, cache: Path, *, quick: bool) -> None:
    """Adds a sample to the row, or the reason why there is none.

    What trialrun compiles is kept in a folder of the benchmark's own, not in the user's.
    """
    subject = row.subject
    args = subject.quick_args if quick else subject.args
    if subject.is_cold:
        shutil.rmtree(cache)
        cache.mkdir()
    try:
        sample = (
            run_peer(subject.program or subject.name, args)
            if subject.is_peer
            else run_trialrun(subject.job, args, cache)
        )
        row.samples.append(sample)
    except Exception as error:  # a peer may fail in any way; the others are still measured
        row.error = f"{type(error).__name__}: {error}"


def run_peer(name: str, args: Sequence[str]) -> dict[str, Any]:
    """The sample of a program in `scripts/benchmarks/peers`, which prints its own numbers on its
    last line.
    """
    program = ROOT / "scripts" / "benchmarks" / "peers" / f"{name}.py"
    measured = run_checked([sys.executable, str(program), *args])
    report = json.loads(measured.stdout.splitlines()[-1])
    return {"trials": 1, **report, **whole_process(measured)}


def run_trialrun(job: str, args: Sequence[str], cache: Path) -> dict[str, Any]:
    """The sample of a whole `trialrun run`, with the run's own timings."""
    file = ROOT / "jobs" / f"{job}.yaml"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trialrun", "run", str(file), "--runs-dir", folder]
        measured = run_checked([*command, *args], {VARIABLE: str(cache)})
        (summary_file,) = Path(folder).glob("*/*/summary.json")
        summary = json.loads(summary_file.read_text())
        packs = RunFolder(summary_file.parent).read_packs()
    num_trials = summary["counts"]["trials"]
    if summary["counts"]["completed"] != num_trials:
        raise RuntimeError(f"not all trials completed: {summary['counts']}")
    return {
        "trials": num_trials,
        "s_per_trial": measured.wall_s / num_trials,
        "timings_s": summary["timings_s"],
        "training_s": sum(pack.timings_s["train"] for pack in packs),
        "throughput": summary["throughput"],
        **whole_process(measured),
    }


def run_checked(command: Sequence[str], variables: Mapping[str, str] | None = None) -> Measured:
    """Runs a command with these variables and none for Ray, XLA or GPUs of the user's shell."""
    dropped = ("RAY_", "XLA_", "TF_", "JAX_", "CUDA_", "OMP_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", **(variables or {})}
    measured = run_measured(command, cwd=ROOT, env=env, timeout_s=TIMEOUT_S)
    if measured.exit_code:
        *_, last_line = ["no message", *measured.stderr.strip().splitlines()]
        raise RuntimeError(f"exit code {measured.exit_code}: {last_line}")
    return measured


def whole_process(measured: Measured) -> dict[str, Any]:
    return {"wall_s": measured.wall_s, "peak_memory_bytes": measured.peak_memory_bytes}


# --------------------------------------------------------------------------------------- keeping


def describe_machine() -> dict[str, Any]:
    """The machine that is measured on, and its load before."""
    return {
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30,
        "load_before": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()  # kernels on ARM do not name the model


def write_json(
    file: Path,
    machine: dict[str, Any],
    rows: Sequence[Row],
    ratios: Iterable[Ratio],
    *,
    quick: bool,
) -> None:
    content = {
        "quick": quick,
        "machine": machine,
        "rows": [asdict(row) for row in rows],
        "ratios": [asdict(ratio) for ratio in ratios],
    }
    file.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
