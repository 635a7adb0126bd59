"""Trains one trial in the calling thread, where a debugger stops and what user code prints shows.

User code's errors are not made results: they are raised.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from trialrun.training.channel import Reports
from trialrun.training.engine_outputs import Advance, TrainedTrial
from trialrun.training.keras_fit.fit import fit_trials
from trialrun.training.pack import choose_and_train, judge_trained
from trialrun.training.pack_data import PackData, load_pack_data
from trialrun.trials.results import TrialResult
from trialrun.trials.task import PackTask


def train_here(task: PackTask, tell: Callable[[str], None]) -> TrialResult:
    """The result of the only trial of a task.

    Args:
        task: The pack of one trial.
        tell: Is given a line about each epoch.

    Raises:
        InputError: The data or the model is wrong.
    """
    start = time.perf_counter()
    data, errors = load_pack_data(task.pack.trials, task.job_folder)
    for error in errors.values():
        raise error
    reports = _Telling(tell, task.last_epoch)
    engine, trained = _train(task, data, reports)
    results, _ = judge_trained(
        *(task, data, trained),
        engine=engine,
        device=tf.config.list_logical_devices()[-1].name,
        duration_s=time.perf_counter() - start,
    )
    return results[0]


def _train(task: PackTask, data: PackData, reports: Reports) -> tuple[str, list[TrainedTrial]]:
    engine = task.pack.trials[0].variant.training.engine
    if engine in ("auto", "keras"):
        with _eagerly():
            trained = fit_trials(task, data, {}, reports)
        assert trained is not None  # nobody asks it to stop
        return "keras", trained
    training = choose_and_train(task, data, {}, reports)
    while True:
        try:
            next(training)
        except StopIteration as end:
            engine, _, trained = end.value
            return engine, trained


class _Telling(Reports):
    """Reports of training, each of which is told when it comes."""

    def __init__(self, tell: Callable[[str], None], num_epochs: int) -> None:
        super().__init__(lambda: False)
        self._tell, self._num_epochs, self._epochs_done = tell, num_epochs, 0

    def put(self, report: Any) -> None:
        """Tells an epoch's logs."""
        if isinstance(report, Advance):
            self._epochs_done += report.num_epochs
            logs = ", ".join(f"{name} {values[0]:.6g}" for name, values in report.logs.items())
            self._tell(f"Epoch {self._epochs_done} of {self._num_epochs}: {logs}")
        super().put(report)

    def again(self) -> "Reports":
        """The same for another engine, which begins anew."""
        return _Telling(self._tell, self._num_epochs)


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    """Makes Keras run Python code step by step with numbers, and show whole tracebacks."""
    tf.config.run_functions_eagerly(True)
    is_filtering = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Even though the `tf.config.*run_functions_eagerly")
            yield
    finally:
        tf.config.run_functions_eagerly(False)
        if is_filtering:
            keras.config.enable_traceback_filtering()
