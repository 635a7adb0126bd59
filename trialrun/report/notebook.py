"""A run's summary as HTML for a Jupyter notebook; all texts of users are escaped."""

from trialrun.analysis.explanation import sentences
from trialrun.messages import listed
from trialrun.report.columns import identity_columns, metric_column
from trialrun.report.format import counts_text, short_names
from trialrun.report.overview import Overview
from trialrun.report.rounds import round_rows

NUM_VARIANTS_IN_NOTEBOOK = 10
_TEMPLATE = """\
<h4>{{ job_name }}</h4>
<p>{{ counts }}{% if not ended %}. This run has not ended{% endif %}</p>
{% if rounds %}
<table>
{% for row in rounds %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
<p>{% for sentence in sentences %}{{ sentence }}<br>{% endfor %}{{ importance }}</p>
{% if columns %}
<table>
<thead><tr>{% for column in columns %}<th>{{ column.header }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% if num_more %}<p>... and {{ num_more }} more: <code>run.variants</code></p>{% endif %}
{% endif %}
<p><code>{{ folder }}</code></p>
"""


def summary_html(overview: Overview) -> str:
    """HTML with the winner, how certain it is, and the first variants with means ± sd."""
    from jinja2 import Environment, StrictUndefined

    board = overview.leaderboard
    shown = board.variants[:NUM_VARIANTS_IN_NOTEBOOK]
    names = dict.fromkeys([board.metric, f"test_{board.metric.removeprefix('val_')}"])
    columns = (
        []
        if not shown
        else [
            *identity_columns(shown),
            *(
                metric_column(name, shown, with_sd=True)
                for name in names
                if name in shown[0].metrics
            ),
        ]
    )
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_TEMPLATE)
    return template.render(
        job_name=overview.job_name,
        counts=counts_text(overview.counts),
        ended=overview.summary is not None,
        rounds=[] if board.rounds is None else round_rows(board.rounds),
        sentences=sentences(board),
        importance=_importance(overview),
        columns=columns,
        rows=list(zip(*(column.cells for column in columns), strict=True)),
        num_more=len(board.variants) - len(shown),
        folder=overview.folder,
    )


def _importance(overview: Overview) -> str:
    """The parameters whose importance is more than luck, as the run has found; empty if none is."""
    found = (overview.summary or {}).get("importance") or {}
    parameters = found.get("parameters", ())
    names = short_names([one["parameter"] for one in parameters])
    clear = [
        f"{names[one['parameter']]} ({one['share']:.2f})" for one in parameters if one["is_clear"]
    ]
    if not clear:
        return ""
    return (
        f"What separates the best {found['num_best']} of {found['num_variants']:,} variants from"
        f" the others, as shares of 1 (PED-ANOVA): {listed(clear, 'and')}."
    )
