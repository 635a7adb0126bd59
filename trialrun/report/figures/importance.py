"""How much each parameter separates the best variants from the others, as bars."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trialrun.analysis.importance import Importance, ParameterImportance
from trialrun.messages import counted
from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import (
    BLUE,
    GRAY,
    TICK_SIZE,
    legend_above,
    name_axes,
    name_rows,
    tidy,
)
from trialrun.report.format import short_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BARS = 12
_WIDTH_IN, _BAR_IN = 4.2, 0.36


def importance_drawing(found: Importance, *, metric: str) -> Drawing:
    """The figure of the parameters' importance, with its caption and description.

    Args:
        found: The importance; that of at least one parameter is more than luck.
        metric: What the best variants are the best in.
    """
    shown = found.parameters[:_MOST_BARS]
    what = (
        f"how much each parameter separates the best {found.num_best} of"
        f" {found.num_variants:,} variants from the others, in {metric} over"
        f" {counted(found.num_seeds, 'seed')}"
        f"{'' if found.epochs is None else f' after epoch {found.epochs}'}"
    )
    more = ""
    if len(found.parameters) > len(shown):
        more = f" The first {len(shown)} of {len(found.parameters)} parameters are shown."
    words = [
        f"{_name(one, found)} {one.share:.0%}{'' if one.is_clear else ' (no more than luck)'}"
        for one in shown
    ]
    return Drawing(
        name="parameter_importance",
        caption=f"Importance: {what} (PED-ANOVA; Watanabe et al., 2023), as shares of 1. It says"
        f" neither how large a difference in {metric} is, nor anything of values that were not"
        " tried. A hollow bar is no more than luck: shuffled results give such bars too. A"
        f" parameter with a condition counts only in variants that have it.{more}",
        alt=f"Importance: {what}. {', '.join(words)}.{more}",
        figure=draw_importance(shown, [_name(one, found) for one in shown]),
    )


def _name(one: ParameterImportance, found: Importance) -> str:
    return short_names([other.path for other in found.parameters])[one.path]


def draw_importance(shown: Sequence[ParameterImportance], names: Sequence[str]) -> "Figure":
    """A figure with one horizontal bar per parameter, the most important on top."""
    figure = new_figure()
    panels = add_panels(figure, 1, 1)
    set_sizes(figure, panels, widths=[_WIDTH_IN], heights=[_BAR_IN * (len(shown) + 0.4)])
    axes = panels[0][0]
    handles = []
    for is_clear, label in ((True, "more than luck"), (False, "no more than luck")):
        rows = [row for row, one in enumerate(shown) if one.is_clear == is_clear]
        if rows:
            handles.append(
                axes.barh(
                    rows,
                    [shown[row].share for row in rows],
                    height=0.62,
                    color=BLUE if is_clear else "white",
                    edgecolor=BLUE if is_clear else GRAY,
                    label=label,
                )
            )
    for row, one in enumerate(shown):
        axes.text(one.share + 0.015, row, f"{one.share:.2f}", va="center", fontsize=TICK_SIZE)
    name_rows(axes, range(len(shown)), names, room_in=_BAR_IN, size=TICK_SIZE)
    axes.set_ylim(len(shown) - 0.3, -0.7)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    tidy(axes, "x")
    name_axes(axes, x="share of the importance")
    legend_above(axes, handles, 2)
    arrange(figure, panels, title="Importance of the searched parameters")
    return figure
