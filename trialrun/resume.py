"""What a run folder already holds of a job, and whether the job is still the one that it holds."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trialrun.document import show
from trialrun.errors import InputError
from trialrun.files import reading
from trialrun.identity import signature_of
from trialrun.job import LoadedJob, Settings, dump_job
from trialrun.plan import Pack, Trial, plan_variants
from trialrun.references import portable_reference
from trialrun.results import Checkpoint
from trialrun.sources import file_digest, source_digest
from trialrun.store import RunFolder
from trialrun.tables import TrialIndex

_ABSENT = object()
# What may change between two parts of a run: how it is computed, judged and shown.
_FREE_FIELDS = ("select", "resources", "output", "training.engine", "training.checkpoint_every")


def referenced_functions(loaded: LoadedJob) -> list[str]:
    """Every generator, builder and callback of a job's variants."""
    return sorted(
        {
            reference
            for variant in plan_variants(loaded.spec)
            for reference in Settings(variant.data, variant.model, variant.training).references
        }
    )


def source_digests(loaded: LoadedJob) -> dict[str, str]:
    """Reference -> digest of its source, of all functions and data files of a job."""
    functions, files = referenced_functions(loaded), loaded.spec.data.files
    return {
        **{portable_reference(text): source_digest(text) for text in functions},
        **{Path(path).name: file_digest(path) for path in files},
    }


def missing_trials(
    run: RunFolder,
    loaded: LoadedJob,
    trials: Sequence[Trial],
    warn: Callable[[str], None] = lambda text: None,
) -> list[Trial]:
    """The trials of a job that did not complete or diverge in a run, in their order.

    Args:
        run: Holds trials of this job, or of the same job with fewer seeds or values. Parts that
            another run must have left there are set aside.
        loaded: The job.
        trials: All its trials.
        warn: Told of what is set aside.

    Raises:
        InputError: The run holds trials that the job does not have: it is another job. The message
            says what differs.
    """
    index = run.tables.index()
    found = _compare_trials(index, trials)
    different = list(differences(run, loaded))
    if found.num_other and not different:  # the job is the same: those trials came from elsewhere
        for pack_id, attempt in found.other_packs:
            warn(run.set_aside_pack(pack_id, attempt, "it holds trials of another job"))
        index = run.tables.index()
        found = _compare_trials(index, trials)
    searched = set(loaded.spec.search.parameters)
    recorded_parameters = next(iter(index.parameters.values()), dict.fromkeys(searched))
    if found.num_other or set(recorded_parameters) != searched:
        raise InputError(
            "\n".join(
                [
                    f"{run.path}: holds trials of another job than {loaded.path}:"
                    f" {found.num_other} of {found.num_trials} would be other trials now",
                    *(f"  {line}" for line in different),
                    "Seeds may be added, and values at the end of a search's first list. For"
                    " anything else begin a new run.",
                ]
            )
        )
    return found.missing


class _Found(NamedTuple):
    """What a run holds of a job: the trials that it lacks, and what is none of the job's."""

    missing: list[Trial]
    num_trials: int
    num_other: int
    other_packs: list[tuple[str, int]]


def _compare_trials(index: TrialIndex, trials: Sequence[Trial]) -> _Found:
    left = {trial.trial_id: trial for trial in trials}
    num_trials = num_other = 0
    other_packs: dict[tuple[str, int], None] = {}
    for rows in index.by_variants("identity"):
        num_trials += len(rows)
        columns = ("trial_id", "variant_id", "status", "pack_id", "attempt")
        for trial_id, variant_id, status, *pack in zip(*(rows[n] for n in columns), strict=True):
            trial = left.get(trial_id)
            if trial is None or trial.variant.variant_id != variant_id:
                num_other += 1
                other_packs[pack[0], pack[1]] = None
            elif status != "failed":
                del left[trial_id]
    return _Found(list(left.values()), num_trials, num_other, list(other_packs))


def packs_with_checkpoints(
    checkpoints: Sequence[Checkpoint], missing: Sequence[Trial], recorded: Collection[str] = ()
) -> tuple[list[Pack], list[Trial]]:
    """The packs whose checkpoints can be gone on from, and the missing trials that are in none.

    A pack is made of the same trials in the same order as before, so that it goes on bit for bit.
    Of a pack and its half, the half's checkpoint is the later one.

    Args:
        checkpoints: Those in a run folder.
        missing: The trials to train.
        recorded: Names of packs whose results are in the run folder. Where a part of `p003` is
            among them, or goes on as a pack of its own, the rest is named `p003r`: its files, and
            those of its halves, must not replace theirs.
    """
    left = {trial.trial_id: trial for trial in missing}
    packs, taken = [], set(recorded)
    for checkpoint in sorted(checkpoints, key=lambda one: -len(one.pack_id)):
        trials = [left.pop(trial_id) for trial_id in checkpoint.trial_ids if trial_id in left]
        if trials:
            signature = signature_of(trials[0].variant)
            name = _unused_name(checkpoint.pack_id, taken)
            taken.add(name)
            packs.append(Pack(name, signature, tuple(trials)))
    return packs, list(left.values())


def _unused_name(pack_id: str, recorded: Collection[str]) -> str:
    """The name, or with as many `r` as it takes to begin no recorded one."""
    while any(name.startswith(pack_id) for name in recorded):
        pack_id += "r"
    return pack_id


def differences(run: RunFolder, loaded: LoadedJob) -> Iterator[str]:
    """What differs between the job in a run folder and another, one line each."""
    yield from _compare(run.read_job(), yaml.safe_load(dump_job(loaded.spec)), "")
    if run.environment_file.exists():
        with reading(run.environment_file):
            before = json.loads(run.environment_file.read_text()).get("sources", {})
        for reference, digest in source_digests(loaded).items():
            if before.get(reference, digest) != digest:
                yield f"the {'source' if ':' in reference else 'content'} of {reference} was edited"


def only_output_differs(run: RunFolder, loaded: LoadedJob) -> bool:
    """Whether the job in a run folder is a job but for where it is shown."""
    before, now = run.read_job(), yaml.safe_load(dump_job(loaded.spec))
    return {**before, "output": None} == {**now, "output": None}


def _compare(before: Any, now: Any, path: str) -> Iterator[str]:
    if path in _FREE_FIELDS or before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{path}.{key}" if path else str(key)
            yield from _compare(before.get(key, _ABSENT), now.get(key, _ABSENT), inner)
    else:
        texts = ["absent" if value is _ABSENT else show(value) for value in (before, now)]
        yield f"{path}: {' -> '.join(texts)}"
