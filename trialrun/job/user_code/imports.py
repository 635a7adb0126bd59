"""What a user's file imports of the user's own, found by reading source code, never by running it.

Everything counts that is neither Python's, nor trialrun's, nor an installed package's: modules and
packages, imported by absolute or relative names, at the top or inside functions. Compiled modules
count, but what they import in turn cannot be read.
"""

import ast
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import NamedTuple

from trialrun.errors import InputError
from trialrun.job.user_code.functions import Reference, find_module, find_source, parse_source
from trialrun.job.user_code.own_files import is_part_of_trialrun, is_users_own

_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)  # in Python's order
_DYNAMIC = ("import_module", "__import__")


class OwnFile(NamedTuple):
    """A file of the user that a function needs.

    Attributes:
        path: The absolute path.
        root: The folder from which it is imported, which is in `sys.path`.
        package: The package that its relative imports start from.
    """

    path: Path
    root: Path
    package: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Its path from the folder from which it is imported."""
        return self.path.relative_to(self.root).as_posix()


class _Import(NamedTuple):
    """What an import statement names: the dots, the module, and names that may be modules in it."""

    level: int
    module: tuple[str, ...]
    names: tuple[str, ...]


def own_files(reference: Reference) -> list[OwnFile]:
    """The file of a reference with an absolute path, followed by those that it imports.

    Returns:
        Empty for trialrun's own functions and for compiled modules that are installed.

    Raises:
        InputError: A file does not exist or is not valid Python.
    """
    first = _first_file(reference)
    if first is None:
        return []
    found = {file.path: file for file in (first, *_packages_around(reference, first))}
    waiting = list(found.values())
    followed: set[tuple[str, ...]] = set()
    while waiting:
        for file in _imported_by(waiting.pop(), first, followed):
            # A checkout of trialrun may be in sys.path, which makes it no part of the user's code.
            if file.path not in found and not is_part_of_trialrun(file.path):
                found[file.path] = file
                waiting.append(file)
    del found[first.path]
    return [first, *sorted(found.values(), key=lambda file: (shown_in(file, first), file.path))]


def shown_in(file: OwnFile, first: OwnFile) -> str:
    """A file's path as seen from the file of a reference, the same on every machine."""
    if file.path.is_relative_to(first.path.parent):
        return file.path.relative_to(first.path.parent).as_posix()
    return file.shown


def _first_file(reference: Reference) -> OwnFile | None:
    if reference.is_file:
        path = find_source(reference, Path())
        return None if path is None or is_part_of_trialrun(path) else OwnFile(path, path.parent)
    find_source(reference, Path())  # raises if there is no such module
    parts = tuple(reference.source.split("."))
    spec = find_module(parts)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    path = Path(spec.origin)
    is_source = path.suffix == ".py"
    if is_part_of_trialrun(path) or not (is_source or is_users_own(path)):
        return None
    return _module_file(path, parts)


def _packages_around(reference: Reference, first: OwnFile) -> list[OwnFile]:
    """The packages that importing a module of the user executes before it."""
    if reference.is_file or not is_users_own(first.path):
        return []
    parts = tuple(reference.source.split("."))
    located = _locate(parts, _folders(first.root, parts[0]))
    return [_module_file(*one) for one in located if one[0] != first.path]


def _module_file(path: Path, parts: Sequence[str]) -> OwnFile:
    """The file of a module with this dotted name."""
    is_package = path.name.partition(".")[0] == "__init__"
    package = tuple(parts) if is_package else tuple(parts[:-1])
    return OwnFile(path, path.parents[len(package)], package)


def _imported_by(
    file: OwnFile, first: OwnFile, followed: set[tuple[str, ...]]
) -> Iterator[OwnFile]:
    """The files that a file imports, but for modules of a name that was `followed` before."""
    if file.path.suffix != ".py":
        return
    stat = file.path.stat()
    stamp = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
    for statement in _import_statements(file.path, stamp):
        if file.path.parent == first.path.parent:
            yield from _neighbors(statement, first)
        if is_users_own(first.path):  # installed packages are known by their versions
            yield from _modules(statement, file, first, followed)


def _neighbors(statement: _Import, first: OwnFile) -> Iterator[OwnFile]:
    """The modules beside the file of a reference that a statement may mean."""
    names = statement.module[:1] + (statement.names if statement.level else ())
    for name in filter(None, names):
        if (path := first.path.parent / f"{name}.py").is_file():
            yield OwnFile(path, first.root, first.package)


