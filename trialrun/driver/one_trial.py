"""One trial of a job, trained in this process: for a debugger, and for prints in user code."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trialrun.errors import InputError
from trialrun.host import num_local_cpus, quiet_tensorflow
from trialrun.job import LoadedJob
from trialrun.messages import suggest
from trialrun.report.format import parameter_text
from trialrun.training.compilation_cache import folder as compilation_cache
from trialrun.trials.packing import choose_cpus_per_pack
from trialrun.trials.plan import plan_trials
from trialrun.trials.results import TrialResult
from trialrun.trials.signature import signature_of
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack, Trial


def train_one(loaded: LoadedJob, name: str, out: Console, err: Console) -> TrialResult:
    """Trains a trial of a job in this thread, and prints its metrics; nothing is written.

    With engine `auto` or `keras` it is trained by Keras's `fit`, eagerly, so that user code sees
    numbers; another engine that the job asks for is used as in a run.

    Args:
        loaded: The job.
        name: The trial, see `find_trial`.
        out: Is given the metrics.
        err: Is told which trial it is, and how far it is.

    Raises:
        InputError: There is no such trial, or its data or model is wrong; any error of user code
            that no run would expect is raised as it is.
    """
    trial = find_trial(plan_trials(loaded.spec), name)
    _say(err, _about(trial))
    compilation_cache.turn_on(os.environ)
    with quiet_tensorflow():
        from trialrun.training.one_trial import train_here
    num_threads = choose_cpus_per_pack(num_local_cpus())
    pack = Pack("p000", signature_of(trial.variant), (trial,))
    task = PackTask(pack, loaded.folder, loaded.spec.select, num_threads)
    try:
        result = train_here(task, lambda line: _say(err, line))
    except InputError as error:
        raise InputError(loaded.locate(str(error))) from error.__cause__
    out.print(_table(result))
    return result


def find_trial(trials: Sequence[Trial], name: str) -> Trial:
    """The trial of a name: an id, a variant (its first seed), or a variant and a seed (`v03:2`).

    The empty name is the first trial.
    """
    named: dict[str, Trial] = {}
    for trial in trials:
        variant_id = trial.variant.variant_id
        for known in ("", variant_id, f"{variant_id}:{trial.seed}", trial.trial_id):
            named.setdefault(known, trial)
    if name in named:
        return named[name]
    shown = [known for known in named if known and len(known) < len(trials[0].trial_id)]
    raise InputError(f"--trial {name}: the job has no such trial; {suggest(name, shown[:50])}")


def _about(trial: Trial) -> str:
    parameters = ", ".join(
        f"{path} {parameter_text(value)}" for path, value in trial.variant.parameters.items()
    )
    return f"Trial {trial.trial_id}: {trial.variant.variant_id}, seed {trial.seed}" + (
        f" ({parameters})" if parameters else ""
    )


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def _table(result: TrialResult) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("status", result.status)
    table.add_row("engine", result.engine)
    table.add_row("epochs", str(result.epochs))
    for name, value in result.metrics.items():
        table.add_row(name, f"{value:.6g}")
    return table
