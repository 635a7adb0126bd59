"""The winner's learning curves: median and middle half of the seeds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trialrun.messages import counted
from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import MAX_PANELS, add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import (
    BLUE,
    PANEL_TITLE_SIZE,
    VERMILLION,
    finite,
    legend_above,
    name_axes,
    scale_metric,
    tidy,
)
from trialrun.report.figures.text import AS_IT_IS, fold_to_width, printable
from trialrun.statistics.spread import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_WIDTH_IN, _HEIGHT_IN = 4.3, 2.7
_MAX_POINTS = 600  # a panel is fewer pixels wide
_FEW_POINTS = 12  # up to so many epochs are marked one by one


class Quartiles(NamedTuple):
    """Quartiles over the seeds at every epoch, (epochs,) each; NaN where no seed has a value."""

    low: Floats
    median: Floats
    high: Floats


def curves_drawing(curves: Mapping[str, Floats], *, variant_id: str) -> Drawing:
    """The figure of one variant's learning curves, with its caption and description.

    Args:
        curves: `loss`, `val_loss`, ... -> (seeds, epochs); NaN after a trial's last epoch.
        variant_id: The variant.
    """
    num_seeds, num_epochs = next(iter(curves.values())).shape
    about = f"{variant_id}, {counted(num_seeds, 'seed')}"
    panels = _panels(curves)
    shown = panels[:MAX_PANELS]
    more = f" The first {MAX_PANELS} of {len(panels)} metrics." if len(panels) > MAX_PANELS else ""
    caption = f"Learning curves of {about}{': median over seeds' if num_seeds > 1 else ''}"
    if num_seeds > 2:
        caption += "; the band holds the middle half of them"
    if any(np.isnan(values).any() for values in curves.values()):
        caption += ", of those that had not stopped"
    told = {name: curves[name] for name in curves if name.removeprefix("val_") in shown}
    ends = ", ".join(f"{name} {end:.4g}" for name, end in last_medians(told).items())
    return Drawing(
        name="learning_curves",
        caption=f"{caption}.{more}",
        alt=f"Learning curves of {about} over {num_epochs:,} epoch{'s'[: num_epochs != 1]};"
        f" {'medians ' if num_seeds > 1 else ''}at the end: {ends}.{more}",
        figure=draw_learning_curves(told, title=f"Learning curves of {about}"),
    )


def _panels(curves: Mapping[str, Floats]) -> list[str]:
    return list(dict.fromkeys(name.removeprefix("val_") for name in curves))


def last_medians(curves: Mapping[str, Floats]) -> dict[str, float]:
    """Name -> median over seeds of a curve's last values; curves without any are left out."""
    medians = {}
    for name, values in curves.items():
        known = finite(values)
        trained = np.arange(known.shape[1]) * ~np.isnan(known)
        last = known[np.arange(len(known)), trained.argmax(1)]  # a trial may stop early
        last = last[~np.isnan(last)]
        if len(last):
            medians[name] = float(np.median(last))
    return medians


def draw_learning_curves(curves: Mapping[str, Floats], *, title: str) -> "Figure":
    """A figure of training and validation over the epochs, a panel for the loss and each metric.

    Args:
        curves: `loss`, `val_loss`, ... -> (seeds, epochs); NaN after a trial's last epoch.
        title: The title above all panels.

    Returns:
        Lines are medians over seeds. With three seeds or more, bands reach from the first to the
        third quartile. At most 600 epochs are drawn, evenly spaced.
    """
    panels = _panels(curves)
    num_columns = min(len(panels), 2)
    figure = new_figure()
    rows = add_panels(figure, len(panels), num_columns)
    set_sizes(figure, rows, widths=[_WIDTH_IN] * num_columns, heights=[_HEIGHT_IN] * len(rows))
    for name, axes in zip(panels, (panel for row in rows for panel in row), strict=True):
        _draw_panel(axes, name, curves)
    arrange(figure, rows, title=title)
    return figure


def _draw_panel(axes: "Axes", name: str, curves: Mapping[str, Floats]) -> None:
    from matplotlib.ticker import MaxNLocator

    handles = []
    for key, label, color, dashes in (
        (name, "training", BLUE, "-"),
        (f"val_{name}", "validation", VERMILLION, "--"),
    ):
        if key in curves:
            handles.append(_draw_curve(axes, curves[key], label, color, dashes))
    title = fold_to_width(printable(name), _WIDTH_IN, PANEL_TITLE_SIZE)
    legend_above(axes, handles, 2)
    axes.set_title(title, loc="left", fontsize=PANEL_TITLE_SIZE, pad=22, **AS_IT_IS)
    scale_metric(axes, "y", np.concatenate([np.ravel(line.get_ydata()) for line in handles]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    tidy(axes)
    name_axes(axes, x="epoch")


def _draw_curve(axes: "Axes", values: Floats, label: str, color: str, dashes: str) -> "Line2D":
    """Draws a line and its band; returns the line."""
    shown = _thinned(values.shape[1])
    spread, epochs = quartiles(values[:, shown]), shown + 1
    marker = {"-": "o", "--": "s"}[dashes] if len(epochs) <= _FEW_POINTS else ""
    (line,) = axes.plot(
        epochs,
        spread.median,
        label=label,
        color=color,
        linestyle=dashes,
        linewidth=1.8,
        marker=marker,
        markersize=4,
    )
    if len(values) > 2:
        axes.fill_between(epochs, spread.low, spread.high, color=color, alpha=0.22, linewidth=0)
    return line


def _thinned(num_epochs: int) -> "np.typing.NDArray[np.intp]":
    """Indices of the epochs that are drawn: all, or evenly spaced ones of very many."""
    num_points = min(num_epochs, _MAX_POINTS)
    return np.linspace(0, num_epochs - 1, num_points).round().astype(np.intp)


def quartiles(values: Floats) -> Quartiles:
    """First quartile, median and third quartile over the seeds that have a value.

    Args:
        values: (seeds, epochs); NaN where a seed has no value.
    """
    known = finite(values)
    has_any = ~np.isnan(known).all(axis=0)
    found = np.full((3, known.shape[1]), np.nan)
    if has_any.any():
        found[:, has_any] = np.nanquantile(known[:, has_any], [0.25, 0.5, 0.75], axis=0)
    return Quartiles(*found)
