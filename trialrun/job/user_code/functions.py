"""Functions that the user names: `module:function`, or `file.py:function` beside the job file.

A reference is checked by reading the source code without running it, so that a wrong name is found
before large libraries are imported. Only loading imports the module.
"""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trialrun.errors import InputError
from trialrun.host import path_from, quiet_tensorflow
from trialrun.job.user_code.own_files import content_of, moved_path
from trialrun.job.user_code.own_modules import (
    FILE_PREFIX,
    SourceLoader,
    prepare_imports,
    search_first,
)
from trialrun.messages import in_short, said_by, suggest

_IMPORTS_KERAS = re.compile(rb"^(?:import|from) .*\b(?:keras|tensorflow)\b", re.MULTILINE)
_SEED_OF_IMPORTS = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """The source and the function of a reference `source:function`.

    Attributes:
        source: A dotted module name, or the path of a Python file.
        function: A name at the top level of the source.
    """

    source: str
    function: str

    @property
    def is_file(self) -> bool:
        """Whether the source is the path of a file instead of a module."""
        return self.source.endswith(".py")

    def __str__(self) -> str:
        return f"{self.source}:{self.function}"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function, as its source code shows them.

    Attributes:
        names: All parameters that can be given by name.
        required: Parameters without a default.
        takes_any: Whether the function has `**kwargs`.
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    takes_any: bool


def parse_reference(text: str) -> Reference:
    """The reference in a text.

    Raises:
        InputError: The text is neither `module:function` nor `file.py:function`.
    """
    source, _, function = text.rpartition(":")
    reference = Reference(source, function)
    is_module = all(part.isidentifier() for part in source.split("."))
    if not function.isidentifier() or not (reference.is_file or is_module):
        raise InputError(f"expected module:function or file.py:function, got {text!r}")
    return reference


def absolute_reference(text: str, folder: Path) -> str:
    """The reference with an absolute path of its file; a reference to a module is not changed."""
    reference = parse_reference(text)
    if not reference.is_file:
        return text
    path = (folder / path_from(reference.source)).absolute()
    return str(Reference(str(path), reference.function))


def portable_reference(text: str) -> str:
    """The reference without the folder of its file, so that it is the same in every clone."""
    reference = parse_reference(text)
    if not reference.is_file:
        return text
    return str(Reference(Path(reference.source).name, reference.function))


def check_reference(text: str, folder: Path) -> Parameters | None:
    """The parameters of a function, found without running any of its code.

    Args:
        text: The reference.
        folder: The folder to which the path of a file is relative.

    Returns:
        None if the source does not show them: for a compiled module, an imported or assigned name,
        a decorated function, or a class.

    Raises:
        InputError: There is no such file, module or name; the message suggests similar ones.
    """
    reference = parse_reference(text)
    source_path = find_source(reference, folder)
    if source_path is None:
        return None
    shown = source_path.name if reference.is_file else reference.source
    body = parse_source(source_path, shown)
    names = _top_level_names(body)
    if reference.function not in names and "*" not in names and "__getattr__" not in names:
        public = [name for name, node in names.items() if _is_public_definition(name, node)]
        hint = suggest(reference.function, public)
        raise InputError(f"{shown} has no function {reference.function!r}; {hint}")
    return _parameters(names.get(reference.function))


def load_function(text: str, folder: Path) -> Callable[..., Any]:
    """The function of a reference, whose module is imported.

    Random numbers that a module draws while it is imported are the same in every process.

    Args:
        text: The reference.
        folder: The folder to which the path of a file is relative.

    Raises:
        InputError: The import raises an error, or the name does not exist or cannot be called.
    """
    reference = parse_reference(text)
    prepare_imports()
    try:
        module = _load_file(reference, folder) if reference.is_file else _load_module(reference)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"importing {reference.source} raised {in_short(error)}") from error
    if not hasattr(module, reference.function):
        names = [name for name in dir(module) if not name.startswith("_")]
        hint = suggest(reference.function, names)
        raise InputError(f"{reference.source} has no function {reference.function!r}; {hint}")
    function = getattr(module, reference.function)
    if not callable(function):
        raise InputError(
            f"{reference} must be a function or a class, got a {type(function).__name__}"
        )
    return function  # type: ignore[no-any-return]


def _load_module(reference: Reference) -> ModuleType:
    if reference.source in sys.modules:
        return sys.modules[reference.source]
    importlib.invalidate_caches()
    with _streams_of_an_import():
        return importlib.import_module(reference.source)


def _streams_of_an_import() -> contextlib.AbstractContextManager[None]:
    from trialrun.job.random_streams import streams_seeded

    return streams_seeded(_SEED_OF_IMPORTS)


