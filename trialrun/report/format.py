"""How numbers, parameters and names are written for people, in the terminal and on the page."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from trialrun.aggregate import MetricSummary

_MOST_DECIMALS = 6


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest endings of dotted paths that tell them apart.

    >>> short_names(["training.learning_rate", "model.args.units"])
    {'training.learning_rate': 'learning_rate', 'model.args.units': 'units'}

    Returns:
        Path -> ending, which is the whole path where nothing shorter is unambiguous.
    """
    return {path: _short_name(path, paths) for path in paths}


def _short_name(path: str, paths: Sequence[str]) -> str:
    keys = path.split(".")
    for length in range(1, len(keys)):
        ending = keys[-length:]
        if sum(other.split(".")[-length:] == ending for other in paths) == 1:
            return ".".join(ending)
    return path


def parameter_text(value: Any) -> str:
    """A parameter as it may be written in a job file, numbers with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return f"[{', '.join(parameter_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        items = (f"{key}: {parameter_text(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    return json.dumps(value)


def num_decimals(summary: MetricSummary) -> int:
    """Decimals for a mean: two significant digits of its spread, four of the mean without one."""
    if summary.sd > 0 and math.isfinite(summary.sd):
        digits = 1 - math.floor(math.log10(summary.sd))
    elif summary.mean and math.isfinite(summary.mean):
        digits = 3 - math.floor(math.log10(abs(summary.mean)))
    else:
        digits = 3
    return min(max(digits, 0), _MOST_DECIMALS)


def mean_text(summary: MetricSummary) -> str:
    """`0.184`, or `n/a` for a variant without a completed trial."""
    return number_text(summary.mean, num_decimals(summary))


def mean_sd_text(summary: MetricSummary) -> str:
    """`0.184 ± 0.012`; one seed has no spread: `0.184 ± n/a`; no seed: `n/a`.

    Each has the digits of its own spread: a wild variant takes none from another.
    """
    if not summary.n:
        return "n/a"
    decimals = num_decimals(summary)
    return f"{number_text(summary.mean, decimals)} ± {number_text(summary.sd, decimals)}"


def number_text(value: float, decimals: int) -> str:
    """`0.184`; `1.84e+07` for what is very large or very small; `n/a` for NaN."""
    if math.isnan(value):
        return "n/a"
    is_extreme = abs(value) >= 1e6 or 0 < abs(value) < 10.0**-_MOST_DECIMALS
    return f"{value:.2e}" if is_extreme else f"{value:.{decimals}f}"


def p_value_text(p_value: float) -> str:
    """`0.031`, or `<0.0001`."""
    return "<0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def counts_text(counts: Mapping[str, int]) -> str:
    """`60 trials: 58 completed, 2 diverged`; only what there is."""
    total = counts["trials"]
    parts = [f"{counts[name]:,} {name}" for name in ("completed", "diverged", "failed")]
    shown = [part for part in parts if not part.startswith("0 ")]
    trials = f"{total:,} trial{'s'[: total != 1]}"
    return f"{trials}: {', '.join(shown)}" if shown else trials


def class_labels(class_names: Sequence[str], num_classes: int) -> list[str]:
    """The names of the classes; their numbers where the data has no name for each."""
    if len(class_names) == num_classes:
        return [str(name) for name in class_names]
    return [str(number) for number in range(num_classes)]


def seeds_text(num_seeds: int) -> str:
    """`1 seed` or `20 seeds`."""
    return f"{num_seeds} seed{'s'[: num_seeds != 1]}"


def pooled_text(num_seeds: int) -> str:
    """`1 seed` or `20 seeds pooled`."""
    return f"{seeds_text(num_seeds)} pooled" if num_seeds > 1 else seeds_text(num_seeds)
