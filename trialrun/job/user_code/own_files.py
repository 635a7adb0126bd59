"""Which files are the user's own, and from where and with which content this process reads them.

A worker reads them as the driver sent them. A driver reads them as they were when its run began, so
that an edit during a run is not mixed into it.
"""

import functools
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_TRIALRUN = Path(__file__).parents[2]
_INSTALLED = frozenset({"site-packages", "dist-packages"})

_moved: dict[Path, Path] = {}
_contents: dict[Path, bytes] = {}


def is_part_of_trialrun(path: Path) -> bool:
    """Whether a source file is trialrun's own."""
    return path.is_relative_to(_TRIALRUN)


@functools.lru_cache(maxsize=4096)
def is_users_own(path: Path) -> bool:
    """Whether a file is neither trialrun's nor Python's, nor that of an installed package."""
    if is_part_of_trialrun(path) or not _INSTALLED.isdisjoint(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in _folders_of_python())


@functools.cache
def _folders_of_python() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    folders = [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return frozenset([*folders, *(folder.resolve() for folder in folders)])


def move_folder(folder: Path, copies: Path) -> None:
    """Makes this process read files in and below `folder` from `copies` from now on."""
    _moved[folder] = copies


def moved_path(path: Path) -> Path:
    """The path from which this process reads an absolute path, see `move_folder`."""
    for folder in (path, *path.parents) if _moved else ():
        copy = _moved[folder] / path.relative_to(folder) if folder in _moved else None
        if copy is not None and copy.exists():  # a large file is not copied
            return copy
    return path


def original_path(path: str) -> str:
    """The path that the user knows, of a file from which this process reads; see `move_folder`."""
    file = Path(path)
    for folder, copies in _moved.items():
        if file.is_relative_to(copies):
            return str(folder / file.relative_to(copies))
    return path


def hold_contents(contents: Mapping[Path, bytes]) -> None:
    """Makes this process take these files as they are given here, whatever the disk says later."""
    _contents.update(contents)


def held_content(path: Path) -> bytes | None:
    """The content of a file that is held, see `hold_contents`; None if it is not."""
    return _contents.get(path)


def content_of(path: Path) -> bytes:
    """The content of a file: what is held of it, or else what is on the disk."""
    held = _contents.get(path)
    return path.read_bytes() if held is None else held


@contextmanager
def holding(contents: Mapping[Path, bytes]) -> Iterator[None]:
    """Within this context this process takes these files as they are given here."""
    before = dict(_contents)
    hold_contents(contents)
    try:
        yield
    finally:
        _contents.clear()
        _contents.update(before)
