"""The rounds of a run as text: who went on, who was dropped and why."""

from collections.abc import Mapping, Sequence
from typing import Any

from trialrun.analysis.rounds import DroppedVariant, RoundLine, RoundsSummary
from trialrun.messages import counted
from trialrun.report.columns import TextColumn, parameter_columns

_MAX_NAMES = 4


def round_rows(rounds: RoundsSummary) -> list[tuple[str, str, str]]:
    """Each round as three texts: its name, what is trained in it, and how many go on."""
    return [(_name(line), _trained(line), _going_on(line)) for line in rounds.lines]


def _name(line: RoundLine) -> str:
    if line.stage == "confirm":
        return "confirm"
    return rounds_name(line.number - line.num_rounds + 1, line.number)


def rounds_name(first: int, last: int) -> str:
    """Rounds by their numbers: `round 2`, `rounds 1-6`."""
    return f"round {last}" if first == last else f"rounds {first}-{last}"


def _trained(line: RoundLine) -> str:
    if line.stage == "confirm":
        names = list(line.names[:_MAX_NAMES])
        if len(line.names) > _MAX_NAMES:
            names.append(f"{len(line.names) - _MAX_NAMES} more")
        return f"{', '.join(names)} on {line.num_seeds} fresh seeds"
    pause = "" if line.epochs is None else f", to epoch {line.epochs}"
    return f"{counted(line.num_variants, 'variant')} x {counted(line.num_seeds, 'seed')}{pause}"


def _going_on(line: RoundLine) -> str:
    if line.num_go_on is None:
        return ""
    return f"{line.num_go_on} goes on" if line.num_go_on == 1 else f"{line.num_go_on} go on"


def round_lines(rounds: RoundsSummary) -> str:
    """The rounds in lines under each other, for a terminal."""
    rows = round_rows(rounds)
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = ["  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def dropped_columns(dropped: Sequence[DroppedVariant], metric: str) -> list[TextColumn]:
    """The columns of the dropped variants; they have no rank, as their seeds differ."""
    columns = [TextColumn("variant", tuple(one.variant_id for one in dropped), is_number=False)]
    columns += parameter_columns(dropped)
    scores = ("none" if one.score is None else f"{one.score:.4g}" for one in dropped)
    columns += [
        TextColumn("dropped after", tuple(f"round {one.round_number}" for one in dropped)),
        TextColumn("seeds", tuple(str(one.num_seeds) for one in dropped)),
        *_epochs_columns(dropped),
        TextColumn(metric, tuple(scores)),
        TextColumn("why", tuple(one.rule for one in dropped), is_number=False),
    ]
    return columns


def _epochs_columns(dropped: Sequence[DroppedVariant]) -> list[TextColumn]:
    """The epoch after which trials were paused, if some were."""
    if all(one.epochs is None for one in dropped):
        return []
    cells = ("all" if one.epochs is None else str(one.epochs) for one in dropped)
    return [TextColumn("epochs", tuple(cells))]


def dropped_rows(rounds: RoundsSummary) -> list[Mapping[str, Any]]:
    """The rows of dropped_variants.csv; a parameter that a variant does not have is absent."""
    return [
        {
            "variant_id": one.variant_id,
            **{f"param.{path}": value for path, value in one.parameters.items()},
            "dropped_after_round": one.round_number,
            "num_seeds": one.num_seeds,
            **({"paused_at_epoch": one.epochs} if rounds.has_pauses else {}),
            "score": one.score,
            "rule": one.rule,
        }
        for one in rounds.dropped
    ]
