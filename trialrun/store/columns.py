"""The columns of `trials/` and `history/`: their names, types, and which are read for what."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trialrun.job import Range, ValueList, searched_paths
from trialrun.trials.trial import Variant
from trialrun.trials.versions import PACKAGES

ParameterKind = Literal["bool", "int", "float", "text", "json"]

IDENTITY_COLUMNS = {
    "trial_id": "string",
    "variant_id": "string",
    "seed": "int64",
    "status": "string",
    "engine": "string",
    "pack_id": "string",
    "attempt": "int64",
    "epochs": "int64",
    "duration_s": "float64",
    "device": "string",
    "node": "string",
    "error": "string",
}
# The column for the best epoch, if the pack's trials keep it; older runs lack this column.
BEST_EPOCH = "best_epoch"
# The columns for where a trial's numbers come from; older runs lack them.
DATA_FINGERPRINT = "data_fingerprint"


def version_column(package: str) -> str:
    """The column for the version of a package."""
    return f"{package}_version"


ORIGIN_COLUMNS = (DATA_FINGERPRINT, *map(version_column, PACKAGES))
HISTORY_IDENTITY = ("trial_id", "variant_id", "seed", "epoch")
PARAMETER_PREFIX = "param."
METRIC_PREFIXES = ("train_", "val_", "test_")
CONFUSION_MATRIX_COLUMNS = ("val_confusion_matrix", "test_confusion_matrix")
RELIABILITY_COLUMN = "test_reliability"
# Columns of arrays, flattened in row-major order. Other columns with a metric's prefix are numbers.
ARRAY_COLUMNS = {
    **dict.fromkeys(CONFUSION_MATRIX_COLUMNS, "int64"),
    RELIABILITY_COLUMN: "float64",
}

TrialColumns = Literal[
    "all", "results", "numbers", "identity", "reliability", "variants", "curves", "origin"
]

# Key of a column's metadata in a Parquet file. It tells JSON from plain text, which may also read
# "[1]".
KIND_KEY = b"trialrun.kind"


def parameter_kinds(variants: Sequence[Variant]) -> dict[str, ParameterKind]:
    """How each searched parameter is stored: one column type for the whole job.

    A parameter whose values are all numbers, all booleans or all strings is stored as such. Lists,
    mappings, None and mixtures of types are stored as JSON text. The decision depends on all
    variants of the job that have the parameter, so that all files of a run have the same parameter
    columns.

    Args:
        variants: All variants of the job.

    Returns:
        Searched dotted path -> kind, in the order of the search.
    """
    assignments = [variant.parameters for variant in variants]
    return {
        path: _kind_of([values[path] for values in assignments if path in values])
        for path in searched_paths(assignments)
    }


def domain_kinds(domains: Mapping[str, ValueList | Range]) -> dict[str, ParameterKind]:
    """How each searched parameter is stored if not all variants are known when the first end.

    Args:
        domains: Searched dotted path -> what it may be.
    """
    return {path: _kind_of_domain(domain) for path, domain in domains.items()}


def _kind_of_domain(domain: ValueList | Range) -> ParameterKind:
    if isinstance(domain, ValueList):
        return _kind_of(domain.values)
    is_int = domain.distribution == "int_uniform"
    return _kind_of([int(domain.min), int(domain.max)]) if is_int else "float"


def _kind_of(values: Sequence[Any]) -> ParameterKind:
    types = {type(value) for value in values}
    if types == {bool}:
        return "bool"
    if types == {int} and all(-(2**63) <= value < 2**63 for value in values):
        return "int"
    if types <= {int, float} and float in types:
        return "float"
    if types == {str}:
        return "text"
    return "json"


def metric_names(columns: Sequence[str]) -> list[str]:
    """The metric columns among `columns`: training, then validation, then test.

    Args:
        columns: Names of columns or metrics, repeated or not.

    Returns:
        Each metric once; within training, validation and test in the given order.
    """
    names = [name for name in dict.fromkeys(columns) if name not in ARRAY_COLUMNS]
    return [name for prefix in METRIC_PREFIXES for name in names if name.startswith(prefix)]


def columns_of(names: Sequence[str], wanted: TrialColumns) -> list[str]:
    """The columns of a Parquet file to read.

    Args:
        names: All columns of the file.
        wanted: `results` are identity, metrics and confusion matrices; `numbers` are these without
            the matrices; `identity` also leaves out the metrics. `reliability` is identity and the
            column of reliability curves. `variants` are the variants, their parameters and the
            seeds. `curves` are the columns of a file of `history/` that curves need. `origin` is
            the trial and where its numbers come from.
    """
    identity = list(IDENTITY_COLUMNS)
    matrices = [name for name in CONFUSION_MATRIX_COLUMNS if name in names]
    parameters = [name for name in names if name.startswith(PARAMETER_PREFIX)]
    match wanted:
        case "identity":
            return identity
        case "numbers":
            return identity + metric_names(names)
        case "results":
            return identity + metric_names(names) + matrices
        case "reliability":
            return identity + [name for name in names if name == RELIABILITY_COLUMN]
        case "variants":
            return ["variant_id", "seed", *parameters]
        case "origin":
            return ["trial_id", *(name for name in ORIGIN_COLUMNS if name in names)]
        case "curves":
            return [name for name in names if name not in ("trial_id", "variant_id")]
    return list(names)


def pack_file_name(pack_id: str, attempt: int) -> str:
    """The name of a pack's files without suffix: `part-p000`, after a retry `part-p000-1`, ..."""
    return f"part-{pack_id}-{attempt}" if attempt else f"part-{pack_id}"
