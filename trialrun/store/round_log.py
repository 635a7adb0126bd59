"""The rounds of a run: `search/round-0001.json` and so on, each written before it is trained.

A round says which variants are trained with which seeds, and why others are not. On resume these
files are the authority: what was decided once stays decided.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from trialrun.errors import FileError
from trialrun.store.files import reading, write_text

_NAME = re.compile(r"round-(\d{4,})\.json")

Stage = Literal["propose", "choose", "race", "extend", "confirm"]


@dataclass(frozen=True, slots=True)
class Proposals:
    """How the variants of a run are proposed; fixed when the first round begins.

    Attributes:
        method: What proposes them.
        num_variants: How many are proposed in all.
        batch: How many are proposed at a time.
        seed: Keys the proposals.
    """

    method: str
    num_variants: int
    batch: int
    seed: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the rounds of a run go on; fixed when the first round begins.

    Attributes:
        metric, goal, statistic: What decides, see the job's section `select`.
        seeds: All seeds of the job when the run began, in the job's order.
        counts: For each round, how many of these seeds a variant has after it.
        keeps: For each round but the last, which variants go on: a share such as `1/3` or a number.
            Empty for a race.
        fewest: The least number of variants that go on if there are as many.
        level: The level of a race; None if variants go on by their rank.
        proposals: How variants are proposed; None if all are known beforehand.
        epochs: For each round, the epoch after which its trials are paused or, in the last, end;
            empty if no round pauses them.
    """

    metric: str
    goal: str
    statistic: str
    seeds: tuple[int, ...]
    counts: tuple[int, ...]
    keeps: tuple[str, ...] = ()
    fewest: int = 1
    level: float | None = None
    proposals: Proposals | None = None
    epochs: tuple[int, ...] = ()

    @property
    def stage(self) -> Stage:
        """The stage of the rounds of this schedule."""
        return "choose" if self.level is None else "race"

    @property
    def pauses(self) -> tuple[int, ...]:
        """All epochs after which trials are paused, ascending."""
        return tuple(sorted({epochs for epochs in self.epochs if epochs != self.epochs[-1]}))

    def pause_of(self, index: int) -> int | None:
        """The epoch after which the trials of a round, by its index, are paused; None if never."""
        return self.epochs[index] if self.epochs and self.epochs[index] in self.pauses else None

    def work_of(self, index: int) -> int:
        """What a variant of a round, by its index, costs in it: trials, or epochs of its trials."""
        counts, epochs = (0, *self.counts), (0, *(self.epochs or (1,) * len(self.counts)))
        return counts[index + 1] * epochs[index + 1] - counts[index] * epochs[index]


@dataclass(frozen=True, slots=True)
class Decision:
    """What made a round as it is: the numbers of the rounds before, and who was dropped on them.

    Attributes:
        seeds: The seeds whose trials decided.
        scores: variant_id -> its statistic with five digits, the best first; None if it has none.
        lost: variant_id -> seeds whose trial diverged, failed or has no value; only where there
            are some.
        dropped: variant_id -> the rule by which it was dropped, in words.
        digest: SHA-256 of the values of all these trials, each with five digits.
    """

    seeds: tuple[int, ...]
    scores: Mapping[str, float | None]
    lost: Mapping[str, tuple[int, ...]]
    dropped: Mapping[str, str]
    digest: str


