"""Which trials of a job a run folder already holds, and whether the job is still the same."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trialrun.errors import InputError
from trialrun.job import (
    LoadedJob,
    Settings,
    ValueList,
    dump_job,
    may_hold_references,
    settings_of,
)
from trialrun.job.conditions import Conditions, Parameters
from trialrun.job.document import canonical_json, parse_value
from trialrun.job.user_code.depends_on import dependencies_digest
from trialrun.job.user_code.files import file_digest, file_digests, source_digest
from trialrun.job.user_code.functions import portable_reference
from trialrun.messages import show
from trialrun.store import RunFolder
from trialrun.store.files import reading
from trialrun.store.kept_arrays import KeptTrials
from trialrun.store.repair import set_aside_pack
from trialrun.store.trial_tables import TrialIndex
from trialrun.trials.plan import plan_variants
from trialrun.trials.signature import signature_of
from trialrun.trials.trial import Pack, Trial

_ABSENT = object()
# Fields that may change when a run is resumed: how it is computed, judged and shown.
_FREE_FIELDS = ("select", "resources", "output", "training.engine", "training.checkpoint_every")


def referenced_functions(loaded: LoadedJob) -> list[str]:
    """References to all functions of the user in a job's variants, such as builders."""
    job = loaded.spec
    variants = plan_variants(job)
    found = [Settings(one.data, one.model, one.training) for one in variants]
    if job.search.method == "tpe":  # which may propose other values later
        found += [settings_of(job, one) for one in _with_each_reference(job.search.parameters)]
    return sorted({reference for settings in found for reference in settings.references})


def _with_each_reference(parameters: Parameters) -> Iterator[Mapping[str, Any]]:
    """Assignments that are right, one with each listed value that may refer to the user's code."""
    conditions = Conditions.of(parameters)
    for path, spec in parameters.items():
        if isinstance(spec, ValueList) and may_hold_references(path):
            around = conditions.contexts(path)[0]
            for value in spec.values:
                yield conditions.completed({**around, path: value})


def source_digests(loaded: LoadedJob) -> dict[str, str]:
    """Reference, file that it imports, or data file of a job -> digest of its code or content."""
    functions, files = referenced_functions(loaded), loaded.spec.data.files
    patterns = (*loaded.spec.data.depends_on, *loaded.spec.model.depends_on)
    imported = [item for text in functions for item in file_digests(text).items()]
    return {
        **({"depends_on": dependencies_digest(patterns)} if patterns else {}),
        **dict(imported),
        **{portable_reference(text): source_digest(text) for text in functions},
        **{Path(path).name: file_digest(path) for path in files},
    }


def missing_trials(
    run: RunFolder,
    loaded: LoadedJob,
    trials: Sequence[Trial],
    warn: Callable[[str], None] = lambda text: None,
) -> list[Trial]:
    """The trials of a job that have neither completed nor diverged in a run, in their order.

    Args:
        run: Holds trials of this job, or of the same job with fewer seeds or values. Packs that
            must come from another run are set aside.
        loaded: The job.
        trials: All trials of the job.
        warn: Called with a message about what is set aside.

    Raises:
        InputError: The run holds trials that the job does not have, so that it belongs to another
            job. The message says what differs.
    """
    index = run.tables.index()
    found = _compare_trials(index, trials)
    different = list(differences(run, loaded))
    if found.num_other and not different:  # the job is the same, so these trials come from another
        for pack_id, attempt in found.other_packs:
            warn(set_aside_pack(run, pack_id, attempt, "it holds trials of another job"))
        index = run.tables.index()
        found = _compare_trials(index, trials)
    if found.num_other or _has_other_parameters(index, trials):
        raise InputError(
            "\n".join(
                [
                    f"{run.path}: holds trials of a job that differs from {loaded.path}:"
                    f" {found.num_other} of {found.num_trials} trials are not among its trials",
                    *(f"  {line}" for line in different),
                    "Only seeds may be added, and values at the end of the search's first list. For"
                    " any other change start a new run.",
                ]
            )
        )
    return found.missing


def _has_other_parameters(index: TrialIndex, trials: Sequence[Trial]) -> bool:
    """Whether a variant was recorded with other parameters than the job searches in it."""
    variants = {trial.variant.variant_id: trial.variant for trial in trials}
    return any(
        recorded.keys() != variants[variant_id].parameters.keys()
        for variant_id, recorded in index.parameters.items()
        if variant_id in variants
    )


