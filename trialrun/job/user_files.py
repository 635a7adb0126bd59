"""The user's Python and data files: how they are hashed, and how they reach other machines.

The hash of a function covers its file and the modules in the same folder that it imports, directly
or indirectly. trialrun's own functions are not hashed. Of a data file all bytes are hashed. Files
are sent to workers as content, together with the task. A Ray runtime environment would need its own
folder, would start new worker processes, and is refused inside a Ray job that already brings one.
"""

import ast
import atexit
import functools
import hashlib
import platform
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from trialrun.errors import InputError, ModelError
from trialrun.job.user_functions import find_source, move_folder, parse_reference, parse_source
from trialrun.messages import bytes_text, said_by

MAX_TRAVEL_BYTES = 64 << 20  # a larger data file is not sent, because every task carries the files
_DIGEST_MARK = "#sha256"
_OWN_FOLDER = Path(__file__).parents[1]


def is_part_of_trialrun(path: Path) -> bool:
    """Whether a source file is trialrun's own."""
    return path.is_relative_to(_OWN_FOLDER)


def source_digest(text: str) -> str:
    """A hash, 16 hex digits, of the source code of a reference with an absolute path.

    Returns:
        Empty for trialrun's own functions and for compiled modules.

    Raises:
        InputError: A source file does not exist or is not valid Python.
    """
    path = find_source(parse_reference(text), Path())
    if path is None or is_part_of_trialrun(path):
        return ""
    digest = hashlib.sha256()
    for file in with_neighbors(path):
        content = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def file_digest(path: str) -> str:
    """A hash, 16 hex digits, of the bytes of a data file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        stat = Path(path).stat()
        return _digest_of_bytes(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {said_by(error)}") from error


@functools.lru_cache(maxsize=64)
def _digest_of_bytes(path: str, modified_ns: int, size: int) -> str:
    """The hash of a file, cached until the file changes, because every variant needs it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def collect_files(references: Iterable[str], data_files: Iterable[str] = ()) -> dict[str, bytes]:
    """Path -> content of the files that other machines need.

    Args:
        references: References, whose Python files and their neighbors are collected.
        data_files: Absolute paths of data files. A file of more than 64 MiB is not collected; its
            hash (`<path>#sha256`) is, to check the file that other machines must have themselves.
    """
    files: dict[str, bytes] = {}
    for text in references:
        reference = parse_reference(text)
        path = find_source(reference, Path()) if reference.is_file else None
        if path is not None:
            files |= {str(file): file.read_bytes() for file in with_neighbors(path)}
    for name in data_files:
        if Path(name).stat().st_size <= MAX_TRAVEL_BYTES:
            files[name] = Path(name).read_bytes()
        else:
            files[name + _DIGEST_MARK] = file_digest(name).encode()
    return files


def install_files(files: Mapping[str, bytes]) -> None:
    """Makes files of another machine loadable on this one under the same paths.

    If a folder on this machine already holds all of its files with the same content, it is used, so
    that a Python file finds what it reads from its own folder. Otherwise the files are written to a
    temporary folder, once per process.

    Args:
        files: From `collect_files`.

    Raises:
        ModelError: A data file that is too large to be sent is missing here or has another content.
    """
    by_folder: dict[Path, dict[str, bytes]] = {}
    for name, content in files.items():
        if name.endswith(_DIGEST_MARK):
            _require_file(name.removesuffix(_DIGEST_MARK), content.decode())
            continue
        path = Path(name)
        by_folder.setdefault(path.parent, {})[path.name] = content
    for folder, contents in by_folder.items():
        if not all(_has_content(folder / name, content) for name, content in contents.items()):
            move_folder(folder, _write_copies(folder, tuple(sorted(contents.items()))))


def _require_file(name: str, digest: str) -> None:
    """Raises ModelError unless this machine has the file, with this digest."""
    is_there = Path(name).is_file()
    if not is_there or file_digest(name) != digest:
        what = "has another content" if is_there else "does not exist"
        raise ModelError(
            f"{name} {what} on {platform.node()}; data files of up to"
            f" {bytes_text(MAX_TRAVEL_BYTES)} are sent to other machines, but copy larger files"
            " there yourself, to the same path"
        )


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


@functools.lru_cache(maxsize=16)
def _write_copies(folder: Path, contents: tuple[tuple[str, bytes], ...]) -> Path:
    """A new folder with these files, which is removed when the process ends."""
    copies = Path(tempfile.mkdtemp(prefix="trialrun-files-"))
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    for name, content in contents:
        (copies / name).write_bytes(content)
    return copies


def with_neighbors(path: Path) -> list[Path]:
    """The file, followed by the Python files in its folder that it imports, even indirectly."""
    found, waiting = {path}, [path]
    while waiting:
        file = waiting.pop()
        stat = file.stat()
        for name in _imported_names(file, stat.st_mtime_ns, stat.st_size):
            neighbor = path.parent / f"{name}.py"
            if neighbor not in found and neighbor.is_file():
                found.add(neighbor)
                waiting.append(neighbor)
    return [path, *sorted(found - {path})]


@functools.lru_cache(maxsize=256)
def _imported_names(file: Path, modified_ns: int, size: int) -> tuple[str, ...]:
    """Names that a file imports, which may be modules beside it; cached until the file changes."""
    names: list[str] = []
    for node in ast.walk(ast.Module(parse_source(file, file.name), [])):
        if isinstance(node, ast.Import):
            names += (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names += [node.module.split(".")[0]] if node.module else []
            names += (alias.name for alias in node.names) if node.level else ()
    return tuple(dict.fromkeys(names))
