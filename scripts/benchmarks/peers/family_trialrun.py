"""One side of `family.py`: the engines `fused` and `mapped`, all trials in one pack."""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import one_core

one_core.pin()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TRIALRUN_CACHE_DIR"] = "off"  # the first call is to compile

from trialrun.training.internals.lean_import import importing_tensorflow  # noqa: E402

with importing_tensorflow():  # as a worker does
    import tensorflow as tf

import families  # noqa: E402
import numpy as np  # noqa: E402
import yaml  # noqa: E402

from trialrun.job import load_job  # noqa: E402
from trialrun.training.channel import Reports  # noqa: E402
from trialrun.training.compiled.prepare import prepare  # noqa: E402
from trialrun.training.pack import choose_and_train  # noqa: E402
from trialrun.training.pack_data import PackData, load_pack_data  # noqa: E402
from trialrun.training.program.program import CompiledEngine  # noqa: E402
from trialrun.trials.packing import pack_trials  # noqa: E402
from trialrun.trials.plan import plan_trials  # noqa: E402
from trialrun.trials.task import PackTask  # noqa: E402


def make_task(folder: Path, family: str, engine: str, num_trials: int) -> PackTask:
    """One pack of a job in this folder."""
    size = families.FAMILIES[family]
    shutil.copy(families.__file__, folder / "families.py")
    job = {
        "name": family,
        "seeds": num_trials,
        "data": {
            "generator": "families.py:data",
            "args": {"family": family},
            "seed": "per_trial",
            "scaling": "none",
        },
        "model": {"builder": "families.py:build", "args": {"family": family}},
        "training": {
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "batch_size": size.batch_size,
            "epochs": size.epochs,
            "engine": engine,
        },
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    loaded = load_job(folder / "job.yaml")
    trials = plan_trials(loaded.spec)
    (pack,) = pack_trials(trials, num_devices=1, max_trials_per_pack=num_trials)
    return PackTask(pack, loaded.folder, loaded.spec.select)


def core_seconds(task: PackTask, data: PackData) -> float:
    """Of training and evaluating the pack."""
    start = time.process_time()
    training = choose_and_train(task, data, {}, Reports(lambda: False))
    try:
        while True:
            next(training)
    except StopIteration as end:
        engine, reason, _ = end.value
        if engine != task.pack.trials[0].variant.training.engine:
            raise RuntimeError(f"trained by {engine}: {reason}") from None
        return time.process_time() - start


def core_seconds_of_epochs(task: PackTask, data: PackData, engine: CompiledEngine) -> float:
    """Of what `family_jax` times too: all epochs, from states and batch orders that are there."""
    prepared = prepare(task, data, engine, {})
    (own,) = prepared.slices
    orders = np.stack([own.orders.next_epoch() for _ in range(prepared.schedule.epochs)])

    def train() -> float:
        start = time.process_time()
        _, logs = prepared.program.train_epochs(own.state, own.train, tf.constant(orders), own.val)
        logs["loss"].numpy()  # waits for the end
        return time.process_time() - start

    train()  # compiles it for as many epochs in one call
    return min(train() for _ in range(3))


def main(family: str, num_trials: int) -> None:
    size = families.FAMILIES[family]
    steps = size.steps_per_epoch * size.epochs * num_trials
    us, first_s = {}, {}
    engines: tuple[CompiledEngine, ...] = ("fused", "mapped")
    for engine in engines:
        with tempfile.TemporaryDirectory() as folder:
            task = make_task(Path(folder), family, engine, num_trials)
            data, _ = load_pack_data(task.pack.trials, task.job_folder)
            first = core_seconds(task, data)
            first_s[engine] = first - min(core_seconds(task, data) for _ in range(3))
            us[engine] = core_seconds_of_epochs(task, data, engine) / steps * 1e6
    print(json.dumps({"us": us, "first_s": first_s}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
