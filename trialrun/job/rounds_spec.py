"""`search.rounds` and `search.confirm`: who deserves more seeds, and what fresh seeds confirm."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from trialrun.job.duration import read_duration
from trialrun.job.fields import PositiveInt, Section, is_int
from trialrun.messages import show

# Seeds from here on are kept for confirmations, so that no seed that chose is used to confirm.
FIRST_FRESH_SEED = 2**31
MOST_FRESH_SEEDS = 100_000
FRESH_SEEDS = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + MOST_FRESH_SEEDS)
# Fewer seeds cannot be divided into rounds.
FEWEST_SEEDS = 3

_FRACTION = re.compile(r"\s*(\d{1,4})\s*/\s*(\d{1,4})\s*")


def _check_keep(value: object) -> object:
    share: float | Fraction | None = None
    if isinstance(value, str) and (found := _FRACTION.fullmatch(value)) and int(found[2]):
        share = Fraction(int(found[1]), int(found[2]))
    elif isinstance(value, float):
        share = value
    if (share is not None and 0 < share < 1) or (is_int(value) and value >= 1):  # type: ignore[operator]
        return value
    raise ValueError(
        "must be a share of the variants, such as 1/3 or 0.25, or a number of variants of at least"
        f" 1, got {show(value)}"
    )


Keep = Annotated[int | float | str, BeforeValidator(_check_keep)]


class RoundSpec(Section):
    """One round: the variants that are still in it are trained with so many seeds."""

    seeds: PositiveInt
    """The seeds that each variant has after this round: the first ones of `seeds`. Example: `3`."""
    epochs: PositiveInt | None = None
    """The epoch after which the trials of this round are paused: they decide with what they are
    then, and those of the variants that go on are continued in the next round. Without it, they are
    trained to their end, as in the last round.

    Allowed: an integer below `training.epochs`, not less than in the round before. Example: `9`.
    """
    keep: Keep | None = None
    """Which variants go on to the next round: this share of them, rounded up, or this many. Those
    that tie with the last of them go on too. Every round but the last needs it.

    Allowed: a share above 0 and below 1, or an integer of at least 1. Example: `1/3`.
    """


class RaceSpec(Section):
    """Rounds in which only variants leave that are shown to be worse by a test."""

    method: Literal["race"]
    """How variants are dropped: by a test in each look. Example: `race`."""
    looks: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] | None = None
    """After how many seeds the variants are looked at. Without it, these are 3, 5, 8, 12 and 20
    and so on, up to `seeds`.

    Allowed: a list of increasing integers. Example: `[3, 5]`.
    """
    level: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The highest chance, over all looks and variants, that the best variant is dropped.

    Example: `0.01`.
    """


def _kind_of_rounds(value: object) -> str | None:
    if value == "auto":
        return "\0auto"
    if isinstance(value, RaceSpec | Mapping):
        return "\0race"
    return "\0list" if isinstance(value, list | tuple) else None


Rounds = Annotated[
    Annotated[Literal["auto"], Tag("\0auto")]
    | Annotated[tuple[RoundSpec, ...], Field(strict=False), Tag("\0list")]
    | Annotated[RaceSpec, Tag("\0race")],
    Discriminator(
        _kind_of_rounds,
        custom_error_type="rounds",
        custom_error_message="auto, a list of rounds or {method: race}",
    ),
]


class ConfirmSpec(Section):
    """Fresh seeds that chose nothing: they say how good the chosen variants really are."""

    seeds: Annotated[int, Field(ge=2, le=MOST_FRESH_SEEDS)] = 20
    """How many fresh seeds each of the variants gets. Example: `40`."""
    variants: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many variants are confirmed: the winner and those that come next. Example: `3`."""


def _kind_of_confirm(value: object) -> str | None:
    if isinstance(value, bool):
        return "\0flag"
    return "\0mapping" if isinstance(value, Mapping | ConfirmSpec) else None


Confirm = Annotated[
    Annotated[bool, Tag("\0flag")] | Annotated[ConfirmSpec, Tag("\0mapping")],
    Discriminator(
        _kind_of_confirm,
        custom_error_type="confirm",
        custom_error_message="true, false or a mapping",
    ),
]


def _check_duration(value: object) -> object:
    read_duration(value)
    return value


class BudgetSpec(Section):
    """The most that a search with rounds may take."""

    trials: PositiveInt | None = None
    """The most trials that are trained, the confirmation included. With `rounds: auto`, fewer
    variants go on if that is needed for it; else it is only checked before anything is trained.
    Variants that tie at a cut go on nevertheless. Example: `300`.
    """
    time: Annotated[str | None, BeforeValidator(_check_duration)] = None
    """After this time no further round is begun, and the run ends with what it has. Each command
    has it anew, so that `trialrun resume` goes on. It changes no decision.

    Allowed: hours, minutes and seconds. Example: `1h 30m`.
    """

    @property
    def seconds(self) -> float:
        """`time` in seconds; infinite if there is none."""
        return math.inf if self.time is None else read_duration(self.time).seconds


def is_number(keep: float | str) -> bool:
    """Whether a `keep` is a number of variants, and not a share of them."""
    return Fraction(str(keep).replace(" ", "")) >= 1


def share_of(keep: float | str, num_variants: int) -> int:
    """How many of some variants go on; at least one, and not more than there are.

    Args:
        keep: A share below 1, or a number, perhaps as text.
        num_variants: How many there are.

    >>> share_of("1/3", 10), share_of(0.1, 10), share_of("2", 10)
    (4, 1, 2)
    """
    share = Fraction(str(keep).replace(" ", ""))
    if share >= 1:
        return min(int(share), num_variants)
    kept = share * num_variants
    return max(1, -(-kept.numerator // kept.denominator))
