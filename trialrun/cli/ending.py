"""How a run is ended from outside: `--max-time`, and `trialrun stop`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trialrun.store.runs_dir import location_text

if TYPE_CHECKING:
    from trialrun.job import Duration


def _read_time(ctx: click.Context, param: click.Parameter, value: str | None) -> "Duration | None":
    from trialrun.job import read_duration

    try:
        return None if value is None else read_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


max_time_option = click.option(
    "--max-time",
    metavar="TIME",
    callback=_read_time,
    help="After this time, such as 2h or 1h 30m, end in good order with exit code 75: packs leave"
    " checkpoints, and `trialrun resume` goes on.",
)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def stop(run_folder: Path) -> None:
    """End the run in the folder RUN in good order.

    From any machine that sees the folder. The command asks the run's driver and does not wait for
    it: packs leave checkpoints within resources.grace_s, and `trialrun resume` finishes the run.
    """
    from trialrun.store import RunFolder
    from trialrun.store.lease import request_stop

    folder = RunFolder.open(run_folder)
    driver = request_stop(folder.lease_dir, lambda text: click.echo(text, err=True))
    click.echo(f"{location_text(folder.path)}: its driver ({driver}) is asked to stop")
