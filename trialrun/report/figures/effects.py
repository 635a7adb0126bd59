"""The effect of each searched parameter: the variants' means by its values, and their medians."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.analysis.parameters import ABSENT
from trialrun.job import Goal
from trialrun.job.keras_api.arguments import is_real
from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import MAX_PANELS, add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import (
    BLUE,
    PANEL_TITLE_SIZE,
    TICK_SIZE,
    VERMILLION,
    better,
    finite,
    legend_above,
    name_axes,
    name_columns,
    scale_by_decades,
    scale_metric,
    tidy,
)
from trialrun.report.figures.text import AS_IT_IS, fold_to_width, printable, width_in
from trialrun.report.format import parameter_text, short_names
from trialrun.statistics.spread import Floats, spans_decades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_COLUMNS = 3
# With more values, numbers are put into groups, and the worst categories are left out.
_MAX_VALUES = 10
_NUM_GROUPS = 6
_WIDTH_IN, _HEIGHT_IN = 3.3, 2.5
_MAX_POINTS_AS_LINES = 2000  # with more points, an SVG holds them as an image
_REACH = 0.36  # how far a category reaches to both sides of its position


class ValueGroup(NamedTuple):
    """The variants with one value of a parameter, or with neighboring numbers.

    Attributes:
        label: The value, or the range of the numbers.
        low, high: The group's range on the axis.
        median: The median of the variants' means.
    """

    label: str
    low: float
    high: float
    median: float


class Effect(NamedTuple):
    """One parameter, ready to be drawn.

    Attributes:
        name: The parameter's short name.
        is_number: Whether its axis has numbers, instead of categories at 0, 1, 2, ...
        positions: (variants,) positions on the axis; NaN for a variant that is not drawn.
        groups: The groups in the order of the axis.
        num_values: How many values it has; there may be fewer groups.
    """

    name: str
    is_number: bool
    positions: Floats
    groups: tuple[ValueGroup, ...]
    num_values: int

    @property
    def size(self) -> float:
        """The difference between the best and the worst median."""
        medians = [group.median for group in self.groups]
        return max(medians) - min(medians)


def effects_drawing(
    parameters: Mapping[str, Sequence[Any]], means: Floats, *, metric: str, goal: Goal
) -> Drawing | None:
    """The figure of the parameters' effects, with its caption and description.

    Args:
        parameters: Dotted path -> its value in each variant, `ABSENT` in those that do not have it.
        means: (variants,) means of the selection metric; NaN where nothing completed.
        metric, goal: What was measured.

    Returns:
        None if no parameter has at least two values.
    """
    effects = parameter_effects(parameters, means, goal)
    if not effects:
        return None
    shown = _largest(effects)
    more = ""
    if len(effects) > len(shown):
        more = (
            f" The {len(shown)} of {len(effects)} parameters whose medians differ most are shown."
        )
    title = f"Effect of the searched parameters on {metric}"
    return Drawing(
        name="parameter_effects",
        caption=f"{title}: the mean of each variant as a point, and for each value the median of"
        f" the variants that have it, whatever their other parameters are.{_notes(shown)}{more}",
        alt=f"{title}, {better('', goal).strip(' ()')}. {_words(shown, goal)}{more}",
        figure=draw_parameter_effects(shown, means, metric=metric, goal=goal, title=title),
    )


def parameter_effects(
    parameters: Mapping[str, Sequence[Any]], means: Floats, goal: Goal
) -> tuple[Effect, ...]:
    """The parameters that have two values or more among the variants that completed.

    Args:
        parameters: Dotted path -> its value in each variant, `ABSENT` in those that do not have it;
            categories keep this order.
        means: (variants,); NaN where nothing completed.
        goal: Decides which categories are the best 10, which are kept if there are more.
    """
    known = finite(means)
    names = short_names(list(parameters))
    effects = [_effect(names[path], values, known, goal) for path, values in parameters.items()]
    return tuple(effect for effect in effects if effect.num_values > 1)


def _effect(name: str, values: Sequence[Any], means: Floats, goal: Goal) -> Effect:
    means = np.where([value is ABSENT for value in values], np.nan, means)
    if all(is_real(value) for value in values if value is not ABSENT):
        numbers = finite([math.nan if value is ABSENT else value for value in values])
        return _number_effect(name, np.where(np.isnan(means), np.nan, numbers), means)
    return _category_effect(name, [parameter_text(value) for value in values], means, goal)


def _number_effect(name: str, numbers: Floats, means: Floats) -> Effect:
    distinct = np.unique(numbers[~np.isnan(numbers)])
    num_groups = len(distinct) if len(distinct) <= _MAX_VALUES else _NUM_GROUPS
    groups = []
    for inside in np.array_split(distinct, num_groups) if num_groups else []:
        low, high = float(inside[0]), float(inside[-1])
        label = parameter_text(low) + (f" to {parameter_text(high)}" if high > low else "")
        median = float(np.median(means[(numbers >= low) & (numbers <= high)]))
        groups.append(ValueGroup(label, low, high, median))
    return Effect(name, True, numbers, tuple(groups), len(distinct))


def _category_effect(name: str, texts: Sequence[str], means: Floats, goal: Goal) -> Effect:
    by_text: dict[str, list[int]] = {}
    for index in np.flatnonzero(~np.isnan(means)):
        by_text.setdefault(texts[int(index)], []).append(int(index))
    medians = {text: float(np.median(means[indices])) for text, indices in by_text.items()}
    best = sorted(medians, key=lambda text: medians[text] * (1 if goal == "minimize" else -1))
    kept = set(best[:_MAX_VALUES])
    positions = np.full(len(means), np.nan)
    groups: list[ValueGroup] = []
    for text in (text for text in by_text if text in kept):
        center, indices = len(groups), by_text[text]
        groups.append(ValueGroup(text, center - _REACH, center + _REACH, medians[text]))
        # Side by side, so that equal means do not hide each other.
        reach = _REACH * 0.8 if len(indices) > 1 else 0.0
        positions[indices] = center + np.linspace(-reach, reach, len(indices))
    return Effect(name, False, positions, tuple(groups), len(by_text))


def _largest(effects: Sequence[Effect]) -> tuple[Effect, ...]:
    """The largest effects, which are drawn, in their original order."""
    kept = sorted(effects, key=lambda effect: -effect.size)[:MAX_PANELS]
    return tuple(effect for effect in effects if any(effect is large for large in kept))


def _notes(effects: Sequence[Effect]) -> str:
    notes = ""
    if any(_is_grouped(effect) for effect in effects):
        notes += (
            f" Where a parameter has more than {_MAX_VALUES} numbers, medians are of"
            f" {_NUM_GROUPS} groups of neighbors."
        )
    for effect in effects:
        if not effect.is_number and effect.num_values > len(effect.groups):
            notes += (
                f" For {effect.name} the best {_MAX_VALUES} of {effect.num_values} values are"
                " shown."
            )
    return notes


def _is_grouped(effect: Effect) -> bool:
    return effect.is_number and effect.num_values > len(effect.groups)


def _words(effects: Sequence[Effect], goal: Goal) -> str:
    """A text with the best and the worst median of each parameter, and their values."""
    told = []
    for effect in effects:
        falling = goal == "maximize"
        best, *_, worst = sorted(effect.groups, key=lambda group: group.median, reverse=falling)
        told.append(
            f"{effect.name}: best median {best.median:.4g} at {best.label},"
            f" worst {worst.median:.4g} at {worst.label}."
        )
    return " ".join(told)


def draw_parameter_effects(
    effects: Sequence[Effect], means: Floats, *, metric: str, goal: Goal, title: str
) -> "Figure":
    """A figure with one panel per parameter; all share the metric's axis.

    Args:
        effects: From `parameter_effects`.
        means: (variants,) means of the metric.
        metric, goal: What was measured.
        title: The title above all panels.

    Returns:
        Panels in the order of `effects`; in each, the first line holds the variants' points.
    """
    num_columns = min(len(effects), 2 if len(effects) == 4 else _MAX_COLUMNS)
    figure = new_figure()
    rows = add_panels(figure, len(effects), num_columns)
    set_sizes(figure, rows, widths=[_WIDTH_IN] * num_columns, heights=[_HEIGHT_IN] * len(rows))
    panels = [panel for row in rows for panel in row]
    for effect, axes in zip(effects, panels, strict=True):
        handles = _draw_panel(axes, effect, finite(means))
        if axes is panels[0]:
            legend_above(axes, handles, 2)
    _share_axis(panels, finite(means))
    for row in rows:
        name_axes(row[0], y=better(metric, goal))
        for axes in row[1:]:
            axes.tick_params(labelleft=False)
    arrange(figure, rows, title=title)
    return figure


def _draw_panel(axes: "Axes", effect: Effect, means: Floats) -> list[Any]:
    """Draws points and medians; returns one of each, for the legend."""
    (points,) = axes.plot(
        effect.positions,
        means,
        "o",
        color=BLUE,
        markersize=4.5,
        markeredgewidth=0,
        alpha=0.5 if len(means) < 200 else 0.3,
        label="mean of a variant",
        rasterized=len(means) > _MAX_POINTS_AS_LINES,
    )
    medians = _draw_medians(axes, effect)
    heading = fold_to_width(printable(effect.name), _WIDTH_IN, PANEL_TITLE_SIZE)
    axes.set_title(heading, loc="left", fontsize=PANEL_TITLE_SIZE, pad=22, **AS_IT_IS)
    tidy(axes, "y")
    if not effect.is_number:
        labels = [group.label for group in effect.groups]
        axes.set_xlim(-0.6, len(labels) - 0.4)
        room_in = _WIDTH_IN / len(labels)
        name_columns(axes, range(len(labels)), labels, room_in=room_in, size=TICK_SIZE)
        return [points, medians]
    if spans_decades(effect.positions):
        scale_by_decades(axes, "x")
    if not _is_grouped(effect):
        _tick_values(axes, effect.groups)
    return [points, medians]


def _draw_medians(axes: "Axes", effect: Effect) -> Any:
    low, high, median = (
        np.array([getattr(group, name) for group in effect.groups])
        for name in ("low", "high", "median")
    )
    label = "median by value"
    if effect.is_number and not _is_grouped(effect):
        (line,) = axes.plot(low, median, "-D", color=VERMILLION, lw=1.6, ms=6, label=label)
        return line
    return axes.hlines(median, low, high, color=VERMILLION, linewidth=3, label=label, zorder=3)


def _tick_values(axes: "Axes", groups: Sequence[ValueGroup]) -> None:
    """Puts ticks at the numbers that were tried, if there is room for all of them."""
    positions = axes.transData.transform([(group.low, 0.5) for group in groups])[:, 0]
    widths = np.array([width_in(group.label, TICK_SIZE) for group in groups])
    needed = (widths[1:] + widths[:-1]) / 2 + 0.08
    if (np.diff(positions) / axes.figure.dpi > needed).all():
        axes.set_xticks([group.low for group in groups], [group.label for group in groups])


def _share_axis(panels: Sequence["Axes"], means: Floats) -> None:
    """Gives all panels the same axis of the metric, so that sizes of effects can be compared."""
    for axes in panels:
        scale_metric(axes, "y", means)
    limits: npt.NDArray[np.float64] = np.array([axes.get_ylim() for axes in panels])
    for axes in panels:
        axes.set_ylim(limits.min(), limits.max())
