"""With which versions, and on which data, trials of a run were trained before it goes on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from trialrun.data.fingerprint import DataSample
from trialrun.errors import InputError
from trialrun.store import RunFolder
from trialrun.store.columns import DATA_FINGERPRINT, version_column
from trialrun.trials.trial import Trial
from trialrun.trials.versions import PACKAGES, installed_versions


def check_origins(
    runs: Sequence[RunFolder],
    trials: Iterable[Trial],
    warn: Callable[[str], None],
    *,
    samples: Mapping[str, DataSample] | None = None,
    strict: bool = False,
) -> None:
    """Warns if trials of a run, or of several that are merged, are not from the same world.

    Args:
        runs: The runs.
        trials: All trials of the job.
        warn: Called with each message.
        samples: Id of a trial -> what the generator gives for it here and now.
        strict: Whether other versions are refused instead.

    Raises:
        InputError: They are, and `strict` is set.
    """
    origins = [run.tables.origins() for run in runs]
    different = list(_other_versions(runs, [one.versions for one in origins]))
    if different and strict:
        raise InputError(
            "\n".join([*different, "Install the same versions, or leave out --strict-versions."])
        )
    for line in different:
        warn(f"{line}; their numbers may differ (--strict-versions refuses this)")
    fingerprints = {trial: text for one in origins for trial, text in one.fingerprints.items()}
    for line in (*_other_data(fingerprints, samples or {}), *_mixed_data(fingerprints, trials)):
        warn(line)


def _other_versions(
    runs: Sequence[RunFolder], recorded: Sequence[Mapping[str, set[str]]]
) -> Iterator[str]:
    for package in PACKAGES:
        now = installed_versions()[package]
        for run, versions in zip(runs, recorded, strict=True):
            others = versions.get(version_column(package)) or _from_environment(run, package)
            if others - {now}:
                yield (
                    f"{run.path}: holds trials that were trained with {package}"
                    f" {', '.join(sorted(others - {now}))}, and this is {package} {now}"
                )


def _from_environment(run: RunFolder, package: str) -> set[str]:
    """The versions of earlier runs, whose trials do not say it themselves."""
    environments = run.read_environments()
    return {one["packages"][package] for one in environments if package in one.get("packages", {})}


def _other_data(
    fingerprints: Mapping[str, str], samples: Mapping[str, DataSample]
) -> Iterator[str]:
    for trial_id, sample in samples.items():
        before = fingerprints.get(trial_id)
        if before and before != sample.fingerprint:
            yield (
                f"the generator gives other data for seed {sample.seed} than when trial {trial_id}"
                " was trained, although its source code is the same: it may read a file (name it in"
                " data.depends_on), a variable (name it in resources.env), or another version of a"
                f" library; {DATA_FINGERPRINT} {before} -> {sample.fingerprint}"
            )


def _mixed_data(fingerprints: Mapping[str, str], trials: Iterable[Trial]) -> Iterator[str]:
    """A line for each data set of which variants were trained on different versions."""
    first: dict[tuple[str, int], str] = {}
    told: set[tuple[str, int]] = set()
    settings: dict[str, str] = {}  # by variant
    for trial in trials:
        if not (own := fingerprints.get(trial.trial_id)):
            continue
        variant = trial.variant
        data = settings.setdefault(variant.variant_id, repr(variant.data))
        key = data, trial.seed if variant.data.seed == "per_trial" else int(variant.data.seed)
        other = first.setdefault(key, trial.trial_id)
        if fingerprints[other] != own and key not in told:
            told.add(key)
            yield (
                f"trials {other} and {trial.trial_id} were trained on different data for seed"
                f" {key[1]}, so their variants cannot be compared fairly; {DATA_FINGERPRINT}"
                f" {fingerprints[other]} and {own}"
            )
