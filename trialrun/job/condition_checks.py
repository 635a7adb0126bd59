"""What is wrong with the conditions between searched parameters (`when`)."""

from collections.abc import Iterator

from trialrun.job.conditions import Conditions, Parameters, in_order
from trialrun.job.document import KeyPath, canonical_json
from trialrun.job.problems import Problem
from trialrun.job.search_spec import ValueList
from trialrun.messages import listed, show, suggest

_MAX_VALUES_LISTED = 20


def check_conditions(parameters: Parameters) -> list[Problem]:
    """The problems of all conditions; only without any, `Conditions` can be made of them."""
    wrong = [
        problem
        for path, parameter in parameters.items()
        for parent in parameter.when
        for problem in _check_part(parameters, path, parent)
    ]
    if wrong:
        return wrong
    if circle := _circle(parameters):
        way = " -> ".join([*circle, circle[0]])
        return [Problem(_at(circle[0]), f"{circle[0]}: its `when` leads back to itself: {way}")]
    conditions = Conditions.of(parameters)
    if conditions.num_combinations() is None:
        message = "too many parameters depend on one another for the variants to be counted"
        return [Problem(("search", "parameters"), f"search.parameters: {message}; use fewer")]
    return list(_never_active(conditions))


def _at(path: str, *inner: str | int) -> KeyPath:
    return ("search", "parameters", path, "when", *inner)


def _check_part(parameters: Parameters, path: str, parent: str) -> Iterator[Problem]:
    """Problems of what one condition asks of one parameter."""
    wanted, asked = parameters[path].when[parent], parameters.get(parent)
    if parent == path:
        yield Problem(_at(path, parent), f"{path}: its `when` names itself; leave it out")
    elif asked is None:
        hint = suggest(parent, [other for other in parameters if other != path])
        message = f"`when` names {parent!r}, which is not searched; {hint}"
        yield Problem(_at(path, parent), f"{path}: {message}")
    elif not isinstance(asked, ValueList):
        message = f"`when` names {parent!r}, which is a range; only one with `values` can be named"
        yield Problem(_at(path, parent), f"{path}: {message}")
    elif not wanted:
        message = f"`when` gives no value for {parent!r}; give at least one"
        yield Problem(_at(path, parent), f"{path}: {message}")
    else:
        yield from _check_values(path, parent, wanted, asked)


def _check_values(
    path: str, parent: str, wanted: tuple[object, ...], asked: ValueList
) -> Iterator[Problem]:
    known = {canonical_json(value) for value in asked.values}
    for position, value in enumerate(wanted):
        if canonical_json(value) not in known:
            values = listed([show(one) for one in asked.values], max_names=_MAX_VALUES_LISTED)
            message = f"{parent!r} never has the value {show(value)}; its values: {values}"
            if canonical_json(wanted) in known:
                message += "; write a list that is one value as [[...]]"
            yield Problem(_at(path, parent, position), f"{path}: {message}")


def _circle(parameters: Parameters) -> list[str]:
    """Paths of which each depends on the next, and the last on the first; empty if there are none.

    It begins with the path that comes first in the file.
    """
    left = parameters.keys() - set(in_order(parameters))
    if not left:
        return []
    way = [next(path for path in parameters if path in left)]
    while way[-1] not in way[:-1]:
        way.append(next(parent for parent in parameters[way[-1]].when if parent in left))
    circle = way[way.index(way[-1]) : -1]
    numbers = {path: number for number, path in enumerate(parameters)}
    start = circle.index(min(circle, key=numbers.__getitem__))
    return circle[start:] + circle[:start]


def _never_active(conditions: Conditions) -> Iterator[Problem]:
    """Parameters whose conditions exclude each other along the way."""
    told: set[str] = set()
    for path in conditions.order:
        excluded = [parent for parent, values in conditions.activating(path).items() if not values]
        if excluded:
            told.add(path)
        if excluded and told.isdisjoint(conditions.wanted[path]):
            yield Problem(
                _at(path),
                f"{path}: can never be searched: what it depends on asks for different values of"
                f" {listed(excluded)}",
            )
