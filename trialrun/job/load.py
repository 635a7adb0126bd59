"""The job file at the door: read, overridden, checked as a whole, written back.

`load_job` finds everything that can be known without importing TensorFlow or running the user's
code, and names file, line and field of all that is wrong. Behind it nothing is checked again and
nothing is changed. The fields themselves are in `job.spec`, and a key that is none of them is
refused by `job.fields`. Their checks as a whole are in `job.checks`, and the words for what is
wrong in `job.problems`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trialrun.errors import InputError
from trialrun.job.checks import check_whole
from trialrun.job.document import Document, KeyPath, parse_value, plain, read_document, write_yaml
from trialrun.job.problems import to_problems
from trialrun.job.search_spec import Range, SearchSpec, ValueList
from trialrun.job.spec import JobSpec, OutputSpec
from trialrun.job.variants_table import with_rows
from trialrun.messages import show

_MAX_PROBLEMS = 20
_Section = TypeVar("_Section", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job without errors, and where it came from.

    Attributes:
        spec: The job with every default filled in and with absolute paths of Python files.
        path: The job file as it was given.
        folder: The absolute path of the job file's folder.
        document: The content of the file, with the line of each value.
    """

    spec: JobSpec
    path: Path
    folder: Path
    document: Document

    def locate(self, message: str) -> str:
        """A message that begins with a field's dotted path, preceded by the field's location."""
        field = message.split(" ", 1)[0].rstrip(":,")
        return f"{self.document.location_of(_split_key(field))}: {message}"

    def of_all_shards(self) -> "LoadedJob":
        """The same job with all of its trials."""
        resources = self.spec.resources.model_copy(update={"shard": None})
        return replace(self, spec=self.spec.model_copy(update={"resources": resources}))


def load_job(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    shard: str | None = None,
) -> LoadedJob:
    """The job in a file.

    Args:
        path: A YAML file.
        overrides: Dotted path -> value, or texts `path=value` with the value written as in YAML.
        shard: The value of the option `--shard`, in the place of the file's `resources.shard`.

    Raises:
        InputError: The file or an override is wrong. The message has one line per problem.
    """
    path = Path(path)
    folder = path.absolute().parent
    document = with_rows(overridden(read_document(path), overrides), path.parent)
    if shard is not None:
        document = document.with_value(("resources", "shard"), shard, f"--shard {shard}")
    try:
        spec = JobSpec.model_validate(document.value, context={"folder": folder})
        problems = list(check_whole(spec, folder))
    except ValidationError as error:
        problems = list(to_problems(error))
    if problems:
        lines = [f"{document.location_of(problem.path)}: {problem.message}" for problem in problems]
        raise InputError("\n".join(_first(list(dict.fromkeys(lines)))))
    return LoadedJob(spec=spec, path=path, folder=folder, document=document)


def _first(lines: list[str]) -> list[str]:
    """The first of many lines, and how many there are besides: a table may be wrong in each row."""
    num_more = len(lines) - _MAX_PROBLEMS
    return [*lines[:_MAX_PROBLEMS], f"and {num_more:,} more problems"] if num_more > 1 else lines


def dump_job(spec: JobSpec) -> str:
    """YAML text with every default filled in; loaded from any folder it gives the same job."""
    return write_yaml(spec.model_dump(by_alias=True))


def read_output(job: Mapping[str, Any], path: Path) -> OutputSpec:
    """The section `output` of a resolved job; files that its other sections name may be missing.

    Args:
        job: The content of the job file; older jobs lack this section.
        path: The job file.

    Raises:
        InputError: The section is wrong, because somebody edited it.
    """
    return _read_section(OutputSpec, "output", job.get("output", {}), path)


def read_search(job: Mapping[str, Any], path: Path) -> SearchSpec:
    """The rounds and the confirmation of a resolved job; the rest of its search is left out.

    Args:
        job: The content of the job file.
        path: The job file.

    Raises:
        InputError: They are wrong, because somebody edited them.
    """
    search = job.get("search", {})
    fields = {name: search[name] for name in ("rounds", "confirm") if name in search}
    return _read_section(SearchSpec, "search", fields, path)


def _read_section(kind: type[_Section], name: str, content: Any, path: Path) -> _Section:
    context = {"folder": path.absolute().parent}
    try:
        return kind.model_validate(content, context=context)
    except ValidationError as error:
        problems = to_problems(error, around=(name,))
        raise InputError("\n".join(f"{path}: {problem.message}" for problem in problems)) from error


# Overrides -------------------------------------------------------------------------------------


def overridden(document: Document, overrides: Mapping[str, Any] | Sequence[str]) -> Document:
    """The document with other values in some fields, which are given as to `load_job`.

    Raises:
        InputError: An override is not well-formed, or its path leads through a value.
    """
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            location = f"override {key}={show(value)}"
            document = document.with_value(_split_key(key), plain(value, location), location)
        return document
    for text in overrides:
        location = f"--set {text}"
        key, equals, value_text = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{location}: expected key=value, e.g. --set training.epochs=10")
        value = parse_value(value_text, location)
        document = document.with_value(_split_key(key.strip()), value, location)
    return document


def _split_key(key: str) -> KeyPath:
    """The keys of a dotted path. Keys of `search.parameters` are dotted paths themselves."""
    prefix = "search.parameters."
    if not key.startswith(prefix):
        return tuple(key.split("."))
    rest = key.removeprefix(prefix)
    parameter, _, last = rest.rpartition(".")
    is_field = last in {**ValueList.model_fields, **Range.model_fields}
    return ("search", "parameters", *((parameter, last) if parameter and is_field else (rest,)))
