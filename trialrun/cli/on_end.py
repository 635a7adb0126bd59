"""`--on-end CMD`: a command of the user that is told how a run ended, whatever ended it."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import click

from trialrun.driver.course import Course
from trialrun.errors import EXIT_CTRL_C, EXIT_FAILED, EXIT_INTERRUPTED


class OnEnd:
    """The user's command and what it is told; a context manager, which runs it at its end.

    It ends with SystemExit; any other exception is an error of trialrun's own, which is told as an
    exit code of 1.

    Attributes:
        command: For the shell; empty for none.
        course: The course of the run, which knows its folder; None before the run begins.
    """

    def __init__(self) -> None:
        self.command = ""
        self.course: Course | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.command:
            code = error.code if isinstance(error, SystemExit) else EXIT_FAILED
            self._run(code if isinstance(code, int) else 0)

    def _run(self, exit_code: int) -> None:
        """Runs the command; that it fails is said, and changes nothing."""
        run_folder = None if self.course is None else self.course.run_folder
        folder = "" if run_folder is None else str(run_folder.resolve())
        told = {
            "TRIALRUN_STATE": _state_of(exit_code),
            "TRIALRUN_EXIT_CODE": str(exit_code),
            "TRIALRUN_RUN_FOLDER": folder,
        }
        try:
            problem = _problem_of(self.command, {**os.environ, **told})
        except OSError as problem_of_system:
            problem = str(problem_of_system.strerror)
        if problem:
            click.echo(f"Warning: --on-end {self.command!r}: {problem}", err=True)


def _problem_of(command: str, environment: Mapping[str, str]) -> str:
    """What was wrong with a command of the user, which is run; empty if nothing was.

    A signal that asks this process to end kills the command, and leaves our exit code as it is.
    """
    process: subprocess.Popen[bytes] | None = None
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        if process is not None:
            process.kill()

    # An exception out of the handler could come while the process is being started, and be lost.
    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(command, shell=True, env=environment, stdout=2)
        if interrupted:
            process.kill()
        code = process.wait()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if interrupted:
        return "interrupted"
    return f"exit code {code}" if code else ""


def _state_of(exit_code: int) -> str:
    if exit_code in (EXIT_INTERRUPTED, EXIT_CTRL_C):
        return "interrupted"
    return "failed" if exit_code else "ended"


def _remember(context: click.Context, parameter: click.Parameter, command: str | None) -> None:
    if command:
        context.find_root().ensure_object(OnEnd).command = command


on_end_option: Callable[[Any], Any] = click.option(
    "--on-end",
    metavar="CMD",
    callback=_remember,
    expose_value=False,
    help="Run CMD in a shell when the run has ended, was interrupted or has failed. It finds"
    " TRIALRUN_STATE (ended, interrupted, failed), TRIALRUN_EXIT_CODE and TRIALRUN_RUN_FOLDER in"
    " its environment.",
)
