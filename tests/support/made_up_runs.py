"""Results as training would give them, made up: for tests of what comes after training."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from trialrun.analysis.run_summary import Tally
from trialrun.analysis.summary_json import run_summary
from trialrun.analysis.variants import variant_rows
from trialrun.job import DataSpec, ModelSpec, TrainingSpec
from trialrun.store import RunFolder
from trialrun.store.columns import parameter_kinds
from trialrun.store.files import write_json
from trialrun.trials.results import PackResult, TrialResult, TrialState, TrialStatus
from trialrun.trials.trial import Trial, Variant

CLASS_NAMES = ("no_side_effects", "had_side_effects")
JOB = """\
name: {name}
select:
  metric: {metric}
  goal: {goal}
"""


def make_variants(assignments: Sequence[Mapping[str, Any]]) -> tuple[Variant, ...]:
    return tuple(
        Variant(f"v{index:02d}", parameters, DataSpec(), ModelSpec(), TrainingSpec())
        for index, parameters in enumerate(assignments)
    )


def learning_rates(*values: float) -> tuple[Variant, ...]:
    return make_variants([{"training.learning_rate": value} for value in values])


def trial_of(variant: Variant, seed: int) -> Trial:
    key = f"{variant.variant_id}/{seed}".encode()
    return Trial(f"{zlib.crc32(key):016x}", variant, seed)


def completed(
    variant: Variant,
    seed: int,
    *,
    pack_id: str = "p000",
    attempt: int = 0,
    epochs: int = 4,
    num_classes: int = 2,
    **metrics: float,
) -> TrialResult:
    """A trial with plausible numbers from its seed; `metrics` replace what the test is about."""
    rng = np.random.default_rng([seed, int(variant.variant_id[1:])])
    falling = np.float32(0.2 + 0.5 / np.arange(1, epochs + 1) + rng.normal(0, 0.01, epochs))
    rising = np.float32(1 - falling / 4)
    history = {"loss": falling, "accuracy": rising}
    history |= {f"val_{name}": values + np.float32(0.02) for name, values in history.items()}
    values = {
        f"{part}_{name}": float(history[name][-1]) + shift
        for part, shift in (("train", 0.0), ("val", 0.02), ("test", 0.03))
        for name in ("loss", "accuracy")
    }
    matrices = []
    for rows in (210, 420):
        labels = rng.integers(num_classes, size=rows)
        guesses = np.where(rng.random(rows) < 0.93, labels, rng.integers(num_classes, size=rows))
        matrices.append(confusion_matrix(labels, guesses, labels=range(num_classes)))
    return TrialResult(
        trial=trial_of(variant, seed),
        status="completed",
        engine="fused",
        pack_id=pack_id,
        attempt=attempt,
        epochs=epochs,
        duration_s=0.25,
        device="CPU",
        node="node1",
        metrics=values | metrics,
        history=history,
        val_confusion_matrix=matrices[0],
        test_confusion_matrix=matrices[1],
    )


def broken(
    variant: Variant,
    seed: int,
    status: TrialStatus = "failed",
    *,
    pack_id: str = "p000",
    attempt: int = 0,
    error: str = "",
) -> TrialResult:
    return TrialResult(trial_of(variant, seed), status, "", pack_id, attempt, error=error)


def state_of(result: TrialResult, dtype: Any = np.float32) -> TrialState:
    seed = result.trial.seed
    return TrialState(
        trial_id=result.trial.trial_id,
        seed=seed,
        trainable=(np.full((2, 3), seed, dtype), np.arange(3, dtype=dtype)),
        non_trainable=(),
        optimizer=(np.array(7, np.int64), np.ones((2, 3), np.float32)),
        test_predictions=np.full((4, 2), 0.5, np.float32),
    )


def write_run(
    runs_dir: Path,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    *,
    result_of: Callable[[Variant, int], TrialResult] = completed,
    name: str = "medical_trial",
    class_names: tuple[str, ...] = CLASS_NAMES,
    metric: str = "val_loss",
    goal: str = "minimize",
) -> RunFolder:
    """A run folder before its summary is written: one pack per variant, all ended."""
    folder = RunFolder.create(runs_dir, name)
    folder.write_job(JOB.format(name=name, metric=metric, goal=goal))
    for index, variant in enumerate(variants):
        pack_id = f"p{index:03d}"
        trials = tuple(replace(result_of(variant, seed), pack_id=pack_id) for seed in seeds)
        pack = PackResult(pack_id, trials, class_names=class_names, timings_s={"train": 1.5})
        folder.write_pack(pack, parameter_kinds(variants))
    return folder


def finish(folder: RunFolder, model_summary: str = "Total params: 642") -> RunFolder:
    """Writes variants.csv and summary.json of a run, as the driver does after the last trial."""
    standing = Tally(folder, **folder.read_job()["select"]).standing_without_matrices()
    folder.write_variants(variant_rows(standing.leaderboard))
    summary = run_summary(
        folder.read_job()["name"],
        standing,
        timings_s={"total": 14.25},
        model_summary=model_summary,
    )
    write_json(folder.summary_file, summary)
    return folder
