"""Measures what a run costs apart from training, with trials whose results are made up.

    scripts/simulate_scale [--trials N,...] [--nodes N] [--gpus-per-node N] [--json FILE]

Ray is real and has many nodes on this machine, with logical GPUs. Plan, packs, tasks, results,
files, statistics and report are real. Only the training, which returns made-up results at once, and
the saved model are not. Each size runs in a driver process of its own, to measure its memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from trialrun.export.check import SavedFormat
from trialrun.export.process import SavedModel

SIZES = (1_000, 10_000, 100_000)
EPOCHS = 30
VARIANTS = 10
JOB = """\
name: simulated
training: {{epochs: {epochs}}}
seeds: {seeds}
search:
  parameters:
    training.learning_rate: {{values: {rates}}}
"""


def train_made_up(task: Any, device: str, should_stop: Any) -> Any:
    """Made-up results of a pack, with curves and confusion matrices like the reference job's."""
    import numpy as np

    from trialrun.trials.results import PackResult, Progress, TrialResult, TrialState

    yield Progress(task.pack.pack_id, 0, None)
    trials = task.pack.trials
    rng = np.random.default_rng(trials[0].seed)
    falling = np.linspace(0.7, 0.25, EPOCHS, dtype=np.float32)
    results, best = [], {}
    for trial in trials:
        noise = np.float32(rng.normal(0, 0.02))
        history = {"loss": falling + noise, "accuracy": 1 - falling / 4}
        history |= {f"val_{name}": values + noise for name, values in history.items()}
        metrics = {f"train_{n}": float(v[-1]) for n, v in history.items() if n[:4] != "val_"}
        metrics |= {n: float(v[-1]) for n, v in history.items() if n[:4] == "val_"}
        metrics |= {f"test_{n}": metrics[f"train_{n}"] for n in ("loss", "accuracy")}
        wrong = rng.integers(5, 20, 2)
        matrix = np.array([[105 - wrong[0], wrong[0]], [wrong[1], 105 - wrong[1]]])
        result = TrialResult(
            trial=trial,
            status="completed",
            engine="fused",
            pack_id=task.pack.pack_id,
            attempt=task.attempt,
            epochs=EPOCHS,
            device=device,
            metrics=metrics,
            history=history,
            val_confusion_matrix=matrix,
            test_confusion_matrix=2 * matrix,
        )
        results.append(result)
        variant_id = trial.variant.variant_id
        if variant_id not in best or metrics["val_loss"] < best[variant_id][0]:
            weights = (np.zeros(642, np.float32),)
            state = TrialState(trial.trial_id, trial.seed, weights, (), weights, np.zeros((420, 2)))
            best[variant_id] = (metrics["val_loss"], state)
    states = {variant_id: state for variant_id, (_, state) in best.items()}
    yield PackResult(task.pack.pack_id, tuple(results), states, class_names=("no", "yes"))


class NoExport:
    """Replaces `export.process.ExportProcess`, and saves nothing."""

    def __init__(self, log_file: Path, files: object) -> None:
        pass

    def __enter__(self) -> "NoExport":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def try_untrained(self, *args: object) -> list[str]:
        return []

    def export(self, *args: object) -> SavedModel:
        return SavedModel((SavedFormat(".keras", "", True),))


class StatusCost:
    """What it costs the driver to know and to write how far the run is, and how late it says so.

    Attributes:
        cpu_s: CPU time of all calls, whichever thread makes them.
        longest_gap_s: The longest time between two writes of status.json.
    """

    def __init__(self) -> None:
        self.cpu_s = self.longest_gap_s = 0.0
        self._written_s: float | None = None

    def watch(self) -> None:
        """Puts itself around the calls."""
        from trialrun.driver.course import Course
        from trialrun.driver.status_file import StatusFile

        for name in ("begin", "start", "advance", "leave", "retry", "finish", "rate"):
            setattr(Course, name, self._timed(getattr(Course, name)))
        write = self._timed(StatusFile._write)

        def write_and_note(*args: Any) -> None:
            write(*args)
            now_s = time.perf_counter()
            gap_s = 0.0 if self._written_s is None else now_s - self._written_s
            self.longest_gap_s, self._written_s = max(self.longest_gap_s, gap_s), now_s

        StatusFile._write = write_and_note  # type: ignore[method-assign]

    def _timed(self, call: Any) -> Any:
        def timed(*args: Any, **named: Any) -> Any:
            start_s = time.thread_time()
            try:
                return call(*args, **named)
            finally:
                self.cpu_s += time.thread_time() - start_s

        return timed