def _modules(
    statement: _Import, file: OwnFile, first: OwnFile, followed: set[tuple[str, ...]]
) -> Iterator[OwnFile]:
    base = statement.module
    if statement.level:
        package = file.package[: len(file.package) - statement.level + 1]
        base = (*package, *base)
    folders = _folders(first.root, base[0] if base else "")
    for name in statement.names or ("",):
        names = _names_inside(base, folders) if name == "*" else (name,)
        for one in names:
            parts = (*base, one) if one else base
            if parts not in followed:
                followed.add(parts)
                yield from (_module_file(*found) for found in _locate(parts, folders))


def _names_inside(base: tuple[str, ...], folders: Sequence[Path]) -> tuple[str, ...]:
    """All modules of a package, as `import *` may mean any of them; its own file at least."""
    own = [path for path, parts in _locate(base, folders) if parts == base]
    is_package = own and own[0].name.partition(".")[0] == "__init__"
    beside = own[0].parent.iterdir() if is_package else ()
    names = {path.name.partition(".")[0] for path in beside if path.suffix in ("", ".py", ".so")}
    return ("", *sorted(name for name in names if name.isidentifier() and name != "__init__"))


def _folders(root: Path, top: str) -> list[Path]:
    """The folders of the user that Python searches for modules, in its order."""
    own = _own_entries(tuple(sys.path), str(Path.cwd()))
    return list(dict.fromkeys([root, *own, *_folders_of_finders(top)]))


@functools.lru_cache(maxsize=16)
def _own_entries(search_path: tuple[str, ...], working_folder: str) -> list[Path]:
    entries = [Path(working_folder) / entry for entry in search_path]
    return [entry for entry in entries if is_users_own(entry)]


@functools.lru_cache(maxsize=1024)
def _folders_of_finders(top: str) -> tuple[Path, ...]:
    """Where a package lies that is installed in such a way that it can be edited."""
    try:
        spec = (
            importlib.util.find_spec(top) if top and top not in sys.builtin_module_names else None
        )
    except (ValueError, ImportError, InputError):  # __main__ has no spec
        return ()
    inside = () if spec is None else tuple(spec.submodule_search_locations or ())
    if spec is not None and spec.has_location and spec.origin and not inside:
        inside = (spec.origin,)
    return tuple(Path(path).absolute().parent for path in inside if is_users_own(Path(path)))


def _locate(
    parts: Sequence[str], folders: Sequence[Path], before: tuple[str, ...] = ()
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The files that importing a dotted name executes, with their names, found as Python does."""
    if not parts:
        return
    name, rest = parts[0], parts[1:]
    namespaces = []
    for folder in folders:
        package = folder / name
        if path := _existing(package / "__init__"):
            yield path, (*before, name)
            yield from _locate(rest, [package], (*before, name))
            return
        if path := _existing(package):
            yield path, (*before, name)
            return
        if package.is_dir():
            namespaces.append(package)
    yield from _locate(rest, namespaces, (*before, name))


def _existing(stem: Path) -> Path | None:
    """The file of a module, given its path without a suffix."""
    text = str(stem)  # Path.is_file would take several times as long, and many names are tried
    found = next((suffix for suffix in _SUFFIXES if os.path.isfile(text + suffix)), None)  # noqa: PTH113
    return None if found is None else Path(text + found)


@functools.lru_cache(maxsize=1024)
def _import_statements(path: Path, stamp: tuple[int, ...]) -> tuple[_Import, ...]:
    """What a file imports, in functions too; cached until the file changes."""
    tree = ast.Module(parse_source(path, str(path)), [])
    found = (one for node in ast.walk(tree) for one in _imports_of(node))
    return tuple(dict.fromkeys(found))


def _imports_of(node: ast.AST) -> Iterator[_Import]:
    match node:
        case ast.Import(names=aliases):
            yield from (_Import(0, tuple(alias.name.split(".")), ()) for alias in aliases)
        case ast.ImportFrom(module=module, names=aliases, level=level):
            parts = tuple(module.split(".")) if module else ()
            yield _Import(level, parts, ("", *(alias.name for alias in aliases)))
        case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=[first, *_]):
            if called in _DYNAMIC and isinstance(first, ast.Constant):
                yield from _imported_by_text(first.value)


def _imported_by_text(name: object) -> Iterator[_Import]:
    """What `import_module("name")` imports."""
    if isinstance(name, str) and (bare := name.lstrip(".")):
        yield _Import(len(name) - len(bare), tuple(bare.split(".")), ())


def require_one_file_per_module(files: Sequence[OwnFile]) -> None:
    """Raises InputError if two functions of a job import different files by one name.

    A process would import only one of them.
    """
    by_name: dict[str, OwnFile] = {}
    for file in files:
        other = by_name.setdefault(file.shown, file)
        if other.path != file.path and other.path.read_bytes() != file.path.read_bytes():
            raise InputError(
                f"two modules are imported as {file.shown}: {other.path} and {file.path}; a process"
                " can hold only one of them, so rename one"
            )
