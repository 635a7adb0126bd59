"""Saves a trial's model, made again from its kept state; or tries to save it before training.

This runs where TensorFlow may be imported: in the export process, and for `plan --trace`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.data.load import load_splits
from trialrun.data.model_task import task_of
from trialrun.data.scaling import scalers_to_json
from trialrun.data.splits import Splits, steps_per_epoch
from trialrun.errors import ExportError, InputError
from trialrun.export.check import (
    SavedFormat,
    differs,
    evaluate,
    expect,
    expect_untrained,
    save_and_prove,
)
from trialrun.export.loading_code import code_with_builder, how_to_load, run_code
from trialrun.export.rebuild import rebuild, write_builder
from trialrun.job import Settings, load_job, settings_of
from trialrun.job.user_code.frames import told
from trialrun.statistics.probabilities import ProbabilityScores
from trialrun.store import RunFolder
from trialrun.store.best_files import BestFiles
from trialrun.store.files import write_json, write_text
from trialrun.trials.results import TrialState

if TYPE_CHECKING:
    import keras

_NUM_ROWS_TRIED = 10


def try_untrained(run: str, parameters: Mapping[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Answers of the export process, one per format; see `ExportProcess.try_untrained`."""
    job = load_job(RunFolder.open(run).job_file)
    settings = settings_of(job.spec, parameters)
    splits = _load_splits(settings, job.folder, seed)
    for saved in try_formats(settings, job.folder, splits):
        yield {"format": saved.to_json()}
    yield {}


def try_formats(settings: Settings, job_folder: Path, splits: Splits) -> list[SavedFormat]:
    """Saves the untrained model of a variant to a temporary folder and loads each format.

    Args:
        settings: The settings of the variant.
        job_folder: The folder to which paths of the user's files are relative.
        splits: Data for which the model is built; its first rows are enough.

    Raises:
        InputError: The data or the model is wrong.
    """
    import keras

    model = _build(settings, job_folder, splits)
    model.optimizer.build(model.trainable_variables)
    x = keras.tree.map_structure(lambda array: array[:_NUM_ROWS_TRIED], splits.x_train)
    with tempfile.TemporaryDirectory(prefix="trialrun-save-") as folder:
        files = BestFiles(Path(folder), "model")
        return list(save_and_prove(model, files, expect_untrained(model, x), None))


def save_best(
    run: str, parameters: Mapping[str, Any], trial_id: str, metrics: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Answers of the export process, one per format, then the rest; see `ExportProcess.export`."""
    folder = RunFolder.open(run)
    job = load_job(folder.job_file)
    settings = settings_of(job.spec, parameters)
    files = folder.best(job.spec.name)
    for path in files.all_paths:
        path.unlink(missing_ok=True)  # from an earlier winner, before seeds were added
    state = folder.kept.read_state(trial_id)
    splits = _load_splits(settings, job.folder, state.seed)
    model = _build(settings, job.folder, splits)
    _restore(model, state)
    batch_size = settings.training.batch_size
    steps = steps_per_epoch(splits, batch_size)
    write_json(files.preprocessing, _preprocessing(model, splits, settings))
    write_builder(files, settings, trial_id=trial_id, x=splits.x_test, steps_per_epoch=steps)
    logs, notes = _logs(model, splits, settings, metrics)
    expected = expect(model, splits, state.test_predictions, logs=logs, batch_size=batch_size)
    code = code_with_builder(settings.model, splits.x_test, files.weights)

    def rebuild_from_weights() -> "keras.Model":
        """The model made by the code of README.md and then, unless refused, as `Run.best` does."""
        model = run_code(code, files.folder)
        try:
            return rebuild(files)
        except InputError as error:
            notes.append(str(error))
            return model

    formats = []
    for saved in save_and_prove(model, files, expected, rebuild_from_weights):
        formats.append(saved)
        yield {"format": saved.to_json()}
    write_text(files.readme, how_to_load(files, formats, code))
    yield {"summary": _summary(model), "notes": notes}


def _load_splits(settings: Settings, job_folder: Path, seed: int) -> Splits:
    from trialrun.training.model.lookups import looked_up_features

    looked_up = looked_up_features(settings.model, job_folder)
    return load_splits(settings.data, job_folder, seed, looked_up)


def _build(settings: Settings, job_folder: Path, splits: Splits) -> "keras.Model":
    import keras

    from trialrun.training.model.build import build_model, compile_model

    # Another model may have been built before; names of layers must begin with their first number.
    keras.utils.clear_session(free_memory=False)
    model = build_model(settings.model, job_folder, splits.x_train)
    steps = steps_per_epoch(splits, settings.training.batch_size)
    compile_model(model, settings.training, steps, splits.x_train)
    return model


def _restore(model: "keras.Model", state: TrialState) -> None:
    """Gives the model the variables of the trained trial."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    for kind, variables, arrays in (
        ("trainable", model.trainable_variables, state.trainable),
        ("non-trainable", model.non_trainable_variables, state.non_trainable),
        ("optimizer", model.optimizer.variables, state.optimizer),
    ):
        if len(variables) != len(arrays):
            raise ExportError(
                f"the model that the job's builder makes has {len(variables)} {kind} variables, but"
                f" the trained one had {len(arrays)}"
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)


def _preprocessing(model: "keras.Model", splits: Splits, settings: Settings) -> dict[str, Any]:
    from trialrun.training.model.outputs import output_losses

    task = task_of(output_losses(model, model.loss, splits.x_train, splits.y_train))
    return {
        "scalers": scalers_to_json(splits.scalers),
        "task": task.to_json(),
        "class_names": list(splits.class_names),
        "feature_names": list(splits.feature_names),
        **({} if splits.encoder is None else {"columns": splits.encoder.to_json()}),
        "dialect": settings.data.dialect.to_json(),
    }


def _logs(
    model: "keras.Model", splits: Splits, settings: Settings, metrics: Mapping[str, float]
) -> tuple[dict[str, float], list[str]]:
    """Keras's logs on the test set that a saved model must give too, and notes on odd ones."""
    from trialrun.training.model.build import forgets_loss_arguments

    try:
        logs = evaluate(model, splits, settings.training.batch_size)
    except Exception as error:  # raised by the user's own test_step
        return {}, [f"metrics were not compared: Keras cannot evaluate the model: {told(error)}"]
    logs = {name: float(np.asarray(value)) for name, value in logs.items() if np.ndim(value) == 0}
    odd = [
        f"{name} of the model is {logs.get(name.removeprefix('test_'))}, its trial's row says"
        f" {value}: it is random, or depends on what was evaluated before"
        for name, value in metrics.items()
        if not _is_ours(name, settings) and differs(logs.get(name.removeprefix("test_")), value)
    ]
    if forgets_loss_arguments(settings.training):
        logs = {name: value for name, value in logs.items() if not name.endswith("loss")}
    return logs, odd


def _is_ours(metric: str, settings: Settings) -> bool:
    """Whether a metric was computed by trialrun from predictions, and not by Keras."""
    name = metric.removeprefix("test_")
    return name in ProbabilityScores._fields and name not in settings.training.logs


def _summary(model: "keras.Model") -> str:
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=80)
    return "\n".join(lines)
