"""What the source code of a builder says about the model that it returns, without running it."""

import ast
import sys
from pathlib import Path

from trialrun.errors import InputError
from trialrun.job.user_files import is_part_of_trialrun, with_neighbors
from trialrun.job.user_functions import find_source, parse_reference, parse_source

# The fields of `training` that say how a model is compiled. A builder that returns a compiled model
# leaves them without meaning.
COMPILED_FIELDS = (
    "optimizer",
    "learning_rate",
    "learning_rate_schedule",
    "loss",
    "loss_weights",
    "metrics",
    "weighted_metrics",
)
# Libraries that return no compiled model unless the code names one of `_COMPILES`.
_KNOWN_LIBRARIES = frozenset(
    {"keras", "tensorflow", "numpy", "pandas", "scipy", "sklearn", *sys.stdlib_module_names}
)
# Names that compile a model, return a compiled one, or could hide either.
_COMPILES = frozenset(
    {"compile", "compile_from_config", "load_model", "from_pretrained", "getattr", "eval", "exec"}
)


def may_compile(reference: str, folder: Path) -> bool:
    """Whether a builder may return a compiled model, as far as its source code shows.

    False for trialrun's own builders, and for a file that, together with its neighbors, neither
    names what compiles a model nor imports a library that could do so.

    Args:
        reference: The builder, as `model.builder` names it.
        folder: The folder to which the path of a file is relative.
    """
    parsed = parse_reference(reference)
    try:
        path = find_source(parsed, folder)
        if path is None or is_part_of_trialrun(path):
            return path is None
        files = with_neighbors(path)
        beside = {file.stem for file in files}
        return any(
            _names_unknown(node, beside)
            for file in files
            for statement in parse_source(file, file.name)
            for node in ast.walk(statement)
        )
    except InputError:
        return True  # the error is reported where the field is checked


def _names_unknown(node: ast.AST, beside: set[str]) -> bool:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in _COMPILES
        case ast.Import(names=names):
            modules = [alias.name for alias in names]
        case ast.ImportFrom(level=0, module=str(module), names=names):
            if any(alias.name in _COMPILES for alias in names):
                return True
            modules = [module]
        case ast.ImportFrom():
            return True  # a relative import, from a package around the file
        case _:
            return False
    return any(name.split(".")[0] not in _KNOWN_LIBRARIES | beside for name in modules)
