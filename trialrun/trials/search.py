"""The search space of a job, and the assignments that are taken from it."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trialrun.errors import InputError
from trialrun.job import JobSpec, Range, SearchSpec, ValueList
from trialrun.job.document import canonical_json

Assignment = Mapping[str, Any]


def expand(job: JobSpec) -> tuple[Assignment, ...]:
    """The assignments of a job's variants: searched dotted path -> plain Python value.

    A grid is the product of all values in the order of the file; the last parameter changes
    fastest. A random search draws distinct assignments; the first ones are the same if more are
    drawn. A table has one in each row; one that is repeated counts once. A job that searches
    nothing has one empty assignment.

    Raises:
        InputError: The space does not hold as many distinct assignments as the job asks for.
    """
    if job.search.method == "random":
        return _draw_distinct(job.search)
    if job.search.method == "from":
        return job.search.distinct_rows
    return tuple(_grid(job.search.parameters))


def _grid(parameters: Mapping[str, ValueList | Range]) -> Iterator[Assignment]:
    lists = [spec.values for spec in parameters.values() if isinstance(spec, ValueList)]
    assert len(lists) == len(parameters), "the job file refuses ranges in a grid"
    for values in itertools.product(*lists):
        yield dict(zip(parameters, values, strict=True))


def _draw_distinct(search: SearchSpec) -> tuple[Assignment, ...]:
    assert search.num_variants is not None, "the job file refuses random without a count"
    rng = np.random.default_rng(search.seed)
    distinct: dict[str, Assignment] = {}
    # To draw all of n equally likely assignments takes about n * ln(n) draws: 12 n for n = 100,000.
    for _ in range(1000 + 100 * search.num_variants):
        assignment = {path: _draw(rng, spec) for path, spec in search.parameters.items()}
        distinct.setdefault(canonical_json(assignment), assignment)
        if len(distinct) == search.num_variants:
            return tuple(distinct.values())
    raise InputError(
        f"search.num_variants must be at most {len(distinct)}, the number of different variants"
        f" that were found, got {search.num_variants}"
    )


def _draw(rng: np.random.Generator, spec: ValueList | Range) -> Any:
    """One value, drawn uniformly from a list, an interval, its logarithm or its integers."""
    if isinstance(spec, ValueList):
        return spec.values[int(rng.integers(len(spec.values)))]
    if spec.distribution == "int_uniform":
        return int(rng.integers(int(spec.min), int(spec.max), endpoint=True))
    if spec.distribution == "log_uniform":
        drawn = math.exp(rng.uniform(math.log(spec.min), math.log(spec.max)))
    else:
        drawn = rng.uniform(spec.min, spec.max)
    # Rounded to six digits, which are readable in tables and do not depend on the last bits of
    # exp(), which differ between machines. So a trial has the same id everywhere.
    return min(max(float(f"{drawn:.6g}"), float(spec.min)), float(spec.max))
