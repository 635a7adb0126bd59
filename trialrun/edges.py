"""Where the winner lies at the edge of what was tried, so that the best may lie beyond."""

from dataclasses import dataclass
from typing import Any, Literal

from trialrun.aggregate import Leaderboard
from trialrun.arguments import is_real

_FEWEST_VALUES = 3
# Of many values, as a random search draws them, the outermost twentieth is the edge.
_OUTERMOST = 20
# Parts and probabilities: there is nothing beyond 1.
_UP_TO_ONE = ("beta", "dropout", "fraction", "momentum", "probability", "ratio", "rho", "smoothing")
# Numbers that only name something.
_NAMES = ("fold", "index", "seed")


@dataclass(frozen=True, slots=True)
class Edge:
    """A searched number whose best value is among the smallest or the largest tried.

    Attributes:
        path: Dotted path of the parameter.
        value: The winner's.
        end: Which end of what was tried.
        is_outermost: Whether no other value is further out.
    """

    path: str
    value: float
    end: Literal["smallest", "largest"]
    is_outermost: bool


def edges(board: Leaderboard) -> list[Edge]:
    """The winner's parameters at an edge beyond which there is something to try.

    Of parameters with three numbers or more; not where a variant that is as good lies inside, nor
    where nothing can be better than the winner.
    """
    if board.selection is None or board.selection.is_perfect:
        return []
    as_good = {board.selection.variant_id, *board.selection.tied}
    if board.certainty is not None:
        as_good |= set(board.certainty.same)
    found = (_edge(board, path, as_good) for path in board.variants[0].parameters)
    return [edge for edge in found if edge is not None]


def _edge(board: Leaderboard, path: str, as_good: set[str]) -> Edge | None:
    tried = [one.parameters[path] for one in board.variants]
    best = [one.parameters[path] for one in board.variants if one.variant_id in as_good]
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
    """Nothing is tried below 0, nor below one unit, layer or row."""
    return values[0] == 0 or (values[0] == 1 and all(isinstance(one, int) for one in values))
