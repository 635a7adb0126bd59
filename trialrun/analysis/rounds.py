"""What the rounds of a run say: who is left, who was dropped, and why."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from trialrun.analysis.confirmation import Confirmation, read_confirmation
from trialrun.analysis.metric_bounds import UNBOUNDED, Bounds
from trialrun.errors import FileError
from trialrun.job import FRESH_SEEDS, ConfirmSpec, read_search
from trialrun.messages import command_for, counted
from trialrun.store import RunFolder
from trialrun.store.round_log import (
    Round,
    Schedule,
    Stage,
    fresh_seeds_of,
    joined,
    last_choosing,
)

if TYPE_CHECKING:
    from trialrun.store.trial_tables import TrialIndex


class DroppedVariant(NamedTuple):
    """A variant that got no more seeds.

    Attributes:
        variant_id: The variant.
        parameters: Searched dotted path -> value.
        round_number: The round after which it was dropped.
        rule: Why, in words.
        num_seeds: How many seeds it had.
        epochs: The epoch after which its trials were paused then; None if they had ended.
        score: Its statistic over them, with five digits; None if it had none.
        has_lost: Whether some of its trials diverged, failed or had no value.
    """

    variant_id: str
    parameters: Mapping[str, Any]
    round_number: int
    rule: str
    num_seeds: int
    epochs: int | None
    score: float | None
    has_lost: bool


class RoundLine(NamedTuple):
    """One round as people see it; those that propose variants are one.

    Attributes:
        number, stage: The round; of some that propose variants, the last one.
        num_rounds: How many rounds it stands for.
        num_variants, num_seeds: It trains so many variants up to so many seeds each.
        epochs: The epoch after which it pauses its trials; None if they are trained to their end.
        names: Ids of its variants if it confirms them.
        num_go_on: How many variants go on to the round after it; None if that is not decided, or
            none is.
    """

    number: int
    stage: Stage
    num_variants: int
    num_seeds: int
    epochs: int | None
    names: tuple[str, ...]
    num_go_on: int | None
    num_rounds: int = 1


class JudgedRound(NamedTuple):
    """The variants of one round, and who went on.

    Attributes:
        num_seeds: The seeds by which they were judged.
        epochs: The epoch after which their trials were paused then; None if they had ended.
        scores: variant_id -> its statistic with five digits, the best first; None if it has none.
        going_on: Ids of the variants that went on to the next round of choosing; at the end, of
            those that are confirmed.
        lost: Ids of the variants of which a trial diverged, failed or had no value.
    """

    num_seeds: int
    epochs: int | None
    scores: Mapping[str, float | None]
    going_on: tuple[str, ...]
    lost: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class RoundsSummary:
    """The rounds of a run.

    Attributes:
        lines: One per round.
        judged: The rounds whose variants were judged, for a figure.
        has_rounds: Whether variants had different numbers of seeds; if not, there is only a
            confirmation.
        level: The level of a race; None if variants went on by their rank.
        num_variants: All variants of the search, of proposals those so far.
        finalists: The variants that are compared, in the order of the search.
        seeds: The seeds by which they are compared, ascending.
        epochs: The epoch after which they are compared, at which their trials are paused; None if
            they are compared by trials that have ended.
        has_pauses: Whether rounds pause their trials.
        dropped: The others; those that went furthest first.
        num_whole: How many trials all variants with all seeds would have been.
        num_to_come: How many rounds of proposing and choosing were not begun; 0 if it has ended.
        awaits_confirmation: Whether there is a confirmation to come.
        num_trained: How many trials the rounds ask for, without the confirmation.
        share_trained: The share of the whole grid that choosing takes: of its trials, or of their
            epochs if rounds pause them.
        confirmation: What fresh seeds say; None if there are none, or they were not begun.
    """

    lines: tuple[RoundLine, ...]
    judged: tuple[JudgedRound, ...]
    has_rounds: bool
    level: float | None
    num_variants: int
    finalists: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int | None
    has_pauses: bool
    dropped: tuple[DroppedVariant, ...]
    num_whole: int
    num_to_come: int
    awaits_confirmation: bool
    num_trained: int
    share_trained: float
    confirmation: Confirmation | None

    @property
    def is_proposed(self) -> bool:
        """Whether variants were proposed by what those before reached."""
        return self.lines[0].num_rounds > 1

    @property
    def not_begun(self) -> str:
        """A sentence on what the run has not begun; empty if it has ended."""
        number = self.num_to_come
        names = [counted(number, "further round")] if number else []
        names += ["the confirmation"] if self.awaits_confirmation else []
        text = " and ".join(names)
        was = "was" if number + self.awaits_confirmation == 1 else "were"
        return f"{text[0].upper()}{text[1:]} {was} not begun." if text else ""


class Wanted(NamedTuple):
    """What a job asks for after the schedule of its rounds, which are fixed, and may change.

    Attributes:
        seeds: All seeds of the job.
        confirm: Its confirmation; None if there is none.
    """

    seeds: tuple[int, ...]
    confirm: ConfirmSpec | None

    @classmethod
    def of(cls, run: RunFolder) -> "Wanted":
        """What the job of a run asks for now."""
        job = run.read_job()
        seeds = job["seeds"]
        search = read_search(job, run.job_file)
        return cls(tuple(range(seeds) if isinstance(seeds, int) else seeds), search.confirmation)


def require_log(run: RunFolder, rounds: Sequence[Round], index: "TrialIndex") -> None:
    """Refuses to tell of a run whose rounds are not known: nobody could say which seeds chose.

    Raises:
        FileError: The run has trials of rounds or of fresh seeds, but their record is missing.
    """
    if not index.variant_ids:
        return
    has_fresh = any(seed in FRESH_SEEDS for seed in index.seeds.tolist())
    search = run.read_job().get("search", {})
    asked = search.get("rounds") is not None
    if search.get("method") == "tpe" and not set(index.variant_ids) <= _proposed(rounds):
        raise FileError(
            f"{run.rounds.path}: the record of what was proposed is missing, without which nobody"
            " knows the variants of this run. Put it back"
        )
    if (asked and not rounds) or (has_fresh and not fresh_seeds_of(rounds)):
        raise FileError(
            f"{run.rounds.path}: the record of the rounds is missing, without which nobody knows"
            f" which seeds chose. Put it back; or `{command_for('resume', run.path)}` decides again"
            " from the trials"
        )


def _proposed(rounds: Sequence[Round]) -> set[str]:
    return {variant_id for one in rounds for variant_id in one.assignments or ()}


def rounds_summary(
    rounds: Sequence[Round],
    index: "TrialIndex",
    metric: str,
    wanted: Wanted,
    bounds: Bounds = UNBOUNDED,
) -> RoundsSummary:
    """The summary of a run's rounds, from their log and the trials that have ended.

    Args:
        rounds: All rounds, in order; at least one.
        index: The run's trials.
        metric: The selection metric.
        wanted: What the job asks for after its schedule.
        bounds: The lowest and highest possible value of the metric.
    """
    first = rounds[0].schedule
    assert first is not None, "the first round holds the schedule"
    last = last_choosing(joined(_without_begun_proposals(rounds, index)))
    rounds = joined(rounds)
    choosing = [one for one in rounds if one.stage != "confirm"]
    compared = last
    if len(choosing) > 1 and not _has_ended(last, index):
        compared = choosing[-2]  # all that the variants of the last round have in common
    most = max(len(one.seeds) for one in choosing)
    num_variants = max(len(one.variants) for one in choosing)
    num_whole = num_variants * max(len(first.seeds), most)
    return RoundsSummary(
        lines=tuple(_lines(rounds)),
        judged=tuple(
            JudgedRound(
                len(one.decision.seeds),
                _epochs_before(rounds, one),
                one.decision.scores,
                one.variants,
                frozenset(one.decision.lost),
            )
            for one in rounds
            if one.decision is not None
        ),
        has_rounds=len(first.counts) > 1,
        level=first.level,
        num_variants=num_variants,
        finalists=last.variants,
        seeds=tuple(sorted(compared.seeds)),
        epochs=compared.epochs,
        has_pauses=bool(first.pauses),
        dropped=tuple(_dropped(rounds, index)),
        num_whole=num_whole,
        num_to_come=_num_scheduled(choosing, first) + _has_more_seeds(choosing[-1], first, wanted),
        awaits_confirmation=_awaits_confirmation(rounds, first, wanted),
        num_trained=sum(num_seeds for num_seeds, _ in _trained(choosing).values()),
        share_trained=_share_trained(choosing, first, num_whole),
        confirmation=read_confirmation(rounds[-1], index, metric, bounds),
    )


def _without_begun_proposals(rounds: Sequence[Round], index: "TrialIndex") -> Sequence[Round]:
    """The rounds without new variants whose trials have not all ended, if there are others."""
    last = rounds[-1]
    is_begun = last.stage == "propose" and len(rounds) > 1 and not _has_ended(last, index)
    return rounds[:-1] if is_begun else rounds


def _lines(rounds: Sequence[Round]) -> "list[RoundLine]":
    """The lines of rounds, those that propose variants joined: only the first can be several."""
    lines = []
    for position, one in enumerate(rounds):
        later = [other for other in rounds[position + 1 :] if other.stage in ("choose", "race")]
        is_confirm = one.stage == "confirm"
        lines.append(
            RoundLine(
                one.number,
                one.stage,
                len(one.variants),
                len(one.seeds),
                one.epochs,
                one.variants if is_confirm else (),
                len(later[0].variants) if later and not is_confirm else None,
                one.number if position == 0 else 1,
            )
        )
    return lines


def _num_scheduled(choosing: Sequence[Round], schedule: Schedule) -> int:
    last = choosing[-1]
    has_one_left = last.stage == "race" and len(last.variants) == 1
    num_begun = sum(one.stage != "extend" for one in choosing)
    num_to_propose = 0
    if (proposals := schedule.proposals) is not None:
        num_left = proposals.num_variants - len(choosing[0].variants)
        num_to_propose = math.ceil(num_left / proposals.batch)
    return 0 if has_one_left else num_to_propose + len(schedule.counts) - num_begun


def _has_more_seeds(last: Round, schedule: Schedule, wanted: Wanted) -> bool:
    """Whether the variants that are left get seeds that the job got since the run began."""
    return len(wanted.seeds) > len(schedule.seeds) and last.seeds != wanted.seeds


def _awaits_confirmation(rounds: Sequence[Round], schedule: Schedule, wanted: Wanted) -> bool:
    if (confirm := wanted.confirm) is None:
        return False
    last = rounds[-1]
    if last.stage != "confirm" or _has_more_seeds(last_choosing(rounds), schedule, wanted):
        return True
    decision = last.decision
    assert decision is not None, "only the first round has none"
    lost = (len(decision.lost.get(one, ())) for one in decision.scores)
    num_with_value = sum(number < len(decision.seeds) for number in lost)
    found = len(last.seeds), len(last.variants)
    return found != (confirm.seeds, min(confirm.variants, num_with_value))


def _trained(choosing: Sequence[Round]) -> dict[str, tuple[int, int | None]]:
    """Variant -> its seeds, and the epoch after which they are paused, in its last round."""
    last: dict[str, tuple[int, int | None]] = {}
    for one in choosing:
        last |= dict.fromkeys(one.variants, (len(one.seeds), one.epochs))
    return last


def _share_trained(choosing: Sequence[Round], schedule: Schedule, num_whole: int) -> float:
    """The share of the epochs of the whole grid; without pauses, that is the share of trials."""
    [*_, whole] = schedule.epochs or [1]
    trained = _trained(choosing).values()
    return sum(num * (epochs or whole) for num, epochs in trained) / (num_whole * whole)


def _epochs_before(rounds: Sequence[Round], one: Round) -> int | None:
    """The epoch after which the trials were paused that decided a round."""
    return last_choosing([other for other in rounds if other.number < one.number]).epochs


def _dropped(rounds: Sequence[Round], index: "TrialIndex") -> "list[DroppedVariant]":
    found = []
    for before, after in itertools.pairwise(rounds):
        decision = after.decision
        if decision is None:
            continue
        rules = decision.dropped
        found.append(
            [
                DroppedVariant(
                    variant_id,
                    index.parameters.get(variant_id, {}),
                    before.number,
                    rules[variant_id],
                    len(decision.seeds),
                    before.epochs,
                    score,
                    variant_id in decision.lost,
                )
                for variant_id, score in decision.scores.items()
                if variant_id in rules
            ]
        )
    return [one for group in reversed(found) for one in group]


def _has_ended(one: Round, index: "TrialIndex") -> bool:
    rows = index.at(one.epochs).read(one.variants, "identity")
    return int(rows["seed"].isin(one.seeds).sum()) == len(one.variants) * len(one.seeds)


def rounds_content(rounds: RoundsSummary | None) -> dict[str, Any]:
    """The rounds as values for JSON, under the key `rounds`; empty if there are none."""
    if rounds is None:
        return {}
    found = rounds.confirmation
    content = {
        "rounds": [line._asdict() for line in rounds.lines],
        "finalists": list(rounds.finalists),
        "seeds": list(rounds.seeds),
        "epochs": rounds.epochs,
        "num_to_come": rounds.num_to_come,
        "awaits_confirmation": rounds.awaits_confirmation,
        "num_trained": rounds.num_trained,
        "num_whole": rounds.num_whole,
        "share_trained": rounds.share_trained,
        "dropped": [one._asdict() for one in rounds.dropped],
        "confirmation": None if found is None else found.to_json(),
    }
    return {"rounds": content}
