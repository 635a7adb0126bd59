"""The commands that look at runs from outside: `status` and `list`."""

import json
from pathlib import Path

import click

from trialrun.cli.console import Console
from trialrun.errors import InputError
from trialrun.messages import visible
from trialrun.store import RunFolder
from trialrun.store.run_state import RunState, states_of
from trialrun.store.runs_dir import default_runs_dir, run_paths, what_is_at

_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for other programs."
)
_folder_type = click.Path(path_type=Path)


@click.command()
@click.argument("where", metavar="[RUN | DIR]", type=_folder_type, required=False)
@click.option("--watch", is_flag=True, help="Refresh it until the run has ended.")
@_json_option
def status(where: Path | None, watch: bool, as_json: bool) -> None:
    """Show how far a run is, from any machine that sees its folder.

    RUN is a run folder; DIR is a folder of runs, of which the most recent one is shown [default:
    where `trialrun run` makes them]. It needs no Ray, and does not disturb the run.
    """
    from trialrun.report.status import content_of, print_status, watch_status

    if watch and as_json:
        raise click.UsageError("--watch and --json cannot be combined; give only one of them")
    run = _most_recent(where or default_runs_dir())
    if watch:
        watch_status(Console(), run)
    elif as_json:
        click.echo(json.dumps(content_of(states_of([run], _say)[0]), indent=2))
    else:
        print_status(Console(), run, _say)


@click.command("list")
@click.argument("folder", metavar="[DIR]", type=_folder_type, required=False)
@_json_option
def list_runs(folder: Path | None, as_json: bool) -> None:
    """List the runs in DIR, a folder of runs.

    Shows state, age, owner and result of each, the newest first [default: where `trialrun run`
    makes them].
    """
    from trialrun.report.status import content_of, print_runs

    folder = folder or default_runs_dir()
    states = states_of(_runs_in(folder), _say)
    if as_json:
        click.echo(json.dumps([content_of(state) for state in states], indent=2))
    else:
        print_runs(Console(), states, folder)


def _most_recent(folder: Path) -> RunFolder:
    """The run in a folder that gave the last sign of life."""
    runs = _runs_in(folder)
    return runs[0] if len(runs) == 1 else min(states_of(runs, _say), key=_silence).run


def _silence(state: RunState) -> tuple[bool, float]:
    return state.state != "running", state.silent_s


def _runs_in(folder: Path) -> list[RunFolder]:
    if runs := [RunFolder(path) for path in run_paths(folder)]:
        return runs
    raise InputError(visible(f"{folder}: holds no run: {what_is_at(folder)}"))


def _say(text: str) -> None:
    click.echo(text, err=True)
