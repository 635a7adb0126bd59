"""Texts about the files of a run's best model: which were proved, and why others were not."""

from collections.abc import Mapping
from typing import Any

from trialrun.report.format import place_of

_ALL = (".weights.h5", ".json", ".keras", ".h5")


def proved_formats(summary: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The formats of the best model that were loaded again and compared.

    Args:
        summary: Content of summary.json. Older runs lack the list of formats; they had all formats,
            or they did not end.
    """
    summary = summary or {}
    saved = summary.get("best_model")
    if saved is None:
        return _ALL if summary.get("selection") else ()
    return tuple(found["name"] for found in saved["formats"] if found["is_proved"])


def saved_sentences(summary: Mapping[str, Any] | None) -> list[str]:
    """Sentences on the best model's files: which were proved, why not others, how to load it."""
    saved = (summary or {}).get("best_model")
    if not saved:
        return []
    if not saved["formats"]:
        return [f"There is no best model yet: {saved['problem']}."]
    if not saved["proved"]:
        return [
            _sentence(f"The best model was not saved: {line}")
            for line in _reasons(saved, only_lost=True)
        ]
    proved = proved_formats(summary)
    lines = [f"The best model is in best/ as {', '.join(proved)}: loaded again and compared."]
    if not {".keras", ".h5"} & set(proved):
        lines.append("To load it: trialrun.open_run(...).best.load_model(), or see best/README.md.")
    lines += [
        _sentence(f"{line[0].upper()}{line[1:]}") for line in _reasons(saved, only_lost=False)
    ]
    return lines + [_sentence(note) for note in saved["notes"]]


def _sentence(text: str) -> str:
    """A reason with the innermost of the calls in the user's own code that may follow it."""
    reason, place = text.partition("\n")[0], place_of(text)
    return f"{reason} ({place})." if place else f"{reason}."


def _reasons(saved: Mapping[str, Any], *, only_lost: bool) -> list[str]:
    """One line per reason: `not as .json, .keras: <why>`."""
    by_reason: dict[tuple[bool, str], list[str]] = {}
    for found in saved["formats"]:
        name, is_proved, note = found["name"], found["is_proved"], found["note"]
        if note and not (is_proved and (only_lost or name == ".weights.h5")):
            by_reason.setdefault((is_proved, note), []).append(name)
    return [
        f"{'' if is_proved else 'not as '}{', '.join(names)}: {note}"
        for (is_proved, note), names in by_reason.items()
    ]
