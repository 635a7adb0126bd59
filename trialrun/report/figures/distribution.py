"""The distribution of the seeds' scores: the share that is as good as a threshold, or better."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from trialrun.job import Goal
from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    better,
    finite,
    legend_above,
    name_axes,
    scale_metric,
    tidy,
)
from trialrun.statistics.spread import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_VARIANTS = 8
_WIDTH_IN, _HEIGHT_IN = 6.2, 3.6
_FEWEST_SEEDS_WITH_BAND = 4
_MAX_THRESHOLDS = 1000
_Z = 1.959963984540054  # a standard normal value is between -z and z 95% of the time
_STYLES: Sequence[tuple[str, Any, str]] = (
    (BLUE, "-", "o"),
    (VERMILLION, "--", "s"),
    (GREEN, "-.", "^"),
    (BLACK, ":", "D"),
    (ORANGE, (0, (6, 1.5)), "v"),
    (PURPLE, (0, (3, 1, 1, 1)), "P"),
    (SKY, (0, (1, 1)), "X"),
    (GRAY, (0, (5, 1, 1, 1, 1, 1)), "*"),
)


class Profile(NamedTuple):
    """The performance profile of one variant.

    Attributes:
        parts: (thresholds,) share of the seeds that are as good or better, 0 to 1.
        low, high: (thresholds,) pointwise 95% interval of the share.
        n: Number of seeds.
    """

    parts: Floats
    low: Floats
    high: Floats
    n: int


def profile_of(values: Floats, thresholds: Floats, goal: Goal) -> Profile:
    """The share of the seeds whose value is at most (minimize) or at least (maximize) a threshold.

    Args:
        values: (seeds,), at least one.
        thresholds: (thresholds,).
        goal: Whether small or large is good.

    References:
        Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
        (NeurIPS 2021), section 4.2; Wilson, "Probable Inference, the Law of Succession, and
        Statistical Inference" (1927), for the interval: unlike a bootstrap it does not shrink to
        nothing where all seeds, or none, reach the threshold.
    """
    ordered, n = np.sort(values), len(values)
    if goal == "minimize":
        shares = np.searchsorted(ordered, thresholds, side="right") / n
    else:
        shares = 1 - np.searchsorted(ordered, thresholds, side="left") / n
    middle = (shares + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * np.sqrt(shares * (1 - shares) / n + (_Z / (2 * n)) ** 2) / (1 + _Z**2 / n)
    return Profile(shares, np.maximum(middle - half, 0), np.minimum(middle + half, 1), n)


def distribution_drawing(
    names: Sequence[str], values: Floats, *, metric: str, goal: Goal
) -> Drawing | None:
    """The figure of the best variants' score distributions, with its caption and description.

    Args:
        names: (variants,) the best first; at most the first 8 that completed are shown.
        values: (variants, seeds) the selection metric; NaN where nothing completed.
        metric, goal: What ranks the variants.

    Returns:
        None if nothing completed.
    """
    known = finite(values)
    measured = np.flatnonzero(~np.isnan(known).all(axis=1))[:MAX_VARIANTS]
    if not len(measured):
        return None
    shown = [names[index] for index in measured]
    top = f"the best {len(shown)} of {len(names):,}" if len(shown) < len(names) else "all"
    which = f"{top} variants" if len(names) > 1 else "the only variant"
    title = f"Distribution of {metric} over seeds, {which}"
    relation = "at most" if goal == "minimize" else "at least"
    has_band = _has_band(known[measured])
    band = " The band around the first line is its pointwise 95% interval."
    return Drawing(
        name="score_distribution",
        caption=f"{title}: how many of its seeds reach {relation} the value on the axis."
        f" The higher a line, the better; where lines cross, neither is better throughout."
        f"{band if has_band else ''}",
        alt=f"{title}, {better('', goal).strip(' ()')}. {_words(shown, known[measured], goal)}",
        figure=draw_score_distribution(
            shown, known[measured], metric=metric, goal=goal, title=title
        ),
    )


def _words(names: Sequence[str], values: Floats, goal: Goal) -> str:
    """A text with the best, the median and the worst value of each variant's seeds."""
    told = []
    for name, row in zip(names, values, strict=True):
        low, median, high = np.nanquantile(row, [0, 0.5, 1])
        first, last = (low, high) if goal == "minimize" else (high, low)
        told.append(f"{name}: best seed {first:.4g}, median {median:.4g}, worst {last:.4g}.")
    return " ".join(told)


