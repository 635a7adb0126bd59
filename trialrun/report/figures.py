"""The figures of a run as PNG bytes. Numbers come in as arrays; nothing is read or written here.

Only matplotlib's objects are used, never pyplot: there is no global figure, and no display is
looked for. matplotlib is imported inside the functions: it takes longer than all else here.
"""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trialrun.aggregate import VariantSummary
from trialrun.report.format import class_labels, pooled_text, seeds_text
from trialrun.report.overview import Overview
from trialrun.statistics.matrices import accuracy, normalize_rows
from trialrun.statistics.spread import Counts, Floats, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_CLASSES_WITH_TEXT = 30
_MAX_CLASSES_IN_WORDS = 5
_MAX_PANELS_PER_ROW = 2
_DARK = 0.7  # from here on white contrasts more with the blue scale than black
_TRAINING_COLOR, _VALIDATION_COLOR = "#1f5fa8", "#c8570b"


@dataclass(frozen=True, slots=True)
class RunFigure:
    """A figure and what it says.

    Attributes:
        name: File name without suffix.
        caption: One line under the figure.
        alt: What it shows, for those who cannot see it.
        png: The image.
    """

    name: str
    caption: str
    alt: str
    png: bytes


def draw_figures(overview: Overview, curves: Mapping[str, Floats]) -> tuple[RunFigure, ...]:
    """The figures of the winner: pooled test confusion matrix and learning curves.

    Args:
        overview: The run.
        curves: From `standing.winner_curves`.

    Returns:
        Nothing without a winner; no confusion matrix for a model that does not classify.
    """
    if overview.leaderboard.selection is None:
        return ()
    winner = overview.leaderboard.variants[0]
    figures = []
    if winner.test_confusion_matrix is not None:
        figures.append(_confusion_figure(winner, winner.test_confusion_matrix, overview))
    if curves:
        figures.append(_curves_figure(winner, curves))
    return tuple(figures)


def _confusion_figure(winner: VariantSummary, matrix: Counts, overview: Overview) -> RunFigure:
    names = class_labels(overview.class_names, len(matrix))
    seeds = pooled_text(winner.num_completed)
    title = f"Confusion matrix of {winner.variant_id} on the test set, {seeds}"
    words = _confusion_words(matrix, names)
    return RunFigure(
        name="confusion_matrix",
        caption=f"{title}: counts, and the part of each true class.",
        alt=f"{title}, accuracy {accuracy(matrix):.1%}. {words}",
        png=to_png(draw_confusion_matrix(matrix, names, title=title)),
    )


def _confusion_words(matrix: Counts, names: Sequence[str]) -> str:
    if len(names) > _MAX_CLASSES_IN_WORDS:
        return f"{len(names)} classes."
    return " ".join(
        f"True {true}: "
        + ", ".join(f"{count:,} predicted {name}" for name, count in zip(names, row, strict=True))
        + "."
        for true, row in zip(names, matrix.tolist(), strict=True)
    )


def draw_confusion_matrix(matrix: Counts, class_names: Sequence[str], *, title: str) -> "Figure":
    """Counts, and beside them the part of each true class, on a blue scale.

    Args:
        matrix: (classes, classes) counts, rows = true class.
        class_names: (classes,) names for both axes.
        title: Above both.

    Returns:
        Two panels. Numbers are written into the cells of up to 30 classes.
    """
    from matplotlib.figure import Figure

    num_classes = len(matrix)
    side = min(max(2.6, 0.62 * num_classes), 12.0)
    label = 0.09 * max(len(name) for name in class_names)
    figure = Figure(figsize=(2 * (side + label + 1.3), side + 0.7 * label + 1.1), dpi=150)
    figure.set_layout_engine("constrained", wspace=0.06)
    counts, parts = figure.subplots(1, 2)
    figure.suptitle(title, parse_math=False)
    _draw_matrix(counts, matrix, class_names, top=max(1, matrix.max()), cell="{:,}")
    counts.set_title("Counts")
    _draw_matrix(parts, normalize_rows(matrix), class_names, top=1, cell="{:.1%}")
    parts.set_title("Part of the true class")
    return figure


