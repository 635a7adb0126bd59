"""The source behind a function that the user names: what it hashes to, so that an edit is noticed.

What counts is the file of the function and the modules beside it that it imports, directly or
through each other. trialrun's own functions are left out: their version stands for them.
"""

import ast
import functools
import hashlib
from pathlib import Path

from trialrun.references import find_source, parse_reference, parse_source

_OWN_FOLDER = Path(__file__).parent


def source_digest(text: str) -> str:
    """16 hex digits over the source of a reference whose path is absolute.

    Returns:
        Empty for trialrun's own functions and for compiled modules.

    Raises:
        InputError: A source does not exist or is not Python.
    """
    path = find_source(parse_reference(text), Path())
    if path is None or path.is_relative_to(_OWN_FOLDER):
        return ""
    digest = hashlib.sha256()
    for file in _with_neighbours(path):
        content = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _with_neighbours(path: Path) -> list[Path]:
    """The file, and the Python files in its folder that it imports; the file first."""
    found, waiting = {path}, [path]
    while waiting:
        file = waiting.pop()
        stat = file.stat()
        for name in _imported_names(file, stat.st_mtime_ns, stat.st_size):
            neighbour = path.parent / f"{name}.py"
            if neighbour not in found and neighbour.is_file():
                found.add(neighbour)
                waiting.append(neighbour)
    return [path, *sorted(found - {path})]


@functools.lru_cache(maxsize=256)
def _imported_names(file: Path, modified_ns: int, size: int) -> tuple[str, ...]:
    """The modules that may lie beside the file; parsed again when the file has changed."""
    names: list[str] = []
    for node in ast.walk(ast.Module(parse_source(file, file.name), [])):
        if isinstance(node, ast.Import):
            names += (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names += [node.module.split(".")[0]] if node.module else []
            names += (alias.name for alias in node.names) if node.level else ()
    return tuple(dict.fromkeys(names))
