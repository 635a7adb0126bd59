"""What stands in `training`, trained by the fused engine and by plain `model.fit`, and compared."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import oracle_cases_training as table
from oracle_cases_training import TRAINING_CASES, TrainingCase

from trialrun.datasets import Splits, load_splits
from trialrun.document import write_yaml
from trialrun.identity import signature_of
from trialrun.job import load_job
from trialrun.plan import Pack, Trial, plan_trials
from trialrun.training import PackTask
from trialrun.training.compiled import train_compiled
from trialrun.training.keras_fit import train_keras
from trialrun.training.randomness import BatchOrders
from trialrun.training.reports import Reports
from trialrun.training.trained import TrainedTrial, load_pack_data


def compare_training(name: str, folder: Path, engine: str = "") -> tuple[float, float]:
    """The largest differences of weights and of logs from `model.fit`, of the second of two trials.

    The engine is the case's own, unless another is named.

    Raises:
        CannotFuse: The engine cannot train the case.
    """
    case = TRAINING_CASES[name]
    trials = plan_case(case, folder)
    trained = _train(trials, folder, engine or case.engine)[1]
    weights, logs = _train_plainly(case, trials[1], folder)
    own = [*trained.trainable, *trained.non_trainable]
    own_logs = {**trained.history, **{f"test_{k}": v for k, v in trained.test_logs.items()}}
    assert own_logs.keys() == logs.keys(), (sorted(own_logs), sorted(logs))
    return _largest(own, weights), _largest(
        [own_logs[log] for log in sorted(logs)], [logs[log] for log in sorted(logs)]
    )


def plan_case(case: TrainingCase, folder: Path) -> tuple[Trial, ...]:
    """The trials of a case, of a job that is written into a folder."""
    module = table.__file__
    job = {
        "name": "oracle",
        "seeds": [3, 11],
        "data": {"generator": f"{module}:{case.generator}", "scaling": "none"},
        "model": {"builder": f"{module}:{case.builder}"},
        "training": {
            "learning_rate": table.RATE,
            "batch_size": table.BATCH_SIZE,
            "epochs": table.EPOCHS,
            **case.training,
        },
    }
    (folder / "job.yaml").write_text(write_yaml(job))
    return plan_trials(load_job(folder / "job.yaml").spec)


def _train(trials: tuple[Trial, ...], folder: Path, engine: str) -> list[TrainedTrial]:
    pack = Pack("p000", signature_of(trials[0].variant), trials)
    task = PackTask(pack, folder, load_job(folder / "job.yaml").spec.select)
    data, _ = load_pack_data(trials, folder)
    reports = Reports(lambda: False)
    if engine == "keras":
        training = train_keras(task, data, {}, reports)
    else:
        training = train_compiled(task, data, engine, {}, reports)
    while True:
        try:
            next(training)
        except StopIteration as end:
            return end.value


def _train_plainly(
    case: TrainingCase, trial: Trial, folder: Path
) -> tuple[list[np.ndarray], Mapping[str, Any]]:
    splits = load_splits(trial.variant.data, folder, trial.seed)
    keras.utils.set_random_seed(trial.seed)
    model = getattr(table, case.builder)()
    model.compile(**case.compile(), jit_compile=False)
    if case.is_built_first:
        model.optimizer.build(model.trainable_variables)
    fitted = model.fit(
        _batches(trial.seed, splits, case.class_weight),
        steps_per_epoch=table.STEPS_PER_EPOCH,
        epochs=table.EPOCHS,
        validation_data=_as_lists(splits.part("val")),
        validation_batch_size=table.BATCH_SIZE,
        shuffle=False,
        verbose=0,
    )
    x, y, *weights = _as_lists(splits.part("test"))
    test_logs = model.evaluate(
        x,
        y,
        sample_weight=weights[0] if weights else None,
        batch_size=table.BATCH_SIZE,
        return_dict=True,
        verbose=0,
    )
    logs = {**fitted.history, **{f"test_{name}": value for name, value in test_logs.items()}}
    return [v.numpy() for v in (*model.trainable_variables, *model.non_trainable_variables)], logs


def _as_lists(data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Data of two outputs without names: Keras 3.15 cannot evaluate weights otherwise."""
    x, y, *weights = data
    if not isinstance(y, dict) or not weights:
        return data
    return x, list(y.values()), weights * len(y)


def _batches(
    seed: int, splits: Splits, class_weight: Mapping[int, float] | None
) -> Iterator[tuple[Any, ...]]:
    """A trial's batches, each epoch in the order of that trial."""
    rows = splits.part("train")
    if class_weight is not None:
        rows += (np.array([class_weight.get(int(y), 1.0) for y in splits.y_train], "float32"),)
    num_rows = len(splits.x_train)
    orders = BatchOrders([seed], num_rows)
    for _ in range(table.EPOCHS):
        (order,) = orders.next_epoch()
        for start in range(0, num_rows, table.BATCH_SIZE):
            taken = order[start : start + table.BATCH_SIZE]
            yield keras.tree.map_structure(lambda array, taken=taken: array[taken], rows)


def _largest(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest difference, of numbers above 1 (a mape is a percentage) their relative one."""
    assert len(ours) == len(theirs)
    pairs = [
        (np.asarray(a, "float64"), np.asarray(b, "float64"))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return max(float((np.abs(a - b) / np.maximum(1, np.abs(b))).max()) for a, b in pairs)