def _draw_matrix(
    axes: "Axes", values: Counts | Floats, class_names: Sequence[str], *, top: float, cell: str
) -> None:
    """Draws values from 0 to `top`, each written into its cell by the format `cell`."""
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    # parse_math=False: "$50k" is the name of a class, not a formula.
    axes.set_xticks(range(len(values)), class_names, parse_math=False)
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(values)), class_names, parse_math=False)
    axes.set(xlabel="Predicted label", ylabel="True label")
    if len(values) > _MAX_CLASSES_WITH_TEXT:
        return
    texts = [cell.format(value) for value in values.flat]
    size = min(11.0, 160 / (len(values) * max(map(len, texts)) ** 0.5))
    for (row, column), text in zip(np.ndindex(values.shape), texts, strict=True):
        color = "white" if values[row, column] > _DARK * top else "black"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)


def _curves_figure(winner: VariantSummary, curves: Mapping[str, Floats]) -> RunFigure:
    num_seeds, num_epochs = next(iter(curves.values())).shape
    about = f"{winner.variant_id}, {seeds_text(num_seeds)}"
    band = ": mean over seeds, and range from the smallest to the largest" if num_seeds > 1 else ""
    ends = ", ".join(
        f"{name} {mean:.4g}" for name, mean in _final_means(curves) if math.isfinite(mean)
    )
    return RunFigure(
        name="learning_curves",
        caption=f"Learning curves of {about}{band}.",
        alt=f"Learning curves of {about} over {num_epochs} epochs; at the end: {ends}.",
        png=to_png(draw_learning_curves(curves, title=f"Learning curves of {about}")),
    )


def _final_means(curves: Mapping[str, Floats]) -> Iterator[tuple[str, float]]:
    for name, values in curves.items():
        trained = np.arange(values.shape[1]) * ~np.isnan(values)
        last = values[np.arange(len(values)), trained.argmax(1)]  # a trial may stop early
        yield name, float(describe(last).mean)


def draw_learning_curves(curves: Mapping[str, Floats], *, title: str) -> "Figure":
    """Training and validation over the epochs, one panel for the loss and for each metric.

    Args:
        curves: `loss`, `val_loss`, ... -> (seeds, epochs); NaN after a trial's last epoch.
        title: Above all panels.

    Returns:
        Means over seeds as lines; as bands the range from the smallest to the largest.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    num_columns = min(len(panels), _MAX_PANELS_PER_ROW)
    num_rows = math.ceil(len(panels) / num_columns)
    figure = Figure(figsize=(5.2 * num_columns, 3.6 * num_rows + 0.4), dpi=150)
    figure.set_layout_engine("constrained")
    figure.suptitle(title, parse_math=False)
    for index, name in enumerate(panels):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        if name in curves:
            _draw_curve(axes, curves[name], "training", _TRAINING_COLOR)
        if f"val_{name}" in curves:
            _draw_curve(axes, curves[f"val_{name}"], "validation", _VALIDATION_COLOR)
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def _draw_curve(axes: "Axes", values: Floats, label: str, color: str) -> None:
    spread = describe(values.T)
    epochs = np.arange(1, values.shape[1] + 1)
    # One epoch makes no line: a point shows it.
    axes.plot(epochs, spread.mean, label=label, color=color, marker="o" if len(epochs) == 1 else "")
    if len(values) > 1:
        axes.fill_between(epochs, spread.min, spread.max, color=color, alpha=0.15, linewidth=0)


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG image that is as large as its labels need."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that matplotlib's font lacks is drawn as boxes; the page has the name.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(image, format="png", bbox_inches="tight")
    return image.getvalue()
