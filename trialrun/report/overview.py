"""What is known of a run, finished or interrupted, from its folder alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trialrun.analysis.explanation import explain
from trialrun.analysis.rounds import rounds_content
from trialrun.analysis.run_summary import NUM_PROBLEMS_KEPT, Standing, Tally, TrialProblem
from trialrun.analysis.selection import ValidationScores
from trialrun.analysis.summary_json import certainty_content, data_warnings
from trialrun.analysis.variants import Leaderboard, VariantSummary
from trialrun.store import RunFolder
from trialrun.store.files import json_ready
from trialrun.store.pack_records import PackRecord, distinct_tasks


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """Everything about a run that is shown to people.

    Attributes:
        folder: The run folder.
        job_name: Name of the job.
        leaderboard: The ranked variants and the selection.
        class_names: Empty if the data has none.
        model_tasks: What the models are, and why; empty for an older run.
        compiled_by_builder: Whether builders compile all, some or none of the models themselves,
            with their own loss, metrics and optimizer.
        counts: `trials`, `completed`, `diverged`, `failed`, and `paused` if some are.
        problems: Trials that diverged or failed, by variant and seed; perhaps only the first.
        summary: summary.json; None for a run that has not ended.
        scores: The selection metric of every trial.
    """

    folder: Path
    job_name: str
    leaderboard: Leaderboard
    class_names: tuple[str, ...]
    model_tasks: tuple[str, ...]
    compiled_by_builder: Literal["all", "some", "none"]
    counts: Mapping[str, int]
    problems: tuple[TrialProblem, ...]
    summary: Mapping[str, Any] | None
    scores: ValidationScores

    @property
    def num_problems(self) -> int:
        """The number of trials that diverged or failed."""
        return self.counts["diverged"] + self.counts["failed"]

    @property
    def data_warnings(self) -> list[str]:
        """What a reader must know about the data, such as rows that two parts share."""
        return data_warnings((self.summary or {}).get("data", ()))


def load_overview(folder: RunFolder, max_problems: int | None = NUM_PROBLEMS_KEPT) -> Overview:
    """The overview of a run folder, computed from its trials.

    What a finished run wrote about itself is computed again instead of read, so that an interrupted
    run is shown in the same way, from the trials that have ended.

    Raises:
        InputError: job.yaml is damaged.
        TrialrunError: A file in `trials/` is damaged.
    """
    select = folder.read_job().get("select", {})
    tally = Tally(
        folder,
        metric=select.get("metric", "val_loss"),
        goal=select.get("goal", "minimize"),
        statistic=select.get("statistic", "mean"),
        max_problems=max_problems,
    )
    return overview_of(folder, tally.standing())


def overview_of(folder: RunFolder, standing: Standing) -> Overview:
    """The overview of a run folder whose trials and confusion matrices were already summed up."""
    packs = folder.read_packs()
    class_names = [pack.class_names for pack in packs if pack.class_names]
    return Overview(
        folder=folder.path,
        job_name=folder.read_job()["name"],
        leaderboard=standing.leaderboard,
        class_names=class_names[0] if class_names else (),
        model_tasks=distinct_tasks(packs),
        compiled_by_builder=_compiled_by_builder(packs),
        counts=standing.counts,
        problems=standing.problems,
        summary=folder.read_summary(),
        scores=standing.scores,
    )


def _compiled_by_builder(packs: Sequence[PackRecord]) -> Literal["all", "some", "none"]:
    found = {pack.is_compiled_by_builder for pack in packs if pack.model_task}
    if True not in found:
        return "none"
    return "some" if False in found else "all"


def overview_json(overview: Overview, shown: Sequence[VariantSummary]) -> dict[str, Any]:
    """The overview as values for JSON (`trialrun show --json`).

    Args:
        overview: The run.
        shown: The variants that are listed, in their order.

    Returns:
        Values for JSON; unknown ones are None.
    """
    board = overview.leaderboard
    p_values = board.certainty.p_values if board.certainty else {}
    content = {
        "job": overview.job_name,
        "folder": overview.folder,
        "ended": overview.summary is not None,
        "counts": overview.counts,
        "metric": board.metric,
        "goal": board.goal,
        "statistic": board.selection and board.selection.statistic,
        "selection": board.selection and _fields(board.selection),
        "certainty": certainty_content(board.certainty),
        "explanation": explain(board),
        **rounds_content(board.rounds),
        "class_names": overview.class_names,
        "model_tasks": overview.model_tasks,
        "variants": [
            {
                **_fields(variant),
                "cost": variant.cost and variant.cost._asdict(),
                "p_value": p_values.get(variant.variant_id),
                "metrics": {name: _fields(metric) for name, metric in variant.metrics.items()},
            }
            for variant in shown
        ],
        "best_model": (overview.summary or {}).get("best_model"),
        "problems": [_fields(problem) for problem in overview.problems],
    }
    ready: dict[str, Any] = json_ready(content)
    return ready


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass; arrays are not copied, as `dataclasses.asdict` would."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
