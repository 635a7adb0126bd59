"""Whether the winner's probabilities can be trusted: how often it was right, by its confidence."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trialrun.report.figures.images import Drawing
from trialrun.report.figures.layout import add_panels, arrange, new_figure, set_sizes
from trialrun.report.figures.style import BLUE, GRAY, SKY, legend_above, name_axes, tidy
from trialrun.report.format import pooled_text
from trialrun.statistics.spread import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE_IN, _BELOW_IN = 4.2, 1.1


class Reliability(NamedTuple):
    """The rates of bins of confidence.

    Attributes:
        parts: (bins,) share of all predictions; 0 to 1.
        confidences: (bins,) mean probability of the predicted class; NaN for an empty bin.
        accuracies: (bins,) share of the predictions that were right; NaN for an empty bin.
        calibration_error: `sum(share * |accuracy - confidence|)`, the expected calibration error.
    """

    parts: Floats
    confidences: Floats
    accuracies: Floats
    calibration_error: float


def reliability_of(bins: Floats) -> Reliability:
    """The rates of bins of confidence.

    Args:
        bins: (bins, 3): number of predictions, sum of their confidences, how many were right; at
            least one prediction.

    References:
        Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 2.
    """
    counts, confidences, right = np.asarray(bins, np.float64).T
    known = np.where(counts > 0, counts, np.nan)
    error = float(np.abs(right - confidences).sum() / counts.sum())
    return Reliability(counts / counts.sum(), confidences / known, right / known, error)


def reliability_drawing(bins: Floats, *, variant_id: str, num_seeds: int) -> Drawing | None:
    """The figure of one variant's reliability, with its caption and description.

    Args:
        bins: See `reliability_of`; all seeds together.
        variant_id: The variant.
        num_seeds: How many seeds were counted.

    Returns:
        None if there are no predictions.
    """
    if not bins[:, 0].any():
        return None
    rates = reliability_of(bins)
    title = f"Reliability of {variant_id} on the test set, {pooled_text(num_seeds)}"
    error = f"expected calibration error {rates.calibration_error:.3f}"
    return Drawing(
        name="reliability",
        caption=f"{title}: how often the predicted class was right, by the probability that the"
        f" model gave it; {error}. On the dashed line both are equal; below it the model is too"
        " confident. The bars show the share of the predictions in each bin.",
        alt=f"{title}; {error}. {_words(bins, rates)}",
        figure=draw_reliability(bins, title=f"{title}: {error}"),
    )


def _words(bins: Floats, rates: Reliability) -> str:
    """A text on all predictions together, and on the bins that hold most of them."""
    counts, confidences, right = bins.sum(axis=0)
    told = [
        f"{int(counts):,} predictions, mean confidence {confidences / counts:.1%}, accuracy"
        f" {right / counts:.1%}."
    ]
    largest = np.argsort(-rates.parts, kind="stable")[:3]
    for index in sorted(largest[rates.parts[largest] > 0].tolist()):
        told.append(
            f"Confidence {rates.confidences[index]:.1%}: right in {rates.accuracies[index]:.1%} of"
            f" {int(bins[index, 0]):,}."
        )
    return " ".join(told)


def draw_reliability(bins: Floats, *, title: str) -> "Figure":
    """A figure of accuracy by confidence, and below it the share of the predictions in each bin.

    Args:
        bins: (bins, 3), see `reliability_of`; bins of equal width from 0 to 1.
        title: The title above both panels.

    Returns:
        Two panels, both over the confidence from 0 to 1.
    """
    rates = reliability_of(bins)
    figure = new_figure()
    rows = add_panels(figure, 2, 1)
    set_sizes(figure, rows, widths=[_SIDE_IN], heights=[_SIDE_IN, _BELOW_IN])
    (diagram,), (histogram,) = rows
    _draw_diagram(diagram, rates)
    _draw_histogram(histogram, rates.parts)
    arrange(figure, rows, title=title)
    return figure


def _draw_diagram(axes: "Axes", rates: Reliability) -> None:
    (ideal,) = axes.plot(
        [0, 1], [0, 1], "--", color=GRAY, linewidth=1.4, label="perfectly calibrated"
    )
    filled = rates.parts > 0
    axes.vlines(
        rates.confidences[filled],
        rates.confidences[filled],
        rates.accuracies[filled],
        color=SKY,
        linewidth=3.5,
    )
    (model,) = axes.plot(
        rates.confidences[filled],
        rates.accuracies[filled],
        "-o",
        color=BLUE,
        linewidth=1.6,
        markersize=6,
        label="model",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.tick_params(labelbottom=False)
    _in_percent(axes.yaxis)
    tidy(axes)
    legend_above(axes, [model, ideal], 2)
    name_axes(axes, y="Accuracy")


def _draw_histogram(axes: "Axes", shares: Floats) -> None:
    edges = np.linspace(0, 1, len(shares) + 1)
    axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
    axes.set(xlim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        _in_percent(axis)
    axes.locator_params(axis="y", nbins=3)
    tidy(axes, "y")
    name_axes(axes, x="Confidence: probability of the predicted class", y="Predictions")


def _in_percent(axis: object) -> None:
    axis.set_major_formatter("{x:.0%}")  # type: ignore[attr-defined]
