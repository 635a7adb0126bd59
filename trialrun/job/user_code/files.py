"""The user's Python and data files: how they are hashed, and how they reach other machines.

The hash of a function covers its file and the user's files that it imports, directly or indirectly;
see `imports`. trialrun's own functions are not hashed. Of a data file all bytes are hashed.
Files are sent to workers as content, together with the task. A Ray runtime environment would need
its own folder, would start new worker processes, and is refused inside a Ray job that already
brings one.
"""

import atexit
import functools
import hashlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trialrun.errors import InputError, ModelError
from trialrun.job.user_code.functions import parse_reference
from trialrun.job.user_code.imports import (
    OwnFile,
    own_files,
    require_one_file_per_module,
    shown_in,
)
from trialrun.job.user_code.own_files import (
    content_of,
    held_content,
    hold_contents,
    is_users_own,
    move_folder,
    moved_path,
)
from trialrun.job.user_code.own_modules import allow_only, search_too
from trialrun.messages import bytes_text, said_by

MAX_TRAVEL_BYTES = 64 << 20  # a larger data file is not sent, because every task carries the files
_DIGEST_MARK = "#sha256"


@dataclass(frozen=True, slots=True)
class UserFiles:
    """The user's files, as they are sent to other machines.

    Attributes:
        contents: Absolute path -> content. Of a file of more than 64 MiB there is only its hash
            (`<path>#sha256`), to check the file that other machines must have themselves.
        folders: The folders that the files lie in or below, whose inner structure is kept.
        search_path: Those of them from which modules are imported, the first one first.
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    search_path: tuple[str, ...] = ()


def source_digest(text: str) -> str:
    """A hash, 16 hex digits, of the source code of a reference with an absolute path.

    Returns:
        Empty for trialrun's own functions, and for those of compiled modules that are installed.

    Raises:
        InputError: A source file does not exist or is not valid Python.
    """
    return hashed_once(("source", text), lambda: _source_digest(own_files(parse_reference(text))))


def _source_digest(files: Sequence[OwnFile]) -> str:
    if not files:
        return ""
    digest = hashlib.sha256()
    for name, content in _named_contents(files):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _named_contents(files: Sequence[OwnFile]) -> Iterator[tuple[str, bytes]]:
    """The names and contents that make a function, the same on every machine."""
    for file in files:
        content = content_of(file.path)
        if file.path.suffix == ".py":
            content = content.replace(b"\r\n", b"\n")
        if content or file is files[0] or file.path.name != "__init__.py":
            yield shown_in(file, files[0]), content


_hashed: dict[tuple[str, str], str] | None = None


@contextmanager
def hashing_once() -> Iterator[None]:
    """Within this context each function and each data file is hashed once, at its first use."""
    global _hashed
    before = _hashed
    _hashed = {} if before is None else before
    try:
        yield
    finally:
        _hashed = before


def hashed_once(key: tuple[str, str], digest: Callable[[], str]) -> str:
    """What `digest` returns; within `hashing_once`, what it returned first for this key."""
    if _hashed is None:
        return digest()
    if key not in _hashed:
        _hashed[key] = digest()
    return _hashed[key]


def file_digests(text: str) -> dict[str, str]:
    """Name -> hash of each file that a reference imports, without its own file."""
    files = own_files(parse_reference(text))
    return {
        name: hashlib.sha256(content).hexdigest()[:16]
        for name, content in list(_named_contents(files))[1:]
    }


def file_digest(path: str) -> str:
    """A hash, 16 hex digits, of the bytes of a data file.

    Raises:
        InputError: The file cannot be read.
    """
    return hashed_once(("file", path), lambda: _digest_held(path) or _digest_on_disk(path))


def _digest_held(path: str) -> str | None:
    held = held_content(Path(path))
    if held is not None:
        return hashlib.sha256(held).hexdigest()[:16]
    digest = held_content(Path(path + _DIGEST_MARK))
    return None if digest is None else digest.decode()


def _digest_on_disk(path: str) -> str:
    try:
        stat = Path(path).stat()
        stamp = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
        return _digest_of_bytes(path, stamp)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {said_by(error)}") from error


@functools.lru_cache(maxsize=64)
def _digest_of_bytes(path: str, stamp: tuple[int, ...]) -> str:
    """The hash of a file, cached until the file changes, because every variant needs it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def collect_files(
    references: Iterable[str], data_files: Iterable[str] = (), folders: Iterable[str] = ()
) -> UserFiles:
    """The files that other machines need, as they are now.

    Args:
        references: References, whose files are collected, with all that they import.
        data_files: Absolute paths of data files, and of others that functions need.
        folders: Folders around these files whose inner structure is kept.

    Raises:
        InputError: Two functions import different files by one name.
    """
    by_function = [own_files(parse_reference(text)) for text in references]
    imported = [file for files in by_function for file in files[1:]]
    require_one_file_per_module(imported)
    data_files = tuple(data_files)
    sources = [file for files in by_function for file in files if _travels(files[0])]
    contents = {str(file.path): content_of(file.path) for file in sources}
    roots = dict.fromkeys(str(file.root) for file in sources)
    for name in data_files:
        contents |= _content_or_digest(name)
    around = (*folders, *(str(Path(name).parent) for name in data_files))
    return UserFiles(contents, tuple(roots | dict.fromkeys(around)), tuple(roots))


def _travels(first: OwnFile) -> bool:
    """Whether other machines need a function's files; they have installed packages themselves."""
    return not first.package or is_users_own(first.path)


def _content_or_digest(name: str) -> dict[str, bytes]:
    if Path(name).stat().st_size <= MAX_TRAVEL_BYTES:
        return {name: content_of(Path(name))}
    return {name + _DIGEST_MARK: file_digest(name).encode()}


def install_files(files: UserFiles) -> None:
    """Makes files of another machine loadable on this one under the same paths.

    If a folder on this machine already holds all of its files with the same content, it is used, so
    that a Python file finds what it reads from its own folder. Otherwise the files are written to a
    temporary folder, once per process. From then on this process takes the files as they were sent,
    even if they are edited where they lie, and imports no other modules of the user.

    Args:
        files: From `collect_files`.

    Raises:
        ModelError: A data file that is too large to be sent is missing here or has another content.
    """
    by_folder: dict[Path, dict[str, bytes]] = {}
    outermost = _outermost(map(Path, files.folders))
    for name, content in files.contents.items():
        if name.endswith(_DIGEST_MARK):
            _require_file(name.removesuffix(_DIGEST_MARK), content.decode())
            continue
        folder = next(one for one in outermost if Path(name).is_relative_to(one))
        by_folder.setdefault(folder, {})[str(Path(name).relative_to(folder))] = content
    for folder, contents in by_folder.items():
        if not all(_has_content(folder / name, content) for name, content in contents.items()):
            move_folder(folder, _write_copies(folder, tuple(sorted(contents.items()))))
    here = {moved_path(Path(name)): content for name, content in files.contents.items()}
    hold_contents({path: content for path, content in here.items() if path.suffix == ".py"})
    allow_only(here)
    for root in files.search_path:
        search_too(moved_path(Path(root)))


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """The folders that lie in none of the others."""
    distinct = set(folders)
    return sorted(one for one in distinct if distinct.isdisjoint(one.parents))


def _require_file(name: str, digest: str) -> None:
    """Raises ModelError unless this machine has the file, with this digest."""
    is_there = Path(name).is_file()
    if not is_there or _digest_on_disk(name) != digest:
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
        (copies / name).parent.mkdir(parents=True, exist_ok=True)
        (copies / name).write_bytes(content)
    return copies
