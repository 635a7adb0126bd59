"""What in a user's source code makes it depend on the machine, as far as reading it shows."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from trialrun.job.user_code.functions import parse_reference, parse_source
from trialrun.job.user_code.imports import own_files

_READERS = frozenset(
    [
        *("open", "read_text", "read_bytes", "load", "loadtxt", "genfromtxt", "fromfile"),
        *("read_csv", "read_parquet", "read_excel", "read_table", "imread", "load_data", "File"),
    ]
)


class Hints(NamedTuple):
    """What a function's source code shows.

    Attributes:
        variables: Names of the environment variables that it reads.
        reads_files: The first file and line that seems to read a file; empty if none does.
    """

    variables: tuple[str, ...]
    reads_files: str


def hints_of(reference: str) -> Hints:
    """What the code of a reference, and what it imports, depends on.

    Raises:
        InputError: A file does not exist or is not valid Python.
    """
    variables: dict[str, None] = {}
    reads_files = ""
    for file in own_files(parse_reference(reference)):
        if file.path.suffix != ".py":
            continue
        for statement in parse_source(file.path, file.path.name):
            for node in ast.walk(statement):
                variables |= dict.fromkeys(_variables_in(node))
                if not reads_files and _called(node) in _READERS:
                    reads_files = f"{file.path.name}:{getattr(node, 'lineno', '')}"
    return Hints(tuple(variables), reads_files)


def _variables_in(node: ast.AST) -> Iterator[str]:
    """The variables of `os.environ["NAME"]`, `os.environ.get("NAME")` and `os.getenv("NAME")`."""
    match node:
        case ast.Subscript(value=source, slice=ast.Constant(value=str(name))):
            if ast.unparse(source).endswith("environ"):
                yield name
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
            if ast.unparse(function).endswith(("environ.get", "getenv")):
                yield name


def _called(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name
    return ""
