"""How a run is ended from outside: `--max-time`, `trialrun stop`, and before its training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trialrun.driver.interrupts import Interrupted
from trialrun.messages import command_for
from trialrun.store.runs_dir import location_text

if TYPE_CHECKING:
    from trialrun.driver.course import Course
    from trialrun.job import Duration, LoadedJob

_SAME_COMMAND = "To begin again, give the same command"


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
    help="After this time, such as 2h or 1h 30m, save checkpoints and end with exit code 75;"
    " `trialrun resume` goes on.",
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


@contextmanager
def telling_how_to_go_on(
    job: "LoadedJob", run_folder: Path | None, course: "Course"
) -> Iterator[None]:
    """Notes in an `Interrupted` that comes before training how to go on.

    Args:
        job: The job.
        run_folder: The folder that the command names; None if it names none.
        course: Knows the run's folder as soon as there is one.
    """
    try:
        yield
    except Interrupted as interrupted:
        interrupted.add_note(_how_to_go_on(job, course.run_folder or run_folder))
        raise


def _how_to_go_on(job: "LoadedJob", run_folder: Path | None) -> str:
    """`resume`, unless the folder does not hold this job yet, but one with fewer seeds."""
    from trialrun.job import dump_job
    from trialrun.store import RunFolder

    file = None if run_folder is None else RunFolder(run_folder).job_file
    if run_folder is None or file is None or not file.is_file():
        return _SAME_COMMAND
    is_this_job = file.read_bytes() == dump_job(job.spec).encode()
    return f"To continue: {command_for('resume', run_folder)}" if is_this_job else _SAME_COMMAND


def told_before_training(interrupted: Interrupted) -> str:
    """What is said of a run that was interrupted before its training began."""
    kept = f"{interrupted.reason}. Nothing was in training, and what was finished before is kept"
    return "\n".join([kept, *getattr(interrupted, "__notes__", [_SAME_COMMAND])])
