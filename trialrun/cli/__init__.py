"""The command line: its commands, and what goes to stdout or stderr."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from trialrun.cli.console import Console
from trialrun.cli.debugging import keep_logs_option, one_trial_options, train_one_trial
from trialrun.cli.ending import max_time_option, stop, telling_how_to_go_on, told_before_training
from trialrun.cli.on_end import OnEnd, on_end_option
from trialrun.cli.planning import plan
from trialrun.cli.results import compare, predict
from trialrun.cli.run_options import (
    address_option,
    open_head_option,
    set_option,
    shard_option,
    strict_option,
)
from trialrun.cli.watching import list_runs, status
from trialrun.driver.interrupts import Interrupted
from trialrun.errors import (
    EXIT_CTRL_C,
    EXIT_FAILED,
    EXIT_WRONG_INPUT,
    InputError,
    TrackerError,
    TrialrunError,
)
from trialrun.job.user_code.frames import told
from trialrun.messages import command_for, counted, visible
from trialrun.store.foreign import reading_run, reads_run
from trialrun.store.runs_dir import default_runs_dir, location_text


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="trialrun")
def cli() -> None:
    """Train every variant x seed of a Keras model, and learn which settings are really better.

    Exit codes: 0 done; 1 the run ended, but trials failed, no variant could be selected or the best
    model could not be saved; 2 the input is wrong; 75 interrupted; 130 Ctrl-C. After 75 and 130,
    `trialrun resume` finishes the run.
    """


for _command in (compare, list_runs, plan, predict, status, stop):
    cli.add_command(_command)


_runs_dir_option = click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    default=default_runs_dir,
    show_default="TRIALRUN_RUNS_DIR, else runs; ~/trialrun-runs inside a Ray job",
    help="The folder in which run folders are made.",
)
_run_folder_option = click.option(
    "--run-folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder of the run itself: it is made if it does not exist, and the run in it is"
    " continued if it holds one.",
)


@cli.command()
@click.argument("job", type=click.Path(path_type=Path))
@set_option
@address_option
@open_head_option
@_runs_dir_option
@_run_folder_option
@click.option(
    "--resume",
    "resume_run",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Continue the run in this folder: train only the trials of JOB that it does not hold.",
)
@shard_option
@max_time_option
@strict_option
@keep_logs_option
@one_trial_options
@on_end_option
def run(
    job: Path,
    overrides: tuple[str, ...],
    runs_dir: Path,
    run_folder: Path | None,
    resume_run: Path | None,
    shard: str | None,
    keep_logs: tuple[str, ...],
    one_trial: str | None,
    **options: Any,
) -> None:
    """Train all trials of JOB, a YAML file.

    Then select the best variant, and save the best model and a report.
    """
    from trialrun.job import load_job
    from trialrun.store import RunFolder

    if one_trial is not None:
        train_one_trial(load_job(job, overrides), one_trial)
        return
    if resume_run is not None:
        if run_folder is not None:
            raise click.UsageError(
                "--resume and --run-folder both name the run folder; give only one"
            )
        run_folder = RunFolder.open(resume_run).path
    loaded = load_job(job, (*overrides, *keep_logs), shard=shard)
    _run(loaded, runs_dir, run_folder, options)


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@address_option
@open_head_option
@max_time_option
@strict_option
@keep_logs_option
@on_end_option
def resume(run_folder: Path, keep_logs: tuple[str, ...], **options: Any) -> None:
    """Finish the interrupted run in the folder RUN.

    Trains missing trials, then saves the best model and a report.
    """
    from trialrun.job import load_job
    from trialrun.store import RunFolder

    folder = RunFolder.open(run_folder)
    _run(load_job(folder.job_file, keep_logs), Path(), folder.path, options)


@cli.command()
@click.argument(
    "run_folders", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True
)
@_runs_dir_option
@_run_folder_option
@strict_option
def merge(
    run_folders: tuple[Path, ...], runs_dir: Path, run_folder: Path | None, strict_versions: bool
) -> None:
    """Merge the runs of all shards of a job into one run.

    The merged run has one winner and one report.
    """
    from trialrun.driver.progress import ProgressLine
    from trialrun.driver.run import merge_runs
    from trialrun.job import load_job
    from trialrun.store import RunFolder

    sources = [RunFolder.open(path) for path in run_folders]
    outcome = merge_runs(
        load_job(sources[0].job_file).of_all_shards(),
        sources,
        runs_dir=runs_dir,
        run_folder=run_folder,
        command=sys.argv,
        strict_versions=strict_versions,
        progress=ProgressLine(Console(stderr=True)),
    )
    _tell(outcome)


def _run(job: Any, runs_dir: Path, run_folder: Path | None, options: Mapping[str, Any]) -> None:
    """Runs a job; `options` are those of the command that `run_job` takes by the same names."""
    from trialrun.driver.progress import ProgressLine
    from trialrun.driver.run import run_job

    progress = ProgressLine(Console(stderr=True))
    click.get_current_context().find_root().ensure_object(OnEnd).course = progress.course
    with telling_how_to_go_on(job, run_folder, progress.course):
        outcome = run_job(
            job,
            runs_dir=runs_dir,
            run_folder=run_folder,
            command=sys.argv,
            progress=progress,
            **options,
        )
    _tell(outcome)
    if (shard := job.spec.resources.shard) is not None:
        _say(f"This is shard {shard}; `trialrun merge` makes one run of all shards")


def _tell(outcome: Any) -> None:
    """Prints the result of a run, and exits with the code for what went wrong, if anything did."""
    from trialrun.report import print_overview

    if outcome.num_completed or outcome.has_winner:  # a winner may be of paused trials
        print_overview(Console(), outcome.run, standing=outcome.standing)
    resume = command_for("resume", outcome.run.path)
    if outcome.interrupted:
        _say("\n".join([*outcome.kept, f"To continue: {resume}"]))
        sys.exit(outcome.interrupted.exit_code)
    Console().print(
        f"\nRun folder: {location_text(outcome.run.path)}", soft_wrap=True, highlight=False
    )
    if outcome.not_begun:
        _say(f"{outcome.not_begun} To go on: {resume}")
    if outcome.num_failed or not outcome.has_winner:
        lost = outcome.num_failed
        what = f"{counted(lost, 'trial')} failed" if lost else "nothing was selected"
        _say(f"{what}; see {outcome.run.log_file}")
        sys.exit(EXIT_FAILED)
    if not outcome.has_model and not outcome.is_paused:
        _say(f"The best model was not saved. To try again: {resume}")
        sys.exit(EXIT_FAILED)


def _say(text: str) -> None:
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Show only variants for which the condition holds, e.g. --where learning_rate=0.001"
    " --where 'test_accuracy>0.9'. Also !=, <, <=, >=. May be given several times.",
)
@click.option(
    "--sort",
    metavar="COLUMN",
    help="Sort by a parameter, a metric (its mean, the best first) or a column of variants.csv"
    " [default: rank].",
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@click.option(
    "--rounds",
    "of_rounds",
    is_flag=True,
    help="Show instead who was dropped in which round of the search, and why.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows of variants.csv.")
def show(
    run_folder: Path,
    where: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    of_rounds: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show the leaderboard of RUN, a run folder.

    The run may still be running, or may have been interrupted.
    """
    from trialrun.report import overview_content, overview_csv, print_overview, print_rounds
    from trialrun.report.view import View
    from trialrun.store import RunFolder

    if as_json and as_csv:
        raise click.UsageError("--json and --csv cannot be combined; give only one of them")
    folder, view = RunFolder.open(run_folder), View(where, sort, reverse)
    if of_rounds and (view != View() or as_json or as_csv):
        raise click.UsageError("--rounds cannot be combined with other options")
    with reading_run(folder.path):
        if of_rounds:
            print_rounds(Console(), folder)
        elif as_json:
            click.echo(json.dumps(overview_content(folder, view), indent=2))
        elif as_csv:
            click.echo(visible(overview_csv(folder, view)), nl=False)
        else:
            print_overview(Console(), folder, view)


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--trackers",
    is_flag=True,
    help="Also write the run to the trackers that the job in RUN names. Without this option nothing"
    " is sent: a job from somebody else could name a server that would receive your tokens.",
)
@reads_run
def report(run_folder: Path, trackers: bool) -> None:
    """Build the figures and the report of RUN again."""
    from trialrun.job import OutputSpec, read_output
    from trialrun.report import build_report
    from trialrun.store import RunFolder
    from trialrun.trackers import require_packages, show_in_trackers

    folder = RunFolder.open(run_folder)
    asked = read_output(folder.read_job(), folder.job_file)
    output = asked if trackers else OutputSpec()
    require_packages(output)
    build_report(folder)
    click.echo(folder.report_file)
    if problems := show_in_trackers(folder, output):
        raise TrackerError("\n".join(map(str, problems)))


