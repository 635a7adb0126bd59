"""What an optimized program of XLA, given as text, does again and again: its loops.

It needs nothing but Python, because `check_hlo.py` takes it along to machines without trialrun.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (.*)$")
_OPERATION = re.compile(r"\s*([a-z][a-z0-9-]*)\(")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# These only name a value; the device is given nothing to do.
_NO_LAUNCH = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"),
    *("add-dependency", "opt-barrier", "partition-id", "replica-id"),
}


class Loop(NamedTuple):
    """A loop of a program.

    Attributes:
        depth: 1 for a loop in no other loop.
        trip_count: How often its body runs, if the compiler knows it; None if the device must ask
            its host after each time.
        launches: Kernels and copies that one run of its body starts, those of inner loops left out.
    """

    depth: int
    trip_count: int | None
    launches: int


def loops_of(text: str) -> list[Loop]:
    """All loops of a program, outer ones first.

    Args:
        text: The optimized program, as XLA prints it.
    """
    computations, entry = _computations(text)
    return list(_loops_in(entry, computations, depth=1))


def step_loop(loops: list[Loop]) -> Loop | None:
    """The loop over training steps: of the innermost ones, that which starts most; None without."""
    return max(loops, key=lambda loop: (loop.depth, loop.launches), default=None)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Name -> instructions of each computation, and the name of the one that is run."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", list[str]()
    for line in text.splitlines():
        if head := _HEAD.match(line):
            lines = computations.setdefault(head[1], [])
            entry = head[1] if line.startswith("ENTRY ") else entry
        elif instruction := _INSTRUCTION.match(line):
            lines.append(_without_type(instruction[1]))
    return computations, entry


def _without_type(instruction: str) -> str:
    """`(s32[], f32[2]) while(%a), body=%b` -> ` while(%a), body=%b`; a type may hold brackets."""
    if not instruction.startswith("("):
        return instruction[instruction.index(" ") :] if " " in instruction else instruction
    open_brackets = 0
    for index, character in enumerate(instruction):
        open_brackets += {"(": 1, ")": -1}.get(character, 0)
        if not open_brackets:
            return instruction[index + 1 :]
    return instruction


def _operations(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if operation := _OPERATION.match(line):
            yield operation[1], line


def _named(line: str, *attributes: str) -> list[str]:
    """The computations that an instruction names in some of its attributes."""
    found = re.findall(rf"\b(?:{'|'.join(attributes)})=(\{{[^}}]*\}}|%?[\w.-]+)", line)
    return [name.strip(" %") for group in found for name in group.strip("{}").split(",")]


def _loops_in(name: str, computations: dict[str, list[str]], depth: int) -> Iterator[Loop]:
    for operation, line in _operations(computations.get(name, [])):
        if operation == "while":
            [body] = _named(line, "body")
            count = _TRIP_COUNT.search(line)
            launches = _launches(body, computations)
            yield Loop(depth, int(count[1]) if count else None, launches)
            yield from _loops_in(body, computations, depth + 1)
        else:
            for called in _called(operation, line):
                yield from _loops_in(called, computations, depth)


def _called(operation: str, line: str) -> list[str]:
    """The computations that an instruction runs as they are, such as a recorded CUDA graph."""
    if operation == "call":
        return _named(line, "to_apply")
    if operation == "conditional":
        return _named(line, "branch_computations", "true_computation", "false_computation")
    return []


def _launches(name: str, computations: dict[str, list[str]]) -> int:
    total = 0
    for operation, line in _operations(computations.get(name, [])):
        if operation == "while" or operation in _NO_LAUNCH or operation.endswith("-done"):
            continue
        if called := _called(operation, line):  # of branches, one is run
            total += max(_launches(one, computations) for one in called)
        else:
            total += 1
    return total
