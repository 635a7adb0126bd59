"""The search space of a job, and the assignments that are taken from it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trialrun.errors import InputError
from trialrun.job import JobSpec, Range, SearchSpec, ValueList
from trialrun.job.conditions import Conditions
from trialrun.job.document import canonical_json

Assignment = Mapping[str, Any]

_DRAWS_WITH_CONDITIONS = 1_000_000


def expand(job: JobSpec, proposed: Sequence[Assignment] = ()) -> tuple[Assignment, ...]:
    """The assignments of a job's variants: searched dotted path -> plain Python value.

    A grid is the product of all values in the order of the file; the last parameter changes
    fastest. A random search draws distinct assignments; the first ones are the same if more are
    drawn. A table has one in each row; one that is repeated counts once. A job that searches
    nothing has one empty assignment. A parameter whose condition is not met, or that a row has no
    value for, is absent from an assignment, and each assignment occurs once.

    Args:
        job: The job.
        proposed: What `tpe` has proposed so far; without it, these are the first batch.

    Raises:
        InputError: The space does not hold as many distinct assignments as the job asks for.
    """
    if job.search.method == "random":
        return draw_distinct(job.search)
    if job.search.method == "tpe":
        return tuple(proposed) or draw_distinct(job.search)[: job.search.batch_size]
    if job.search.method == "from":
        return job.search.distinct_rows
    return tuple(_grid(job.search.parameters))


def _grid(parameters: Mapping[str, ValueList | Range]) -> Iterator[Assignment]:
    conditions = Conditions.of(parameters)
    lists = {path: spec.values for path, spec in parameters.items() if isinstance(spec, ValueList)}
    assert len(lists) == len(parameters), "the job file refuses ranges in a grid"
    # Assignments as positions in the lists of values.
    grown: list[dict[str, int]] = [{}]
    for path in conditions.order:
        met = {
            parent: {n for n, value in enumerate(lists[parent]) if canonical_json(value) in wanted}
            for parent, wanted in conditions.wanted[path].items()
        }
        grown = [
            longer
            for chosen in grown
            for longer in (
                [{**chosen, path: position} for position in range(len(lists[path]))]
                if all(chosen.get(parent) in positions for parent, positions in met.items())
                else [chosen]
            )
        ]
    # The order of the product of all lists, in which an assignment comes first where the values
    # that it does not have are the first ones.
    grown.sort(key=lambda chosen: [chosen.get(path, 0) for path in parameters])
    for chosen in grown:
        yield {path: lists[path][chosen[path]] for path in parameters if path in chosen}


def draw_distinct(search: SearchSpec) -> tuple[Assignment, ...]:
    """As many distinct assignments, drawn at random, as a search has variants.

    Raises:
        InputError: So many were not found.
    """
    assert search.num_variants is not None, "the job file refuses random without a count"
    rng = np.random.default_rng(search.seed)
    conditions = Conditions.of(search.parameters)
    distinct: dict[str, Assignment] = {}
    # To draw all of n equally likely assignments takes about n * ln(n) draws: 12 n for n = 100,000.
    # With conditions some are much less likely than others.
    num_draws = 1000 + 100 * search.num_variants
    if any(conditions.wanted.values()):
        num_draws = max(num_draws, _DRAWS_WITH_CONDITIONS)
    for _ in range(num_draws):
        assignment = _draw_assignment(rng, conditions)
        distinct.setdefault(canonical_json(assignment), assignment)
        if len(distinct) == search.num_variants:
            return tuple(distinct.values())
    raise InputError(
        f"search.num_variants must be at most {len(distinct)}, the number of different variants"
        f" that were found, got {search.num_variants}"
    )


def _draw_assignment(rng: np.random.Generator, conditions: Conditions) -> Assignment:
    drawn: dict[str, Any] = {}
    for path in conditions.order:
        if conditions.is_active(path, drawn):
            drawn[path] = _draw(rng, conditions.parameters[path])
    return {path: drawn[path] for path in conditions.parameters if path in drawn}


def _draw(rng: np.random.Generator, spec: ValueList | Range) -> Any:
    """One value, drawn uniformly from a list, an interval, its logarithm or its integers."""
    if isinstance(spec, ValueList):
        return spec.values[int(rng.integers(len(spec.values)))]
    if spec.distribution == "int_uniform":
        return int(rng.integers(int(spec.min), int(spec.max), endpoint=True))
    if spec.distribution == "log_uniform":
        return spec.value_of(math.exp(rng.uniform(math.log(spec.min), math.log(spec.max))))
    return spec.value_of(rng.uniform(spec.min, spec.max))
