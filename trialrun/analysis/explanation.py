"""What was selected, why, and how certain that is, in sentences that need no other context."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from trialrun.analysis.certainty import Certainty
from trialrun.analysis.confirmation import Confirmation, ConfirmedDifference
from trialrun.analysis.edges import edges
from trialrun.analysis.parameters import values_in
from trialrun.analysis.rounds import RoundsSummary
from trialrun.analysis.selection import Selection
from trialrun.analysis.variants import Leaderboard, VariantSummary
from trialrun.job import searched_paths
from trialrun.messages import MAX_NAMES_LISTED, counted, listed
from trialrun.statistics.paired import num_seeds_needed

_STATISTICS = {
    "mean": "mean",
    "median": "median",
    "iqm": "interquartile mean",
    "confidence_bound": "95% bound of the mean",
}
_PATHS_OF_LOSSES = ("training.loss", "training.loss_weights")


def explain(leaderboard: Leaderboard) -> str:
    """What was selected and why, in sentences that are clear to a reader who sees nothing else."""
    return " ".join(sentences(leaderboard))


def sentences(leaderboard: Leaderboard) -> list[str]:
    """The winner; which others may be best; the best model; test beside validation; edges."""
    chosen = leaderboard.selection
    if chosen is None:
        return [_nothing(leaderboard)]
    return [
        *_rounds(leaderboard),
        _claim(leaderboard, chosen),
        *_other_losses(leaderboard, chosen),
        *_certainty(leaderboard, chosen),
        *_confirmation(leaderboard, chosen),
        *_best_model(leaderboard, chosen),
        *_on_test(leaderboard, chosen),
        *_edges(leaderboard),
        *_losses(leaderboard, chosen),
    ]


def _best_model(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    """The trial that is the best model; there is none while trials are paused."""
    if leaderboard.rounds is None or leaderboard.rounds.epochs is None:
        yield f"The best model is its seed {chosen.seed}, with {chosen.metric} {chosen.value:.4g}."


def _nothing(leaderboard: Leaderboard) -> str:
    num_completed = sum(variant.num_completed for variant in leaderboard.variants)
    if not num_completed:
        return "Nothing was selected: no trial completed."
    trials = "the only trial" if num_completed == 1 else f"each of the {num_completed} trials"
    that_ended = _that_ended(leaderboard)
    return f"Nothing was selected: {leaderboard.metric} is NaN in {trials} {that_ended}."


def _that_ended(leaderboard: Leaderboard) -> str:
    """Of which trials the numbers are: of paused ones, too, if they are compared at an epoch."""
    rounds = leaderboard.rounds
    if rounds is None or rounds.epochs is None:
        return "that completed"
    return f"that got to epoch {rounds.epochs} or ended before"


def _claim(leaderboard: Leaderboard, chosen: Selection) -> str:
    settings = ", ".join(
        f"{path} = {_text(value)}" for path, value in leaderboard.variants[0].parameters.items()
    )
    name = f"{chosen.variant_id} ({settings})" if settings else chosen.variant_id
    extreme, statistic = _extreme(chosen), _STATISTICS[chosen.statistic]
    value = f"{chosen.score:.4g}{_spread(chosen)} over {counted(chosen.num_seeds, 'seed')}."
    of_all = f"the {extreme} {statistic} {chosen.metric} of {_rivals(leaderboard, chosen)}"
    same = leaderboard.certainty.same if leaderboard.certainty else ()
    if chosen.num_variants == 1:
        left = "the only variant left" if _has_dropped(leaderboard) else "the only variant"
        return f"{name} is {left}; its {statistic} {chosen.metric}: {value}"
    if _num_whole(leaderboard, chosen) == 1:
        return (
            f"{name} is the only variant of {chosen.num_variants} that lost no trial; its"
            f" {statistic} {chosen.metric}: {value}"
        )
    if len(same) + 1 == chosen.num_variants:
        return (
            f"{listed([chosen.variant_id, *same])} gave the same {chosen.metric} in every seed:"
            f" nothing tells the {chosen.num_variants} variants apart. {statistic.capitalize()}"
            f" {value} {name} is taken {_because(chosen, same)}."
        )
    if same:
        return (
            f"{listed([chosen.variant_id, *same])} gave the same {chosen.metric} in every seed and"
            f" have {of_all}: {value} {name} is taken {_because(chosen, same)}."
        )
    if chosen.tied:
        return (
            f"{listed([chosen.variant_id, *chosen.tied])} tie for {of_all}: {value}"
            f" {name} is taken {_because(chosen, chosen.tied)}."
        )
    return f"{name} has {of_all}: {value}"


def _has_dropped(leaderboard: Leaderboard) -> bool:
    return leaderboard.rounds is not None and bool(leaderboard.rounds.dropped)


def _rivals(leaderboard: Leaderboard, chosen: Selection) -> str:
    """The variants that the winner is the best of; one that lost trials may have a better mean."""
    num_whole = _num_whole(leaderboard, chosen)
    if chosen.num_unfinished or num_whole == chosen.num_variants:
        if _has_dropped(leaderboard):
            return f"the {chosen.num_variants} variants left"
        return f"{chosen.num_variants} variants"
    return f"the {num_whole} variants (of {chosen.num_variants}) that lost no trial"


def _num_whole(leaderboard: Leaderboard, chosen: Selection) -> int:
    return sum(not _num_lost(variant, chosen.metric) for variant in leaderboard.variants)


def _num_lost(variant: VariantSummary, metric: str) -> int:
    """How many of its trials diverged, failed, or have NaN as their metric."""
    return variant.num_diverged + variant.num_failed + _num_nan(variant, metric)


def _num_nan(variant: VariantSummary, metric: str) -> int:
    return variant.num_completed - variant.metrics[metric].n


def _because(chosen: Selection, others: Sequence[str]) -> str:
    """Why one of several equal variants is taken; ids are numbered in the order of the search."""
    is_first = all(
        (len(chosen.variant_id), chosen.variant_id) < (len(other), other) for other in others
    )
    return "because it comes first" if is_first else "by a difference of rounding"


def _other_losses(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    """A warning if variants have different losses, whose values cannot be compared."""
    variants = leaderboard.variants
    searched = []
    for path in searched_paths(variant.parameters for variant in variants):
        first, *others = values_in(variants, path)
        if path.startswith(_PATHS_OF_LOSSES) and any(value != first for value in others):
            searched.append(path)
    if searched and chosen.metric.endswith("loss"):
        yield (
            f"{chosen.metric} is not the same function for all variants ({', '.join(searched)} is"
            " searched): that one is smaller does not say that its model is better. Select by a"
            " metric, such as val_accuracy or val_mae."
        )


def _extreme(chosen: Selection) -> str:
    return "lowest" if chosen.goal == "minimize" else "highest"


def _spread(chosen: Selection) -> str:
    details = [] if chosen.statistic == "mean" else [f"mean {chosen.mean:.4g}"]
    if chosen.statistic == "confidence_bound" and not math.isfinite(chosen.low):
        details = ["the mean, as these seeds have no interval"]
    if math.isfinite(chosen.low):
        details.append(f"95% interval {chosen.low:.4g} to {chosen.high:.4g}")
    if chosen.num_seeds > 1:
        details.append(f"sd {chosen.sd:.2g}")
    return f" ({', '.join(details)})" if details else ""


def _certainty(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    known = leaderboard.certainty
    if known is None or not known.p_values or len(known.same) + 1 == chosen.num_variants:
        return
    if known.has_too_few_seeds:
        yield f"{counted(known.num_seeds, 'seed')} can tell nothing apart: it takes at least 2."
        return
    yield _by_means(chosen, known, _given(leaderboard.rounds))
    if known.flattery:
        yield (
            "The same seeds chose it and measured it, which flatters its mean and interval: by"
            f" about {known.flattery:.2g} if the {len(known.best_set)} are equal."
        )
    if known.pairing is not None:
        yield f"Comparing seed by seed was worth about {_times(known.pairing)} times the seeds."


def _rounds(leaderboard: Leaderboard) -> Iterator[str]:
    """How the variants that are left were chosen, and what that says of the others."""
    rounds = leaderboard.rounds
    if rounds is None:
        return
    if rounds.has_rounds:
        yield _reduced(rounds)
    if text := rounds.not_begun:
        yield text
    yield from _about_a_race(rounds)
    if rounds.epochs is not None:
        yield f"The variants are compared at epoch {rounds.epochs}, where their trials are paused."


def _reduced(rounds: RoundsSummary) -> str:
    choosing = [
        str(line.num_seeds) + ("" if line.epochs is None else f" (to epoch {line.epochs})")
        for line in rounds.lines
        if line.stage != "confirm"
    ]
    counts = list(dict.fromkeys(choosing))
    kind = "rounds" if rounds.level is None else "looks of a race"
    after = f"{kind} of {listed(counts, max_names=20)} seeds"
    what = "trial-epochs" if rounds.has_pauses else "trials"
    share = f"with {rounds.share_trained:.0%} of the {what} of the whole grid"
    if rounds.num_variants == 1:
        return f"{after[0].upper()}{after[1:]} were for 1 variant, which had no others to drop."
    if rounds.dropped:
        num_left = len(rounds.finalists)
        return f"{rounds.num_variants} variants were reduced to {num_left} by {after}, {share}."
    return f"{after[0].upper()}{after[1:]} dropped none of the {rounds.num_variants} variants."


def _about_a_race(rounds: RoundsSummary) -> Iterator[str]:
    """What a race has shown; a variant that left because a trial was lost was not tested."""
    num_lost = sum(one.has_lost for one in rounds.dropped)
    if rounds.level is None or len(rounds.dropped) == num_lost:
        return
    confidence = f"{100 * (1 - rounds.level):.4g}%"
    which = f"all {rounds.num_variants}"
    if num_lost:
        which = f"the {rounds.num_variants - num_lost} that lost no trial"
    yield f"With {confidence} confidence the best of {which} is still in{_given(rounds)}."


def _given(rounds: RoundsSummary | None) -> str:
    """What a level, which knows nothing of proposals, has to leave open; begins with a comma."""
    is_proposed = rounds is not None and rounds.is_proposed
    return ", if those that were proposed are taken as given" if is_proposed else ""


def _confirmation(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    """What fresh seeds say of the winner, which is said of nothing else."""
    rounds = leaderboard.rounds
    if rounds is None:
        return
    if _is_flattered(leaderboard, rounds):
        yield "The same seeds chose it and measured it, which flatters its mean and interval."
    found = rounds.confirmation
    if found is None:
        return
    seeds = f"{found.num_seeds} fresh seeds, which chose nothing"
    names = [one.variant_id for one in found.variants]
    if names[0] != chosen.variant_id:
        yield f"Fresh seeds were given to {listed(names)}, when {names[0]} was the best."
        return
    if not found.is_complete:
        yield f"The confirmation by {seeds}, has not ended."
        return
    own = found.variants[0]
    if not own.n:
        yield f"None of {seeds}, gave {chosen.variant_id} a value."
        return
    details = [] if own.n == 1 else [f"sd {own.sd:.2g}"]
    if math.isfinite(own.low):
        details.append(f"95% interval {own.low:.4g} to {own.high:.4g}")
    if lost := found.num_seeds - own.n:
        details.append(f"{lost} lost")
    known = f" ({', '.join(details)})" if details else ""
    yield f"On {seeds}, its mean {chosen.metric} is {own.mean:.4g}{known}."
    yield from (_difference(other, chosen, found) for other in found.differences)


def _is_flattered(leaderboard: Leaderboard, rounds: RoundsSummary) -> bool:
    """Whether the seeds chose among some variants, which `_certainty` has not told already."""
    if rounds.num_variants == 1:
        return False
    known = leaderboard.certainty
    has_told = known is not None and not known.has_too_few_seeds and bool(known.flattery)
    return rounds.has_rounds or (rounds.is_proposed and not has_told)


def _difference(other: ConfirmedDifference, chosen: Selection, found: Confirmation) -> str:
    """The statement on two variants that fresh seeds allow."""
    us, them = chosen.variant_id, other.variant_id
    needed = num_seeds_needed(len(found.differences))
    if other.n < needed:
        return (
            f"{counted(other.n, 'seed')} cannot tell it from {them}, whatever the difference: it"
            f" takes at least {needed}."
        )
    numbers = f"p {_p_value_text(other.p_value)}"
    if math.isfinite(other.low):
        low, high = other.low, other.high
        if other.is_clear:  # both ends have one sign, which the words tell
            low, high = sorted((abs(low), abs(high)))
        numbers = f"95% interval {low:.2g} to {high:.2g}, {numbers}"
    if not other.is_clear:
        return (
            f"They do not tell {us} and {them} apart: the difference is"
            f" {other.difference:+.2g} ({numbers})."
        )
    is_lower = other.difference < 0
    first, second = (us, them) if is_lower == (chosen.goal == "minimize") else (them, us)
    return f"{first} is better than {second} by {abs(other.difference):.2g} ({numbers})."


def _p_value_text(p_value: float) -> str:
    return "below 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _by_means(chosen: Selection, known: Certainty, given: str) -> str:
    """The sentence that says which variants may have the best mean, with 95% confidence."""
    extreme, others = _extreme(chosen), len(known.p_values)
    worse = "higher" if chosen.goal == "minimize" else "lower"
    best, num_worse = known.best_set, others + 1 - len(known.best_set)
    corrected = f"(corrected p {_p_text(max(known.p_values.values()))})"
    if not num_worse:
        told = f"do not tell {listed(best)} apart"
        if others > MAX_NAMES_LISTED:
            told = f"tell none of the {others + 1} variants apart"
        return f"The seeds {told}: each may have the {extreme} mean."
    if best == (chosen.variant_id,):
        rest = "the other has" if others == 1 else f"each of the {others} others has"
        return f"With 95% confidence it is the best: {rest} a {worse} mean {corrected}{given}."
    text = f"With 95% confidence the {extreme} mean is that of {listed(best, 'or')}"
    if chosen.variant_id not in best:
        return f"{text}, and not of {chosen.variant_id}{given}."
    rest = "the other has a" if num_worse == 1 else f"the {num_worse} others have a"
    return f"{text}; {rest} {worse} one{given}."


def _times(factor: float) -> str:
    return f"{float(f'{factor:.2g}'):,.10g}"


def _p_text(largest: float) -> str:
    return "below 0.0001" if largest < 1e-4 else f"at most {largest:.2g}"


def _on_test(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    name = f"test_{chosen.metric.removeprefix('val_')}"
    test = leaderboard.variants[0].metrics.get(name)
    if test is not None and test.n:
        yield (
            f"On the test set, which had no say in this, its mean {name} is {test.mean:.4g}"
            f" (validation minus test: {chosen.mean - test.mean:+.2g})."
        )


def _edges(leaderboard: Leaderboard) -> Iterator[str]:
    for edge in edges(leaderboard):
        beyond = "larger" if edge.end == "largest" else "smaller"
        which = f"the {edge.end}" if edge.is_outermost else f"among the {edge.end}"
        yield (
            f"The best {edge.path} is {which} tried ({_text(edge.value)}): {beyond} ones may be"
            " better still."
        )


def _losses(leaderboard: Leaderboard, chosen: Selection) -> Iterator[str]:
    variants = leaderboard.variants
    num_nan = sum(_num_nan(variant, chosen.metric) for variant in variants)
    if num_nan:
        trials = "a trial" if num_nan == 1 else f"{num_nan} trials"
        they_count = "it counts" if num_nan == 1 else "they count"
        that_ended = _that_ended(leaderboard)
        yield f"{chosen.metric} is NaN in {trials} {that_ended}; {they_count} as lost."
    if chosen.num_unfinished:
        count = chosen.num_unfinished
        lost = f"Every variant lost trials, the winner {count}"
        if chosen.num_variants == 1:
            lost = f"It lost {count} trial{'s'[: count != 1]}"
        yield f"{lost}, which its mean does not show."
    elif num_nan or any(variant.num_diverged + variant.num_failed for variant in variants):
        lost = "lost" if num_nan else "diverged or failed"
        yield f"Variants with {lost} trials rank after those without."


def _text(value: Any) -> str:
    """The value of a parameter as a job file may write it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
