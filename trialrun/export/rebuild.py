"""The best model of a run, loaded from its files, or made again by the job's own builder.

Loading a model file never runs code from the file. If the file names classes of the job, or Keras
could not save the whole model, the job's own Python files are imported and its builder is called.
A run folder from elsewhere must not be able to abuse this. Therefore the Python files must lie
where the job found them, outside of the run folder and of installed packages, and must not have
changed since the model was saved.
"""

import json
import sysconfig
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.data.arrays import Arrays
from trialrun.errors import FileError, InputError, TrialrunError
from trialrun.host import quiet_tensorflow
from trialrun.job import DataSpec, ModelSpec, Settings, TrainingSpec
from trialrun.job.user_code.files import source_digest
from trialrun.job.user_code.functions import (
    find_source,
    load_function,
    parse_reference,
    portable_reference,
)
from trialrun.messages import said_by
from trialrun.store import RunFolder
from trialrun.store.best_files import BestFiles
from trialrun.store.files import reading, write_text

if TYPE_CHECKING:
    import keras

_OWN_BUILDERS = "trialrun.models"


def write_builder(
    files: BestFiles, settings: Settings, *, trial_id: str, x: Arrays, steps_per_epoch: int
) -> None:
    """Writes best/builder.json, which holds all that is needed to make a trial's model again.

    Args:
        files: The paths of the best model's files.
        settings: The settings of the trial.
        trial_id: The trial.
        x: Inputs like those for which the model was built.
        steps_per_epoch: Batches per epoch, for learning rate schedules.
    """
    content = {
        "trial_id": trial_id,
        "model": settings.model.model_dump(),
        "training": settings.training.model_dump(),
        "steps_per_epoch": steps_per_epoch,
        "inputs": _inputs_to_json(x),
        "sources": {text: source_digest(text) for text in _functions(settings)},
    }
    write_text(files.builder, json.dumps(content, indent=2) + "\n")


def load_best_model(files: BestFiles, *, compiled: bool = True) -> "keras.Model":
    """The best model: from a whole file if there is one, else from its builder and its weights.

    Args:
        files: The paths of the best model's files.
        compiled: Whether the model must be compiled, so that its training can be continued.

    Raises:
        InputError: There is neither a file that can be loaded nor a builder that may be called.
    """
    with quiet_tensorflow():
        import keras  # noqa: F401
    for path in (files.model_keras, files.model_h5):
        if path.is_file():
            model = _load_whole(path, files)
            return model if model.compiled or not compiled else rebuild(files)
    return rebuild(files)


def _load_whole(path: Path, files: BestFiles) -> "keras.Model":
    from trialrun.export.load import load_model

    try:
        return load_model(path)
    except InputError:  # it names classes that this program has not registered
        if not files.builder.is_file():  # older runs lack this file
            raise
    for text in _own_functions(files, _read_builder(files), path.name):
        load_function(text, Path())
    return load_model(path)


def rebuild(files: BestFiles) -> "keras.Model":
    """The best model, made by the job's builder, with its weights, and compiled.

    The optimizer's state is restored if the run still keeps it.

    Raises:
        InputError: The weights or the builder are missing, or the builder has changed.
    """
    from trialrun.training.model.build import build_model, compile_model

    content = _read_builder(files)
    if not files.weights.is_file():
        raise InputError(f"{files.folder}: holds no file of the best model; see summary.json")
    _own_functions(files, content, files.weights.name)
    x = _inputs_from_json(content["inputs"])
    model = build_model(ModelSpec.model_validate(content["model"]), Path(), x)
    try:
        with warnings.catch_warnings():  # the file intentionally lacks the optimizer's state
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model.load_weights(files.weights)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{files.weights}: these are not the weights of the model that"
            f" {portable_reference(content['model']['builder'])} makes: {said_by(error)}"
        ) from error
    training = TrainingSpec.model_validate(content["training"])
    compile_model(model, training, content["steps_per_epoch"], x)
    _restore_optimizer(model, files, content["trial_id"])
    return model


