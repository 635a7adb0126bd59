"""The best model as the driver handles it: saving is tried while packs train, done at the end."""

import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor, Future

from trialrun.analysis.run_summary import Standing
from trialrun.driver.work import Work, timed
from trialrun.errors import ExportError
from trialrun.export.process import ExportProcess, SavedModel
from trialrun.job import ModelSpec
from trialrun.report import import_report
from trialrun.trials.trial import Trial

_log = logging.getLogger(__name__)

_MAX_MODELS_TRIED = 3


class Saving:
    """The saving of a run's best model, which goes on while the driver does other things.

    Args:
        work: The run.
        exporter: The process that saves.
        background: One thread, which waits for that process.
    """

    def __init__(self, work: Work, exporter: ExportProcess, background: Executor) -> None:
        self._work, self._exporter, self._background = work, exporter, background
        self._given_up: SavedModel | None = None
        self._begun: Future[SavedModel] | None = None

    def try_untrained(self, trials: Sequence[Trial]) -> None:
        """Begins to find out what of the best model cannot be saved, as a warning to the user.

        Afterwards what the report needs is imported, so that it need not be at the end.
        """
        self._background.submit(_try_untrained, self._exporter, self._work, trials)
        self._background.submit(import_report)

    def begin(self, standing: Standing) -> None:
        """Begins to save the model of the selected trial."""
        self._work.progress.say("saving the best model")
        self._begun = self._background.submit(_save, self._exporter, self._work, standing)

    def give_up(self, result: SavedModel) -> None:
        """Nothing will be saved, for the reason in a result."""
        self._given_up = result

    def result(self) -> SavedModel | None:
        """How the model was saved, once it is; None if nothing could be selected."""
        return self._given_up if self._begun is None else self._begun.result()


def _try_untrained(exporter: ExportProcess, work: Work, trials: Sequence[Trial]) -> None:
    """Warns, while packs are being trained, what of the best model cannot be saved, and why."""
    models: list[ModelSpec] = []
    for trial in trials:
        variant = trial.variant
        if variant.model in models or len(models) == _MAX_MODELS_TRIED:
            continue
        models.append(variant.model)
        try:
            lines = exporter.try_untrained(work.run, variant.parameters, trial.seed)
        except ExportError as error:
            _log.info("the save of an untrained model could not be tried: %s", error)
            return
        for line in lines:
            _log.warning("%s: %s", variant.variant_id, line)
        if lines:
            work.progress.warn("\n".join(lines))
            return


def _save(exporter: ExportProcess, work: Work, standing: Standing) -> SavedModel:
    """Saves the model of the selected trial."""
    board = standing.leaderboard
    assert board.selection is not None  # callers have checked it
    metrics = {
        name: value
        for name, value in standing.best_trial.items()
        if name.startswith("test_") and not math.isnan(value)
    }
    parameters = board.variants[0].parameters
    with timed(work.timings_s, "export"):
        return exporter.export(work.run, parameters, board.selection.trial_id, metrics)
