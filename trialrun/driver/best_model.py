"""The best model as the driver handles it: saving is tried while packs train, done at the end."""

import logging
import math
from collections.abc import Sequence

from trialrun.analysis.run_summary import Standing
from trialrun.driver.work import Work, timed
from trialrun.errors import ExportError
from trialrun.export.process import ExportProcess, SavedModel
from trialrun.job import ModelSpec
from trialrun.trials.trial import Trial

_log = logging.getLogger(__name__)

_MAX_MODELS_TRIED = 3


def try_saving(exporter: ExportProcess, work: Work, trials: Sequence[Trial]) -> None:
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


def export_best(exporter: ExportProcess, work: Work, standing: Standing) -> SavedModel:
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
