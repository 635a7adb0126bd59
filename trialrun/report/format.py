"""How numbers, parameters and names are written for people, in the terminal and on the page."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from trialrun.analysis.parameters import ABSENT
from trialrun.analysis.variants import MetricSummary
from trialrun.messages import counted, listed

_MOST_DECIMALS = 6


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest endings of dotted paths that are still unambiguous.

    >>> short_names(["training.learning_rate", "model.args.units"])
    {'training.learning_rate': 'learning_rate', 'model.args.units': 'units'}

    Returns:
        Path -> ending, which is the whole path if nothing shorter is unambiguous.
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
    """A parameter as it may be written in a job file, numbers with four significant digits.

    A parameter that a variant does not have is `-`.
    """
    if value is ABSENT:
        return "-"
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


def condition_text(when: Mapping[str, Sequence[Any]]) -> str:
    """Where a parameter is searched, in words; empty if everywhere.

    >>> condition_text({"model.args.depth": [2, 3]})
    'if model.args.depth is 2 or 3'
    """
    parts = [
        f"{path} is {listed([parameter_text(value) for value in values], 'or')}"
        for path, values in when.items()
    ]
    return f"if {' and '.join(parts)}" if parts else ""


def num_decimals(summary: MetricSummary) -> int:
    """Decimals for two significant digits of the spread, or four of the mean if it has none."""
    if summary.sd > 0 and math.isfinite(summary.sd):
        digits = 1 - math.floor(math.log10(summary.sd))
    elif summary.mean and math.isfinite(summary.mean):
        digits = 3 - math.floor(math.log10(abs(summary.mean)))
    else:
        digits = 3
    return min(max(digits, 0), _MOST_DECIMALS)


def mean_text(summary: MetricSummary) -> str:
    """The mean as text: `0.184`, or `n/a` for a variant without a completed trial."""
    return number_text(summary.mean, num_decimals(summary))


def mean_sd_text(summary: MetricSummary) -> str:
    """Mean and standard deviation: `0.184 ± 0.012`; for one seed `0.184 ± n/a`, for none `n/a`.

    The number of decimals depends on the variant's own spread, not on other variants.
    """
    if not summary.n:
        return "n/a"
    decimals = num_decimals(summary)
    return f"{number_text(summary.mean, decimals)} ± {number_text(summary.sd, decimals)}"


def number_text(value: float, decimals: int) -> str:
    """A number as text: `0.184`, or `1.84e+07` if it is very large or small; `n/a` for NaN."""
    if math.isnan(value):
        return "n/a"
    is_extreme = abs(value) >= 1e6 or 0 < abs(value) < 10.0**-_MOST_DECIMALS
    return f"{value:.2e}" if is_extreme else f"{value:.{decimals}f}"


def p_value_text(p_value: float) -> str:
    """A p-value as text: `0.031`, or `<0.0001`."""
    return "<0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def counts_text(counts: Mapping[str, int]) -> str:
    """A text like `60 trials: 58 completed, 2 diverged`, without counts of zero."""
    total = counts["trials"]
    names = ("completed", "diverged", "failed", "paused")
    parts = [f"{counts.get(name, 0):,} {name}" for name in names]
    shown = [part for part in parts if not part.startswith("0 ")]
    trials = counted(total, "trial")
    return f"{trials}: {', '.join(shown)}" if shown else trials


def clock_text(seconds: float) -> str:
    """A duration as a clock shows it.

    >>> clock_text(75), clock_text(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration_text(seconds: float) -> str:
    """A duration in words.

    >>> duration_text(4.26), duration_text(75), duration_text(3675)
    ('4.3 s', '1 min 15 s', '1 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def cost_text(device_s: float | None, lost_s: float | None, compile_s: float | None) -> str:
    """What a run has cost, in time of devices; empty if that is not known.

    >>> cost_text(4000, 75, 20), cost_text(None, None, None)
    ('1:06:40 of devices, of which 1:15 in failed tries, 0:20 in compiling', '')
    """
    if not device_s:
        return ""
    parts = [f"{clock_text(lost_s)} in failed tries"] if lost_s else []
    parts += [f"{clock_text(compile_s)} in compiling"] if compile_s else []
    return f"{clock_text(device_s)} of devices{', of which ' if parts else ''}{', '.join(parts)}"


def rate_text(trials_per_s: float) -> str:
    """How many trials end per second.

    >>> rate_text(2434.8), rate_text(0.0545)
    ('2,435 trials/s', '0.0545 trials/s')
    """
    shown = f"{trials_per_s:,.0f}" if trials_per_s >= 100 else f"{trials_per_s:.3g}"
    return f"{shown} trials/s"


def left_text(left: tuple[float, float | None, float | None]) -> str:
    """How long the rest takes: expected, and between which limits, if they are known.

    >>> left_text((75, 60, 100)), left_text((75, 60, None)), left_text((75, None, None))
    ('1:15 left (1:00 to 1:40)', '1:15 left (at least 1:00)', '1:15 left')
    """
    expected_s, low_s, high_s = left
    text = f"{clock_text(expected_s)} left"
    if low_s is None:
        return text
    if high_s is None:
        return f"{text} (at least {clock_text(low_s)})"
    low, high = clock_text(low_s), clock_text(high_s)
    return text if low == high else f"{text} ({low} to {high})"


def class_labels(class_names: Sequence[str], num_classes: int) -> list[str]:
    """The names of the classes, or their numbers if the data does not name each of them."""
    if len(class_names) == num_classes:
        return [str(name) for name in class_names]
    return [str(number) for number in range(num_classes)]


def pooled_text(num_seeds: int) -> str:
    """A number of pooled seeds as text: `1 seed` or `20 seeds pooled`."""
    seeds = counted(num_seeds, "seed")
    return f"{seeds} pooled" if num_seeds > 1 else seeds


def reason_of(error: str) -> str:
    """The line of a trial's error that says what is wrong.

    Where calls in the user's own code follow, it is the first. Else it is the last, as in Python's
    traceback, which runs of older versions may hold.

    >>> reason_of("it raised KeyError: 'a'\\n  at nets.py:4 in build: table['a']")
    "it raised KeyError: 'a'"
    """
    lines = error.strip().splitlines() or [""]
    return lines[0 if place_of(error) else -1].strip()


def place_of(error: str) -> str:
    """The innermost call in the user's own code that a trial's error tells; empty if none.

    >>> place_of("it raised KeyError: 'a'\\n  at nets.py:4 in build: table['a']")
    "at nets.py:4 in build: table['a']"
    """
    lines = error.strip().splitlines()
    return next((line.strip() for line in lines[1:] if line.startswith("  at ")), "")