@dataclass(frozen=True, slots=True)
class Round:
    """One round: every one of its variants is trained with every one of its seeds.

    Attributes:
        number: 1, 2, ...
        stage: `propose` new variants, `choose` by rank, `race` by a test, `extend` with seeds that
            the job got later, or `confirm` with fresh seeds.
        variants: Ids; of a confirmation, the best first, else in the order of the search.
        seeds: Seeds; those that earlier rounds have trained are not trained again.
        decision: Why it is these variants; None in the first round.
        schedule: The schedule; only in the first round.
        epochs: The epoch after which its trials are paused, unless they have ended before; None if
            they are trained to their end.
        assignments: variant_id -> searched dotted path -> value, of the variants that are proposed;
            None unless some are.
    """

    number: int
    stage: Stage
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    decision: Decision | None = None
    schedule: Schedule | None = None
    epochs: int | None = None
    assignments: Mapping[str, Mapping[str, Any]] | None = None

    def to_json(self) -> str:
        """The round as the text of its file: the same bytes for equal rounds."""
        content = {name: value for name, value in asdict(self).items() if value is not None}
        for name in ("epochs", "proposals"):
            if self.schedule is not None and not getattr(self.schedule, name):
                del content["schedule"][name]  # as it was written before there were any
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class RoundLog:
    """The folder `search/` of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    def file_of(self, number: int) -> Path:
        """The file of a round, from its number."""
        return self.path / f"round-{number:04d}.json"

    def write(self, new: Round) -> None:
        """Writes a round atomically."""
        write_text(self.file_of(new.number), new.to_json())

    def read(self) -> tuple[Round, ...]:
        """All rounds so far; empty for a run without rounds.

        Raises:
            FileError: A file is damaged or missing.
        """
        numbers = sorted(
            int(found[1])
            for file in self.path.glob("round-*.json")
            if (found := _NAME.fullmatch(file.name))
        )
        expected = list(range(1, len(numbers) + 1))
        if numbers != expected:
            missing = next(number for number in expected if number not in numbers)
            raise FileError(f"{self.file_of(missing)}: is missing, but later rounds are there")
        return tuple(_read(self.file_of(number), number) for number in numbers)

    def fresh_seeds(self) -> frozenset[int]:
        """The seeds of confirmations, which chose nothing."""
        return fresh_seeds_of(self.read())


def joined(rounds: Sequence[Round]) -> tuple[Round, ...]:
    """The rounds of which those that propose are one: the first of the schedule.

    It has the number of the last of them, all their variants, and no decision.
    """
    proposing = [one for one in rounds if one.stage == "propose"]
    if not proposing:
        return tuple(rounds)
    first, last = proposing[0], proposing[-1]
    assert first.schedule is not None, "the first round holds the schedule"
    variants = tuple(variant_id for one in proposing for variant_id in one.variants)
    stage, number = first.schedule.stage, last.number
    whole = replace(first, number=number, stage=stage, variants=variants, assignments=None)
    return (whole, *rounds[len(proposing) :])


def schedule_in(rounds: Sequence[Round]) -> Schedule | None:
    """The schedule of a run's rounds, which the first one holds; None without rounds."""
    if not rounds:
        return None
    assert rounds[0].schedule is not None, "the first round holds the schedule"
    return rounds[0].schedule


def last_choosing(rounds: Sequence[Round]) -> Round:
    """The last of some rounds that is no confirmation; the first of a run never is one."""
    return next(one for one in reversed(rounds) if one.stage != "confirm")


def fresh_seeds_of(rounds: Sequence[Round]) -> frozenset[int]:
    """The seeds of confirmations among some rounds."""
    return frozenset(seed for one in rounds if one.stage == "confirm" for seed in one.seeds)


def _read(file: Path, number: int) -> Round:
    try:
        with reading(file):
            found = _from_json(file.read_bytes())
            _require_sense(found, number)
    except FileError as error:
        raise FileError(
            f"{error}. Put the file back; or delete it and the rounds after it, which `trialrun"
            " resume` then decides again from the trials"
        ) from error
    return found


def _from_json(content: bytes) -> Round:
    """The round in a file, each value of the type that `Round` says.

    Raises:
        ValueError: A value is missing or has another type.
    """
    try:
        return _form_of_rounds().validate_json(content, strict=True)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise ValueError(f"it is not the record of a round: {place}: {wrong['msg']}") from error


@functools.cache
def _form_of_rounds() -> TypeAdapter[Round]:
    """What pydantic makes of `Round`, which takes it longer than to read a file."""
    return TypeAdapter(Round)


def _require_sense(found: Round, number: int) -> None:
    """Raises ValueError unless a round is what `Round` says."""
    is_first, schedule = number == 1, found.schedule
    problems = {
        f"its number is not {number}": found.number != number,
        "its variants are not distinct ids": not _are_distinct(found.variants),
        "its seeds are not distinct integers": not _are_distinct(found.seeds),
        "its epochs are not a number above 0": not _is_epoch(found.epochs),
        "it has no decision": (found.decision is None) != is_first,
        "it has no schedule": (schedule is None) == is_first,
        "its schedule is none": schedule is not None and not _is_schedule(schedule),
        "it does not say what is proposed": (found.stage == "propose")
        != (tuple(found.assignments or ()) == found.variants),
    }
    for problem, holds in problems.items():
        if holds:
            raise ValueError(problem)


def _is_schedule(schedule: Schedule) -> bool:
    """Whether its rounds grow, and there are as many epochs as rounds, if there are some."""
    counts, epochs, proposals = schedule.counts, schedule.epochs, schedule.proposals
    return (
        _are_distinct(counts)
        and counts[0] > 0
        and list(counts) == sorted(counts)
        and len(epochs) in (0, len(counts))
        and all(map(_is_epoch, epochs))
        and (proposals is None or min(proposals.num_variants, proposals.batch) > 0)
    )


def _is_epoch(epochs: int | None) -> bool:
    return epochs is None or epochs > 0


def _are_distinct(values: Sequence[Any]) -> bool:
    return bool(values) and len(set(values)) == len(values)
