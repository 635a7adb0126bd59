"""What people see of a run: terminal tables, figures, the page; made from the run folder alone."""

from trialrun.report.outputs import (
    build_report,
    draw_report,
    draw_run,
    import_report,
    overview_content,
    overview_csv,
    print_overview,
    print_rounds,
)

__all__ = [
    "build_report",
    "draw_report",
    "draw_run",
    "import_report",
    "overview_content",
    "overview_csv",
    "print_overview",
    "print_rounds",
]
