"""Cases of the oracle trained twice, by trialrun and by plain `model.fit`, and compared."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from oracle_cases import BATCH_SIZE, CASES, EPOCHS, Case
from training_jobs import returned

from trialrun.datasets import Splits, load_splits
from trialrun.document import write_yaml
from trialrun.identity import signature_of
from trialrun.job import load_job
from trialrun.plan import Pack, Trial, plan_trials
from trialrun.training import PackTask
from trialrun.training.pack import choose_and_train
from trialrun.training.randomness import BatchOrders
from trialrun.training.reports import Reports
from trialrun.training.trained import TrainedTrial, load_pack_data


class Comparison(NamedTuple):
    """What came out.

    Attributes:
        engine: That trained the case.
        reason: Why not a better one.
        weights, logs: The largest absolute differences from `model.fit`.
        seconds, plain_seconds: Per trial and epoch in steady state; NaN where not measured.
    """

    engine: str
    reason: str
    weights: float
    logs: float
    seconds: float
    plain_seconds: float


def compare(
    name: str, folder: Path, *, num_trials: int = 2, engine: str = "auto", timed: bool = False
) -> Comparison:
    """One case: the first and the last of so many trials against plain Keras."""
    case = CASES[name]
    trials = _plan(name, folder, num_trials, engine)
    task = PackTask(
        Pack("p000", signature_of(trials[0].variant), trials),
        folder,
        load_job(folder / "job.yaml").spec.select,
    )
    used, reason, trained, seconds = _train(task)
    if timed and used != "keras":
        seconds = _train(task)[3]  # the program is compiled
    plain_seconds = np.inf
    weights = logs = 0.0
    for index in {0, num_trials - 1}:
        plain = Plain(case, trials[index], folder)
        plain_seconds = min(plain_seconds, plain.seconds_per_epoch)
        weights = max(weights, _largest(_weights(trained[index]), plain.weights))
        logs = max(logs, _largest_of_logs(trained[index].history, plain.history))
        logs = max(logs, _largest_of_logs(trained[index].test_logs, plain.test_logs))
    return Comparison(
        used, reason, weights, logs, seconds / (num_trials * EPOCHS), float(plain_seconds)
    )


def _plan(name: str, folder: Path, num_trials: int, engine: str) -> tuple[Trial, ...]:
    cases = Path(__file__).with_name("oracle_cases.py")
    job = {
        "name": "oracle",
        "seeds": num_trials,
        "data": {"generator": f"{cases}:data", "args": {"case": name}, "scaling": "none"},
        "model": {"builder": f"{cases}:build", "args": {"case": name}},
        "training": {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "engine": engine},
    }
    (folder / "job.yaml").write_text(write_yaml(job))
    return plan_trials(load_job(folder / "job.yaml").spec)


def _train(task: PackTask) -> tuple[str, str, list[TrainedTrial], float]:
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    timings_s: dict[str, float] = {}
    engine, reason, trained = returned(
        choose_and_train(task, data, timings_s, Reports(lambda: False))
    )
    return engine, reason, trained, timings_s["train"]


def _batches(seed: int, splits: Splits) -> Iterator[Any]:
    """A trial's batches, each epoch in the order of that trial."""
    num_rows = len(keras.tree.flatten(splits.y_train)[0])
    orders = BatchOrders([seed], num_rows)
    for _ in range(EPOCHS):
        (order,) = orders.next_epoch()
        for start in range(0, num_rows, BATCH_SIZE):
            taken = order[start : start + BATCH_SIZE]
            yield keras.tree.map_structure(
                lambda rows, taken=taken: rows[taken], (splits.x_train, splits.y_train)
            )


class _Clock(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.epochs_s: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs_s.append(time.perf_counter() - self._start)


class Plain:
    """One trial of a case, trained as anyone would write it."""

    def __init__(self, case: Case, trial: Trial, folder: Path) -> None:
        splits = load_splits(trial.variant.data, folder, trial.seed)
        keras.utils.set_random_seed(trial.seed)
        model = case.build()
        clock = _Clock()
        self.history: Mapping[str, Sequence[float]] = model.fit(
            _batches(trial.seed, splits),
            steps_per_epoch=-(-len(keras.tree.flatten(splits.y_train)[0]) // BATCH_SIZE),
            epochs=EPOCHS,
            shuffle=False,
            validation_data=(splits.x_val, splits.y_val),
            validation_batch_size=BATCH_SIZE,
            callbacks=[clock],
            verbose=0,
        ).history
        self.weights = [
            variable.numpy()
            for variable in (*model.trainable_variables, *model.non_trainable_variables)
        ]
        self.test_logs = model.evaluate(
            splits.x_test, splits.y_test, batch_size=BATCH_SIZE, return_dict=True, verbose=0
        )
        self.seconds_per_epoch = min(clock.epochs_s[1:])


def _weights(trained: TrainedTrial) -> list[np.ndarray]:
    return [*trained.trainable, *trained.non_trainable]


def _largest(arrays: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    differences = (
        np.abs(array.astype("float64") - other.astype("float64"))
        for array, other in zip(arrays, expected, strict=True)
    )
    return max((float(of_one.max(initial=0.0)) for of_one in differences), default=0.0)


def _largest_of_logs(logs: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    assert logs.keys() == expected.keys(), (set(logs), set(expected))
    return max(
        float(np.abs(np.asarray(logs[name], float) - np.asarray(expected[name], float)).max())
        for name in expected
    )