def _restore_optimizer(model: "keras.Model", files: BestFiles, trial_id: str) -> None:
    kept = RunFolder(files.folder.parent).kept
    try:
        state = kept.read_state(trial_id)
    except TrialrunError:
        return  # the run no longer keeps the state, so that the optimizer starts from its beginning
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    if len(model.optimizer.variables) == len(state.optimizer):
        for variable, array in zip(model.optimizer.variables, state.optimizer, strict=True):
            variable.assign(array)


def _read_builder(files: BestFiles) -> dict[str, Any]:
    if not files.builder.is_file():
        raise InputError(f"{files.folder}: holds no file of the best model; see summary.json")
    with reading(files.builder):
        content: dict[str, Any] = json.loads(files.builder.read_text())
    needed = {"trial_id", "model", "training", "steps_per_epoch", "inputs", "sources"}
    if not needed <= content.keys():
        raise FileError(f"{files.builder}: cannot be read: it lacks {', '.join(sorted(needed))}")
    return content


# Whose code is run -------------------------------------------------------------------------------


def _functions(settings: Settings) -> Iterator[str]:
    """References to functions that make and compile the model: neither generator nor callbacks."""
    others = {settings.data.generator, *settings.training.callbacks}
    yield from (text for text in settings.references if text not in others)


def _own_functions(files: BestFiles, content: Mapping[str, Any], file_name: str) -> list[str]:
    """References to the user's own functions of a model.

    Raises:
        InputError: A function may not be imported and called.
    """
    model = ModelSpec.model_validate(content["model"])
    training = TrainingSpec.model_validate(content["training"])
    functions = list(dict.fromkeys(_functions(Settings(DataSpec(), model, training))))
    for text in functions:
        reason = _why_not(text, content["sources"].get(text), files.folder.parent)
        if reason:
            raise InputError(
                f"{files.folder / file_name}: loading it needs {portable_reference(text)}, which"
                f" {reason}. In Python, make the model with your builder and call"
                f' model.load_weights("{files.weights.name}"); best/README.md shows how'
            )
    return [text for text in functions if parse_reference(text).source != _OWN_BUILDERS]


def _why_not(text: str, digest: str | None, run: Path) -> str:
    """Why a function may not be imported and called; empty if it may."""
    reference = parse_reference(text)
    if reference.source == _OWN_BUILDERS:
        return ""
    try:
        path = find_source(reference, Path("/"))
    except InputError as error:
        return f"cannot be found: {error}"
    if path is None or not _is_users_own(path, run):
        return "is not in a file of yours: it lies in the run folder or in an installed package"
    if source_digest(text) != digest:
        return f"has changed since the model was saved ({path})"
    return ""


def _is_users_own(path: Path, run: Path) -> bool:
    path = path.resolve()
    installed = sysconfig.get_paths()
    homes = [Path(installed[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return not any(path.is_relative_to(home.resolve()) for home in (run, *homes))


# Inputs ------------------------------------------------------------------------------------------


def _inputs_to_json(x: Arrays) -> Any:
    """The shape per row and type of each array, as `{"array": [[6], "float32"]}`."""
    if isinstance(x, Mapping):
        return {"dict": {name: _inputs_to_json(array) for name, array in x.items()}}
    if isinstance(x, tuple):
        return {"tuple": [_inputs_to_json(array) for array in x]}
    return {"array": [list(x.shape[1:]), str(x.dtype)]}


def _inputs_from_json(content: Any) -> Any:
    """Arrays with one row of zeros or empty texts, in the structure that JSON describes."""
    if "dict" in content:
        return {name: _inputs_from_json(item) for name, item in content["dict"].items()}
    if "tuple" in content:
        return tuple(_inputs_from_json(item) for item in content["tuple"])
    shape, dtype = content["array"]
    if dtype == "object":  # texts
        return np.full((1, *shape), "", object)
    return np.zeros((1, *shape), np.dtype(dtype))
