"""report.html: one self-contained page, everything that is not ours escaped."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trialrun.aggregate import Leaderboard, ordered_metrics
from trialrun.explanation import explain
from trialrun.report.columns import identity_columns, metric_column
from trialrun.report.figures import RunFigure
from trialrun.report.format import counts_text
from trialrun.report.overview import Overview

NUM_VARIANTS_SHOWN = 200
NUM_PROBLEMS_SHOWN = 50
_GROUPS = {"val_": "Validation", "test_": "Test", "train_": "Training"}


def render_page(overview: Overview, figures: Sequence[RunFigure], *, job_text: str) -> str:
    """The whole page as HTML. It loads nothing: images are inside it.

    Args:
        overview: The run.
        figures: Shown in this order.
        job_text: The resolved job.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    board = overview.leaderboard
    return environment.get_template("page.html.j2").render(
        job_name=overview.job_name,
        ended=overview.summary is not None,
        facts=_facts(overview),
        explanation=explain(board),
        metric=board.metric,
        goal=board.goal,
        has_winner=board.selection is not None,
        leaderboard=_leaderboard(board),
        num_more_variants=max(0, len(board.variants) - NUM_VARIANTS_SHOWN),
        figures=[(figure, _data_uri(figure.png)) for figure in figures],
        problems=overview.problems[:NUM_PROBLEMS_SHOWN],
        num_problems=overview.num_problems,
        model_summary=(overview.summary or {}).get("model_summary", ""),
        job_text=job_text,
        folder_name=overview.folder.name,
    )


def _facts(overview: Overview) -> list[str]:
    """Short facts under the title."""
    facts = [counts_text(overview.counts)]
    summary = overview.summary or {}
    total_s = summary.get("timings_s", {}).get("total")
    if total_s:
        facts += [
            f"{_duration_text(total_s)} in all",
            f"{summary['throughput']['trials_per_s']:.3g} trials/s",
        ]
    return facts


def _duration_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _leaderboard(board: Leaderboard) -> Mapping[str, Any]:
    """The leaderboard as text.

    Returns:
        `groups`: (title, number of columns) of the upper header; `columns`; `rows`: tuples of text.
    """
    variants = board.variants[:NUM_VARIANTS_SHOWN]
    if not variants:
        return {"groups": [], "columns": [], "rows": []}
    identity = identity_columns(variants)
    groups, columns = [("", len(identity))], [*identity]
    for prefix, title in _GROUPS.items():
        names = [name for name in ordered_metrics(board) if name.startswith(prefix)]
        metrics = [metric_column(name, variants, with_sd=True) for name in names]
        columns += [
            replace(column, header=column.header.removeprefix(prefix)) for column in metrics
        ]
        groups += [(title, len(metrics))] if metrics else []
    return {
        "groups": groups,
        "columns": columns,
        "rows": list(zip(*(column.cells for column in columns), strict=True)),
    }


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
