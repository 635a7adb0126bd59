"""The plain engine: `model.fit` for one trial after another; the oracle and the last fallback."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

from trialrun.data.splits import steps_per_epoch
from trialrun.errors import InputError
from trialrun.job import TrainingSpec
from trialrun.training.channel import Reports
from trialrun.training.checkpoints import CheckpointMaker
from trialrun.training.engine_outputs import Advance, TrainedTrial
from trialrun.training.keras_fit.trial_fit import TrialFit
from trialrun.training.model.built import check_built, check_logs
from trialrun.training.model.initial import CompiledModel, make_compiled_model
from trialrun.training.model.ownership import why_unknown
from trialrun.training.pack_data import PackData
from trialrun.training.process_settings import settings_in_force
from trialrun.trials.results import Checkpoint
from trialrun.trials.signature import numbers_key
from trialrun.trials.task import PackTask


def train_keras(
    task: PackTask, data: PackData, timings_s: dict[str, float], reports: Reports
) -> Generator[Advance | Checkpoint, None, list[TrainedTrial] | None]:
    """Trains a pack's trials in turn; yields a heartbeat after each epoch, and checkpoints.

    A model that is made only of Keras's own classes serves all trials with the same
    hyperparameters: its variables are set to each trial's start, so that Keras traces its train
    step once. Any other model is built anew for each trial. `fit` runs in a thread, so that this
    generator can yield while `fit` goes on.

    Args:
        task: The pack, and perhaps a checkpoint to continue from.
        data: Its data.
        timings_s: Gets seconds of wall time under `build` and `train`.
        reports: What the thread reports; can ask it to stop.

    Returns:
        The trained trials; None if training was stopped, after a last checkpoint.
    """
    maker = CheckpointMaker(task, "keras")
    with ThreadPoolExecutor(1, thread_name_prefix="fit") as pool:
        future = pool.submit(fit_trials, task, data, timings_s, reports)
        for report in reports.drain([future]):
            if isinstance(report, Advance):
                yield report
                continue
            maker.put(report)
            if task.pack.trials[0].variant.training.checkpoint_every:
                yield from filter(None, [maker.make()])
    trained = future.result()
    if trained is None or any(one.is_paused for one in trained):
        yield from filter(None, [maker.make()])
    return trained


def fit_trials(
    task: PackTask, data: PackData, timings_s: dict[str, float], reports: Reports
) -> list[TrainedTrial] | None:
    """The trials of a pack, trained in turn in the calling thread; see `train_keras`."""
    trials = task.pack.trials
    _check_steps(trials[0].variant.training, data)
    start = time.perf_counter()
    models = _Models(task, data)
    trained = []
    for index, trial in enumerate(trials):
        compiled = models.of_trial(index)
        compiled.check_data(data.of_trial(index))
        with settings_in_force(compiled.model):
            if index == 0:
                check_logs(check_built(compiled, task, data).logs, task)
            run = TrialFit(compiled, trial, index, reports, task)
            if models.can_be_set_back:
                run.set_back()
            if (kept := task.checkpoint) is not None and run.can_go_on_from(kept):
                run.go_on_from(kept)
            outcome = run.train(data.of_trial(index))
        if outcome is None:
            return None
        trained.append(outcome)
    timings_s["build"] = models.seconds
    timings_s["train"] = time.perf_counter() - start - timings_s["build"]
    return trained


class _Models:
    """The compiled model of each trial of a pack; one model serves several trials if it can.

    Attributes:
        can_be_set_back: Whether the newest model can be reset to the start of any trial.
        seconds: Seconds of wall time spent on building.
    """

    def __init__(self, task: PackTask, data: PackData) -> None:
        self._task, self._data = task, data
        self._newest: CompiledModel | None = None
        self._built_for: tuple[float, ...] | None = None
        self.can_be_set_back = False
        self.seconds = 0.0

    def of_trial(self, index: int) -> CompiledModel:
        """The model of the trial with this index; used before if `can_be_set_back`, else fresh."""
        begin, trial = time.perf_counter(), self._task.pack.trials[index]
        numbers = numbers_key(trial.variant)
        has_other_numbers = numbers != self._built_for
        if self._newest is None or has_other_numbers or not self.can_be_set_back:
            self._newest = make_compiled_model(
                trial.variant, self._task.job_folder, self._data.of_trial(index), trial.seed
            )
        if has_other_numbers:
            self._built_for = numbers
            self.can_be_set_back = self._is_all_known(self._newest)
        self.seconds += time.perf_counter() - begin
        return self._newest

    def _is_all_known(self, compiled: CompiledModel) -> bool:
        """Whether a model keeps all its state, and all that seeds change, in its own variables."""
        trials = self._task.pack.trials
        initial = compiled.initial
        depends = bool(initial.difference_under(trials[-1].seed)) or initial.draws_itself
        # A user's callbacks may change anything.
        has_callbacks = bool(trials[0].variant.training.callbacks)
        return not (depends or has_callbacks or why_unknown(compiled.model))


def _check_steps(training: TrainingSpec, data: PackData) -> None:
    """Refuses a schedule that counts epochs if the trials' epochs differ in length."""
    lengths = {steps_per_epoch(splits, training.batch_size) for splits in data.splits}
    if len(lengths) > 1 and any(
        key.endswith("_epochs") for key in training.learning_rate_schedule or ()
    ):
        raise InputError(
            "training.learning_rate_schedule counts epochs, but the trials' epochs have"
            f" {min(lengths)} to {max(lengths)} batches; count steps instead"
        )
