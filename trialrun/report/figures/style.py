"""Colors, sizes and axes that all figures share.

The colors are those of Okabe and Ito, "Color Universal Design" (2008), which people with any kind
of color vision can distinguish, except their yellow, which is hard to see on white. No color alone
carries a meaning: markers or dashes differ too.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.job import Goal
from trialrun.report.figures.text import AS_IT_IS, fold, fold_to_width, max_lines_in, width_in
from trialrun.statistics.spread import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLACK, BLUE, VERMILLION = "#000000", "#0072B2", "#D55E00"
GREEN, ORANGE, SKY, PURPLE, GRAY = "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#666666"
TITLE_SIZE, PANEL_TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 12.0, 11.0, 10.5, 10.0


def finite(values: npt.ArrayLike) -> Floats:
    """The values with NaN instead of infinities, which cannot be drawn on an axis."""
    array = np.asarray(values, np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def tidy(axes: "Axes", grid: str = "both") -> None:
    """Leaves lines only along the axes, and puts a light grid behind everything.

    Args:
        axes: The panel.
        grid: `x`, `y` or `both`.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#d8d8d8", linewidth=0.7)  # type: ignore[arg-type]
    axes.tick_params(labelsize=TICK_SIZE)


def name_axes(axes: "Axes", *, x: str = "", y: str = "") -> None:
    """Labels the axes, with the labels folded to the axes' lengths."""
    width, height = _size_in(axes)
    if x:
        axes.set_xlabel(fold_to_width(x, width, LABEL_SIZE), fontsize=LABEL_SIZE, **AS_IT_IS)
    if y:
        axes.set_ylabel(fold_to_width(y, height, LABEL_SIZE), fontsize=LABEL_SIZE, **AS_IT_IS)


def _size_in(axes: "Axes") -> tuple[float, float]:
    dpi = axes.figure.dpi
    return axes.bbox.width / dpi, axes.bbox.height / dpi


def name_columns(
    axes: "Axes", positions: Sequence[float], names: Sequence[str], *, room_in: float, size: float
) -> None:
    """Writes names at positions of the x axis: horizontally if there is room, or else vertically.

    Args:
        axes: The panel.
        positions: The positions.
        names: One per position.
        room_in: Inches between two positions.
        size: Font size in points.
    """
    upright = [fold(name, 3) for name in names]
    if max((width_in(name, size) for name in upright), default=0) < 0.92 * room_in:
        axes.set_xticks(positions, upright, fontsize=size, **AS_IT_IS)
        return
    standing = [fold(name, min(3, max_lines_in(room_in, size))) for name in names]
    axes.set_xticks(positions, standing, fontsize=size, rotation=90, **AS_IT_IS)


def name_rows(
    axes: "Axes", positions: Sequence[float], names: Sequence[str], *, room_in: float, size: float
) -> None:
    """Writes names at positions of the y axis, folded if there is room for several lines."""
    num_lines = min(3, max_lines_in(room_in, size))
    axes.set_yticks(positions, [fold(name, num_lines) for name in names], fontsize=size, **AS_IT_IS)


def scale_metric(axes: "Axes", direction: str, values: npt.ArrayLike) -> None:
    """Makes an axis of a metric logarithmic if the values span at least three decades."""
    known = finite(values)
    known = known[~np.isnan(known)]
    if known.size and known.min() > 0 and known.max() >= 1000 * known.min():
        scale_by_decades(axes, direction)


def scale_by_decades(axes: "Axes", direction: str) -> None:
    """Makes an axis logarithmic, with numbers written as in job files.

    Args:
        axes: The panel.
        direction: `x` or `y`.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{direction}scale": "log"})
    axis = axes.xaxis if direction == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    # A range below three decades needs more ticks than the powers of ten.
    steps = (1.0, 3.0) if low > 0 and high / low < 1000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5g}"))
    axis.set_minor_locator(NullLocator())  # minor ticks would take longer to draw than the rest


def better(metric: str, goal: Goal) -> str:
    """The label of a metric's axis, such as `val_loss (lower is better)`."""
    return f"{metric} ({'lower' if goal == 'minimize' else 'higher'} is better)"


def legend_above(axes: "Axes", handles: Sequence[Any], num_columns: int) -> None:
    """Puts a legend between the panel and its title, where it hides nothing."""
    legend = axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=num_columns,
        frameon=False,
        fontsize=TICK_SIZE,
        borderaxespad=0.2,
        borderpad=0.2,
        columnspacing=1.4,
        handletextpad=0.6,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
