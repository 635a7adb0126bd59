"""How the variants compare: every seed as a point, and the mean with its interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trialrun.job import Goal
from trialrun.messages import counted
from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import (
    BLACK,
    BLUE,
    GRAY,
    TICK_SIZE,
    VERMILLION,
    better,
    finite,
    legend_above,
    name_axes,
    name_rows,
    scale_metric,
    tidy,
)
from trialrun.statistics.spread import Floats, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DRAWN = 40
_WIDTH_IN, _ROW_IN, _LOWEST_IN = 6.2, 0.24, 1.1
# How far seeds are spread to both sides of a row, in their order, so that equal ones are all seen.
_SPREAD = 0.27
_MAX_IN_WORDS = 3


def variants_drawing(
    names: Sequence[str],
    values: Floats,
    intervals: Floats,
    *,
    metric: str,
    goal: Goal,
) -> Drawing:
    """The figure of the variants, with its caption and description.

    Args:
        names: (variants,) the best first; at most the first 40 are shown.
        values: (variants, seeds) the selection metric; NaN where nothing completed.
        intervals: (variants, 2) 95% interval of the mean; not finite where there is none.
        metric, goal: What ranks the variants.
    """
    num_all = len(names)
    names, values, intervals = names[:MAX_DRAWN], values[:MAX_DRAWN], intervals[:MAX_DRAWN]
    shown = (
        f"the best {MAX_DRAWN} of {num_all:,} variants" if num_all > MAX_DRAWN else _all(num_all)
    )
    has_intervals = bool(np.isfinite(intervals).all(axis=1).any())
    mean = "mean and 95% interval" if has_intervals else "mean"
    title = f"{metric} of {shown}"
    return Drawing(
        name="variants",
        caption=f"{metric} of {shown}, the best first: each seed as a point, {mean} of each"
        " variant. The dotted line is the mean of the best.",
        alt=f"{title}, {counted(values.shape[1], 'seed')}, {better('', goal).strip(' ()')}."
        f" {_words(names, values, intervals)}",
        figure=draw_variants(names, values, intervals, metric=metric, goal=goal, title=title),
    )


def _all(num_variants: int) -> str:
    return "the only variant" if num_variants == 1 else f"{num_variants} variants"


def _words(names: Sequence[str], values: Floats, intervals: Floats) -> str:
    """A text with the numbers of the first variants and of the last one."""
    means = describe(finite(values)).mean
    last = len(names) - 1
    told = [
        f"{names[row]}: {_number(means[row], intervals[row])}"
        for row in range(min(len(names), _MAX_IN_WORDS))
    ]
    if last >= _MAX_IN_WORDS:
        told.append(f"the last shown, {names[last]}: {_number(means[last], intervals[last])}")
    return f"{'; '.join(told)}."


def _number(mean: float, interval: Floats) -> str:
    if not np.isfinite(mean):
        return "no seed completed"
    if not np.isfinite(interval).all():
        return f"mean {mean:.4g}"
    return f"mean {mean:.4g}, 95% interval {interval[0]:.4g} to {interval[1]:.4g}"


def draw_variants(
    names: Sequence[str],
    values: Floats,
    intervals: Floats,
    *,
    metric: str,
    goal: Goal,
    title: str,
) -> "Figure":
    """A figure with one row per variant: its seeds as points, its mean, and the mean's interval.

    Args:
        names: (variants,) from top to bottom.
        values: (variants, seeds); NaN where a seed has no value.
        intervals: (variants, 2) low and high; not finite where there is no interval.
        metric, goal: What the values are.
        title: The title.

    Returns:
        One panel with lines in this order: the seeds, the means, the best mean; then the intervals.
    """
    values = finite(values)
    height = max(_LOWEST_IN, _ROW_IN * len(names))
    figure = new_figure()
    rows = add_panels(figure, 1, 1)
    set_sizes(figure, rows, widths=[_WIDTH_IN], heights=[height])
    axes = rows[0][0]
    spread = describe(values)
    handles = _draw_points(axes, values, spread.mean)
    bounded = np.flatnonzero(np.isfinite(intervals).all(axis=1))
    if len(bounded):
        axes.hlines(bounded, *intervals[bounded].T, color=BLACK, linewidth=1.8)
        handles.append(_line("95% interval of the mean"))
    axes.set_ylim(len(names) - 0.5, -0.5)
    scale_metric(axes, "x", values)
    tidy(axes, "x")
    name_rows(axes, range(len(names)), names, room_in=height / len(names), size=TICK_SIZE)
    name_axes(axes, x=better(metric, goal))
    _note_missing(axes, values.shape[1], spread.n.tolist())
    legend_above(axes, handles, 3)
    arrange(figure, rows, title=title)
    return figure


def _draw_points(axes: "Axes", values: Floats, means: Floats) -> list[object]:
    """Draws seeds, means and the line at the best mean; returns the lines for the legend."""
    num_variants, num_seeds = values.shape
    offsets = np.linspace(-_SPREAD, _SPREAD, num_seeds) if num_seeds > 1 else np.zeros(1)
    rows = np.arange(num_variants)
    (seeds,) = axes.plot(
        values.ravel(),
        (rows[:, np.newaxis] + offsets).ravel(),
        "o",
        color=BLUE,
        markersize=4,
        markeredgewidth=0,
        alpha=0.55,
        label="one seed",
    )
    (mean,) = axes.plot(
        means,
        rows,
        "D",
        color=VERMILLION,
        markeredgecolor=BLACK,
        markeredgewidth=0.7,
        markersize=6.5,
        zorder=4,
        label="mean",
    )
    if np.isfinite(means[0]):
        axes.axvline(means[0], color=GRAY, linestyle=":", linewidth=1.2, zorder=1)
    return [seeds, mean]


def _line(label: str) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=BLACK, linewidth=1.8, label=label)


def _note_missing(axes: "Axes", num_seeds: int, completed: Sequence[int]) -> None:
    """Notes at the end of a row how many seeds it has, if some are missing."""
    for row, number in enumerate(completed):
        if number < num_seeds:
            axes.annotate(
                f"{number} of {num_seeds} seeds",
                (1, row),
                xycoords=axes.get_yaxis_transform(),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=GRAY,
                fontsize=TICK_SIZE - 1,
            )
