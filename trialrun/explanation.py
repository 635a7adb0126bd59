"""What was selected, why, and how sure that is, in sentences that stand alone."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from trialrun.aggregate import Leaderboard
from trialrun.selection import Selection

_MAX_NAMED = 5
_STATISTICS = {
    "mean": "mean",
    "median": "median",
    "iqm": "interquartile mean",
    "confidence_bound": "95% bound of the mean",
}


def explain(leaderboard: Leaderboard) -> str:
    """What was selected and why, in sentences that a reader who sees nothing else understands."""
    return " ".join(sentences(leaderboard))


def sentences(leaderboard: Leaderboard) -> list[str]:
    """What won; whether others can be told from it; the best model; test against validation."""
    chosen = leaderboard.selection
    if chosen is None:
        return ["Nothing was selected: no trial completed."]
    return [
        _claim(leaderboard, chosen),
        *_certainty(leaderboard),
        f"The best model is its seed {chosen.seed}, with {chosen.metric} {chosen.value:.4g}.",
        *_on_test(leaderboard, chosen),
        *_losses(leaderboard, chosen),
    ]


def _claim(leaderboard: Leaderboard, chosen: Selection) -> str:
    settings = ", ".join(
        f"{path} = {_text(value)}" for path, value in leaderboard.variants[0].parameters.items()
    )
    name = f"{chosen.variant_id} ({settings})" if settings else chosen.variant_id
    extreme = "lowest" if chosen.goal == "minimize" else "highest"
    statistic = _STATISTICS[chosen.statistic]
    claim = f"has the {extreme} {statistic} {chosen.metric} of {chosen.num_variants} variants"
    if chosen.num_variants == 1:
        claim = f"is the only variant; its {statistic} {chosen.metric}"
    value = f"{chosen.score:.4g}{_spread(chosen)}"
    return f"{name} {claim}: {value} over {_seeds_text(chosen.num_seeds)}."


def _seeds_text(num_seeds: int) -> str:
    return f"{num_seeds} seed{'s'[: num_seeds != 1]}"


def _spread(chosen: Selection) -> str:
    parts = [] if chosen.statistic == "mean" else [f"mean {chosen.mean:.4g}"]
    if math.isfinite(chosen.low):
        parts.append(f"95% interval {chosen.low:.4g} to {chosen.high:.4g}")
    if chosen.num_seeds > 1:
        parts.append(f"sd {chosen.sd:.2g}")
    return f" ({', '.join(parts)})" if parts else ""


def _certainty(leaderboard: Leaderboard) -> Iterator[str]:
    known = leaderboard.certainty
    if known is None or not known.p_values:
        return
    num_compared = len(known.p_values)
    if known.has_too_few_seeds:
        yield (
            f"{_seeds_text(known.num_seeds)} can tell nothing apart: with {num_compared + 1}"
            f" variants it takes at least {known.num_needed}."
        )
    elif undecided := known.undecided:
        all_of_them = len(undecided) == num_compared > _MAX_NAMED
        names = f"any of the {num_compared} others" if all_of_them else _listed(undecided)
        yield f"At 5% it cannot be told from {names}."
    else:
        others = "the other" if num_compared == 1 else f"each of the {num_compared} others"
        largest = max(known.p_values.values())
        yield f"It can be told from {others} at 5% (corrected p {_p_text(largest)})."


def _p_text(largest: float) -> str:
    return "below 0.0001" if largest < 1e-4 else f"at most {largest:.2g}"


def _listed(names: Sequence[str]) -> str:
    num_more = len(names) - _MAX_NAMED
    if num_more > 1:
        return f"{', '.join(names[:_MAX_NAMED])} and {num_more} more"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _on_test(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    name = f"test_{chosen.metric.removeprefix('val_')}"
    test = leaderboard.variants[0].metrics.get(name)
    if test is not None and test.n:
        yield (
            f"On the test set, which had no say in this, its mean {name} is {test.mean:.4g}"
            f" (validation minus test: {chosen.mean - test.mean:+.2g})."
        )


def _losses(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    if chosen.num_unfinished:
        yield (
            f"No variant completed all its trials; {chosen.num_unfinished} of the winner's diverged"
            " or failed, which its mean does not show."
        )
    elif any(variant.num_diverged + variant.num_failed for variant in leaderboard.variants):
        yield "Variants with diverged or failed trials rank after those without."


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
