"""Says whether a SLURM job that starts again may go on, or has added nothing to its run twice.

    check_progress.py RUN JOB

It is called at each restart and remembers in the run folder what was there at the restart before. A
start adds something if a trial has ended or a checkpoint is of a later epoch. It exits with 1 when
the last two starts added neither, as where an epoch is longer than the time that a job gets.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from trialrun.errors import TrialrunError
from trialrun.messages import command_for
from trialrun.store import RunFolder
from trialrun.store.files import write_json

_MOST_IDLE = 2


class Found(NamedTuple):
    """What a run folder holds.

    Attributes:
        num_ended: Trials with a result.
        num_epochs: Epochs of all trials in checkpoints.
    """

    num_ended: int
    num_epochs: int


def main(folder: Path, job: str) -> int:
    run, memory = RunFolder(folder), folder / ".restarts.json"
    try:
        found = look_at(run)
    except TrialrunError as error:  # the driver sets what is damaged aside
        print(f"Whether this job adds something is not known: {error}", file=sys.stderr)
        return 0
    before = json.loads(memory.read_text()) if memory.exists() else {}
    if before.get("job") != job:
        before = {"num_ended": 0, "num_epochs": 0, "num_idle": 0}
    is_more = any(getattr(found, name) > before[name] for name in Found._fields)
    num_idle = 0 if is_more else before["num_idle"] + 1
    write_json(memory, {"job": job, "num_idle": num_idle, **found._asdict()})
    if num_idle < _MOST_IDLE:
        return 0
    print(
        f"Interrupted, and not started again: the last {num_idle} starts have ended no trial and"
        f" left no later checkpoint in {folder}. Where an epoch is longer than resources.grace_s,"
        " give more of it, and a --signal that comes earlier; where a job is preempted sooner, give"
        f" training.checkpoint_every. To go on: {command_for('resume', folder)}",
        file=sys.stderr,
    )
    return 1


def look_at(run: RunFolder) -> Found:
    rows = run.tables.index().by_variants("identity") if run.job_file.exists() else ()
    num_ended = sum(int((chunk["status"] != "failed").sum()) for chunk in rows)
    return Found(num_ended, sum(sum(one.epochs) for one in run.kept.trials_of_checkpoints()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
