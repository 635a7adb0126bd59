"""What a run says of its best model's files: which were proved, and why others were not."""

from collections.abc import Mapping
from typing import Any

_ALL = (".weights.h5", ".json", ".keras", ".h5")


def proved_formats(summary: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The formats of the best model that were loaded again and compared.

    Args:
        summary: Content of summary.json; runs of older versions had all formats or did not end.
    """
    summary = summary or {}
    saved = summary.get("best_model")
    if saved is None:
        return _ALL if summary.get("selection") else ()
    return tuple(one["name"] for one in saved["formats"] if one["is_proved"])


def saved_sentences(summary: Mapping[str, Any] | None) -> list[str]:
    """Which files of the best model were proved, why others were not, and how to load it."""
    saved = (summary or {}).get("best_model")
    if not saved:
        return []
    if not saved["proved"]:
        return [
            f"The best model was not saved: {line}." for line in _reasons(saved, only_lost=True)
        ]
    proved = proved_formats(summary)
    lines = [f"The best model is in best/ as {', '.join(proved)}: loaded again and compared."]
    if not {".keras", ".h5"} & set(proved):
        lines.append("To load it: trialrun.open_run(...).best.load_model(), or see best/README.md.")
    lines += [f"{line[0].upper()}{line[1:]}." for line in _reasons(saved, only_lost=False)]
    return lines + [f"{note}." for note in saved["notes"]]


def _reasons(saved: Mapping[str, Any], *, only_lost: bool) -> list[str]:
    """`not as .json, .keras: <why>`, a line for each reason."""
    names: dict[tuple[bool, str], list[str]] = {}
    for one in saved["formats"]:
        if one["note"] and not (one["is_proved"] and (only_lost or one["name"] == ".weights.h5")):
            names.setdefault((one["is_proved"], one["note"]), []).append(one["name"])
    return [
        f"{'' if is_proved else 'not as '}{', '.join(of)}: {note}"
        for (is_proved, note), of in names.items()
    ]
