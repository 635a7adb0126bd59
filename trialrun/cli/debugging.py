"""Options that show what the user's code does: logs of packs, and one trial in this process."""

import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from trialrun.cli.console import Console
from trialrun.errors import TrialrunError

if TYPE_CHECKING:
    from trialrun.job import LoadedJob

_FIRST = ""
_OF_ONE_TRIAL = ("job", "overrides", "is_one_trial", "one_trial", "on_end")
_KEEP_LOGS = ("output.keep_logs=true",)


def _as_overrides(_context: click.Context, _option: click.Parameter, value: bool) -> Any:
    return _KEEP_LOGS if value else ()


keep_logs_option = click.option(
    "--keep-logs",
    is_flag=True,
    callback=_as_overrides,
    help="Keep in logs/ what the process of each pack (trials that are trained together) prints. It"
    " is always kept for packs that fail.",
)


def one_trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--one-trial` and `--trial`, which become one argument: the trial's name, or None."""

    def choose(context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
        is_one = context.params.pop("is_one_trial")
        if name == "":  # as of a variable that is not set
            raise click.BadParameter("must name a trial, such as v03:2, got ''", context, _option)
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
        help="Like --one-trial, for the trial of this id, of this variant (v03), or of this variant"
        " and this seed (v03:2).",
    )
    return is_one(which(command))


def train_one_trial(loaded: "LoadedJob", name: str) -> None:
    """Trains a trial in this process and prints its metrics; the user's tracebacks are whole.

    Args:
        loaded: The job.
        name: See `driver.one_trial.find_trial`.
    """
    from trialrun.driver.one_trial import train_one

    _refuse_others()
    try:
        train_one(loaded, name, Console(), Console(stderr=True))
    except TrialrunError as error:
        if error.__cause__ is not None:
            sys.stdout.flush()
            traceback.print_exception(error.__cause__)
        raise


def _refuse_others() -> None:
    """Raises UsageError if an option was given that only means something for a run."""
    context = click.get_current_context()
    others = [
        one.opts[0]
        for one in context.command.params
        if one.name not in _OF_ONE_TRIAL
        and context.get_parameter_source(one.name or "") is ParameterSource.COMMANDLINE
    ]
    if others:
        raise click.UsageError(
            "--one-trial trains in this process and writes no run folder; leave out"
            f" {', '.join(others)}"
        )
