"""Two variants of a run side by side, as `trialrun compare` prints them."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trialrun.analysis.comparison import MetricComparison, VariantComparison
from trialrun.analysis.parameters import ABSENT
from trialrun.messages import counted
from trialrun.report.columns import TextColumn, fold_header
from trialrun.report.format import number_text, p_value_text, parameter_text
from trialrun.statistics.best import LEVEL
from trialrun.statistics.paired import num_seeds_needed
from trialrun.store.files import json_ready

if TYPE_CHECKING:
    from rich.console import Console


def verdict(compared: VariantComparison) -> str:
    """A sentence that says which variant is better by the selection metric, if that is known."""
    first, second = compared.first, compared.second
    needed = num_seeds_needed(1, level=LEVEL)
    paired = compared.metrics[0].paired
    if paired.n < needed:
        return (
            f"Both have a {compared.metric} in {counted(paired.n, 'seed')} only, and a sign-flip"
            f" test needs at least {needed} to find a difference."
        )
    p_value = f"p = {p_value_text(paired.p_value)}".replace("= <", "< ")
    if paired.p_value > LEVEL:
        return f"By {compared.metric} no difference between them is found at 5% ({p_value})."
    is_first = (paired.difference < 0) == (compared.goal == "minimize")
    better, worse = (first, second) if is_first else (second, first)
    is_higher = compared.goal == "maximize"
    share = (
        paired.probability_first_higher
        if is_first == is_higher
        else (1 - paired.probability_first_higher)
    )
    return (
        f"By {compared.metric} {better} is better than {worse} ({p_value}), under {share:.0%} of"
        " the seeds."
    )


def comparison_json(compared: VariantComparison) -> dict[str, Any]:
    """The comparison as values for JSON (`trialrun compare --json`); unknown values are None."""
    content = {name: getattr(compared, name) for name in VariantComparison.__dataclass_fields__} | {
        "verdict": verdict(compared),
        "parameters": {
            path: [None if value is ABSENT else value for value in values]
            for path, values in compared.parameters.items()
        },
        "metrics": {
            metric.name: {
                "first": metric.first,
                "second": metric.second,
                **metric.paired._asdict(),
            }
            for metric in compared.metrics
        },
    }
    ready: dict[str, Any] = json_ready(content)
    return ready


def print_comparison(console: "Console", compared: VariantComparison) -> None:
    """Prints the parameters that differ, a table of the metrics, and the verdict."""
    from rich.text import Text

    from trialrun.report.tables import fits, plain_table

    about = f"  {compared.first} against {compared.second}, {counted(compared.num_seeds, 'seed')}"
    console.print(Text.assemble((compared.job_name, "bold"), about))
    for path, values in compared.parameters.items():
        first, second = map(parameter_text, values)
        console.print(Text(f"{path}: {first} against {second}"))
    console.print()
    for columns in _layouts(compared):
        if fits(columns, console.width):
            break
    console.print(plain_table(columns))
    console.print(Text(f"\n{verdict(compared)}"))
    for line in _notes(compared):
        console.print(Text(line, style="dim"))


def _layouts(compared: VariantComparison) -> Iterator[list[TextColumn]]:
    """Layouts of the columns, from the widest to the narrowest.

    Narrower ones fold long names, and the narrowest leave out the last column.
    """
    names, *numbers = _columns(compared, compared.metrics)
    for room, num_left_out in ((99, 0), (16, 0), (16, 1), (12, 1)):
        folded = TextColumn(
            names.header, tuple(fold_header(name, room) for name in names.cells), False
        )
        yield [folded, *numbers[: len(numbers) - num_left_out]]


def _columns(compared: VariantComparison, shown: Sequence[MetricComparison]) -> list[TextColumn]:
    decimals = [_decimals(metric) for metric in shown]
    paired = [metric.paired for metric in shown]

    def numbers(name: str, values: Sequence[float]) -> TextColumn:
        return TextColumn(name, tuple(map(number_text, values, decimals)))

    return [
        TextColumn("metric", tuple(metric.name for metric in shown), is_number=False),
        TextColumn(compared.first, tuple(map(_mean_text, [m.first for m in shown], decimals))),
        TextColumn(compared.second, tuple(map(_mean_text, [m.second for m in shown], decimals))),
        numbers("difference", [comparison.difference for comparison in paired]),
        TextColumn("95% interval", tuple(map(_interval_text, shown, decimals))),
        TextColumn("p", tuple(p_value_text(comparison.p_value) for comparison in paired)),
        TextColumn(
            f"{compared.first}\nhigher in",
            tuple(_percent_text(comparison.probability_first_higher) for comparison in paired),
        ),
    ]


def _decimals(metric: MetricComparison) -> int:
    """Decimals for two significant digits of the interval's width, or else four of the means."""
    width = metric.paired.high - metric.paired.low
    if width and math.isfinite(width):
        return min(max(1 - math.floor(math.log10(width)), 0), 6)
    return _four_digits(max(abs(metric.first), abs(metric.second)))


def _four_digits(number: float) -> int:
    size = abs(number)
    return min(max(3 - math.floor(math.log10(size)), 0), 6) if size and math.isfinite(size) else 3


def _mean_text(mean: float, decimals: int) -> str:
    """A mean with at least four significant digits, however wide the interval is."""
    return number_text(mean, max(decimals, _four_digits(mean)))


def _interval_text(metric: MetricComparison, decimals: int) -> str:
    low, high = metric.paired.low, metric.paired.high
    if not math.isfinite(low):
        return "none"
    return f"{number_text(low, decimals)} to {number_text(high, decimals)}"


def _percent_text(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.0%}"


def _notes(compared: VariantComparison) -> Iterator[str]:
    yield (
        "p: sign-flip test of the differences seed by seed. Test numbers are only shown, not used."
    )
    if compared.has_rounds:
        yield (
            "This p is for this pair alone, and the same seeds chose which variants got more of"
            " them, for which it is not corrected. Fresh seeds (search.confirm) tell more."
        )
    elif compared.num_variants > 2:
        yield (
            "This p is for this pair alone. If you picked the pair because it differs, use the"
            " p_value in variants.csv, which is corrected for all pairs."
        )
