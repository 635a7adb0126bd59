"""The variants that `tpe` proposes for a run, whose log says what was proposed before."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from trialrun.driver.resume import as_read, differences
from trialrun.errors import FileError, InputError
from trialrun.job import (
    JobSpec,
    LoadedJob,
    Range,
    ValueList,
    domains_in,
    may_hold_references,
)
from trialrun.job.conditions import Conditions
from trialrun.job.document import canonical_json
from trialrun.job.keras_api.own_terms import map_references
from trialrun.job.user_code.functions import portable_reference
from trialrun.messages import show
from trialrun.search.propose import Told, propose
from trialrun.search.schedule import proposals_of
from trialrun.store import RunFolder
from trialrun.store.round_log import Decision, Proposals, Round, schedule_in
from trialrun.trials.plan import plan_trials, plan_variants
from trialrun.trials.search_space import Assignment, draw_distinct
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
        told = Told(dict(zip(_logged(rounds), known, strict=True)), decision, job.select.goal)
        new = propose(job.search.parameters, proposals, told, draw_distinct(job.search))
    variants = plan_variants(job, (*known, *new))
    return {one.variant_id: one.parameters for one in variants[len(known) :]}


def _proposed(job: JobSpec, rounds: Sequence[Round]) -> tuple[Assignment, ...]:
    return tuple(_in_job(job, assignment) for assignment in _logged(rounds).values())


def _logged(rounds: Sequence[Round]) -> dict[str, Assignment]:
    return {key: found for one in rounds for key, found in (one.assignments or {}).items()}


def _in_job(job: JobSpec, assignment: Assignment) -> Assignment:
    """An assignment of the log as the job has it: files of the user's code may have moved since."""
    specs = {path: spec for path, spec in job.search.parameters.items() if path in assignment}
    return {path: _allowed(path, spec, assignment[path])[0] for path, spec in specs.items()}


def _allowed(path: str, spec: ValueList | Range, value: Any) -> list[Any]:
    """The value of the log as the job has it, in a list; empty if it may not have the value."""
    if isinstance(spec, Range):
        kind = int if spec.distribution == "int_uniform" else float
        return [value] if type(value) is kind and spec.min <= value <= spec.max else []
    wanted = canonical_json(_portable(path, value))
    return [one for one in spec.values if canonical_json(_portable(path, one)) == wanted]


def _portable(path: str, value: Any) -> Any:
    """A value that is the same in every folder."""
    return map_references(value, portable_reference) if may_hold_references(path) else value


# The log and the job -----------------------------------------------------------------------------


def check_proposals(run: RunFolder, loaded: LoadedJob) -> None:
    """Refuses to go on with a run whose variants were, or are now, proposed in another way.

    Raises:
        InputError: The job differs in what proposals depend on.
        FileError: The log lacks what was proposed.
    """
    rounds, now = run.rounds.read(), proposals_of(loaded.spec)
    schedule = schedule_in(rounds)
    before = None if schedule is None else schedule.proposals
    if now is None and before is None:
        return
    recorded = run.tables.index().parameters
    if (rounds or recorded) and (problem := next(_changes(run, loaded, before, now), "")):
        raise InputError(f"{run.path}: {problem}; {_AGAIN}")
    _check_values(run, rounds, loaded.spec)
    ids, proposed = list(_logged(rounds)), _proposed(loaded.spec, rounds)
    planned = [one.variant_id for one in plan_variants(loaded.spec, proposed)]
    are_distinct = len(set(map(canonical_json, proposed))) == len(ids)
    if ids != planned[: len(ids)] or not recorded.keys() <= set(ids) or not are_distinct:
        raise FileError(
            f"{run.rounds.path}: the record of what was proposed is changed or missing, without"
            " which nobody knows the variants of this run. Put it back, or start a new run"
        )


def _check_values(run: RunFolder, rounds: Sequence[Round], job: JobSpec) -> None:
    """Raises FileError if a file of the log has values that cannot have been proposed in it."""
    recorded = run.tables.index().parameters
    for one in rounds:
        for variant_id, assignment in (one.assignments or {}).items():
            trained = recorded.get(variant_id, assignment)
            if problem := next(_problems(job, assignment, trained), ""):
                raise FileError(
                    f"{run.rounds.file_of(one.number)}: {variant_id}: {problem}, so that the record"
                    " or the job was changed. Put back what was changed, or start a new run"
                )


def _problems(job: JobSpec, assignment: Assignment, trained: Assignment) -> Iterator[str]:
    """What a search cannot have proposed in an assignment, and what was trained otherwise."""
    parameters = job.search.parameters
    for path, value in assignment.items():
        if path not in parameters or not _allowed(path, parameters[path], value):
            yield f"{path} = {show(value)} was proposed, which search.parameters does not have"
    conditions, found = Conditions.of(parameters), _in_job(job, assignment)
    for path in parameters:
        if (path in found) != conditions.is_active(path, found):
            what = "has a value, but its `when` is not met" if path in found else "has no value"
            yield f"{path} {what}"
    for path, value in assignment.items():
        if _portable(path, value) != _portable(path, trained.get(path)):
            yield f"{path} is {show(value)}, but it was trained with {show(trained.get(path))}"


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


def _portable_domains(search: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is searched, the same in every folder, in its order, on which random draws depend."""
    domains = map_references(domains_in(search), portable_reference)
    return [(path, canonical_json(domain)) for path, domain in domains.items()]
