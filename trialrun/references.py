"""A function that the user names: `module:function`, or `file.py:function` beside the job file.

Checking reads the source without running it, so that a wrong name is found before anything heavy is
imported. Loading imports it for real.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trialrun.errors import InputError
from trialrun.quiet import quiet_tensorflow
from trialrun.vocabulary import suggest

_IMPORTS_KERAS = re.compile(rb"^(?:import|from) .*\b(?:keras|tensorflow)\b", re.MULTILINE)
_SEED_OF_IMPORTS = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """The two halves of `source:function`.

    Attributes:
        source: A dotted module name, or the path of a Python file.
        function: A name at the top level of the source.
    """

    source: str
    function: str

    @property
    def is_file(self) -> bool:
        """Whether the source is a path and not a module."""
        return self.source.endswith(".py")

    def __str__(self) -> str:
        return f"{self.source}:{self.function}"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The keyword arguments that a function takes, as far as its source tells.

    Attributes:
        names: All that can be given by name.
        required: Those without a default.
        takes_any: Whether it has `**kwargs`.
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    takes_any: bool


def parse_reference(text: str) -> Reference:
    """The two halves of a reference.

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
    """The reference with the path of its file made absolute; a module's is left as it is."""
    reference = parse_reference(text)
    if not reference.is_file:
        return text
    path = (folder / Path(reference.source).expanduser()).absolute()
    return str(Reference(str(path), reference.function))


def portable_reference(text: str) -> str:
    """The reference without the folder of its file: the same in every clone of a project."""
    reference = parse_reference(text)
    if not reference.is_file:
        return text
    return str(Reference(Path(reference.source).name, reference.function))


def check_reference(text: str, folder: Path) -> Parameters | None:
    """The parameters of a function that exists, found without running any of its code.

    Args:
        text: The reference.
        folder: Where the path of a file starts.

    Returns:
        None where the source cannot tell: a compiled module, a name that is imported or assigned,
        a decorated function, a class.

    Raises:
        InputError: There is no such file, module or name; the message has the nearest ones.
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
    """The function itself. Its module, and all that it imports, is imported.

    What a file draws while it is imported is the same in every process.

    Args:
        text: The reference.
        folder: Where the path of a file starts.

    Raises:
        InputError: The import raises, or the name does not exist or cannot be called.
    """
    reference = parse_reference(text)
    try:
        module = _load_file(reference, folder) if reference.is_file else _load_module(reference)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"importing {reference.source} raised {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, reference.function):
        names = [name for name in dir(module) if not name.startswith("_")]
        hint = suggest(reference.function, names)
        raise InputError(f"{reference.source} has no function {reference.function!r}; {hint}")
    function = getattr(module, reference.function)
    if not callable(function):
        raise InputError(f"{reference} is no function but of type {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def _load_module(reference: Reference) -> ModuleType:
    if reference.source in sys.modules:
        return sys.modules[reference.source]
    with _streams_of_an_import():
        return importlib.import_module(reference.source)


def _streams_of_an_import() -> contextlib.AbstractContextManager[None]:
    from trialrun.seeding import streams_seeded  # NumPy is not needed to check a job

    return streams_seeded(_SEED_OF_IMPORTS)


def _load_file(reference: Reference, folder: Path) -> ModuleType:
    """The file as a module, executed once per content, able to import its neighbors."""
    path = _existing_file(reference, folder)
    # Content in the name: an edited file is a new module, an unchanged one is never executed
    # twice (Keras would register its layers twice). In sys.modules, so that pickle finds it.
    digest = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:12]
    name = f"trialrun_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _import_keras_quietly(path.read_bytes())
    try:
        with _streams_of_an_import():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_keras_quietly(source: bytes) -> None:
    """Imports Keras before a file does, which would let TensorFlow write to the terminal.

    Not before a file that sets the environment, which TensorFlow reads while it is imported.
    """
    if _IMPORTS_KERAS.search(source) and b"environ" not in source and "keras" not in sys.modules:
        with quiet_tensorflow():
            importlib.import_module("keras")


def find_source(reference: Reference, folder: Path) -> Path | None:
    """The source file of a reference; None for a module that has none.

    Raises:
        InputError: There is no such file or module.
    """
    if reference.is_file:
        return _existing_file(reference, folder)
    spec = _find_module(reference.source.split("."))
    if spec is None:
        raise InputError(f"there is no module {reference.source!r}{_beside(reference, folder)}")
    is_source = spec.origin is not None and spec.origin.endswith(".py")
    return Path(spec.origin) if is_source and spec.origin else None


_moved: dict[Path, Path] = {}


def move_folder(folder: Path, copies: Path) -> None:
    """From now on, files of `folder` are taken from `copies` in this process."""
    _moved[folder] = copies


def moved_path(path: Path) -> Path:
    """Where a file of an absolute path is taken from in this process."""
    return _moved.get(path.parent, path.parent) / path.name


def _existing_file(reference: Reference, folder: Path) -> Path:
    path = moved_path((folder / Path(reference.source).expanduser()).absolute())
    if path.is_file():
        return path
    beside = sorted(file.name for file in path.parent.glob("*.py"))
    hint = suggest(path.name, beside) if beside else f"{path.parent} holds no Python files"
    raise InputError(f"there is no file {path}; {hint}")


def _beside(reference: Reference, folder: Path) -> str:
    file_name = f"{reference.source}.py"
    exists = (folder / file_name).is_file()
    return f"; did you mean '{file_name}:{reference.function}'?" if exists else ""


def _find_module(parts: list[str]) -> importlib.machinery.ModuleSpec | None:
    """Where a module is. Unlike `find_spec("a.b")`, this does not import the package `a`."""
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
    """The statements of a Python file; `shown` names it in errors.

    Raises:
        InputError: It is not Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user's, and shown when the file is imported
            return ast.parse(path.read_bytes(), filename=str(path)).body
    except SyntaxError as error:
        raise InputError(f"{shown}:{error.lineno}: not valid Python: {error.msg}") from error
    except ValueError as error:  # null bytes
        raise InputError(f"{shown}: not valid Python: {error}") from error


def _top_level_names(body: Iterable[ast.stmt]) -> dict[str, ast.stmt]:
    """Each name that running the module would define, with the statement that does."""
    return {name: node for node in _statements(body) for name in _defined_names(node)}


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module's own scope, those inside `if`, `try` and `with` too."""
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
