"""Renders report.html: one self-contained page; all texts of users are escaped.

It is made from `page.html.j2` and `page_leaderboard.html.j2` (structure), `page.css` and `page.js`.
`page_text` writes its texts, `page_table` its table.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trialrun.analysis.explanation import sentences
from trialrun.analysis.variants import Leaderboard
from trialrun.report.figures import RunFigure
from trialrun.report.overview import Overview
from trialrun.report.page_table import page_table
from trialrun.report.page_text import (
    asked,
    environment_facts,
    group_problems,
    highlights,
    question,
    run_facts,
)
from trialrun.report.rounds import dropped_columns, round_rows
from trialrun.report.saved import proved_formats, saved_sentences

NUM_PROBLEMS_SHOWN = 50
_PIXELS_PER_CSS_PIXEL = 1.5
_HERE = Path(__file__).parent


def render_page(
    overview: Overview,
    figures: Sequence[RunFigure],
    *,
    job: Mapping[str, Any],
    job_text: str,
    environment: Mapping[str, Any] | None = None,
    figure_problem: str = "",
    importance_note: str = "",
) -> str:
    """The whole page as HTML, which loads nothing: styles, script and images are inside it.

    Args:
        overview: The run.
        figures: The figures in the order in which they are shown.
        job: The resolved job.
        job_text: The text of job.yaml.
        environment: Content of environment.json; None if there is none.
        figure_problem: Why the figures could not be drawn; empty if they could.
        importance_note: Why no figure shows the importance of parameters; empty if one does, or
            nobody expects it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.j2").render(
        **_own_texts(),
        **_answer(overview, job),
        figures=[(figure, _data_uri(figure.png), _shown_size(figure.png)) for figure in figures],
        figure_problem=figure_problem,
        importance_note=importance_note,
        job_text=job_text,
        environment=environment_facts(environment or {}),
        environment_text=json.dumps(environment, indent=2, ensure_ascii=False),
    )


def _own_texts() -> dict[str, Any]:
    """Style, script, and the policy that allows them alone."""
    from markupsafe import Markup

    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    # The only texts that are not escaped: they are our own, and contain no "</".
    texts = {"style": Markup(style), "script": Markup(script)}
    return {"policy": _content_policy(style, script), **texts}


def _answer(overview: Overview, job: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of the run: question, answer, table, problems, saved model."""
    board = overview.leaderboard
    table = page_table(board)
    problems = overview.problems[:NUM_PROBLEMS_SHOWN]
    return {
        "job_name": overview.job_name,
        "folder_name": overview.folder.name,
        "ended": overview.summary is not None,
        "facts": run_facts(overview),
        "question": question(job, board),
        "asked": asked(job, overview.compiled_by_builder),
        "sentences": sentences(board),
        "data_warnings": overview.data_warnings,
        "model_tasks": overview.model_tasks,
        "highlights": highlights(board),
        "metric": board.metric,
        "goal": board.goal,
        "has_winner": board.selection is not None,
        "has_p_values": any(head.name == "p" for head in table.heads),
        "has_costs": any(variant.cost for variant in board.variants),
        "leaderboard": table,
        "rounds": () if board.rounds is None else round_rows(board.rounds),
        "dropped": _dropped_cells(board),
        "num_more_variants": len(board.variants) - len(table.rows),
        "problems": group_problems(problems),
        "num_more_problems": overview.num_problems - len(problems),
        "saved": saved_sentences(overview.summary),
        "proved": proved_formats(overview.summary),
        "model_summary": (overview.summary or {}).get("model_summary", ""),
    }


def _dropped_cells(board: Leaderboard) -> dict[str, Any] | None:
    """The table of dropped variants: heads, whether they are numbers, and rows; None if empty."""
    if board.rounds is None or not board.rounds.dropped:
        return None
    columns = dropped_columns(board.rounds.dropped, board.metric)
    return {
        "heads": [(column.header, column.is_number) for column in columns],
        "rows": list(zip(*(column.cells for column in columns), strict=True)),
        "has_pauses": board.rounds.has_pauses,
    }


def _content_policy(style: str, script: str) -> str:
    """The content security policy: a browser runs this script, and nothing in users' texts."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source_hash(style)};"
        f" script-src {_source_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _shown_size(png: bytes) -> tuple[int, int]:
    """Width and height in CSS pixels, such that text in figures is as large as the page's text."""
    width, height = struct.unpack(">II", png[16:24])  # in the header that begins every PNG
    return round(width / _PIXELS_PER_CSS_PIXEL), round(height / _PIXELS_PER_CSS_PIXEL)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
