"""What the doctor says of one node, and of all together; to JSON and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trialrun.doctor.check import Check, Status, ok, problem, warning, worst
from trialrun.doctor.clock import ClockSpan, check_offset, clock_offset


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What was found on one node.

    Attributes:
        node: Its name.
        checks: In the order of looking.
        versions: What must be the same on all nodes: name -> version.
        hardware: What had better be the same.
        clock: When it looked, by its own clock; None if it did not.
    """

    node: str
    checks: tuple[Check, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, str] = field(default_factory=dict)
    clock: ClockSpan | None = None

    def as_plain_values(self) -> dict[str, Any]:
        """What JSON takes."""
        return {
            "node": self.node,
            "status": worst(self.checks),
            "checks": [check.as_plain_values() for check in self.checks],
            "versions": dict(self.versions),
            "hardware": dict(self.hardware),
            "clock": None if self.clock is None else list(self.clock),
        }

    @classmethod
    def from_plain_values(cls, values: Mapping[str, Any]) -> "NodeReport":
        """The same report again."""
        return cls(
            node=values["node"],
            checks=tuple(Check.from_plain_values(one) for one in values["checks"]),
            versions=values["versions"],
            hardware=values["hardware"],
            clock=ClockSpan(*values["clock"]) if values["clock"] else None,
        )

    def with_clock_compared(self, asked: ClockSpan) -> "NodeReport":
        """The report with what its clock says, compared with that of who asked for it."""
        if self.clock is None:
            return self
        check = check_offset(clock_offset(asked, self.clock))
        others = tuple(one for one in self.checks if one.name != check.name)
        jumped = any(one.name == check.name and one.status != "ok" for one in self.checks)
        return self if jumped else replace(self, checks=(*others, check))


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor says.

    Attributes:
        nodes: This machine first, then those of the cluster.
        across: What differs between them.
    """

    nodes: tuple[NodeReport, ...]
    across: tuple[Check, ...] = ()

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of them."""
        return (*(check for node in self.nodes for check in node.checks), *self.across)

    @property
    def status(self) -> Status:
        """The worst that was found."""
        return worst(self.checks)

    def as_plain_values(self) -> dict[str, Any]:
        """What JSON takes."""
        return {
            "status": self.status,
            "nodes": [node.as_plain_values() for node in self.nodes],
            "across_nodes": [check.as_plain_values() for check in self.across],
        }


def compare_nodes(reports: Sequence[NodeReport]) -> tuple[Check, ...]:
    """What differs between nodes; a check that all is the same where nothing does."""
    known = [report for report in reports if report.versions]
    if len(known) < 2:
        return ()
    advice = "install the same versions on all nodes: scripts/lock.txt names them"
    checks = [problem(name, found, advice) for name, found in _differences(known, "versions")]
    with_gpus = [report for report in known if report.hardware]
    advice = "packs may go to either; resources.accelerator_type chooses, or leave nodes out"
    checks += [warning(name, found, advice) for name, found in _differences(with_gpus, "hardware")]
    return tuple(checks) or (ok("versions", "the same everywhere"),)


def _differences(reports: Sequence[NodeReport], of: str) -> list[tuple[str, str]]:
    """Name -> `2.21.0 on n1, n3; 2.21.1 on n2`, for each that is not the same everywhere."""
    names = dict.fromkeys(name for report in reports for name in getattr(report, of))
    found = []
    for name in names:
        nodes: dict[str, list[str]] = {}
        for report in reports:
            nodes.setdefault(getattr(report, of).get(name, "none"), []).append(report.node)
        if len(nodes) > 1:
            parts = [f"{value} on {', '.join(where)}" for value, where in nodes.items()]
            found.append((name, "; ".join(parts)))
    return found
