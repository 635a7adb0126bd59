"""The job file at the door: read, overridden, checked as a whole, written back.

`load_job` finds everything that can be known without importing TensorFlow or running the user's
code, and names file, line and field of all that is wrong. Behind it nothing is checked again and
nothing is changed. The fields themselves are in `trialrun.specs`, their checks as a whole in
`trialrun.jobchecks`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trialrun.compilation import Goal, Statistic
from trialrun.dataspec import DataSpec
from trialrun.document import (
    Document,
    KeyPath,
    parse_value,
    plain,
    read_document,
    show,
    write_yaml,
)
from trialrun.errors import InputError
from trialrun.jobchecks import check_whole, to_problems
from trialrun.specs import (
    REFERENCE_PATHS,
    EarlyStoppingSpec,
    JobSpec,
    ModelSpec,
    OutputSpec,
    ParameterSpec,
    Range,
    ReduceLROnPlateauSpec,
    ResourcesSpec,
    SearchSpec,
    SelectSpec,
    Settings,
    TrainingSpec,
    Values,
    monitors_of,
    settings_of,
)

__all__ = [
    "REFERENCE_PATHS",
    "DataSpec",
    "EarlyStoppingSpec",
    "Goal",
    "JobSpec",
    "LoadedJob",
    "ModelSpec",
    "OutputSpec",
    "ParameterSpec",
    "Range",
    "ReduceLROnPlateauSpec",
    "ResourcesSpec",
    "SearchSpec",
    "SelectSpec",
    "Settings",
    "Statistic",
    "TrainingSpec",
    "Values",
    "dump_job",
    "load_job",
    "monitors_of",
    "read_output",
    "settings_of",
]


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job that is right, and where it came from.

    Attributes:
        spec: The job with every default filled in and paths of Python files made absolute.
        path: The job file as it was given.
        folder: The job file's folder, absolute.
        document: What the file says, and at which lines.
    """

    spec: JobSpec
    path: Path
    folder: Path
    document: Document

    def locate(self, message: str) -> str:
        """A message that begins with a field's dotted path, with the field's place before it."""
        field = message.split(" ", 1)[0].rstrip(":,")
        return f"{self.document.place(_split_key(field))}: {message}"


def load_job(path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> LoadedJob:
    """The job in a file.

    Args:
        path: A YAML file.
        overrides: Dotted path -> value, or texts `path=value` with the value written as in YAML.

    Raises:
        InputError: The file or an override is wrong; one line for each thing that is.
    """
    path = Path(path)
    folder = path.absolute().parent
    document = _override(read_document(path), overrides)
    try:
        spec = JobSpec.model_validate(document.value, context={"folder": folder})
        problems = list(check_whole(spec, folder))
    except ValidationError as error:
        problems = list(to_problems(error))
    if problems:
        lines = [f"{document.place(problem.path)}: {problem.message}" for problem in problems]
        raise InputError("\n".join(dict.fromkeys(lines)))
    return LoadedJob(spec=spec, path=path, folder=folder, document=document)


def dump_job(spec: JobSpec) -> str:
    """YAML text with every default filled in; loading it from any folder gives the job again."""
    return write_yaml(spec.model_dump())


def read_output(job: Mapping[str, Any], path: Path) -> OutputSpec:
    """The section `output` of a resolved job, whose other files and functions may be gone.

    Args:
        job: What the file holds; jobs of older versions have no such section.
        path: The file.

    Raises:
        InputError: Somebody edited it, and it is wrong.
    """
    context = {"folder": path.absolute().parent}
    try:
        return OutputSpec.model_validate(job.get("output", {}), context=context)
    except ValidationError as error:
        problems = to_problems(error, around=("output",))
        raise InputError("\n".join(f"{path}: {one.message}" for one in problems)) from error


# Overrides -------------------------------------------------------------------------------------


def _override(document: Document, overrides: Mapping[str, Any] | Sequence[str]) -> Document:
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            place = f"override {key}={show(value)}"
            document = document.with_value(_split_key(key), plain(value, place), place)
        return document
    for text in overrides:
        place = f"--set {text}"
        key, equals, value_text = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{place}: expected key=value, e.g. --set training.epochs=10")
        value = parse_value(value_text, place)
        document = document.with_value(_split_key(key.strip()), value, place)
    return document


def _split_key(key: str) -> KeyPath:
    """The keys of a dotted path. What `search.parameters` holds are dotted paths themselves."""
    prefix = "search.parameters."
    if not key.startswith(prefix):
        return tuple(key.split("."))
    rest = key.removeprefix(prefix)
    parameter, _, last = rest.rpartition(".")
    is_field = last in {**Values.model_fields, **Range.model_fields}
    return ("search", "parameters", *((parameter, last) if parameter and is_field else (rest,)))
