"""The winner's confusion matrix on the test set, all seeds together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import PANEL_TITLE_SIZE, name_axes, name_columns, name_rows
from trialrun.report.format import class_labels, pooled_text
from trialrun.statistics.matrices import accuracy, normalize_rows
from trialrun.statistics.spread import Counts, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

_MAX_CLASSES_WITH_TEXT = 20
_MAX_CLASSES_IN_WORDS = 5
_MOST_BESIDE_IN = 12.0  # if both panels together are wider than that, they go one below the other
_MAX_SIDE_IN = 10.0
_CELL_WITH_TEXT_IN, _CELL_IN = 0.46, 0.16
_DARK = 0.7  # above this, white text contrasts more with the blue scale than black text
_NAME_SIZE, _SMALLEST_NAME_SIZE, _CELL_SIZE = 9.5, 8.0, 11.0


def confusion_drawing(
    matrix: Counts, class_names: Sequence[str], *, variant_id: str, num_seeds: int
) -> Drawing:
    """The figure of one variant's confusion matrix, with its caption and description.

    Args:
        matrix: (classes, classes) counts of all seeds together, rows = true class.
        class_names: (classes,); empty to use class numbers.
        variant_id: The variant.
        num_seeds: How many seeds were counted.
    """
    names = class_labels(class_names, len(matrix))
    title = f"Confusion matrix of {variant_id} on the test set, {pooled_text(num_seeds)}"
    return Drawing(
        name="confusion_matrix",
        caption=f"{title}: counts, and shares of each true class.",
        alt=f"{title}, accuracy {accuracy(matrix):.1%}. {_words(matrix, names)}",
        figure=draw_confusion_matrix(matrix, names, title=title),
    )


def _words(matrix: Counts, names: Sequence[str]) -> str:
    if len(names) > _MAX_CLASSES_IN_WORDS:
        return _worst_classes(matrix, names)
    return " ".join(
        f"True {true}: "
        + ", ".join(f"{count:,} predicted {name}" for name, count in zip(names, row, strict=True))
        + "."
        for true, row in zip(names, matrix.tolist(), strict=True)
    )


def _worst_classes(matrix: Counts, names: Sequence[str]) -> str:
    """A text on the class that is recognized least, and the most frequent mistake."""
    recalls = np.where(matrix.sum(axis=1) > 0, np.diag(normalize_rows(matrix)), np.inf)
    wrong = matrix - np.diag(np.diag(matrix))
    words = f"{len(names)} classes."
    if not wrong.any():
        return f"{words} None is mistaken for another."
    worst = int(recalls.argmin())
    true, predicted = divmod(int(wrong.argmax()), len(names))
    return (
        f"{words} Recognized least: {names[worst]}, {recalls[worst]:.1%} of it. Mistaken most:"
        f" {names[true]} for {names[predicted]}, {wrong[true, predicted]:,} times."
    )


def draw_confusion_matrix(matrix: Counts, class_names: Sequence[str], *, title: str) -> "Figure":
    """A figure with counts, and beside them shares of each true class, on a blue scale.

    Args:
        matrix: (classes, classes) counts, rows = true class.
        class_names: (classes,) names for both axes.
        title: The title above both panels.

    Returns:
        Two panels, one below the other if they are wide. With up to 20 classes, numbers are written
        into the cells. With more there is a scale of colors, stretched where values are small.
    """
    side = _side_in(len(matrix))
    figure = new_figure()
    is_beside = 2 * side <= _MOST_BESIDE_IN
    rows = add_panels(figure, 2, 2 if is_beside else 1)
    set_sizes(figure, rows, widths=[side] * len(rows[0]), heights=[side] * len(rows))
    counts, shares = (panel for row in rows for panel in row)
    _draw_matrix(counts, matrix, class_names, top=max(1, int(matrix.max())), cell="{:,.0f}")
    counts.set_title("Counts", fontsize=PANEL_TITLE_SIZE)
    cell = "{:.1%}" if len(matrix) <= _MAX_CLASSES_IN_WORDS else "{:.0%}"
    by_class = np.where(matrix.sum(axis=1, keepdims=True), normalize_rows(matrix), np.nan)
    _draw_matrix(shares, by_class, class_names, top=1, cell=cell)
    shares.set_title("Share of the true class", fontsize=PANEL_TITLE_SIZE)
    if is_beside:
        shares.tick_params(labelleft=False)
        shares.set_ylabel("")
    arrange(figure, rows, title=title)
    return figure


def _side_in(num_classes: int) -> float:
    """The width and height of a matrix, in inches."""
    cell = _CELL_WITH_TEXT_IN if num_classes <= _MAX_CLASSES_WITH_TEXT else _CELL_IN
    return min(max(2.8, cell * num_classes), _MAX_SIDE_IN)


def _draw_matrix(
    axes: "Axes", values: Counts | Floats, class_names: Sequence[str], *, top: float, cell: str
) -> None:
    """Draws values from 0 to `top`, each written into its cell by the format `cell`."""
    from matplotlib.colors import PowerNorm

    num_classes = len(values)
    is_large = num_classes > _MAX_CLASSES_WITH_TEXT
    # Without numbers only the colors show the mistakes, which are few compared with what is right.
    norm = PowerNorm(0.4 if is_large else 1, vmin=0, vmax=top)
    edges = np.arange(num_classes + 1) - 0.5
    # In an SVG, cells are shapes, which stay sharp; thousands of them become an image instead.
    mesh = axes.pcolormesh(edges, edges, values, cmap="Blues", norm=norm, rasterized=is_large)
    axes.invert_yaxis()
    room = _side_in(num_classes) / num_classes
    # If there is no room for all names, only every second, third, ... is shown.
    step = int(np.ceil(_SMALLEST_NAME_SIZE * 1.25 / 72 / room))
    positions, names = range(0, num_classes, step), class_names[::step]
    size = min(_NAME_SIZE, max(_SMALLEST_NAME_SIZE, room * step * 72 / 1.3))
    name_columns(axes, positions, names, room_in=room * step, size=size)
    name_rows(axes, positions, names, room_in=room * step, size=size)
    name_axes(axes, x="Predicted label", y="True label")
    if is_large:
        _draw_scale(axes, mesh, cell)
    else:
        texts = ["n/a" if np.isnan(value) else cell.format(value) for value in values.flat]
        _write_cells(axes, values, texts, top)


def _write_cells(axes: "Axes", values: Counts | Floats, texts: Sequence[str], top: float) -> None:
    cell_pt = _side_in(len(values)) * 72 / len(values)
    size = min(_CELL_SIZE, 0.92 * cell_pt / (0.62 * max(map(len, texts))))
    for (row, column), text in zip(np.ndindex(values.shape), texts, strict=True):
        color = "white" if values[row, column] > _DARK * top else "black"
        inside = axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
        inside.set_in_layout(False)  # there may be hundreds of texts, and all fit into their cells


def _draw_scale(axes: "Axes", mesh: "QuadMesh", cell: str) -> None:
    """Draws the scale of colors beside the matrix."""
    from matplotlib.ticker import FuncFormatter

    scale = axes.inset_axes((1.02, 0, 0.025, 1))
    axes.figure.colorbar(mesh, cax=scale, format=FuncFormatter(lambda value, _: cell.format(value)))
    scale.tick_params(labelsize=_NAME_SIZE)