def _has_band(values: Floats) -> bool:
    return bool((~np.isnan(values[0])).sum() >= _FEWEST_SEEDS_WITH_BAND)


def draw_score_distribution(
    names: Sequence[str], values: Floats, *, metric: str, goal: Goal, title: str
) -> "Figure":
    """A figure of the variants' performance profiles, with steps at the values of their seeds.

    Args:
        names: (variants,) the best first; at most 8.
        values: (variants, seeds); NaN where a seed has no value; at least one value per variant.
        metric, goal: What the values are.
        title: The title.

    Returns:
        One panel with a line per variant, and a band around the first if it has at least four
        seeds.
    """
    figure = new_figure()
    rows = add_panels(figure, 1, 1)
    set_sizes(figure, rows, widths=[_WIDTH_IN], heights=[_HEIGHT_IN])
    axes = rows[0][0]
    values = finite(values)
    thresholds = _thresholds(values)
    # The share changes exactly at a value: for `at most` it holds from there on, for `at least` up
    # to there.
    step: Literal["post", "pre"] = "post" if goal == "minimize" else "pre"
    handles = []
    for index, (name, row) in enumerate(zip(names, values, strict=True)):
        profile = profile_of(row[~np.isnan(row)], thresholds, goal)
        handles.append(_draw_line(axes, index, thresholds, profile, name, step))
    if _has_band(values):
        first = profile_of(values[0][~np.isnan(values[0])], thresholds, goal)
        axes.fill_between(
            thresholds, first.low, first.high, step=step, color=BLUE, alpha=0.15, linewidth=0
        )
    scale_metric(axes, "x", values)
    axes.set(xlim=(thresholds[0], thresholds[-1]), ylim=(-0.02, 1.03))
    axes.yaxis.set_major_formatter("{x:.0%}")
    tidy(axes)
    relation = "\N{LESS-THAN OR EQUAL TO}" if goal == "minimize" else "\N{GREATER-THAN OR EQUAL TO}"
    name_axes(axes, x=better(metric, goal), y=f"Seeds {relation} value")
    legend_above(axes, handles, 4)
    arrange(figure, rows, title=title)
    return figure


def _thresholds(values: Floats) -> Floats:
    """The values at which any line has a step, and a margin; evenly spaced ones of very many."""
    steps = np.unique(values[~np.isnan(values)])
    if len(steps) > _MAX_THRESHOLDS:
        steps = steps[np.linspace(0, len(steps) - 1, _MAX_THRESHOLDS).round().astype(np.intp)]
    margin = 0.04 * (steps[-1] - steps[0]) or 0.05 * abs(steps[0]) or 0.05
    first = steps[0] - margin
    if steps[0] > 0:  # the axis may be logarithmic
        first = max(first, steps[0] / 2)
    return np.concatenate([[first], steps, [steps[-1] + margin]])


def _draw_line(
    axes: "Axes", index: int, thresholds: Floats, profile: Profile, name: str, step: str
) -> object:
    color, dashes, marker = _STYLES[index % len(_STYLES)]
    (line,) = axes.plot(
        thresholds,
        profile.parts,
        drawstyle=f"steps-{step}",
        color=color,
        linestyle=dashes,
        linewidth=2.4 if index == 0 else 1.6,
        marker=marker,
        markersize=5,
        markevery=max(1, len(thresholds) // 8),
        label=name,
        zorder=3 - 0.01 * index,
    )
    return line
