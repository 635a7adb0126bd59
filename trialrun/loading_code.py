"""The code that loads a saved model: what best/README.md says. What it says was run before."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trialrun.arrays import Arrays
from trialrun.job import ModelSpec
from trialrun.proof import SavedFormat
from trialrun.references import parse_reference
from trialrun.store import BestFiles

_TITLE = """# The best model

Each file below was loaded again when it was written, by a process that did not train it, and gave
the predictions of the trained trial.
`preprocessing.json` turns raw input into the model's input: `x * scale + offset` per feature. Where
it has `columns`, these make the features of a table's columns: a number is one feature, and `fill`
where it is missing; `onehot` is a 0 or 1 for each of `categories`, `ordinal` the place in them from
1. What the training rows did not hold (`is_known`) is 0 in both. `dialect` says how the training
file was written, where that is not the default. Its `task` says what the outputs are: `logits`
become probabilities by a softmax (`multiclass`) or a sigmoid.
"""
_END = """
From raw input, through the saved preprocessing: `trialrun predict RUN --input FILE.csv`.

A model file from somebody else can run code when Keras loads it. `trialrun.load_model` looks first,
and refuses what is neither Keras's own nor registered by your program. Where a file names classes
of your own, import the module that registers them first; `Run.best` and `trialrun predict` do it,
and call the job's builder where no file holds the model: only if its source lies where the job
found it, is what it was, and is neither in the run folder nor in an installed package.
"""


def how_to_load(files: BestFiles, formats: Sequence[SavedFormat], builder_code: str) -> str:
    """The content of best/README.md.

    Args:
        files: The paths.
        formats: What became of each.
        builder_code: From `code_with_builder`.
    """
    proved = {one.name: one for one in formats if one.is_proved}
    blocks = ["import keras\nimport trialrun"]
    if ".h5" in proved:
        blocks += [_of_h5(files, is_compiled=not proved[".h5"].note)]
    if ".json" in proved:
        blocks += [_of_parts(files)]
    if ".keras" in proved:
        blocks += [_of_keras(files, is_compiled=not proved[".keras"].note)]
    if ".weights.h5" in proved and len(proved) == 1:
        comment = "# The job's builder makes the model, the file holds its weights."
        blocks += [f"{comment}\n{builder_code}"]
    by_note: dict[str, list[str]] = {}
    for one in formats:
        if one.note:
            note = one.note if one.is_proved else f"not saved: {one.note}"
            by_note.setdefault(note, []).append(f"`{one.file}`")
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
        return f"# Whole model (legacy HDF5), to be compiled anew.\n{load}"
    return (
        "# Whole model (legacy HDF5): architecture, weights, loss and metrics.\n"
        f"{load}\n"
        "# The same, with the optimizer's state too (Keras 3.15 leaves it behind):\n"
        f'model = trialrun.load_model("{files.model_h5.name}")'
    )


def _of_parts(files: BestFiles) -> str:
    return (
        "# Architecture and weights apart.\n"
        f'with open("{files.architecture.name}") as file:\n'
        "    model = keras.models.model_from_json(file.read())\n"
        f'model.load_weights("{files.weights.name}")'
    )


def _of_keras(files: BestFiles, *, is_compiled: bool) -> str:
    what = "architecture, weights, optimizer state" if is_compiled else "to be compiled anew"
    return (
        f"# Keras's current native format: {what}.\n"
        f'model = keras.models.load_model("{files.model_keras.name}")'
    )


def code_with_builder(model: ModelSpec, x: Arrays, weights: Path) -> str:
    """Code without trialrun that makes a model by the job's builder and loads its weights.

    Args:
        model: The job's section, of the trial.
        x: Inputs like those that it was built for.
        weights: The file; it is found beside the code.
    """
    reference = parse_reference(model.builder)
    arguments = f"(**{dict(model.args)!r})"
    if reference.is_file:  # its name may be no module's, or another module's
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
            f"model({_tensors(x)})  # builds what waits for its first input",
            f'model.load_weights("{weights.name}")',
        ]
    )


def run_code(code: str, folder: Path) -> Any:
    """What code calls `model`, after it was run in a folder."""
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(compile(f"import keras\n{code}", "README.md", "exec"), names)
    return names["model"]


def _tensors(x: Arrays) -> str:
    """Symbolic inputs, as they are written in Python."""
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{name!r}: {_tensors(one)}" for name, one in x.items()) + "}"
    if isinstance(x, tuple):
        return "(" + ", ".join(map(_tensors, x)) + ",)"
    shape = ", ".join(["None", *map(str, x.shape[1:])])
    dtype = "string" if x.dtype == object else str(x.dtype)
    return f"keras.KerasTensor(({shape},), {dtype!r})"
