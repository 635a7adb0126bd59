"""The oracle's table: cases of models, and cases of what stands in a job's `training`.

A case of `training` is given in the job's words, its model by the same in plain Keras's; its name
begins with `job_`. That of a case with training steps of its own begins with `step_`, with metrics
of its own with `metric_`, with code that draws from `tf.random` with `draws_`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import oracle_cases
import oracle_cases_draws
import oracle_cases_images
import oracle_cases_metrics
import oracle_cases_steps
import oracle_cases_training
from oracle import Line, Plain, fit_plainly
from oracle_cases import CASES, Case
from oracle_cases_control import CONTROL_CASES
from oracle_cases_draws import DRAW_CASES
from oracle_cases_images import IMAGE_CASES
from oracle_cases_metrics import METRIC_CASES, METRIC_JOBS
from oracle_cases_steps import STEP_CASES, StepCase
from oracle_cases_training import TRAINING_CASES, TrainingCase

from trialrun.job import load_job
from trialrun.job.document import write_yaml
from trialrun.job.user_code.functions import load_function
from trialrun.trials.plan import plan_trials
from trialrun.trials.trial import Trial


def _line(module: Any, name: str, case: Case | StepCase) -> Line:
    return Line(
        case.kind,
        case.engine,
        case.tolerance,
        partial(_plan, module.__file__, name, getattr(case, "select", "val_loss")),
        lambda trial, folder: fit_plainly(case.build, trial, folder),
    )


def _plan(
    module: str, name: str, select: str, folder: Path, num_trials: int, engine: str
) -> tuple[Trial, ...]:
    job = {
        "name": "oracle",
        "seeds": num_trials,
        "data": {"generator": f"{module}:data", "args": {"case": name}, "scaling": "none"},
        "model": {"builder": f"{module}:build", "args": {"case": name}},
        "training": {
            "batch_size": oracle_cases.BATCH_SIZE,
            "epochs": oracle_cases.EPOCHS,
            "engine": engine,
        },
        "select": {"metric": select, "goal": "minimize"},
    }
    return _planned(job, folder)


def training_line(case: TrainingCase) -> Line:
    """The line of a case of what stands in `training`."""
    plan, train = partial(_plan_training, case), partial(_train_plainly, case)
    return Line(case.kind, case.engine, case.tolerance, plan, train)


def _plan_training(
    case: TrainingCase, folder: Path, num_trials: int, engine: str
) -> tuple[Trial, ...]:
    job = {
        "name": "oracle",
        "seeds": num_trials,
        "data": {"generator": _reference(case.generator), "scaling": "none"},
        "model": {"builder": _reference(case.builder)},
        "training": {
            "learning_rate": oracle_cases_training.RATE,
            "batch_size": oracle_cases_training.BATCH_SIZE,
            "epochs": oracle_cases_training.EPOCHS,
            "engine": engine,
            **case.training,
        },
    }
    return _planned(job, folder)


def _reference(function: str) -> str:
    return function if ":" in function else f"{oracle_cases_training.__file__}:{function}"


def _planned(job: dict[str, object], folder: Path) -> tuple[Trial, ...]:
    (folder / "job.yaml").write_text(write_yaml(job))
    return plan_trials(load_job(folder / "job.yaml").spec)


def _train_plainly(case: TrainingCase, trial: Trial, folder: Path) -> Plain:
    def build() -> keras.Model:
        model = load_function(_reference(case.builder), folder)()
        model.compile(**case.compile(), jit_compile=False)
        if case.is_built_first:
            model.optimizer.build(model.trainable_variables)
        return model

    callbacks = case.callbacks()
    return fit_plainly(build, trial, folder, class_weight=case.class_weight, callbacks=callbacks)


TABLE: dict[str, Line] = {
    **{name: _line(oracle_cases, name, case) for name, case in CASES.items()},
    **{name: _line(oracle_cases_images, name, case) for name, case in IMAGE_CASES.items()},
    **{f"draws_{name}": _line(oracle_cases_draws, name, case) for name, case in DRAW_CASES.items()},
    **{f"step_{name}": _line(oracle_cases_steps, name, case) for name, case in STEP_CASES.items()},
    **{
        f"metric_{name}": _line(oracle_cases_metrics, name, case)
        for name, case in METRIC_CASES.items()
    },
    **{
        f"job_{name}": training_line(case)
        for name, case in (TRAINING_CASES | CONTROL_CASES | METRIC_JOBS).items()
    },
}
