"""Measures the time and memory that tables and report take for a run whose trials are made up.

    scripts/simulate_report [--variants N] [--seeds N]

It writes the trials of a run as training would. Then a process of its own reads them, aggregates
over seeds, compares every variant with the winner, finds the importance of the parameters (with
Optuna), and writes variants.csv, confusion matrices, figures and report.html. It prints seconds,
peak memory and sizes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trialrun.trials.trial import Trial

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

_TRIALS_PER_PACK = 500


def write(folder: Path, num_variants: int, num_seeds: int) -> Path:
    """Makes a run folder that holds all trials but no results computed from them."""
    from made_up_runs import JOB, completed, make_variants

    from trialrun.store import RunFolder
    from trialrun.store.columns import parameter_kinds
    from trialrun.trials.results import PackResult

    variants = make_variants(
        [
            {"training.learning_rate": 1e-4 * (1 + index), "model.args.units": index % 7}
            for index in range(num_variants)
        ]
    )
    run = RunFolder.create(folder, "made_up")
    run.write_job(JOB.format(name="made_up", metric="val_loss", goal="minimize"))
    kinds = parameter_kinds(variants)
    patterns = [completed(variants[0], seed) for seed in range(num_seeds)]
    rng = np.random.default_rng(0)
    per_pack = max(1, _TRIALS_PER_PACK // num_seeds)
    for number, start in enumerate(range(0, num_variants, per_pack)):
        pack_id = f"p{number:03d}"
        trials = tuple(
            _like(pattern, variant, seed, pack_id, rng)
            for variant in variants[start : start + per_pack]
            for seed, pattern in enumerate(patterns)
        )
        run.write_pack(PackResult(pack_id, trials, class_names=("no", "yes")), kinds)
    return run.path


def _like(pattern: Any, variant: Any, seed: int, pack_id: str, rng: np.random.Generator) -> Any:
    """A trial like the pattern, but of another variant and with its own metrics."""
    trial = Trial(f"{variant.variant_id}-{seed}", variant, seed)
    metrics = {name: value + rng.normal(0, 0.01) for name, value in pattern.metrics.items()}
    return replace(pattern, trial=trial, pack_id=pack_id, metrics=metrics)


def report(path: Path) -> None:
    """Writes tables and report of a run, and prints the measurements as JSON."""
    from trialrun.analysis.importance import find_importance
    from trialrun.analysis.run_summary import Tally
    from trialrun.analysis.variants import variant_rows
    from trialrun.report import build_report
    from trialrun.store import RunFolder
    from trialrun.store.confusion_matrices import writing_confusion_matrices

    started = time.perf_counter()
    run = RunFolder.open(path)
    tally = Tally(run, metric="val_loss", goal="minimize")
    with writing_confusion_matrices(run.confusion_matrices_file, ("no", "yes")) as write:
        standing = tally.standing(write)
    run.write_variants(variant_rows(standing.leaderboard))
    aggregated = time.perf_counter()
    importance = find_importance(standing.leaderboard, standing.scores)
    found = time.perf_counter()
    build_report(run, standing, importance)
    measured = {
        "tables_s": aggregated - started,
        "importance_s": found - aggregated,
        "report_s": time.perf_counter() - found,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "report_html_mb": run.report_file.stat().st_size / 2**20,
        "figures_mb": sum(file.stat().st_size for file in run.figures_dir.iterdir()) / 2**20,
    }
    print(json.dumps(measured))


def main() -> None:
    if sys.argv[1:2] == ["--report"]:
        report(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="simulate-") as folder:
        path = write(Path(folder), options.variants, options.seeds)
        command = [sys.executable, __file__, "--report", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    num_trials = options.variants * options.seeds
    print(f"{num_trials:,} trials: {options.variants:,} variants x {options.seeds} seeds")
    for name, value in measured.items():
        print(f"{name:16}{value:8.2f}")


if __name__ == "__main__":
    main()
