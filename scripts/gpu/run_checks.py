"""Checks of whole runs: `trialrun run` trains small jobs, and its workers tell what they see.

    python run_checks.py {devices,pinned,halved} --results FILE --gpus 0,1 --seconds N

`check_gpu.py` starts it; each kind is a process of its own.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import outcomes
from outcomes import Outcome

import trialrun
from trialrun.doctor.gpus import Driver, Gpu, ask_driver
from trialrun.doctor.tensorflow_view import TensorflowView

MODULE = Path(__file__).with_name("watched_job.py")
# The same words as in `watched_job`, which is not imported here, because it imports TensorFlow.
WHAT_THERE_IS, MORE_THAN_THERE_IS = "what there is", "more than there is"
NUM_WIDE = 64
LITTLE_BYTES = 100 << 20
# Hidden values of all trials take this share of the GPU, and so do their gradients.
SHARE_OF_HIDDEN = 0.6
JOB = {
    "name": "check_gpu",
    "data": {"generator": "watched_job.py:rows", "scaling": "none"},
    "training": {"engine": "fused", "epochs": 2, "optimizer": "sgd"},
    "resources": {"gpus": 1, "cpus": 1, "max_retries": 0},
}


def main() -> None:
    """Makes one kind of check, and keeps its outcomes in a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("devices", "pinned", "halved"))
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--gpus", required=True, help="the visible GPUs; empty if there is none")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    gpus = [name for name in options.gpus.split(",") if name]
    check = {"devices": check_devices, "pinned": check_pinned, "halved": check_halved}
    for outcome in check[options.kind](gpus, options.seconds):
        outcomes.append(options.results, outcome)


def check_devices(gpus: list[str], seconds: float) -> Iterator[Outcome]:
    """What `trialrun doctor` says of TensorFlow and each device."""
    driver = ask_driver(os.environ) if gpus else Driver(())
    with TensorflowView(os.environ, driver) as view:
        checks = view.checks(limit_s=seconds)
    said = "; ".join(f"{check.name}: {check.found}" for check in checks)
    wrong = [check for check in checks if check.status == "problem"]
    if wrong:
        found = "; ".join(f"{check.name}: {check.found}" for check in wrong)
        yield Outcome("TensorFlow", "failed", found, {"said": said})
    elif not gpus:
        yield Outcome("TensorFlow", "not seen", f"{outcomes.NO_GPU}: the CPU computes")
    else:
        yield Outcome("TensorFlow", "ok", said)


def check_pinned(gpus: list[str], _: float) -> Iterator[Outcome]:
    """Two packs at a time, and what the process of each sees."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notes = folder / "notes.jsonl"
        args = {"units": 8, "notes": str(notes), "others": 0 if len(gpus) == 1 else 1}
        job = JOB | {"model": {"builder": "watched_job.py:build", "args": args}, "seeds": 16}
        run_job(folder, job, num_rows=64, max_trials_per_pack=8, gpus=gpus, num_logical=2)
        lines = notes.read_text().splitlines() if notes.exists() else []
        told = {note["pid"]: note for note in map(json.loads, lines) if "met" in note}
    workers = list(told.values())
    yield outcomes.judge_pinning(workers, len(gpus))
    yield outcomes.judge_growth(workers, len(gpus))
    yield outcomes.judge_together(workers, len(gpus))


def check_halved(gpus: list[str], _: float) -> Iterator[Outcome]:
    """Packs that are too wide: one by the estimate, and one where the estimate was told too much.

    Where the CPU computes, the estimate is told of little memory, and the other is not tried:
    memory that is overdrawn there takes the machine along.
    """
    by_estimate, by_device = "a pack refused beforehand", "a pack refused by the GPU"
    named = [gpu for gpu in ask_driver(os.environ).gpus if gpus and is_named(gpu, gpus[0])]
    total_mib = named[0].memory_mib if named else None
    if total_mib is None:
        reason = "nvidia-smi does not tell the GPU's memory" if gpus else outcomes.NO_GPU
        told = [f"{LITTLE_BYTES} bytes"]
        shape = {"units": 512, "num_rows": 1024}
    else:
        reason, told = "", [WHAT_THERE_IS, MORE_THAN_THERE_IS]
        num_rows = 4096
        units = int(SHARE_OF_HIDDEN * (total_mib << 20) / (4 * num_rows * NUM_WIDE))
        shape = {"units": units, "num_rows": num_rows}
    with tempfile.TemporaryDirectory() as name:
        statuses, said = run_wide(Path(name), told, gpus[:1], **shape)
    yield outcomes.judge_halving(by_estimate, statuses[told[0]], said, reason, must_be=True)
    if len(told) == 1:
        yield Outcome(by_device, "not seen", reason)
    else:  # XLA may find a way to do with less
        yield outcomes.judge_halving(by_device, statuses[told[1]], said, must_be=False)


def is_named(gpu: Gpu, name: str) -> bool:
    """Whether CUDA would take a name for this GPU: its index, or the beginning of its UUID."""
    return name == gpu.index or gpu.uuid.startswith(name)


def run_wide(
    folder: Path, told: list[str], gpus: list[str], *, units: int, num_rows: int
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """What was told of free memory -> pack -> statuses; and the log's lines about packs."""
    model = {"builder": "watched_job.py:build", "args": {"units": units, "free": told[0]}}
    search = {"parameters": {"model.args.free": {"values": told}}}
    training = JOB["training"] | {"batch_size": num_rows, "epochs": 1}
    job = JOB | {"model": model, "search": search, "training": training, "seeds": NUM_WIDE}
    run = run_job(
        *(folder, job),
        num_rows=num_rows,
        max_trials_per_pack=NUM_WIDE,
        gpus=gpus,
        num_logical=1,
    )
    trials = trialrun.open_run(run).trials
    by_free = trials.get("param.model.args.free", trials["status"].map(lambda _: told[0]))
    statuses = {
        free: trials[by_free == free].groupby("pack_id")["status"].agg(list).to_dict()
        for free in told
    }
    log = (run / "run.log").read_text()
    return statuses, re.findall(r"tasks: (\S+: .*trying again in halves)", log)


def run_job(
    folder: Path,
    job: Mapping[str, Any],
    *,
    num_rows: int,
    max_trials_per_pack: int,
    gpus: list[str],
    num_logical: int,
) -> Path:
    """The folder of a finished run of a job, on the GPUs given, or else on logical ones.

    Raises:
        RuntimeError: The command failed; with the end of what it said.
    """
    (folder / MODULE.name).write_text(MODULE.read_text())
    args = {"num_rows": num_rows, "num_features": 8}
    content = dict(job)
    content["data"] = {**job["data"], "args": args}
    content["resources"] = {**job["resources"], "max_trials_per_pack": max_trials_per_pack}
    (folder / "job.yaml").write_text(json.dumps(content))  # JSON is YAML
    command = [sys.executable, "-m", "trialrun", "run", str(folder / "job.yaml")]
    done = subprocess.run(
        [*command, "--runs-dir", str(folder / "runs")],
        env=environment_of(gpus, num_logical),
        capture_output=True,
        text=True,
    )
    runs = list(folder.glob("runs/*/*"))
    if done.returncode not in (0, 1) or not runs:  # 1: trials failed, which the rows tell
        raise RuntimeError(f"trialrun ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return runs[0]


def environment_of(gpus: list[str], num_logical: int) -> dict[str, str]:
    """The variables of a run on these GPUs, or else on GPUs that Ray only counts."""
    if gpus:
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    own = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return own | {"RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": num_logical})}


if __name__ == "__main__":
    main()
