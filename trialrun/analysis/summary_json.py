"""What summary.json says of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from trialrun.analysis.certainty import Certainty
from trialrun.analysis.edges import edges
from trialrun.analysis.explanation import explain
from trialrun.analysis.importance import Importance, NoImportance, importance_content
from trialrun.analysis.rounds import rounds_content
from trialrun.analysis.run_summary import Standing
from trialrun.analysis.variants import Leaderboard


def run_summary(
    job_name: str,
    standing: Standing,
    *,
    timings_s: Mapping[str, float],
    model_summary: str = "",
    best_model: Mapping[str, Any] | None = None,
    data: Sequence[Mapping[str, Any]] = (),
    model_tasks: Sequence[str] = (),
    importance: Importance | NoImportance | None = None,
    cost: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The content of summary.json: what was selected and why, counts, timings, throughput.

    Args:
        job_name: Name of the job.
        standing: The standing of all trials.
        timings_s: Stage -> seconds of wall time; `total` is the whole run.
        model_summary: Keras's text about the best model, shown in the report.
        best_model: The formats in which it was saved and proved, and why it was not in others.
        data: For one trial per data setting, its seed and the census of its parts.
        model_tasks: The tasks of the models with their reasons.
        importance: The importance of the parameters; None if it was not computed.
        cost: `device_s`, `lost_s` and `compile_s`, seconds of devices; None if they are not known.
    """
    board = standing.leaderboard
    return {
        "job": job_name,
        "selection": _selection_content(standing),
        "certainty": certainty_content(board.certainty),
        "explanation": explain(board),
        **rounds_content(board.rounds),
        "importance": None if importance is None else importance_content(importance),
        "counts": {**standing.counts, "variants": _num_variants(board)},
        "timings_s": dict(timings_s),
        "cost": None if cost is None else dict(cost),
        "throughput": _throughput(standing, timings_s.get("total")),
        "best_model": best_model,
        "model_summary": model_summary,
        "data": list(data),
        "model_tasks": list(model_tasks),
    }


def _num_variants(board: Leaderboard) -> int:
    return len(board.variants) if board.rounds is None else board.rounds.num_variants


def data_warnings(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings about the data that `run_summary` gets, each text once."""
    texts = (
        f"{text} (data of seed {entry['seed']})"
        for entry in data
        for text in entry.get("warnings", ())
    )
    return list(dict.fromkeys(texts))


def _selection_content(standing: Standing) -> dict[str, Any] | None:
    """The selection, with all metrics of the best trial."""
    chosen = standing.leaderboard.selection
    if chosen is None:
        return None
    return {
        "variant_id": chosen.variant_id,
        "parameters": dict(standing.leaderboard.variants[0].parameters),
        "trial_id": chosen.trial_id,
        "seed": chosen.seed,
        "metric": chosen.metric,
        "goal": chosen.goal,
        "statistic": chosen.statistic,
        "score": chosen.score,
        "mean": chosen.mean,
        "sd": chosen.sd,
        "low": chosen.low,
        "high": chosen.high,
        "num_seeds": chosen.num_seeds,
        "tied": list(chosen.tied),
        "edges": [
            {"parameter": edge.path, "value": edge.value, "end": edge.end}
            for edge in edges(standing.leaderboard)
        ],
        "best_trial": dict(standing.best_trial),
    }


def certainty_content(known: Certainty | None) -> dict[str, Any] | None:
    """Which variants may have the best mean, without the p-values, which are in variants.csv."""
    if known is None:
        return None
    return {
        "best_set": list(known.best_set),
        "undecided": list(known.undecided),
        "same": list(known.same),
        "num_compared": len(known.p_values),
        "num_seeds": known.num_seeds,
        "pairing": known.pairing,
        "flattery": known.flattery,
    }


def _throughput(standing: Standing, total_s: float | None) -> dict[str, float]:
    if not total_s:
        return {}
    return {
        "trials_per_s": standing.counts["trials"] / total_s,
        "epochs_per_s": standing.num_epochs / total_s,
    }
