"""The ways out of a run to people: the terminal, JSON, CSV, the figures, the page.

variants.csv and the other files of a run's results are written by `store`.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from trialrun.analysis.importance import Importance, NoImportance, find_importance
from trialrun.analysis.run_summary import Standing
from trialrun.analysis.winner import winner_curves, winner_reliability
from trialrun.errors import TrialrunError
from trialrun.messages import in_short
from trialrun.report.view import WHOLE, View
from trialrun.statistics.spread import Floats
from trialrun.store import RunFolder
from trialrun.store.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from trialrun.report.figures import RunFigure
    from trialrun.report.overview import Overview

_log = logging.getLogger(__name__)

_IMPORTED_LATE = (
    *("pandas", "scipy.special", "scipy.stats", "jinja2", "matplotlib.figure"),
    *("matplotlib.backends.backend_agg", "matplotlib.textpath", "matplotlib.ticker"),
)


def print_overview(
    console: "Console",
    folder: RunFolder,
    view: View = WHOLE,
    *,
    standing: Standing | None = None,
) -> None:
    """Prints a run, finished or interrupted: leaderboard, selection, confusion matrix, problems.

    Args:
        console: The console to print to.
        folder: The run.
        view: Which variants are shown, and in which order.
        standing: What was computed from its trials; None to compute it here.
    """
    from trialrun.report.overview import load_overview, overview_of
    from trialrun.report.status import training_renderables
    from trialrun.report.tables import print_run

    overview = load_overview(folder) if standing is None else overview_of(folder, standing)
    print_run(console, overview, view.variants_of(overview.leaderboard))
    if overview.summary is None:
        for renderable in training_renderables(folder, width=console.width):
            console.print(renderable)


def print_rounds(console: "Console", folder: RunFolder) -> None:
    """Prints the rounds of a run, and every variant that was dropped, with the reason.

    Raises:
        InputError: The run has no rounds.
    """
    from trialrun.report.overview import load_overview
    from trialrun.report.tables import rounds_renderables

    for renderable in rounds_renderables(load_overview(folder), width=console.width):
        console.print(renderable)


def overview_content(folder: RunFolder, view: View = WHOLE) -> dict[str, Any]:
    """A run, finished or interrupted, as values for JSON."""
    from trialrun.report.overview import load_overview, overview_json
    from trialrun.report.status import training_content

    overview = load_overview(folder, max_problems=None)
    content = overview_json(overview, view.variants_of(overview.leaderboard))
    return content | {"in_training": dict(training_content(folder).content) or None}


def overview_csv(folder: RunFolder, view: View = WHOLE) -> str:
    """A run, finished or interrupted, as CSV text with the columns of variants.csv."""
    from trialrun.analysis.variants import variant_rows
    from trialrun.report.overview import load_overview
    from trialrun.store.variants_csv import columns_of, variants_csv

    board = load_overview(folder).leaderboard
    rows = variant_rows(board)
    shown = [rows[variant.rank - 1] for variant in view.variants_of(board)]
    return variants_csv(columns_of(rows), shown)


class Drawn(NamedTuple):
    """The figures of a run, which are in its folder, and why there are none; empty if there are."""

    figures: "tuple[RunFigure, ...]"
    problem: str = ""


def import_report() -> None:
    """Imports what statistics and report need, which takes a second, before they are wanted.

    Everywhere else these are imported inside functions, so that no command waits for what it does
    not need.
    """
    for name in _IMPORTED_LATE:
        importlib.import_module(name)


def draw_report(
    folder: RunFolder, standing: Standing, importance: Importance | NoImportance
) -> Drawn:
    """Writes `figures/` of a run.

    Args:
        folder: The run.
        standing: What was computed from its trials.
        importance: The importance of its parameters.
    """
    from trialrun.report.overview import overview_of

    return _draw(folder, overview_of(folder, standing), importance)


def build_report(
    folder: RunFolder,
    standing: Standing | None = None,
    importance: Importance | NoImportance | None = None,
    drawn: Drawn | None = None,
) -> None:
    """Writes `figures/` and `report.html` of a run from what its folder holds.

    Args:
        folder: The run.
        standing: What was computed from its trials; None to compute it here.
        importance: The importance of its parameters; None to compute it here.
        drawn: The figures, if they are there already.
    """
    from trialrun.report.overview import load_overview, overview_of
    from trialrun.report.page import render_page
    from trialrun.report.page_text import importance_note

    overview = load_overview(folder) if standing is None else overview_of(folder, standing)
    importance = importance or find_importance(overview.leaderboard, overview.scores)
    figures, problem = drawn or _draw(folder, overview, importance)
    page = render_page(
        overview,
        figures,
        job=folder.read_job(),
        job_text=folder.job_file.read_text(),
        environment=folder.read_environment(),
        figure_problem=problem,
        importance_note=importance_note(importance, overview.leaderboard.metric),
    )
    write_text(folder.report_file, page)


def _draw(folder: RunFolder, overview: "Overview", importance: Importance | NoImportance) -> Drawn:
    from trialrun.report.figures import draw_figures

    try:
        figures = draw_figures(overview, *_winner(folder, overview), _known(importance))
    except Exception as error:  # matplotlib failed: the page says so, and is written without them
        _log.exception("the figures could not be drawn")
        return Drawn((), str(error) if isinstance(error, TrialrunError) else in_short(error))
    for figure in figures:
        folder.write_figure(figure.name, png=figure.png, svg=figure.svg)
    return Drawn(figures)


def draw_run(folder: RunFolder) -> "dict[str, Figure]":
    """The figures of a run, finished or interrupted: name -> matplotlib figure."""
    from trialrun.report.figures import run_drawings
    from trialrun.report.overview import load_overview

    overview = load_overview(folder)
    importance = find_importance(overview.leaderboard, overview.scores)
    drawings = run_drawings(overview, *_winner(folder, overview), _known(importance))
    return {drawing.name: drawing.figure for drawing in drawings}


def _known(importance: Importance | NoImportance) -> Importance | None:
    return importance if isinstance(importance, Importance) else None


def _winner(folder: RunFolder, overview: "Overview") -> tuple[dict[str, Floats], Floats | None]:
    """The learning curves of the winner, and its reliability on the test set."""
    selection = overview.leaderboard.selection
    if selection is None:
        return {}, None
    index, winner = folder.choosing_trials(), selection.variant_id
    return winner_curves(folder, winner, index), winner_reliability(folder, winner, index)
