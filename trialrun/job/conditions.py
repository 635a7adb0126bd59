"""Conditions between searched parameters: which of them are active under which values.

A parameter is active if every parameter that its `when` names is itself active and has one of the
values. Values are compared as canonical JSON, so that 1, 1.0 and true differ. What is wrong with
conditions is told in `condition_checks`; here they are right, except where a function says so.
"""

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trialrun.job.document import canonical_json
from trialrun.job.search_spec import Range, ValueList

Parameters = Mapping[str, ValueList | Range]

# Far more than conditions that people write need; beyond it they are not counted.
_MAX_STATES = 20_000


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a search.

    Attributes:
        parameters: Searched dotted path -> its values.
        order: The paths, each after those on which it depends; without conditions in the order of
            the file.
        wanted: Path -> path on which it depends -> canonical JSON of the values that make it
            active.
    """

    parameters: Parameters
    order: tuple[str, ...]
    wanted: Mapping[str, Mapping[str, frozenset[str]]]

    @classmethod
    def of(cls, parameters: Parameters) -> "Conditions":
        """The conditions of some parameters, of which none depends on itself."""
        order = tuple(in_order(parameters))
        assert len(order) == len(parameters), "the job file refuses circles"
        wanted = {
            path: {
                parent: frozenset(map(canonical_json, values))
                for parent, values in parameter.when.items()
            }
            for path, parameter in parameters.items()
        }
        return cls(parameters, order, wanted)

    def is_active(self, path: str, assignment: Mapping[str, Any]) -> bool:
        """Whether a parameter is active, where those on which it depends have these values.

        Args:
            path: The parameter.
            assignment: Path -> value; inactive parameters are absent.
        """
        return all(
            parent in assignment and canonical_json(assignment[parent]) in values
            for parent, values in self.wanted[path].items()
        )

    def completed(
        self, assignment: Mapping[str, Any], without: str | None = None
    ) -> dict[str, Any]:
        """An assignment and the first values of all that its values make active.

        Args:
            assignment: Path -> value.
            without: A path that is left out, and with it what depends on it.
        """
        done = dict(assignment)
        for path in self.order:
            is_open = path not in done and path != without and self.wanted[path]
            if is_open and self.is_active(path, done):
                done[path] = _first_value(self.parameters[path])
        return done

    def activating(self, path: str) -> dict[str, list[Any]]:
        """What makes a parameter active: path -> values, for all on which it depends.

        It is active if and only if each of them has one of its values. If one of them has none, it
        can never be active.
        """
        found: dict[str, list[Any]] = {}
        left, seen = [path], {path}
        while left:
            for parent, values in self.wanted[left.pop()].items():
                known = found.get(parent)
                if known is None:
                    spec = self.parameters[parent]
                    known = list(spec.values) if isinstance(spec, ValueList) else []
                found[parent] = [value for value in known if canonical_json(value) in values]
                if parent not in seen:
                    seen.add(parent)
                    left.append(parent)
        return {parent: found[parent] for parent in self.order if parent in found}

    def contexts(self, path: str) -> list[dict[str, Any]]:
        """Assignments that make a parameter active, in which each of the values that do so occurs.

        A parameter without a condition has one empty context.
        """
        choices = self.activating(path)
        count = max(map(len, choices.values()), default=1)
        return [
            {parent: values[index % len(values)] for parent, values in choices.items()}
            for index in range(count)
        ]

    def num_combinations(self) -> float | None:
        """How many different assignments there are; infinite with a range of real numbers.

        None if the conditions are so entangled that they cannot be counted.
        """
        depending: dict[str, list[str]] = {path: [] for path in self.order}
        for path, wanted in self.wanted.items():
            for parent in wanted:
                depending[parent].append(path)
        # State -> number of assignments of the parameters so far that lead to it. A state is the
        # set of the parts of conditions that are met: pairs of a parameter and one that depends on
        # it and is still to come.
        counts: Counter[frozenset[tuple[str, str]]] = Counter({frozenset(): 1})
        for path in self.order:
            own = frozenset((parent, path) for parent in self.wanted[path])
            kinds = self._kinds(path, depending[path])
            grown: Counter[frozenset[tuple[str, str]]] = Counter()
            for state, count in counts.items():
                for met, number in kinds.items() if own <= state else [(frozenset(), 1)]:
                    grown[(state - own) | met] += count * number
            counts = grown
            if len(counts) > _MAX_STATES:
                return None
        return sum(counts.values())

    def _kinds(self, path: str, depending: Sequence[str]) -> "Counter[frozenset[tuple[str, str]]]":
        """Which parts of conditions the values of a parameter meet -> how many values do."""
        parameter = self.parameters[path]
        if isinstance(parameter, Range):
            return Counter({frozenset(): _num_values(parameter)})
        texts = map(canonical_json, parameter.values)
        return Counter(
            frozenset((path, other) for other in depending if text in self.wanted[other][path])
            for text in texts
        )


def in_order(parameters: Parameters) -> list[str]:
    """The paths, each after those on which it depends, and as soon as it can be.

    Without conditions this is the order of the file. Paths in circles, and those that depend on
    them, are left out.
    """
    depending: dict[str, list[str]] = {}
    missing: dict[str, int] = {}
    for path, parameter in parameters.items():
        parents = [parent for parent in parameter.when if parent in parameters]
        missing[path] = len(parents)
        for parent in parents:
            depending.setdefault(parent, []).append(path)
    numbers = {path: number for number, path in enumerate(parameters)}
    ready = [(True, numbers[path], path) for path in parameters if not missing[path]]
    order = []
    while ready:
        *_, path = heapq.heappop(ready)  # those with a condition first, so that few are pending
        order.append(path)
        for other in depending.get(path, ()):
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, (False, numbers[other], other))
    return order


def _first_value(parameter: ValueList | Range) -> Any:
    if isinstance(parameter, ValueList):
        return parameter.values[0]
    return parameter.min if parameter.distribution == "int_uniform" else float(parameter.min)


def _num_values(parameter: Range) -> Any:
    is_int = parameter.distribution == "int_uniform"
    return parameter.max - parameter.min + 1 if is_int else math.inf
