"""Who went on from round to round, and on which numbers."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trialrun.analysis.rounds import JudgedRound
from trialrun.messages import counted
from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import (
    BLUE,
    GRAY,
    TICK_SIZE,
    legend_above,
    name_axes,
    name_columns,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT_IN, _COLUMN_IN, _NARROWEST_IN = 3.4, 2.0, 4.2
# Variants far behind are drawn at the edge: so many times as far from the best as the last that
# went on.
_ROOM = 3.0
# Points that would lie on each other stand side by side.
_NUM_BESIDE, _STEP = 7, 0.05

Gaps = dict[str, float]


def rounds_drawing(judged: Sequence[JudgedRound], *, metric: str) -> Drawing:
    """The figure of the rounds, with its caption and description.

    Args:
        judged: The rounds whose variants were judged.
        metric: What judged them.
    """
    words = [
        f"after {_had(one)} {len(one.going_on)} of {len(one.scores)} went on" for one in judged
    ]
    return Drawing(
        name="rounds",
        caption=f"How far each variant was behind the best of its round in {metric}, over the seeds"
        " that it had then; lines lead to the next round. After the last round, those that go on"
        " are confirmed. A triangle at the edge stands for a variant far behind.",
        alt=f"{metric} by round: {'; '.join(words)}.",
        figure=draw_rounds(judged, metric=metric),
    )


def draw_rounds(judged: Sequence[JudgedRound], *, metric: str) -> "Figure":
    """A figure with one column per round, a point per variant, and lines of those that went on."""
    figure = new_figure()
    panels = add_panels(figure, 1, 1)
    width = max(_NARROWEST_IN, _COLUMN_IN * len(judged))
    set_sizes(figure, panels, widths=[width], heights=[_HEIGHT_IN])
    axes = panels[0][0]
    gaps = [_gaps(one) for one in judged]
    edge = _edge(judged, gaps)
    handles = _draw(axes, judged, gaps, edge)
    names = [f"{_had(one)}: {len(one.going_on)}/{len(one.scores)}" for one in judged]
    name_columns(axes, range(len(judged)), names, room_in=width / len(judged), size=TICK_SIZE)
    axes.set_xlim(-0.5, len(judged) - 0.5)
    axes.set_ylim(bottom=-0.05 * edge)
    tidy(axes, "y")
    name_axes(axes, x="seeds, and how many go on", y=f"{metric} behind the best")
    legend_above(axes, handles, 3)
    arrange(figure, panels, title="From round to round")
    return figure


def _had(one: JudgedRound) -> str:
    """What the variants of a round had then: `3 seeds`, or `3 seeds, epoch 9`."""
    pause = "" if one.epochs is None else f", epoch {one.epochs}"
    return f"{counted(one.num_seeds, 'seed')}{pause}"


def _gaps(one: JudgedRound) -> Gaps:
    """How far each variant is behind the first; infinite without a score."""
    [best, *_] = one.scores.values()
    return {
        name: float("inf") if value is None or best is None else abs(value - best)
        for name, value in one.scores.items()
    }


def _edge(judged: Sequence[JudgedRound], gaps: Sequence[Gaps]) -> float:
    """The height at which variants far behind are drawn."""
    furthest = max(
        (own[name] for one, own in zip(judged, gaps, strict=True) for name in one.going_on),
        default=0.0,
    )
    highest = max((gap for own in gaps for gap in own.values() if gap < float("inf")), default=0.0)
    return min(_ROOM * furthest, highest) or highest or 1.0


def _draw(
    axes: "Axes", judged: Sequence[JudgedRound], gaps: Sequence[Gaps], edge: float
) -> list[object]:
    """Draws points and lines; returns what the legend shows."""
    places: list[dict[str, tuple[float, float]]] = [
        {
            name: (column + _STEP * (rank % _NUM_BESIDE - _NUM_BESIDE // 2), min(gap, edge))
            for rank, (name, gap) in enumerate(own.items())
        }
        for column, own in enumerate(gaps)
    ]
    for here, after in itertools.pairwise(places):
        for name in here.keys() & after.keys():
            axes.plot(*zip(here[name], after[name], strict=True), color=BLUE, lw=0.7, alpha=0.4)
    kinds: dict[str, list[tuple[float, float]]] = {"goes on": [], "stops": [], "far behind": []}
    for one, own, place in zip(judged, gaps, places, strict=True):
        for name, gap in own.items():
            kind = "goes on" if name in one.going_on else "stops" if gap <= edge else "far behind"
            kinds[kind].append(place[name])
    handles: list[object] = []
    for (label, points), marker in zip(kinds.items(), "oo^", strict=True):
        color = BLUE if label == "goes on" else GRAY
        if points:
            handles += axes.plot(
                *zip(*points, strict=True),
                marker,
                color=color,
                markerfacecolor=color if label == "goes on" else "white",
                markersize=5,
                label=label,
                clip_on=False,
                zorder=3,
            )
    return handles
