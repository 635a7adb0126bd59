"""How this process imports the user's modules: each from its source as it is now.

Python keeps what it compiled, and does not see an edit that keeps the length of a file within the
same second. It also keeps modules, so that a notebook would go on with those from before an edit.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from trialrun.errors import ModelError
from trialrun.job.user_code.own_files import content_of, is_users_own

# Of the names of modules that were loaded as a file; such a name holds a hash of the content.
FILE_PREFIX = "trialrun_"

# Module that was executed from its source -> its file, and the content that was executed.
_executed: dict[str, tuple[Path, bytes]] = {}
# The files that modules may come from; None on the machine where the user wrote them.
_sent: set[Path] | None = None


class SourceLoader(SourceFileLoader):
    """Executes the file itself, and never what Python kept of it when it compiled it before."""

    def get_data(self, path: str) -> bytes:
        """The content of a file, as this process is to take it."""
        return content_of(Path(path))

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now."""
        content = self.get_data(self.path)
        _executed[fullname] = Path(self.path), content
        return self.source_to_code(content, self.path)


class _OwnModules(MetaPathFinder):
    """Finds the user's modules where Python would, and lets `SourceLoader` execute them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of the user; None for all others, which Python finds itself."""
        if path is not None and not any(is_users_own(Path(folder)) for folder in path):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not is_users_own(Path(spec.origin)):
            return None
        _require_sent(fullname, Path(spec.origin))
        if isinstance(spec.loader, SourceFileLoader):
            spec.loader = SourceLoader(fullname, spec.origin)
            spec.cached = None
        return spec


_FINDER = _OwnModules()


def prepare_imports() -> None:
    """Makes imports of this process give the user's modules as they are now."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    imported = {name: made for name, made in _executed.items() if not name.startswith(FILE_PREFIX)}
    if any(_is_edited(path, content) for path, content in imported.values()):
        for name in _executed:  # all of them, as they may hold objects of each other
            sys.modules.pop(name, None)
        _executed.clear()


def _is_edited(path: Path, content: bytes) -> bool:
    try:
        return content_of(path) != content
    except OSError:
        return True


def search_first(folder: Path) -> None:
    """Makes Python look for modules in this folder before all others."""
    with contextlib.suppress(ValueError):
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def search_too(folder: Path) -> None:
    """Makes Python look for modules in this folder as well, before installed packages."""
    if str(folder) not in sys.path:
        packages = (i for i, entry in enumerate(sys.path) if entry.endswith("-packages"))
        sys.path.insert(next(packages, len(sys.path)), str(folder))
    importlib.invalidate_caches()


def allow_only(files: Iterable[Path]) -> None:
    """Refuses modules of the user from other files than these and those allowed before."""
    global _sent
    files = list(files)
    _sent = {*(_sent or ()), *files, *(file.resolve() for file in files)}


def _require_sent(module: str, path: Path) -> None:
    if _sent is None or path in _sent or path.resolve() in _sent:
        return
    raise ModelError(
        f"the module {module} ({path}) is imported in a way that reading the source code does not"
        " show, so an edit of it would go unseen; import it by its name, or name its file in"
        " model.depends_on or data.depends_on"
    )
