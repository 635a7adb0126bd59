"""What people see of a run: terminal tables, figures, the page. All from the run folder alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trialrun.files import write_text
from trialrun.standing import winner_curves
from trialrun.store import RunFolder

if TYPE_CHECKING:
    from rich.console import Console


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
    """Writes `figures/*.png` and `report.html` of a run from what its folder holds."""
    from trialrun.report.figures import draw_figures
    from trialrun.report.overview import load_overview
    from trialrun.report.page import render_page

    overview = load_overview(folder)
    selection = overview.leaderboard.selection
    curves = winner_curves(folder, selection.variant_id) if selection else {}
    figures = draw_figures(overview, curves)
    for figure in figures:
        folder.write_figure(figure.name, figure.png)
    page = render_page(overview, figures, job_text=folder.job_file.read_text())
    write_text(folder.report_file, page)
