"""The variants that `tpe` proposes for a run, whose log says what was proposed before."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from trialrun.driver.resume import as_read, differences
from trialrun.errors import FileError, InputError
from trialrun.job import JobSpec, LoadedJob, Range, domains_in, may_hold_references
from trialrun.job.document import canonical_json
from trialrun.job.keras_api.own_terms import map_references
from trialrun.job.user_functions import portable_reference
from trialrun.messages import show
from trialrun.search.propose import Told, propose
from trialrun.search.schedule import proposals_of
from trialrun.store import RunFolder
from trialrun.store.round_log import Decision, Proposals, Round
from trialrun.trials.plan import plan_trials, plan_variants
from trialrun.trials.search import Assignment, draw_distinct
from trialrun.trials.trial import Trial

_AGAIN = "start a new run for other proposals"


def require_optuna() -> None:
    """Raises InputError unless Optuna is installed, without importing it."""
    if find_spec("optuna") is None:
        raise InputError(
            "search.method: tpe needs optuna, not installed here: pip install 'trialrun[search]'"
        )


def planned_trials(job: JobSpec, rounds: Sequence[Round]) -> tuple[Trial, ...]:
    """The trials of a job with these rounds; of `tpe`, those of the variants proposed so far."""
    return plan_trials(job, _proposed(job, rounds))


def new_variants(
    job: JobSpec, rounds: Sequence[Round], decision: Decision | None
) -> dict[str, Assignment]:
    """The variants that come next: variant_id -> searched dotted path -> value.

    Args:
        job: The job.
        rounds: All rounds so far.
        decision: The scores of the variants so far; None before the first.

    Raises:
        InputError: A variant has values that are wrong together.
    """
    known = _proposed(job, rounds)
    new: Sequence[Assignment] = ()
    if decision is not None:
        proposals = proposals_of(job)
        assert proposals is not None, "the job proposes variants"
        told = Told(dict(zip(_ids(rounds), known, strict=True)), decision, job.select.goal)
        new = propose(job.search.parameters, proposals, told, draw_distinct(job.search))
    variants = plan_variants(job, (*known, *new))
    return {one.variant_id: one.parameters for one in variants[len(known) :]}


def _proposed(job: JobSpec, rounds: Sequence[Round]) -> tuple[Assignment, ...]:
    return tuple(
        {path: _as_in_job(job, path, value) for path, value in assignment.items()}
        for one in rounds
        for assignment in (one.assignments or {}).values()
    )


def _ids(rounds: Sequence[Round]) -> list[str]:
    return [variant_id for one in rounds for variant_id in one.assignments or ()]


def _as_in_job(job: JobSpec, path: str, value: Any) -> Any:
    """A value of the log as the job has it: files of the user's code may have moved since."""
    spec = job.search.parameters.get(path)
    if isinstance(spec, Range):
        return value
    for one in spec.values if spec is not None else ():
        if _portable(path, one) == _portable(path, value):
            return one
    raise FileError(
        f"search/: {path} = {show(value)} was proposed, which search.parameters does not have, so"
        " that the record or the job was changed. Put back what was changed, or start a new run"
    )


def _portable(path: str, value: Any) -> str:
    """A value as text that is the same in every folder."""
    return canonical_json(
        map_references(value, portable_reference) if may_hold_references(path) else value
    )


# The log and the job -----------------------------------------------------------------------------


def check_proposals(run: RunFolder, loaded: LoadedJob) -> None:
    """Refuses to go on with a run whose variants were, or are now, proposed in another way.

    Raises:
        InputError: The job differs in what proposals depend on.
        FileError: The log lacks what was proposed.
    """
    rounds, now = run.rounds.read(), proposals_of(loaded.spec)
    before = None
    if rounds:
        assert rounds[0].schedule is not None, "the first round holds the schedule"
        before = rounds[0].schedule.proposals
    if now is None and before is None:
        return
    recorded = run.tables.index().variant_ids
    if (rounds or recorded) and (problem := next(_changes(run, loaded, before, now), "")):
        raise InputError(f"{run.path}: {problem}; {_AGAIN}")
    planned = [one.variant_id for one in plan_variants(loaded.spec, _proposed(loaded.spec, rounds))]
    if (ids := _ids(rounds)) != planned[: len(ids)] or not set(recorded) <= set(ids):
        raise FileError(
            f"{run.rounds.path}: the record of what was proposed is changed or missing, without"
            " which nobody knows the variants of this run. Put it back, or start a new run"
        )


def _changes(
    run: RunFolder, loaded: LoadedJob, before: Proposals | None, now: Proposals | None
) -> Iterator[str]:
    """What proposals depend on and differs from what a run began with."""
    search = run.read_job().get("search", {})
    methods = search.get("method", "grid"), loaded.spec.search.method
    if methods[0] != methods[1]:
        yield _change("method", *methods)
    for name in ("num_variants", "batch", "seed"):
        values = getattr(before, name, None), getattr(now, name, None)
        if before is not None and values[0] != values[1]:
            yield _change(name, *values)
    if _portable_domains(search) != _portable_domains(as_read(loaded)["search"]):
        lines = (line for line in differences(run, loaded) if line.startswith("search.parameters"))
        yield f"what is searched has changed since this run began: {next(lines)}"


def _change(name: str, before: Any, now: Any) -> str:
    return f"search.{name} was {before} when this run began, and is {now} now"


def _portable_domains(search: Mapping[str, Any]) -> str:
    return canonical_json(map_references(domains_in(search), portable_reference))
