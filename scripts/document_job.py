"""Writes the tables of docs/job-file.md from the fields of a job, their types and descriptions.

    scripts/document_job [--check]

The text around the tables stays as it is. A table stands between `<!-- fields: training -->` and
`<!-- end -->`; `<!-- names -->` begins the list of Keras's names. A field is described by the
docstring below it, which ends with an example and, where its type does not tell, with what is
allowed. `--check` writes nothing, and exits with 1 if the file is not what would be written.
"""

import argparse
import ast
import inspect
import itertools
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from trialrun.job import (
    BudgetSpec,
    ConfirmSpec,
    DataSpec,
    EarlyStoppingSpec,
    JobSpec,
    ModelSpec,
    OutputSpec,
    RaceSpec,
    Range,
    ReduceLROnPlateauSpec,
    ResourcesSpec,
    RoundSpec,
    SearchSpec,
    SelectSpec,
    TrainingSpec,
    ValueList,
)
from trialrun.job.document import canonical_json
from trialrun.job.fields import Section
from trialrun.job.keras_api.names import LOSSES, METRICS, OPTIMIZERS, SCHEDULES

FILE = Path(__file__).resolve().parents[1] / "docs" / "job-file.md"
# Where each table's fields stand in a job file.
SECTIONS: dict[str, type[Section]] = {
    "": JobSpec,
    "data": DataSpec,
    "model": ModelSpec,
    "training": TrainingSpec,
    "training.early_stopping": EarlyStoppingSpec,
    "training.reduce_lr_on_plateau": ReduceLROnPlateauSpec,
    "search": SearchSpec,
    "search.rounds: round": RoundSpec,
    "search.rounds: race": RaceSpec,
    "search.confirm": ConfirmSpec,
    "search.budget": BudgetSpec,
    "search.parameters: values": ValueList,
    "search.parameters: range": Range,
    "select": SelectSpec,
    "resources": ResourcesSpec,
    "output": OutputSpec,
}
_BLOCK = re.compile(r"<!-- (fields|names):? ?(.*?) -->\n.*?<!-- end -->", re.DOTALL)


class Description(NamedTuple):
    """What the docstring below a field says."""

    meaning: str
    allowed: str  # empty where the type tells
    example: str  # YAML


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the tables of docs/job-file.md.")
    parser.add_argument("--check", action="store_true", help="Write nothing; compare.")
    check = parser.parse_args().check
    before = FILE.read_text(encoding="utf-8")
    after = fill_in(before)
    if after == before:
        return 0
    if check:
        print(f"{FILE} is not up to date; run scripts/document_job", file=sys.stderr)
        return 1
    FILE.write_text(after, encoding="utf-8")
    return 0


def fill_in(text: str) -> str:
    """The text with each table as the fields' descriptions are now."""

    def block(match: re.Match[str]) -> str:
        kind, name = match.groups()
        content = names_list() if kind == "names" else table(SECTIONS[name])
        return f"{match.group().splitlines()[0]}\n{content}\n<!-- end -->"

    return _BLOCK.sub(block, text)


def table(section: type[Section]) -> str:
    """The fields of a section as a table of Markdown."""
    described = descriptions(section)
    properties = section.model_json_schema()["properties"]
    lines = [
        "| field | meaning | allowed | default | example |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, field in section.model_fields.items():
        about = described[name]
        key = field.alias or name
        allowed = about.allowed or in_words(properties[key])
        cells = (f"`{key}`", about.meaning, allowed, default_of(field), f"`{about.example}`")
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines)


def descriptions(section: type[Section]) -> dict[str, Description]:
    """What is said of each field of a section, in the docstring below it."""
    statements = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0].body
    found = {}
    for field, below in itertools.pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name)
            text = " ".join(ast.literal_eval(below.value).split())
            match = re.fullmatch(r"(.*?)\.(?: Allowed: (.*?)\.)? Example: `(.*)`\.", text)
            assert match, f"{section.__name__}.{field.target.id} must end with an example: {text}"
            meaning, allowed, example = match.groups(default="")
            found[field.target.id] = Description(f"{meaning}.", allowed, example)
    return found


def default_of(field: FieldInfo) -> str:
    """A field's default, as it is written in a job file."""
    if field.is_required():
        return "must be given"
    if field.default is None:
        return "none"
    if field.default_factory is None:
        return f"`{canonical_json(field.default)}`".replace('"', "")
    if field.default_factory is dict:
        return "`{}`"
    return "its fields' defaults" if isinstance(field.default_factory, type) else "see the meaning"


def in_words(schema: dict[str, Any]) -> str:
    """What a JSON schema allows."""
    if "anyOf" in schema:
        kinds = [kind for kind in schema["anyOf"] if kind.get("type") != "null"]
        return " or ".join(dict.fromkeys(map(in_words, kinds)))
    if "$ref" in schema:
        return "a mapping of the fields below"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = {
        "boolean": "`true` or `false`",
        "string": "text",
        "integer": "an integer",
        "number": "a number",
    }[schema["type"]]
    limits = [
        f"{words} {schema[key]:.10g}" if schema[key] < 2**31 - 1 else ""
        for key, words in (
            ("exclusiveMinimum", "greater than"),
            ("minimum", "of at least"),
            ("exclusiveMaximum", "less than"),
            ("maximum", "at most"),
        )
        if key in schema
    ]
    return " ".join([kind, " and ".join(filter(None, limits))]).strip()


def names_list() -> str:
    """The names of Keras's that a job file may use, one of each thing."""
    kinds = {
        "Optimizers": OPTIMIZERS,
        "Schedules": SCHEDULES,
        "Losses": LOSSES,
        "Metrics": METRICS,
    }
    lines = []
    for kind, names in kinds.items():
        # Keras knows most of them in two spellings: `mse` and `MSE`, `hinge` and `Hinge`.
        lower = sorted({name for name in names if name == name.lower()})
        listed = ", ".join(f"`{name}`" for name in lower)
        lines.append(textwrap.fill(f"- {kind}: {listed}.", 100, subsequent_indent="  "))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