def _load_file(reference: Reference, folder: Path) -> ModuleType:
    """The file as a module, which is executed once per content and can import its neighbors."""
    path = _existing_file(reference, folder)
    # The module's name holds a hash of the content: an edited file is a new module, and an
    # unchanged file is never executed twice (Keras would register its layers twice). The module is
    # in sys.modules, so that pickle finds it.
    content = content_of(path)
    digest = hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:12]
    name = f"{FILE_PREFIX}{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    search_first(path.parent)
    loader = SourceLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _import_keras_quietly(content)
    try:
        with _streams_of_an_import():
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_keras_quietly(source: bytes) -> None:
    """Imports Keras before a file does, so that TensorFlow does not write to the terminal.

    It is not done if the file sets environment variables, which TensorFlow reads when imported.
    """
    if _IMPORTS_KERAS.search(source) and b"environ" not in source and "keras" not in sys.modules:
        with quiet_tensorflow():
            importlib.import_module("keras")


def find_source(reference: Reference, folder: Path) -> Path | None:
    """The source file of a reference; None for a module without one.

    Raises:
        InputError: There is no such file or module.
    """
    if reference.is_file:
        return _existing_file(reference, folder)
    spec = find_module(reference.source.split("."))
    if spec is None:
        raise InputError(f"there is no module {reference.source!r}{_beside(reference, folder)}")
    is_source = spec.origin is not None and spec.origin.endswith(".py")
    return Path(spec.origin) if is_source and spec.origin else None


def _existing_file(reference: Reference, folder: Path) -> Path:
    path = moved_path((folder / path_from(reference.source)).absolute())
    if path.is_file():
        return path
    beside = sorted(file.name for file in path.parent.glob("*.py"))
    hint = suggest(path.name, beside) if beside else f"{path.parent} holds no Python files"
    raise InputError(f"there is no file {path}; {hint}")


def _beside(reference: Reference, folder: Path) -> str:
    file_name = f"{reference.source}.py"
    exists = (folder / file_name).is_file()
    return f"; did you mean '{file_name}:{reference.function}'?" if exists else ""


def find_module(parts: Sequence[str]) -> importlib.machinery.ModuleSpec | None:
    """The spec of a module; None if there is none.

    Unlike `find_spec("a.b")`, this does not import the package `a`.
    """
    try:
        spec = importlib.util.find_spec(parts[0])
    except ValueError:  # a module without a spec, such as __main__
        return None
    for end in range(2, len(parts) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = ".".join(parts[:end])
        spec = importlib.machinery.PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec


def parse_source(path: Path, shown: str) -> list[ast.stmt]:
    """The statements of a Python file, which messages call `shown`.

    Raises:
        InputError: The file cannot be read or is not valid Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings are shown when the file is imported
            return _parse(content_of(path), str(path))
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise InputError(f"{shown}{line}: not valid Python: {error.msg}") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, or nested too deeply
        raise InputError(f"{shown}: not valid Python: {said_by(error)}") from error


@functools.lru_cache(maxsize=16)
def _parse(content: bytes, filename: str) -> list[ast.stmt]:
    """The statements of a text, kept because several checks of a job read the same files."""
    return ast.parse(content, filename=filename).body


def _top_level_names(body: Iterable[ast.stmt]) -> dict[str, ast.stmt]:
    """Name that running the module would define -> the statement that defines it."""
    return {name: node for node in _statements(body) for name in _defined_names(node)}


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements in a module's own scope, including those inside `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for block in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, block, ()))
        for handler in getattr(node, "handlers", ()):
            yield from _statements(handler.body)


def _defined_names(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name.split(".")[0] for alias in node.names]
        case ast.Assign():
            targets = [name for target in node.targets for name in ast.walk(target)]
            return [name.id for name in targets if isinstance(name, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def _is_public_definition(name: str, node: ast.stmt) -> bool:
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(node, definitions) and not name.startswith("_")


def _parameters(node: ast.stmt | None) -> Parameters | None:
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return None
    arguments = node.args
    num_positional_only = len(arguments.posonlyargs)
    positional = [arg.arg for arg in (*arguments.posonlyargs, *arguments.args)]
    num_without_default = len(positional) - len(arguments.defaults)
    keyword_only = [arg.arg for arg in arguments.kwonlyargs]
    defaults = zip(keyword_only, arguments.kw_defaults, strict=True)
    required_keywords = [name for name, default in defaults if default is None]
    return Parameters(
        names=(*positional[num_positional_only:], *keyword_only),
        required=(*positional[:num_without_default], *required_keywords),
        takes_any=arguments.kwarg is not None,
    )