@cli.command()
@address_option
@click.option("--slurm", is_flag=True, help="Check every node of the SLURM job this is run in.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@_runs_dir_option
def doctor(address: str | None, slurm: bool, as_json: bool, runs_dir: Path) -> int:
    """Check devices, versions, Ray, SLURM and disks.

    Says what works, what does not, and what to do.

    With --address (or RAY_ADDRESS), every node of that Ray cluster is checked from inside a task.
    Exit codes: 0 all works, perhaps with warnings; 1 something does not work; 2 wrong usage.
    """
    from trialrun.doctor.examine import diagnose

    if slurm and address:
        raise click.UsageError("--slurm and --address cannot be combined; give only one of them")
    return diagnose(address, slurm=slurm, as_json=as_json, runs_dir=runs_dir)


def main() -> None:
    """Runs the command line and exits with the code that `trialrun --help` describes."""
    logging.getLogger("trialrun").setLevel(logging.INFO)
    if logging.lastResort is not None:  # what has no log to go to is told without a traceback
        logging.lastResort.setFormatter(_OneLine())
    with OnEnd() as on_end:
        sys.exit(_exit_code(lambda: cli(standalone_mode=False, obj=on_end)))


class _OneLine(logging.Formatter):
    """What a record says, without the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(record.getMessage())


def _exit_code(command: Callable[[], Any]) -> int:
    try:
        result = command()
    except click.ClickException as error:
        error.show()
        return EXIT_WRONG_INPUT
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        ended = error.__cause__ or error  # click raises its own error from an interrupt
        if not isinstance(ended, Interrupted):
            return EXIT_CTRL_C
        _say(told_before_training(ended))
        return ended.exit_code
    except InputError as error:
        click.echo(f"Error: {visible(told(error))}", err=True)
        return EXIT_WRONG_INPUT
    except TrialrunError as error:
        click.echo(f"Error: {visible(told(error))}", err=True)
        return EXIT_FAILED
    return result if isinstance(result, int) else 0
