"""The facts about a pack as a whole, which its file of trials stores beside the rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialrun.store.parquet import list_pack_files, read_about
from trialrun.trials.results import PackResult


@dataclass(frozen=True, slots=True)
class PackRecord:
    """The facts that are stored about a pack as a whole.

    Attributes:
        pack_id: The pack.
        class_names, feature_names, reason, model_task, is_compiled_by_builder, timings_s,
            is_resumed: As in `trials.results.PackResult`.
    """

    pack_id: str
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    reason: str
    model_task: str
    is_compiled_by_builder: bool
    timings_s: Mapping[str, float]
    is_resumed: bool


def distinct_tasks(packs: Iterable[PackRecord]) -> tuple[str, ...]:
    """The distinct tasks of the packs' models."""
    return tuple(dict.fromkeys(pack.model_task for pack in packs if pack.model_task))


def facts_of(result: PackResult) -> dict[str, Any]:
    """The facts about a pack as its file of trials stores them."""
    return {
        "pack_id": result.pack_id,
        "class_names": result.class_names,
        "feature_names": result.feature_names,
        "reason": result.reason,
        "model_task": result.model_task,
        "is_compiled_by_builder": result.is_compiled_by_builder,
        "timings_s": result.timings_s,
        "is_resumed": result.is_resumed,
    }


def read_pack_records(trials_dir: Path) -> tuple[PackRecord, ...]:
    """The facts about each pack with a file in a folder, from its last attempt."""
    records = {}
    for file in list_pack_files(trials_dir):
        about = read_about(file)
        records[about["pack_id"]] = PackRecord(
            pack_id=about["pack_id"],
            class_names=tuple(about["class_names"]),
            feature_names=tuple(about["feature_names"]),
            reason=about["reason"],
            model_task=about.get("model_task", ""),  # older runs lack this
            is_compiled_by_builder=about.get("is_compiled_by_builder", False),
            timings_s=about["timings_s"],
            is_resumed=about.get("is_resumed", True),  # of older runs it is not known
        )
    return tuple(records.values())
