"""What fresh seeds, which chose nothing, say of the chosen variant and those that came next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trialrun.analysis.metric_bounds import UNBOUNDED, Bounds
from trialrun.statistics.best import LEVEL
from trialrun.statistics.intervals import cautious_interval, within_bounds
from trialrun.statistics.paired import compare, holm
from trialrun.statistics.spread import Floats, describe
from trialrun.store.round_log import Round

if TYPE_CHECKING:
    from trialrun.store.trial_tables import TrialIndex


class ConfirmedVariant(NamedTuple):
    """A variant's selection metric over fresh seeds.

    Attributes:
        variant_id: The variant.
        n: How many of the fresh seeds have a value.
        mean, sd: Over these seeds; NaN without any.
        low, high: The 95% interval of the mean; infinite if it has none.
    """

    variant_id: str
    n: int
    mean: float
    sd: float
    low: float
    high: float


class ConfirmedDifference(NamedTuple):
    """The chosen variant compared with another over fresh seeds.

    Attributes:
        variant_id: The other.
        n: The seeds that both have.
        difference: Mean of the chosen minus the other.
        low, high: Its 95% interval.
        p_value: Of the sign-flip test, corrected by Holm for the number of others.
    """

    variant_id: str
    n: int
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def is_clear(self) -> bool:
        """Whether the test says that the two differ, and the interval, if there is one, agrees."""
        has_interval = np.isfinite(self.low) and np.isfinite(self.high)
        return self.p_value <= LEVEL and not (has_interval and self.low <= 0 <= self.high)


class Confirmation(NamedTuple):
    """What fresh seeds say, which chose nothing.

    Attributes:
        num_seeds: How many fresh seeds there are.
        variants: The chosen variant first.
        differences: The chosen variant against each of the others.
        is_complete: Whether all trials have ended.
    """

    num_seeds: int
    variants: tuple[ConfirmedVariant, ...]
    differences: tuple[ConfirmedDifference, ...]
    is_complete: bool

    def to_json(self) -> dict[str, Any]:
        """The confirmation as values for JSON."""
        return {
            "num_seeds": self.num_seeds,
            "is_complete": self.is_complete,
            "variants": [one._asdict() for one in self.variants],
            "differences": [
                {**one._asdict(), "is_clear": one.is_clear} for one in self.differences
            ],
        }


def read_confirmation(
    last: Round, index: "TrialIndex", metric: str, bounds: Bounds
) -> Confirmation | None:
    """What fresh seeds say; None unless the last round of a run is a confirmation.

    Args:
        last: That round.
        index: The run's trials.
        metric: The selection metric.
        bounds: Its lowest and highest possible value.
    """
    if last.stage != "confirm":
        return None
    rows = index.read(last.variants, "numbers")
    rows = rows[rows["seed"].isin(last.seeds)]
    num_ended = len(rows)
    rows = rows[rows["status"] == "completed"]
    values = np.full((len(last.variants), len(last.seeds)), np.nan)
    row_of = {variant_id: row for row, variant_id in enumerate(last.variants)}
    column_of = {seed: column for column, seed in enumerate(last.seeds)}
    if len(rows):
        values[rows["variant_id"].map(row_of), rows["seed"].map(column_of)] = rows[metric]
    return confirmation_of(last.variants, values, bounds, is_complete=num_ended == values.size)


def confirmation_of(
    variants: Sequence[str], values: Floats, bounds: Bounds = UNBOUNDED, *, is_complete: bool = True
) -> Confirmation:
    """What fresh seeds say, from their values alone.

    Args:
        variants: The ids, the chosen variant first.
        values: The selection metric (variants, seeds); NaN where a trial has no value.
        bounds: The metric's lowest and highest possible value.
        is_complete: Whether all trials have ended.
    """
    return Confirmation(
        num_seeds=values.shape[1],
        variants=tuple(_confirmed(variants, values, bounds)),
        differences=tuple(_differences(variants, values, bounds)),
        is_complete=is_complete,
    )


def _confirmed(variants: Sequence[str], values: Floats, bounds: Bounds) -> "list[ConfirmedVariant]":
    spread = describe(values)
    interval = cautious_interval(values, np.random.default_rng(0))
    interval = within_bounds(interval, values, *map(np.asarray, bounds))
    columns = zip(variants, spread.n, spread.mean, spread.sd, *interval, strict=True)
    return [ConfirmedVariant(name, int(n), *map(float, rest)) for name, n, *rest in columns]


def _differences(
    variants: Sequence[str], values: Floats, bounds: Bounds
) -> "list[ConfirmedDifference]":
    compared = [compare(values[0], other, np.random.default_rng(0)) for other in values[1:]]
    p_values = holm([one.p_value for one in compared])
    differences = values[0] - values[1:]
    interval = cautious_interval(differences, np.random.default_rng(0))
    largest = np.asarray(bounds[1] - bounds[0])  # no difference is larger than the metric's range
    low, high = within_bounds(interval, differences, -largest, largest)
    return [
        ConfirmedDifference(variant_id, one.n, one.difference, *map(float, numbers))
        for variant_id, one, *numbers in zip(
            variants[1:], compared, low, high, p_values, strict=True
        )
    ]