def drive(job_file: Path, runs_dir: Path, address: str) -> None:
    """The driver process: runs the job and prints the measurements as JSON."""
    from rich.console import Console

    import trialrun.cluster
    import trialrun.driver.run
    from trialrun.driver.progress import ProgressLine
    from trialrun.job import load_job

    trialrun.cluster.run_packs = partial(trialrun.cluster.run_packs, train_pack=train_made_up)
    trialrun.driver.run.ExportProcess = NoExport  # type: ignore[misc, assignment]
    status = StatusCost()
    status.watch()
    started, cpu = time.perf_counter(), time.process_time()
    outcome = trialrun.driver.run.run_job(
        load_job(job_file),
        runs_dir=runs_dir,
        address=address,
        allow_open_head=True,  # the simulated cluster's
        progress=ProgressLine(Console(stderr=True)),
    )
    summary = outcome.run.read_summary()
    assert summary is not None
    files = [path for path in outcome.run.path.rglob("*") if path.is_file()]
    measured = {
        "trials": summary["counts"]["completed"],
        "wall_s": time.perf_counter() - started,
        "driver_cpu_s": time.process_time() - cpu,
        "status_cpu_s": status.cpu_s,
        "status_gap_s": status.longest_gap_s,
        "train_s": summary["timings_s"]["train"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "files": len(files),
        "folder_mb": sum(path.stat().st_size for path in files) / 2**20,
    }
    print(json.dumps(measured))


def measure(num_trials: int, address: str) -> dict[str, Any]:
    """The measurements of a run with this many trials."""
    with tempfile.TemporaryDirectory(prefix="simulate-") as folder:
        job_file = Path(folder, "job.yaml")
        rates = [round(1e-4 * (step + 1), 6) for step in range(VARIANTS)]
        job_file.write_text(JOB.format(epochs=EPOCHS, seeds=num_trials // VARIANTS, rates=rates))
        done = subprocess.run(
            [sys.executable, __file__, "--drive", job_file, folder, address],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    if sys.argv[1:2] == ["--drive"]:
        drive(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", default=",".join(map(str, SIZES)), help="sizes to measure")
    parser.add_argument("--nodes", type=int, default=8, help="nodes of the simulated cluster")
    parser.add_argument("--gpus-per-node", type=int, default=2, help="logical GPUs of each node")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    args = parser.parse_args()

    from ray.cluster_utils import Cluster
    from rich.console import Console
    from rich.table import Table

    os.environ.pop("RAY_AUTH_MODE", None)
    node = {"num_cpus": args.gpus_per_node, "num_gpus": args.gpus_per_node}
    node |= {"object_store_memory": 128 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(args.nodes - 1):
        cluster.add_node(**node)
    gpus = args.nodes * args.gpus_per_node
    rows = []
    try:
        measure(1_000, cluster.address)  # starts the processes that later runs use again
        for size in map(int, args.trials.split(",")):
            rows.append(measure(size, cluster.address))
            print(f"{size:,} trials: {rows[-1]['wall_s']:.1f} s", file=sys.stderr)
    finally:
        cluster.shutdown()
    table = Table(title=f"{args.nodes} nodes, {gpus} logical GPUs, {os.cpu_count()} cores")
    columns = ("trials", "to report, s", "trials/s", "ms/trial", "driver ms/trial")
    columns = (*columns, "status, % of driver", "status gap, s")
    for name in (*columns, "peak MB", "files", "folder, MB"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['trials']:,}",
            f"{row['wall_s']:.1f}",
            f"{row['trials'] / row['wall_s']:,.0f}",
            f"{1e3 * row['wall_s'] / row['trials']:.3f}",
            f"{1e3 * row['driver_cpu_s'] / row['trials']:.3f}",
            f"{100 * row['status_cpu_s'] / row['driver_cpu_s']:.2f}",
            f"{row['status_gap_s']:.1f}",
            f"{row['peak_mb']:,.0f}",
            f"{row['files']:,}",
            f"{row['folder_mb']:,.1f}",
        )
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
