"""What people see of a run: terminal tables, figures, the page. All from the run folder alone."""

from typing import TYPE_CHECKING, Any

from trialrun.files import write_text
from trialrun.standing import winner_curves
from trialrun.store import RunFolder

if TYPE_CHECKING:
    from rich.console import Console


def print_overview(console: "Console", folder: RunFolder) -> None:
    """Prints a run, finished or interrupted: leaderboard, selection, confusion matrix, problems."""
    from trialrun.report.overview import load_overview
    from trialrun.report.tables import print_run

    print_run(console, load_overview(folder))


def overview_content(folder: RunFolder) -> dict[str, Any]:
    """A run, finished or interrupted, in values that JSON knows."""
    from trialrun.report.overview import load_overview, overview_json

    return overview_json(load_overview(folder, max_problems=None))


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
