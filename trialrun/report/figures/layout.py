"""Arranges panels in a figure: each keeps the size asked for, and the figure grows as needed.

matplotlib's own layouts fit panels into a figure of a given size, so a long name may leave a panel
no room. Here a panel keeps its size, the texts around it are measured once, and the figure grows.
That is also faster, because matplotlib's layouts draw everything to find the sizes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from trialrun.report.figures.style import TITLE_SIZE
from trialrun.report.figures.text import AS_IT_IS, fold_to_width, no_glyph_warnings, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure

MAX_PANELS = 8  # of a figure; more are too many to look at
_DPI = 150
_EDGE, _GAP = 0.12, 0.22  # inches around the whole figure, and between panels
_NARROWEST_TITLE = 4.0


class _Margins(NamedTuple):
    """The room that texts around a panel take, in inches."""

    left: float
    bottom: float
    right: float
    top: float


def new_figure() -> "Figure":
    """An empty figure that is not registered with pyplot."""
    from matplotlib.figure import Figure

    return Figure(dpi=_DPI)


def add_panels(figure: "Figure", num_panels: int, num_columns: int) -> list[list["Axes"]]:
    """Empty panels, row by row; the last row may have fewer."""
    panels = [figure.add_axes((0, 0, 1, 1)) for _ in range(num_panels)]
    return [panels[start : start + num_columns] for start in range(0, num_panels, num_columns)]


def set_sizes(
    figure: "Figure",
    rows: Sequence[Sequence["Axes"]],
    *,
    widths: Sequence[float],
    heights: Sequence[float],
) -> None:
    """Gives the panels their sizes, which what is drawn next may depend on, above all ticks.

    Args:
        figure: The panels' figure.
        rows: The panels.
        widths: (columns,) inches.
        heights: (rows,) inches.
    """
    figure.set_size_inches(max(widths), max(heights))
    for row, height in zip(rows, heights, strict=True):
        for panel, width in zip(row, widths, strict=False):
            panel.set_position((0, 0, width / max(widths), height / max(heights)))


def arrange(figure: "Figure", rows: Sequence[Sequence["Axes"]], *, title: str) -> None:
    """Puts the panels into rows and columns, with the title above them.

    Args:
        figure: The panels' figure; `set_sizes` was called for it.
        rows: The panels, with everything drawn.
        title: The title, which is folded to the width of the panels.
    """
    with no_glyph_warnings():
        margins, sizes = _measured(figure, rows)
        columns = range(len(rows[0]))
        around = [
            _widest([row[column] for row in margins if column < len(row)]) for column in columns
        ]
        beside = [_widest(row) for row in margins]
        widths = [sizes[0][column][0] for column in columns]
        heights = [row[0][1] for row in sizes]
        width = sum(widths) + sum(m.left + m.right for m in around) + _GAP * (len(widths) - 1)
        text = fold_to_width(title, max(width, _NARROWEST_TITLE), TITLE_SIZE)
        num_lines = len(text.splitlines())
        head = num_lines * TITLE_SIZE * 1.2 / 72 + 0.1 if title else 0.0
        full_width = max(width, width_in(text, TITLE_SIZE)) + 2 * _EDGE
        height = sum(heights) + sum(m.top + m.bottom for m in beside)
        full_height = height + _GAP * (len(heights) - 1) + head + 2 * _EDGE
        figure.set_size_inches(full_width, full_height)
        if title:
            x, y = _EDGE / full_width, 1 - _EDGE / full_height
            figure.text(x, y, text, fontsize=TITLE_SIZE, ha="left", va="top", **AS_IT_IS)
        top = full_height - _EDGE - head
        for index, row in enumerate(rows):
            top -= beside[index].top
            left = _EDGE
            for column, panel in enumerate(row):
                left += around[column].left
                panel.set_position(
                    (
                        left / full_width,
                        (top - heights[index]) / full_height,
                        widths[column] / full_width,
                        heights[index] / full_height,
                    )
                )
                left += widths[column] + around[column].right + _GAP
            top -= heights[index] + beside[index].bottom + _GAP


def _measured(
    figure: "Figure", rows: Sequence[Sequence["Axes"]]
) -> tuple[list[list[_Margins]], list[list[tuple[float, float]]]]:
    """The margins of every panel, and its width and height, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    margins = [[_margins(panel, renderer) for panel in row] for row in rows]
    sizes = [
        [(panel.bbox.width / figure.dpi, panel.bbox.height / figure.dpi) for panel in row]
        for row in rows
    ]
    return margins, sizes


def _margins(panel: "Axes", renderer: "RendererBase") -> _Margins:
    outer, inner, dpi = panel.get_tightbbox(renderer), panel.bbox, panel.figure.dpi
    assert outer is not None, "a panel that is not visible"
    reach = (inner.x0 - outer.x0, inner.y0 - outer.y0, outer.x1 - inner.x1, outer.y1 - inner.y1)
    return _Margins(*(max(0.0, pixels / dpi) for pixels in reach))


def _widest(margins: Sequence[_Margins]) -> _Margins:
    return _Margins(*(max(side) for side in zip(*margins, strict=True)))
