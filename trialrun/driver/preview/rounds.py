"""What `trialrun plan` says of the rounds of a search: what they cost, and whether they pay."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from trialrun.job import JobSpec
from trialrun.messages import counted
from trialrun.report.rounds import rounds_name
from trialrun.search.schedule import RoundCost, expected_rounds

# If trials are as small as those of the reference job, compiling a program takes as long as this
# many trials.
_TRIALS_PER_COMPILATION = 500


def print_rounds(console: Console, job: JobSpec, num_variants: int) -> None:
    """Prints what the rounds cost, and says so if they do not pay; nothing for a plain grid.

    Args:
        console: The console to print to.
        job: The job.
        num_variants: How many variants it has.
    """
    rounds = expected_rounds(job, num_variants)
    if len(rounds) == rounds[0].num_rounds == 1:
        return
    console.print("")
    console.print(_table(rounds))
    console.print(f"{'. '.join(_sentences(job, rounds, num_variants))}.\n")


def _table(rounds: Sequence[RoundCost]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    has_pauses = _has_pauses(rounds)
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    if has_pauses:
        table.add_column(justify="right")
    number = 0
    for one in rounds:
        number += one.num_rounds
        is_confirm = one.stage == "confirm"
        name = "confirm" if is_confirm else rounds_name(number - one.num_rounds + 1, number)
        seeds = counted(one.num_seeds, "fresh seed" if is_confirm else "seed")
        pause = "" if one.pause_after is None else f", to epoch {one.pause_after}"
        trained = f"{counted(one.num_variants, 'variant')} x {seeds}{pause}"
        epochs = [counted(one.num_epochs, "trial-epoch")] if has_pauses else []
        table.add_row(name, trained, counted(one.num_trials, "trial"), *epochs)
    return table


def _has_pauses(rounds: Sequence[RoundCost]) -> bool:
    return any(one.pause_after is not None for one in rounds)


def _sentences(job: JobSpec, rounds: Sequence[RoundCost], num_variants: int) -> Iterator[str]:
    choosing = [one for one in rounds if one.stage != "confirm"]
    has_pauses = _has_pauses(rounds)
    num_whole = num_variants * job.num_seeds
    # In trials; one that is paused is a part of one.
    num_choosing = sum(one.num_epochs for one in choosing) / job.training.epochs
    at_most = "at most " * (rounds[0].stage == "race")
    in_all = f"In all {at_most}{counted(sum(one.num_trials for one in rounds), 'trial')}"
    if job.search.rounds is None:
        yield in_all
        return
    of_what = "the trial-epochs of " * has_pauses + "the whole grid"
    yield f"{in_all}; choosing takes {at_most}{num_choosing / num_whole:.0%} of {of_what}"
    if (most := max(one.num_seeds for one in choosing)) < job.num_seeds:
        yield f"No variant gets more than {most} of the {counted(job.num_seeds, 'seed')}"
    if has_pauses and job.training.callbacks:
        yield (
            "The state of a paused trial does not hold what training.callbacks remember: those that"
            " go on are trained from the start, which is not counted here"
        )
    if (budget := job.search.budget) is not None and budget.time is not None:
        yield f"No round is begun after {budget.time}"
    num_saved = round(num_whole - num_choosing)
    if not at_most and num_saved < _TRIALS_PER_COMPILATION:
        saved = "the epochs of " * has_pauses + counted(num_saved, "trial")
        yield (
            f"The rounds save {saved}: if they are as small as those of jobs/medical_trial.yaml,"
            " that is less than compiling a program takes"
        )
