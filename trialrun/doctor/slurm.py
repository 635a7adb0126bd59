"""Examines the nodes of a SLURM job: srun starts `trialrun doctor --json` on each of them."""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from trialrun.doctor.check import Check, problem
from trialrun.doctor.clock import ClockSpan, ClockWatch
from trialrun.doctor.report import NodeReport
from trialrun.doctor.storage import MARK, nearest_folder
from trialrun.errors import InputError
from trialrun.messages import said_by

_LIMIT_S = 600.0
_TIMEOUT_S = 20.0
_LABELED = re.compile(r"\s*(\d+): ?(.*)")  # `srun --label` begins each line with its task's number


def look_at_allocation(
    environment: Mapping[str, str], runs_dir: Path, say: Callable[[str], None]
) -> tuple[NodeReport, ...]:
    """One report for each node of the job, including nodes that did not answer.

    Args:
        environment: The variables of a process inside the job.
        runs_dir: Where run folders are made.
        say: Shows what is being done, if it takes long.

    Raises:
        InputError: This is not a SLURM job, or SLURM's programs are missing.
    """
    job_id = environment.get("SLURM_JOB_ID")
    if not job_id:
        raise InputError(
            "--slurm looks at the nodes of a SLURM job, and this is not inside one; try"
            " `salloc --nodes=2 trialrun doctor --slurm`, or --slurm in a batch script"
        )
    path = environment.get("PATH")
    if not shutil.which("srun", path=path):
        raise InputError(f"--slurm needs srun, which is not on the PATH ({path})")
    names = _node_names(environment)
    say(f"asking the {len(names)} nodes of SLURM job {job_id}")
    asked = ClockWatch()
    with _marked(runs_dir) as mark:
        out, noise = _run({**environment, **mark}, len(names), runs_dir)
    return tuple(
        _report(name, out.get(rank, ""), noise.get(rank, ""), noise.get(-1, ""), asked.span())
        for rank, name in enumerate(names)
    )


def _node_names(environment: Mapping[str, str]) -> list[str]:
    """The job's nodes in SLURM's order, which is that of the tasks if each node has one task."""
    nodes = environment.get("SLURM_JOB_NODELIST", "")
    try:
        told = subprocess.run(
            ["scontrol", "show", "hostnames", nodes],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(
            f"--slurm: scontrol cannot list the job's nodes: {said_by(error)}"
        ) from error
    return told.stdout.split()


@contextmanager
def _marked(runs_dir: Path) -> Iterator[dict[str, str]]:
    """Makes a file beside the runs while entered, and yields the variable that names it.

    A node that does not see the file does not share the folder.
    """
    with ExitStack() as stack:
        try:
            folder = nearest_folder(runs_dir)
            file = stack.enter_context(NamedTemporaryFile(prefix=".trialrun-", dir=folder))
        except OSError:  # the nodes will say what is wrong with the folder
            yield {}
        else:
            yield {MARK: file.name}


def _run(
    environment: Mapping[str, str], num_nodes: int, runs_dir: Path
) -> tuple[dict[int, str], dict[int, str]]:
    """Output and errors by task; those of srun itself under -1."""
    # With RAY_ADDRESS every node would examine that one cluster instead of itself.
    own = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    command = [
        "srun",
        f"--nodes={num_nodes}",
        f"--ntasks={num_nodes}",
        "--ntasks-per-node=1",
        "--overlap",
        "--label",
        "--kill-on-bad-exit=0",
        "--input=none",
        *(sys.executable, "-m", "trialrun", "doctor", "--json", "--runs-dir", str(runs_dir)),
    ]
    process = subprocess.Popen(
        command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, noise = process.communicate(timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, noise = process.communicate()
        noise += f"\nno answer within {_LIMIT_S:g} s"
    return _of_each_task(out), _of_each_task(noise)


def _of_each_task(text: str) -> dict[int, str]:
    """Task -> its lines; lines without a label are under -1."""
    lines: dict[int, list[str]] = defaultdict(list)
    for line in text.splitlines():
        labeled = _LABELED.fullmatch(line)
        if labeled:
            lines[int(labeled[1])].append(labeled[2])
        else:
            lines[-1].append(line)
    return {rank: "\n".join(found) for rank, found in lines.items()}


def _report(name: str, out: str, noise: str, noise_of_srun: str, asked: ClockSpan) -> NodeReport:
    try:
        report = NodeReport.from_plain_values(json.loads(out)["nodes"][0])
    except (ValueError, KeyError, TypeError):
        return NodeReport(name, (_no_answer(noise or noise_of_srun),))
    return NodeReport(
        name, report.checks, report.versions, report.hardware, report.clock
    ).with_clock_compared(asked)


def _no_answer(noise: str) -> Check:
    lines = [line for line in noise.splitlines() if line.strip()]
    return problem(
        "node",
        f"no answer: {lines[-1] if lines else 'its task printed nothing'}",
        f"does `srun --nodelist=NODE {sys.executable} -m trialrun doctor` work there?",
    )
