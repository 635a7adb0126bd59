"""What is wrong with one field of a job, such as a typo, told in the job's own words."""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trialrun.job.document import KeyPath
from trialrun.job.rounds_spec import RaceSpec, RoundSpec
from trialrun.job.search_spec import Range, ValueList
from trialrun.job.spec import JobSpec
from trialrun.messages import show, suggest


class Problem(NamedTuple):
    """Something wrong in a job: the path of the value, and the message for the job's author."""

    path: KeyPath
    message: str


def to_problems(error: ValidationError, around: KeyPath = ()) -> Iterator[Problem]:
    """The problems that pydantic found, in words for the job's author.

    Args:
        error: The error about the job, or about a section of it.
        around: The path of that section.
    """
    for details in error.errors():
        # Tags tell pydantic which model to use; they begin with a character that no file holds.
        inner = tuple(part for part in details["loc"] if not str(part).startswith("\0"))
        path = (*around, *inner)
        if details["type"] == "extra_forbidden":
            yield Problem(path, _about_unknown_key(path))
        elif details["type"] != "default_factory_not_called":  # follows from another problem
            yield Problem(path, f"{dotted(path)}{_about_value(details)}")


def _about_value(details: ErrorDetails) -> str:
    """What is wrong with a value; the message continues after the name of its field."""
    limits = details.get("ctx", {})
    if details["type"] == "missing":
        return " is missing"
    if details["type"] == "value_error":
        message = str(limits["error"])
        return f" {message}" if message.startswith(("must", "holds")) else f": {message}"
    rule = _RULES.get(details["type"])
    expected = rule.format(**limits) if rule else details["msg"]
    return f" must be {expected}, got {show(details['input'])}"


_RULES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "finite",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:.10g}",
    "literal_error": "{expected}",
    "union_tag_not_found": "{{values: [...]}} or {{min: ..., max: ..., distribution: ...}}",
}
_RULES["union_tag_invalid"] = _RULES["union_tag_not_found"]


def _about_unknown_key(path: KeyPath) -> str:
    *around, key = path
    known = known_keys(tuple(around))
    homes = [name for name in JobSpec.model_fields if key in known_keys((name,))]
    hint = f"did you mean '{homes[0]}.{key}'?" if homes and not around else ""
    where = f" in {dotted(tuple(around))}" if around else ""
    return f"unknown key {key!r}{where}; {hint or suggest(str(key), known)}"


def known_keys(path: KeyPath) -> list[str]:
    """The keys that a section at a path may have; empty if it may have any."""
    if path[:2] == ("search", "parameters"):
        return [*ValueList.model_fields, *Range.model_fields]
    if path[:2] == ("search", "rounds"):
        return list((RoundSpec if len(path) > 2 else RaceSpec).model_fields)
    fields = JobSpec.model_fields
    for key in path:
        section = _section_in(fields[str(key)].annotation) if key in fields else None
        if section is None:
            return []
        fields = section.model_fields
    return [field.alias or name for name, field in fields.items()]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field may hold, if it may hold exactly one."""
    sections = list(dict.fromkeys(_sections_in(annotation)))
    return sections[0] if len(sections) == 1 else None


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)


def dotted(path: KeyPath) -> str:
    """A key's path as it is written in messages: `search.parameters[0].values`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the job"
