"""The user's files as they are when a run begins: what is edited later is not mixed into it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trialrun.driver.resume import referenced_functions
from trialrun.errors import InputError
from trialrun.job import LoadedJob, Settings
from trialrun.job.user_code.depends_on import files_named, folders_named
from trialrun.job.user_code.files import UserFiles, collect_files, hashing_once
from trialrun.job.user_code.own_files import holding
from trialrun.trials.identity import hash_settings, trial_id_of
from trialrun.trials.trial import Trial


@contextmanager
def holding_files(loaded: LoadedJob, trials: Sequence[Trial]) -> Iterator[UserFiles]:
    """Within this context the driver takes the user's files as they are now, as its workers do.

    Raises:
        InputError: A file was edited since the trials were planned, so that their ids are wrong.
    """
    patterns = dict.fromkeys(one for trial in trials for one in _settings(trial).depends_on)
    others = (*loaded.spec.data.files, *files_named(patterns))
    files = collect_files(referenced_functions(loaded), others, folders_named(patterns))
    held = {Path(name): content for name, content in files.contents.items()}
    with holding(held), hashing_once():
        _require_as_planned(loaded, trials)
        yield files


def _require_as_planned(loaded: LoadedJob, trials: Sequence[Trial]) -> None:
    """Compares the id of one trial for each set of functions."""
    distinct = {_settings(trial).references: trial for trial in trials}
    for trial in distinct.values():
        if trial_id_of(hash_settings(trial.variant), trial.seed) != trial.trial_id:
            raise InputError(
                f"{loaded.path}: a file of this job was edited while its trials were planned; give"
                " the same command again"
            )


def _settings(trial: Trial) -> Settings:
    variant = trial.variant
    return Settings(variant.data, variant.model, variant.training)
