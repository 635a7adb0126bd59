"""Which figures a run has, and from which of its numbers each is drawn."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trialrun.analysis.importance import Importance
from trialrun.analysis.parameters import values_in
from trialrun.analysis.selection import ValidationScores
from trialrun.job import searched_paths
from trialrun.report.figures.confusion import confusion_drawing
from trialrun.report.figures.curves import curves_drawing
from trialrun.report.figures.distribution import distribution_drawing
from trialrun.report.figures.effects import effects_drawing
from trialrun.report.figures.images import Drawing, RunFigure, own_settings, render
from trialrun.report.figures.importance import importance_drawing
from trialrun.report.figures.reliability import reliability_drawing
from trialrun.report.figures.rounds import rounds_drawing
from trialrun.report.figures.variants import variants_drawing
from trialrun.report.overview import Overview
from trialrun.statistics.spread import Floats, describe


def draw_figures(
    overview: Overview,
    curves: Mapping[str, Floats],
    reliability: Floats | None,
    importance: Importance | None = None,
) -> tuple[RunFigure, ...]:
    """The figures of a run as images, one in memory at a time.

    Args:
        overview, curves, reliability, importance: See `run_drawings`.

    Returns:
        The figures in the order of reading; none if there is no winner.
    """
    with own_settings():
        return tuple(map(render, run_drawings(overview, curves, reliability, importance)))


def run_drawings(
    overview: Overview,
    curves: Mapping[str, Floats],
    reliability: Floats | None,
    importance: Importance | None = None,
) -> Iterator[Drawing]:
    """The figures of a run as matplotlib figures: first of all variants, then of the winner.

    Args:
        overview: The run.
        curves: From `analysis.winner.winner_curves`.
        reliability: (bins, 3) of the winner's test predictions, all seeds together; None for a
            model that gives no probabilities.
        importance: The importance of the parameters; None if it is not known.

    Yields:
        The figures for which the run has data.
    """
    board = overview.leaderboard
    if board.selection is None:
        return
    scores = overview.scores
    rows = {variant_id: row for row, variant_id in enumerate(scores.variant_ids)}
    names = [variant.variant_id for variant in board.variants]
    values = scores.values[[rows[name] for name in names]]
    metric, goal = board.metric, board.goal
    summaries = [variant.metrics[metric] for variant in board.variants]
    intervals = np.array([(summary.low, summary.high) for summary in summaries])
    yield variants_drawing(names, values, intervals, metric=metric, goal=goal)
    if distribution := distribution_drawing(names, values, metric=metric, goal=goal):
        yield distribution
    means = describe(scores.values).mean
    if effects := effects_drawing(_parameters(overview, scores), means, metric=metric, goal=goal):
        yield effects
    if importance is not None and importance.is_clear:
        yield importance_drawing(importance, metric=metric)
    if board.rounds is not None and board.rounds.has_rounds and board.rounds.judged:
        yield rounds_drawing(board.rounds.judged, metric=metric)
    winner, num_seeds = names[0], board.variants[0].num_completed
    if curves:
        yield curves_drawing(curves, variant_id=winner)
    if (matrix := board.variants[0].test_confusion_matrix) is not None:
        yield confusion_drawing(
            matrix, overview.class_names, variant_id=winner, num_seeds=num_seeds
        )
    if reliability is not None and (
        diagram := reliability_drawing(reliability, variant_id=winner, num_seeds=num_seeds)
    ):
        yield diagram


def _parameters(overview: Overview, scores: ValidationScores) -> dict[str, list[Any]]:
    """Searched dotted path -> its value or `ABSENT` in each variant, in the order of `scores`."""
    by_id = {variant.variant_id: variant for variant in overview.leaderboard.variants}
    in_order = [by_id[variant_id] for variant_id in scores.variant_ids]
    paths = searched_paths(variant.parameters for variant in in_order)
    return {path: values_in(in_order, path) for path in paths}
