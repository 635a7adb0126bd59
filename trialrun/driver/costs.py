"""What a run has cost so far, and how that is divided among its variants."""

from collections.abc import Callable, Mapping, Sequence

from trialrun.store import RunFolder
from trialrun.store.costs import Cost, Costs, problem_with_costs, read_costs
from trialrun.trials.results import PackResult


class CostAccount:
    """Adds up what packs cost, for the whole run and for each of its variants.

    The cost of a pack is divided among its variants by the epochs that their trials have trained
    when it ends; as long as it has no result, by how many trials they have in it.

    Attributes:
        total: What all variants have cost together.
    """

    def __init__(self) -> None:
        self.total = Cost()
        self._of_variants: dict[str, Cost] = {}

    def add(self, cost: Cost, weights: Mapping[str, float]) -> None:
        """Adds the cost of a pack.

        Args:
            cost: What it has cost.
            weights: Variant -> what its share is in proportion to. Without any, it is not known
                what was in training, and nothing is added.
        """
        if not (whole := sum(weights.values())):
            return
        self.total = self.total.plus(cost)
        for variant_id, weight in weights.items():
            own = self._of_variants.get(variant_id, Cost())
            self._of_variants[variant_id] = own.plus(cost, weight / whole)

    def recall(self, costs: Costs) -> None:
        """Adds what earlier commands have cost."""
        for variant_id, cost in costs.items():
            self.add(cost, {variant_id: 1})

    def copy(self) -> "CostAccount":
        """Another account with the same costs."""
        other = CostAccount()
        other.total, other._of_variants = self.total, dict(self._of_variants)
        return other

    def by_variant(self) -> dict[str, Cost]:
        """What each variant has cost, in the order of the search."""
        return dict(sorted(self._of_variants.items()))


def earlier_costs(run: RunFolder, warn: Callable[[str], None]) -> dict[str, Cost]:
    """What earlier commands on a run have cost; a file that does not tell it is warned of."""
    if problem := problem_with_costs(run):
        warn(problem)
    return dict(read_costs(run))


def merged_costs(
    run: RunFolder, sources: Sequence[RunFolder], warn: Callable[[str], None]
) -> Costs:
    """What a run has cost into which others are merged, given the run and the others.

    A run that was merged before holds the costs of its sources already, so that the larger of both
    counts; one that was not has trained by itself, which comes on top.
    """
    account = CostAccount()
    for source in sources:
        account.recall(earlier_costs(source, warn))
    own = earlier_costs(run, warn)
    if not _was_merged(run):
        account.recall(own)
        return account.by_variant()
    return own | {
        name: max(cost, own.get(name, cost)) for name, cost in account.by_variant().items()
    }


def _was_merged(run: RunFolder) -> bool:
    return any("merged" in one.get("ray", {}) for one in run.read_environments())


def cost_of(result: PackResult, device_s: float) -> Cost:
    """What a pack with a result has cost.

    Args:
        result: Its result. If all its trials have failed, its time is lost.
        device_s: For how long the driver has known of it, in seconds. A driver that was busy or
            halted may hear late that a pack has begun: its worker's own time counts if it is more.
    """
    device_s = max(device_s, sum(one.duration_s for one in result.trials))
    compile_s = sum(result.timings_s.get(stage, 0.0) for stage in ("trace", "compile"))
    is_lost = all(one.status == "failed" for one in result.trials)
    return Cost(device_s, device_s if is_lost else 0.0, min(compile_s, device_s))


def weights_of(result: PackResult) -> dict[str, float]:
    """Variant -> the epochs that its trials have trained; their number if none has trained any."""
    epochs: dict[str, float] = {}
    trials: dict[str, float] = {}
    for one in result.trials:
        variant_id = one.trial.variant.variant_id
        epochs[variant_id] = epochs.get(variant_id, 0) + one.epochs
        trials[variant_id] = trials.get(variant_id, 0) + 1
    return epochs if any(epochs.values()) else trials