class _Found(NamedTuple):
    """What a run holds of a job: missing trials, and trials and packs that are not the job's."""

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
    checkpoints: Sequence[KeptTrials], missing: Sequence[Trial], recorded: Collection[str] = ()
) -> tuple[list[Pack], list[Trial]]:
    """The packs that can be continued from checkpoints, and the missing trials that are in none.

    A pack has the same trials in the same order as before, so that it continues bit for bit. If
    there are checkpoints of a pack and of its half, the half's is the later one.

    Args:
        checkpoints: The trials of all checkpoints in a run folder.
        missing: The trials to train.
        recorded: Ids of packs whose results are in the run folder. If half of `p003` is among them,
            or is continued as a pack of its own, the rest is called `p003r`, so that files of the
            rest, and of its halves, do not replace those of the half.
    """
    left = {trial.trial_id: trial for trial in missing}
    packs, taken = [], set(recorded)
    for checkpoint in sorted(checkpoints, key=lambda checkpoint: -len(checkpoint.pack_id)):
        trials = [left.pop(trial_id) for trial_id in checkpoint.trial_ids if trial_id in left]
        if trials:
            signature = signature_of(trials[0].variant)
            name = _unused_name(checkpoint.pack_id, taken)
            taken.add(name)
            packs.append(Pack(name, signature, tuple(trials)))
    return packs, list(left.values())


def _unused_name(pack_id: str, recorded: Collection[str]) -> str:
    """The id, followed by as many `r` as needed so that no recorded id begins with it."""
    while any(name.startswith(pack_id) for name in recorded):
        pack_id += "r"
    return pack_id


def differences(run: RunFolder, loaded: LoadedJob) -> Iterator[str]:
    """The differences between the job in a run folder and another job, one line each."""
    yield from _compare(run.read_job(), as_read(loaded), "")
    yield from _compare_order(run.read_job(), as_read(loaded))
    if run.environment_file.exists():
        with reading(run.environment_file):
            before = json.loads(run.environment_file.read_text()).get("sources", {})
        for reference, digest in source_digests(loaded).items():
            if before.get(reference, digest) != digest:
                what = "source code" if ":" in reference else "content"
                yield f"the {what} of {reference} has changed"


def _compare_order(before: Any, now: Any) -> Iterator[str]:
    """A line if the same parameters are searched in another order, which makes other variants."""
    old, new = (list(job.get("search", {}).get("parameters", {})) for job in (before, now))
    if old != new and sorted(old) == sorted(new):
        yield f"search.parameters: the order {', '.join(old)} -> {', '.join(new)}"


def only_output_differs(run: RunFolder, loaded: LoadedJob) -> bool:
    """Whether the job in a run folder and another job differ at most in their section `output`."""
    before, now = run.read_job(), as_read(loaded)
    return _is_same({**before, "output": None}, {**now, "output": None})


def as_read(loaded: LoadedJob) -> Any:
    """A job as `RunFolder.read_job` gives it."""
    return parse_value(dump_job(loaded.spec), str(loaded.path))


def _is_same(before: Any, now: Any) -> bool:
    """Whether two values make the same trial: 0, 0.0 and false are equal in Python, but do not."""
    if _ABSENT in (before, now):
        return before is now
    return canonical_json(before) == canonical_json(now)


def _compare(before: Any, now: Any, path: str) -> Iterator[str]:
    if path in _FREE_FIELDS or _is_same(before, now):
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{path}.{key}" if path else str(key)
            yield from _compare(before.get(key, _ABSENT), now.get(key, _ABSENT), inner)
    elif path == "search.from" and before and now and isinstance(before, list):
        if len(before) != len(now):
            yield f"{path}: {len(before)} variants -> {len(now)}"
        for index, (row, row_now) in enumerate(zip(before, now, strict=False)):
            if not _is_same(row, row_now):
                yield from _compare(row, row_now, f"{path}[{index}]")
                return
    else:
        texts = ["absent" if value is _ABSENT else show(value) for value in (before, now)]
        yield f"{path}: {' -> '.join(texts)}"
