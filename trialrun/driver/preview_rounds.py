"""Prints what the rounds of a job cost, before anything is trained."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from trialrun.job import JobSpec
from trialrun.report.format import counted, seeds_text
from trialrun.report.rounds import rounds_name
from trialrun.search.schedule import RoundCost, expected_rounds

# If trials are as small as those of the reference job, compiling a program takes as long as this
# many trials.
_TRIALS_PER_COMPILATION = 500


def print_rounds(console: Console, job: JobSpec, num_variants: int) -> None:
    """Prints what the rounds cost, and says so if they do not pay."""
    rounds = expected_rounds(job, num_variants)
    if len(rounds) == rounds[0].num_rounds == 1:
        return
    console.print("")
    console.print(_table(rounds))
    console.print(f"{'. '.join(_sentences(job, rounds, num_variants))}.\n")


def _has_pauses(rounds: Sequence[RoundCost]) -> bool:
    return any(one.pause_after is not None for one in rounds)


def _table(rounds: Sequence[RoundCost]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    if _has_pauses(rounds):
        table.add_column(justify="right")
    number = 0
    for one in rounds:
        number += one.num_rounds
        is_confirm = one.stage == "confirm"
        name = "confirm" if is_confirm else rounds_name(number - one.num_rounds + 1, number)
        seeds = counted(one.num_seeds, "fresh seed" if is_confirm else "seed")
        pause = "" if one.pause_after is None else f", to epoch {one.pause_after}"
        cells = [f"{counted(one.num_variants, 'variant')} x {seeds}{pause}"]
        cells.append(counted(one.num_trials, "trial"))
        if _has_pauses(rounds):
            cells.append(counted(one.num_epochs, "trial-epoch"))
        table.add_row(name, *cells)
    return table


def _sentences(job: JobSpec, rounds: Sequence[RoundCost], num_variants: int) -> list[str]:
    at_most = "at most " * (rounds[0].stage == "race")
    lines = [f"In all {at_most}{counted(sum(one.num_trials for one in rounds), 'trial')}"]
    choosing = [one for one in rounds if one.stage != "confirm"]
    num_whole = num_variants * job.num_seeds
    # A paused trial is a part of one.
    num_choosing = sum(one.num_epochs for one in choosing) / job.training.epochs
    if job.search.rounds is not None:
        of_what = "the trial-epochs of " * _has_pauses(rounds) + "the whole grid"
        lines[0] += f"; choosing takes {at_most}{num_choosing / num_whole:.0%} of {of_what}"
        if (most := max(one.num_seeds for one in choosing)) < job.num_seeds:
            lines.append(f"No variant gets more than {most} of the {seeds_text(job.num_seeds)}")
    if (budget := job.search.budget) is not None and budget.time is not None:
        lines.append(f"No round is begun after {budget.time}")
    num_saved = round(num_whole - num_choosing)
    if job.search.rounds is not None and not at_most and num_saved < _TRIALS_PER_COMPILATION:
        saved = "the epochs of " * _has_pauses(rounds) + counted(num_saved, "trial")
        lines.append(
            f"The rounds save {saved}: if they are as small as those of jobs/medical_trial.yaml,"
            " that is less than compiling a program takes"
        )
    return lines
