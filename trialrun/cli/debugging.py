"""Options that show what the user's code does: logs of packs, and one trial in this process."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trialrun.cli.console import Console
from trialrun.errors import TrialrunError

if TYPE_CHECKING:
    from trialrun.job import LoadedJob

_FIRST = ""
_KEEP_LOGS = ("output.keep_logs=true",)


def _as_overrides(_context: click.Context, _option: click.Parameter, value: bool) -> Any:
    return _KEEP_LOGS if value else ()


keep_logs_option = click.option(
    "--keep-logs",
    is_flag=True,
    callback=_as_overrides,
    help="Keep in logs/ what each pack's process prints; of packs that fail it always is kept.",
)


def one_trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--one-trial` and `--trial`, which become one argument: the trial's name, or None."""

    def choose(context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
        is_one = context.params.pop("is_one_trial")
        return name or (_FIRST if is_one else None)

    is_one = click.option(
        "--one-trial",
        "is_one_trial",
        is_flag=True,
        is_eager=True,
        help="Train only the first trial, in this process and without Ray, so that prints and a"
        " debugger work. Prints its metrics, and writes no run folder.",
    )
    which = click.option(
        "--trial",
        "one_trial",
        metavar="NAME",
        callback=choose,
        help="Like --one-trial, with the trial of this id, variant, or variant and seed: v03:2.",
    )
    return is_one(which(command))


def train_one_trial(loaded: "LoadedJob", name: str, *refused: str | Path | None) -> None:
    """Trains a trial in this process and prints its metrics; the user's tracebacks are whole.

    Args:
        loaded: The job.
        name: See `driver.one_trial.find_trial`.
        refused: Values of options that make no sense here.
    """
    from trialrun.driver.one_trial import train_one

    if any(value is not None for value in refused):
        raise click.UsageError(
            "--one-trial trains in this process and writes no run folder; leave out --address,"
            " --run-folder and --resume"
        )
    try:
        train_one(loaded, name, Console(), Console(stderr=True))
    except TrialrunError as error:
        if error.__cause__ is not None:
            sys.stdout.flush()
            traceback.print_exception(error.__cause__)
        raise
