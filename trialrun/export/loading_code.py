"""best/README.md with the code that loads a saved model, all of which was run before."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trialrun.data.arrays import Arrays
from trialrun.export.check import SavedFormat
from trialrun.job import ModelSpec
from trialrun.job.user_code.functions import parse_reference
from trialrun.store.best_files import BestFiles

_TITLE = """# The best model

After each file below was written, a process that had not trained the model loaded it again and got
the predictions of the trained trial.
`preprocessing.json` turns raw input into the model's input: `x * scale + offset` per feature. If it
has `columns`, these turn the columns of a table into features: a `number` is one feature, or `fill`
if it is missing; `onehot` becomes a 0 or 1 for each of `categories`; `ordinal` becomes the position
among them, counted from 1. A category that no training row had (`is_known` is false) becomes 0 in
both. `dialect` says how the training file was written, if not in the default way. `task` says what
the model's outputs are: `logits` become probabilities by a softmax (`multiclass`) or a sigmoid.
"""
_END = """
To predict from raw input through the saved preprocessing: `trialrun predict RUN --input FILE.csv`.

A model file from somebody else can run code when Keras loads it. `trialrun.load_model` inspects the
file first and refuses classes that are neither Keras's own nor registered by your program. If a
file names classes of your own, import the module that registers them first. `Run.best` and
`trialrun predict` do this for you. If no file holds the model, they call the job's builder, but
only if its source code lies where the job found it, has not changed, and is neither in the run
folder nor in an installed package.
"""


def how_to_load(files: BestFiles, formats: Sequence[SavedFormat], builder_code: str) -> str:
    """The content of best/README.md.

    Args:
        files: The paths of the saved files.
        formats: The result of saving each format.
        builder_code: From `code_with_builder`.
    """
    proved = {saved.name: saved for saved in formats if saved.is_proved}
    blocks = ["import keras\nimport trialrun"]
    if ".h5" in proved:
        blocks += [_of_h5(files, is_compiled=not proved[".h5"].note)]
    if ".json" in proved:
        blocks += [_of_parts(files)]
    if ".keras" in proved:
        blocks += [_of_keras(files, is_compiled=not proved[".keras"].note)]
    if ".weights.h5" in proved and len(proved) == 1:
        comment = "# The job's builder makes the model; the file holds its weights."
        blocks += [f"{comment}\n{builder_code}"]
    by_note: dict[str, list[str]] = {}
    for saved in formats:
        if saved.note:
            reason = saved.note.partition("\n")[0]
            note = reason if saved.is_proved else f"not saved: {reason}"
            by_note.setdefault(note, []).append(f"`{saved.file}`")
    notes = [f"- {', '.join(names)}: {note}" for note, names in by_note.items()]
    return "\n".join(
        [
            _TITLE,
            "```python\n" + "\n\n".join(blocks) + "\n```",
            *(["", "About these files:", *notes] if notes else []),
            _END,
        ]
    )


def _of_h5(files: BestFiles, *, is_compiled: bool) -> str:
    load = f'model = keras.models.load_model("{files.model_h5.name}")'
    if not is_compiled:
        return f"# Whole model (legacy HDF5); compile it again before you train it.\n{load}"
    return (
        "# Whole model (legacy HDF5): architecture, weights, loss and metrics.\n"
        f"{load}\n"
        "# The same with the optimizer's state, which Keras 3.15 does not load:\n"
        f'model = trialrun.load_model("{files.model_h5.name}")'
    )


def _of_parts(files: BestFiles) -> str:
    return (
        "# Architecture and weights in separate files.\n"
        f'with open("{files.architecture.name}") as file:\n'
        "    model = keras.models.model_from_json(file.read())\n"
        f'model.load_weights("{files.weights.name}")'
    )


def _of_keras(files: BestFiles, *, is_compiled: bool) -> str:
    what = (
        ": architecture, weights, optimizer state"
        if is_compiled
        else "; compile it again before you train it"
    )
    return (
        f"# Keras's current native format{what}.\n"
        f'model = keras.models.load_model("{files.model_keras.name}")'
    )


def code_with_builder(model: ModelSpec, x: Arrays, weights: Path) -> str:
    """Code without trialrun that makes a model by the job's builder and loads its weights.

    Args:
        model: The section `model` of the trial's settings.
        x: Inputs like those for which the model was built.
        weights: The file of weights; the code expects it in the current folder.
    """
    reference = parse_reference(model.builder)
    arguments = f"(**{dict(model.args)!r})"
    # A file is run by its path: its name may not be a valid module name, or may be another's.
    if reference.is_file:
        folder = str(Path(reference.source).parent)
        lines = ["import runpy, sys", f"sys.path.insert(0, {folder!r})"]
        lines += [f"names = runpy.run_path({reference.source!r})"]
        lines += [f'model = names["{reference.function}"]{arguments}']
    else:
        lines = [f"from {reference.source} import {reference.function}"]
        lines += [f"model = {reference.function}{arguments}"]
    return "\n".join(
        [
            *lines,
            f"model({_tensors(x)})  # builds layers that wait for their first input",
            f'model.load_weights("{weights.name}")',
        ]
    )


def run_code(code: str, folder: Path) -> Any:
    """The variable `model` of code that is run in a folder."""
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(compile(f"import keras\n{code}", "README.md", "exec"), names)
    return names["model"]


def _tensors(x: Arrays) -> str:
    """Python code of symbolic inputs with the shapes and types of `x`."""
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{name!r}: {_tensors(array)}" for name, array in x.items()) + "}"
    if isinstance(x, tuple):
        return "(" + ", ".join(map(_tensors, x)) + ",)"
    shape = ", ".join(["None", *map(str, x.shape[1:])])
    dtype = "string" if x.dtype == object else str(x.dtype)
    return f"keras.KerasTensor(({shape},), {dtype!r})"
