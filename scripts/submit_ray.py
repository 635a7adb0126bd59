"""Submits a job to the job server of a Ray cluster; see submit_ray.sh.

The job file, the files that it names and what their code imports are sent to the cluster;
`ray_job_files` finds them. trialrun itself must be installed on the cluster.
"""

import logging
import os
import re
import shlex
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from ray_job_files import (
    command_path,
    copy_to,
    describe,
    find_needed,
    require_sendable,
    too_large,
)

from trialrun.cluster.preflight import TOKEN_HELP, require_token
from trialrun.errors import (
    EXIT_CTRL_C,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_WRONG_INPUT,
    ClusterError,
    InputError,
    TrialrunError,
)
from trialrun.messages import said_by

EXIT_NOT_FOUND = 127  # what a shell says of a command that it does not find
TIMEOUT_S = 5.0
POLL_S = 1.0
PATIENCE_S = 60.0
RUN_FOLDER = re.compile(r"^Run folder: (/.*) on \S+$", re.MULTILINE)
EXAMPLE = "RAY_ADDRESS=http://HOST:8265"


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[--no-wait]",
)
@click.option("--no-wait", is_flag=True, help="Submit the job, and do not wait for its end.")
@click.argument("job", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("options", metavar="[TRIALRUN OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def submit(job: Path, options: tuple[str, ...], no_wait: bool) -> int:
    """Run JOB (a YAML file) on the Ray cluster at RAY_ADDRESS.

    The files of its folder that it needs are sent along. Exits with trialrun's own exit code, or
    with 75 if the job was stopped.
    """
    url = server_url()
    job = job.parent.resolve() / job.name
    needed = find_needed(job, options)
    require_sendable(job, needed.files)
    check_server(url)
    client = connect(url)
    say(describe(job.parent, needed))
    job_id = send(client, job, options, needed.files)
    say(f"Submitted {job_id} to {url}")
    say(f"Stop it: ray job stop --address {url} {job_id}")
    if no_wait:
        say(f"Follow it: ray job logs --follow --address {url} {job_id}")
        return 0
    try:
        info, log = follow(client, job_id)
    except KeyboardInterrupt:
        say(f"{job_id} keeps running. Follow it: ray job logs --follow --address {url} {job_id}")
        return EXIT_CTRL_C
    except (RuntimeError, OSError) as error:
        raise ClusterError(
            f"the connection to the job server at {url} was lost ({error}); {job_id} may still be"
            f" running. Ask for it: ray job status --address {url} {job_id}"
        ) from error
    return explain(info, log)


# Before anything is sent -------------------------------------------------------------------------


def server_url() -> str:
    """The address of the job server, from the variables that Ray's own commands take."""
    url = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or ""
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        is_server = False
    if not is_server:
        found = f"got {url!r}" if url else "but it is not set"
        raise InputError(f"RAY_ADDRESS must be the address of a job server, {found}: {EXAMPLE}")
    return url.rstrip("/")


def check_server(url: str) -> None:
    """Raises ClusterError if the server would take no job; Ray's client may wait for minutes."""
    require_token()
    try:
        import aiohttp  # noqa: F401 - Ray's client needs it
        import requests
        from ray._private.authentication.http_token_authentication import (
            get_auth_headers_if_auth_enabled,
        )
    except ImportError as error:
        raise ClusterError(
            f"{error}: a package for submitting jobs is missing; install it: pip install"
            " 'trialrun[jobs]', or scripts/setup jobs"
        ) from error
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    no_server = f"the program that answers at {url} is not Ray's job server"
    try:
        socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no job server answers at {url}: {error}; is the cluster's head running with one"
            " (`ray start --head --include-dashboard=true`, and ray[default] installed), and may"
            " this machine reach it?"
        ) from error
    headers = get_auth_headers_if_auth_enabled({})
    try:
        answer = requests.get(f"{url}/api/version", headers=headers, timeout=TIMEOUT_S)
    except OSError as error:
        kind = type(error).__name__
        raise ClusterError(f"{no_server} ({kind}; its port is usually 8265)") from error
    if answer.status_code in (401, 403):
        what = "requires a token" if answer.status_code == 401 else "refuses our token"
        raise ClusterError(f"the job server at {url} {what}; {TOKEN_HELP}")
    if not answer.ok or "ray_version" not in answer.text:
        raise ClusterError(f"{no_server} (HTTP {answer.status_code}); {EXAMPLE}")


# The job -----------------------------------------------------------------------------------------


def connect(url: str) -> Any:
    """Ray's client for the job server, which logs only problems."""
    from ray.job_submission import JobSubmissionClient

    for name in ("job.sdk", "dashboard_sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    # It warns about every large file; `send` reports once if they are too large.
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    return JobSubmissionClient(url)


def send(client: Any, job: Path, options: tuple[str, ...], files: list[Path]) -> str:
    """Sends some files of the job's folder and the command; returns Ray's id of the job."""
    command = shlex.join(["trialrun", "run", command_path(job), *options])
    try:
        with tempfile.TemporaryDirectory(prefix="trialrun-send-") as copy:
            copy_to(Path(copy), job.parent, files)
            job_id: str = client.submit_job(entrypoint=command, runtime_env={"working_dir": copy})
    except OSError as error:
        raise ClusterError(f"the files cannot be sent: {said_by(error)}") from error
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if "status code 413" in text or "exceeds the maximum size" in text:
            raise too_large(job, files) from error
        reason = text.strip().splitlines()[-1]
        raise ClusterError(f"the job server refused the job: {reason}") from error
    return job_id


def follow(client: Any, job_id: str) -> tuple[Any, str]:
    """Prints the job's output until it ends; returns Ray's description of the job, and its output.

    It polls, so that a laptop may sleep meanwhile, and a network may fail for a while.
    """
    log = ""
    last_heard_s = time.monotonic()
    while True:
        try:
            info = client.get_job_info(job_id)  # first, so that the log of an ended job is whole
            whole = client.get_job_logs(job_id)
        except (RuntimeError, OSError):
            if time.monotonic() > last_heard_s + PATIENCE_S:
                raise
        else:
            last_heard_s = time.monotonic()
            click.echo(whole[len(log) :], nl=False)
            log = whole
            if info.status.is_terminal():
                return info, log
        time.sleep(POLL_S)


def explain(info: Any, log: str) -> int:
    """Returns the exit code for the job's end; if it was no success, says what to do."""
    code = exit_code(info)
    folders = RUN_FOLDER.findall(log)
    if info.status == "STOPPED":
        say("The job was stopped.")
    elif code == EXIT_NOT_FOUND:
        say("The head has no `trialrun` on its PATH: install it there, and in every node's Python.")
    elif info.status == "FAILED" and info.driver_exit_code is None:
        say(f"Ray could not run the job: {info.message}")
    is_over = code in (0, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_NOT_FOUND)
    if folders and (not is_over or (code and info.driver_exit_code is None)):
        folder = shlex.quote(folders[-1])
        say(f"To continue, run the same command with: --run-folder {folder}")
    return code


def exit_code(info: Any) -> int:
    """The exit code of the job's command, as a shell gives it; 75 if the job was stopped."""
    if info.status == "STOPPED":
        return EXIT_INTERRUPTED
    code: int | None = info.driver_exit_code
    if code is None:
        return 0 if info.status == "SUCCEEDED" else EXIT_FAILED
    return code if code >= 0 else 128 - code


def say(text: str) -> None:
    """Prints a message to standard error; standard output is for the job's own output."""
    click.echo(text, err=True)


def main() -> None:
    try:
        sys.exit(submit(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_WRONG_INPUT)
    except TrialrunError as error:
        say(f"Error: {error}")
        sys.exit(EXIT_WRONG_INPUT if isinstance(error, InputError) else EXIT_FAILED)


if __name__ == "__main__":
    main()
