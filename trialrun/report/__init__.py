"""What people see of a run: terminal tables, figures, the page. All from the run folder alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trialrun.files import write_text
from trialrun.standing import winner_curves, winner_reliability
from trialrun.statistics.spread import Floats
from trialrun.store import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from trialrun.report.overview import Overview


def print_overview(
    console: "Console",
    folder: RunFolder,
    *,
    where: Sequence[str] = (),
    sort: str | None = None,
    reverse: bool = False,
) -> None:
    """Prints a run, finished or interrupted: leaderboard, selection, confusion matrix, problems.

    Args:
        console: Where to.
        folder: The run.
        where, sort, reverse: Which variants, in which order; see `view.select_variants`.
    """
    from trialrun.report.overview import load_overview
    from trialrun.report.tables import print_run
    from trialrun.report.view import select_variants

    overview = load_overview(folder)
    shown = select_variants(overview.leaderboard, where=where, sort=sort, reverse=reverse)
    print_run(console, overview, shown)


def overview_content(
    folder: RunFolder,
    *,
    where: Sequence[str] = (),
    sort: str | None = None,
    reverse: bool = False,
) -> dict[str, Any]:
    """A run, finished or interrupted, in values that JSON knows; arguments as above."""
    from trialrun.report.overview import load_overview, overview_json
    from trialrun.report.view import select_variants

    overview = load_overview(folder, max_problems=None)
    shown = select_variants(overview.leaderboard, where=where, sort=sort, reverse=reverse)
    return overview_json(overview, shown)


def overview_csv(
    folder: RunFolder,
    *,
    where: Sequence[str] = (),
    sort: str | None = None,
    reverse: bool = False,
) -> str:
    """The rows of variants.csv, of a run that is finished or interrupted; arguments as above."""
    from trialrun.aggregate import variant_rows
    from trialrun.report.overview import load_overview
    from trialrun.report.view import select_variants
    from trialrun.store import variants_csv

    board = load_overview(folder).leaderboard
    rows = variant_rows(board)
    shown = select_variants(board, where=where, sort=sort, reverse=reverse)
    return variants_csv(list(rows[0]) if rows else [], [rows[one.rank - 1] for one in shown])


def build_report(folder: RunFolder) -> None:
    """Writes `figures/` and `report.html` of a run from what its folder holds."""
    from trialrun.report.figures import draw_figures
    from trialrun.report.overview import load_overview
    from trialrun.report.page import render_page

    overview = load_overview(folder)
    figures = draw_figures(overview, *_winner(folder, overview))
    for figure in figures:
        folder.write_figure(figure.name, png=figure.png, svg=figure.svg)
    page = render_page(
        overview,
        figures,
        job=folder.read_job(),
        job_text=folder.job_file.read_text(),
        environment=folder.read_environment(),
    )
    write_text(folder.report_file, page)


def draw_run(folder: RunFolder) -> "dict[str, Figure]":
    """The figures of a run, finished or interrupted, by name, as matplotlib's."""
    from trialrun.report.figures import run_drawings
    from trialrun.report.overview import load_overview

    overview = load_overview(folder)
    drawings = run_drawings(overview, *_winner(folder, overview))
    return {drawing.name: drawing.figure for drawing in drawings}


def _winner(folder: RunFolder, overview: "Overview") -> tuple[dict[str, Floats], Floats | None]:
    """The learning curves of the winner, and its reliability on the test set."""
    selection = overview.leaderboard.selection
    if selection is None:
        return {}, None
    variant_id = selection.variant_id
    return winner_curves(folder, variant_id), winner_reliability(folder, variant_id)
