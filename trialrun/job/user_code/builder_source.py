"""What the source code of a builder says about the model that it returns, without running it."""

import ast
import sys
from pathlib import Path

from trialrun.errors import InputError
from trialrun.job.user_code.functions import (
    absolute_reference,
    find_source,
    parse_reference,
    parse_source,
)
from trialrun.job.user_code.imports import own_files
from trialrun.job.user_code.own_files import is_part_of_trialrun, is_users_own

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

    False for trialrun's own builders, and for a file that, together with the user's files that it
    imports, neither names what compiles a model nor imports a library that could do so.

    Args:
        reference: The builder, as `model.builder` names it.
        folder: The folder to which the path of a file is relative.
    """
    parsed = parse_reference(reference)
    try:
        path = find_source(parsed, folder)
        if path is None or is_part_of_trialrun(path):
            return path is None
        files = own_files(parse_reference(absolute_reference(reference, folder)))
        own = {Path(file.shown).parts[0].partition(".")[0] for file in files}
        return any(_may_compile_in(file.path, own) for file in files)
    except InputError:
        return True  # the error is reported where the field is checked


def _may_compile_in(path: Path, own: set[str]) -> bool:
    if path.suffix != ".py":
        return True
    nodes = (node for one in parse_source(path, path.name) for node in ast.walk(one))
    are_known = is_users_own(path)  # what an installed package imports from itself is not read
    return any(_names_unknown(node, own, are_known) for node in nodes)


def _names_unknown(node: ast.AST, own: set[str], are_known: bool) -> bool:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in _COMPILES
        case ast.Import(names=names):
            modules = [alias.name for alias in names]
        case ast.ImportFrom(level=level, module=module, names=names):
            if any(alias.name in _COMPILES for alias in names):
                return True
            if level:
                return not are_known
            modules = [str(module)]
        case _:
            return False
    return any(name.split(".")[0] not in _KNOWN_LIBRARIES | own for name in modules)
