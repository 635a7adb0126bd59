"""Parameters whose best value is the smallest or largest tried, so that a better may lie beyond."""

from dataclasses import dataclass
from typing import Any, Literal

from trialrun.analysis.variants import Leaderboard
from trialrun.job.keras_api.arguments import is_real

_FEWEST_VALUES = 3
# If there are many values, as in a random search, the outermost twentieth of them is the edge.
_OUTERMOST = 20
# Names of fractions and probabilities, which cannot be above 1.
_UP_TO_ONE = ("beta", "dropout", "fraction", "momentum", "probability", "ratio", "rho", "smoothing")
# Names of numbers that only tell things apart.
_NAMES = ("fold", "index", "seed")


@dataclass(frozen=True, slots=True)
class Edge:
    """A searched number whose best value is among the smallest or the largest tried.

    Attributes:
        path: Dotted path of the parameter.
        value: The winner's value.
        end: Whether it is among the smallest or the largest values.
        is_outermost: Whether no other value is further out.
    """

    path: str
    value: float
    end: Literal["smallest", "largest"]
    is_outermost: bool


def edges(board: Leaderboard) -> list[Edge]:
    """The winner's parameters that lie at an edge beyond which there are values to try.

    Only parameters with at least three different numbers have edges. A parameter is left out if a
    variant that is as good as the winner lies further inside; variants that do not have it say
    nothing of it. None is returned if nothing can be better than the winner.
    """
    if board.selection is None or board.selection.is_perfect:
        return []
    as_good = {board.selection.variant_id, *board.selection.tied}
    if board.certainty is not None:
        as_good |= set(board.certainty.same)
    found = (_edge(board, path, as_good) for path in board.variants[0].parameters)
    return [edge for edge in found if edge is not None]


def _edge(board: Leaderboard, path: str, as_good: set[str]) -> Edge | None:
    dropped = () if board.rounds is None else board.rounds.dropped
    having = [variant for variant in board.variants if path in variant.parameters]
    tried = [variant.parameters[path] for variant in having]
    tried += [variant.parameters[path] for variant in dropped if path in variant.parameters]
    best = [variant.parameters[path] for variant in having if variant.variant_id in as_good]
    if not all(map(is_real, tried)) or any(name in _last(path) for name in _NAMES):
        return None
    values = sorted(set(tried))
    if len(values) < _FEWEST_VALUES:
        return None
    room = max(1, len(values) // _OUTERMOST)
    if min(best) >= values[-room] and not _ends_above(path, values):
        return Edge(path, best[0], "largest", best[0] == values[-1])
    if max(best) <= values[room - 1] and not _ends_below(values):
        return Edge(path, best[0], "smallest", best[0] == values[0])
    return None


def _last(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _ends_above(path: str, values: list[Any]) -> bool:
    return values[-1] >= 1 and any(name in _last(path) for name in _UP_TO_ONE)


def _ends_below(values: list[Any]) -> bool:
    """Whether no smaller value makes sense: there is none below 0, nor below 1 for counts."""
    return values[0] == 0 or (values[0] == 1 and all(isinstance(value, int) for value in values))
