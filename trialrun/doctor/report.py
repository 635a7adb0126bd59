"""The doctor's findings on one node and on all nodes, which can be turned into JSON and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trialrun.doctor.check import Check, CheckStatus, ok, problem, warning, worst
from trialrun.doctor.clock import ClockSpan, check_offset, clock_offset


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What was found on one node.

    Attributes:
        node: The node's name.
        checks: The checks in the order in which they were made.
        versions: Name -> version of what must be the same on all nodes.
        hardware: Name -> value of what should be the same on all nodes.
        clock: When the node was examined, by its own clock; None if it was not.
    """

    node: str
    checks: tuple[Check, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, str] = field(default_factory=dict)
    clock: ClockSpan | None = None

    def as_plain_values(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
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
        """The report that `as_plain_values` gave these values for."""
        return cls(
            node=values["node"],
            checks=tuple(Check.from_plain_values(check) for check in values["checks"]),
            versions=values["versions"],
            hardware=values["hardware"],
            clock=ClockSpan(*values["clock"]) if values["clock"] else None,
        )

    def with_clock_compared(self, asked: ClockSpan) -> "NodeReport":
        """The report with a check of the node's clock against that of the machine that asked.

        A check that found a jump of the clock is kept instead.

        Args:
            asked: Question and answer, by the clock of the machine that asked.
        """
        if self.clock is None:
            return self
        check = check_offset(clock_offset(asked, self.clock))
        others = tuple(other for other in self.checks if other.name != check.name)
        jumped = any(other.name == check.name and other.status != "ok" for other in self.checks)
        return self if jumped else replace(self, checks=(*others, check))


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of the doctor.

    Attributes:
        nodes: This machine first, then the nodes of the cluster.
        across: Checks of what differs between them.
    """

    nodes: tuple[NodeReport, ...]
    across: tuple[Check, ...] = ()

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks of all nodes, and those across nodes."""
        return (*(check for node in self.nodes for check in node.checks), *self.across)

    @property
    def status(self) -> CheckStatus:
        """The worst status of all checks."""
        return worst(self.checks)

    def as_plain_values(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {
            "status": self.status,
            "nodes": [node.as_plain_values() for node in self.nodes],
            "across_nodes": [check.as_plain_values() for check in self.across],
        }


def compare_nodes(reports: Sequence[NodeReport]) -> tuple[Check, ...]:
    """Checks of what differs between nodes, or a single one that says that nothing does."""
    known = [report for report in reports if report.versions]
    if len(known) < 2:
        return ()
    advice = "install the same versions on all nodes: scripts/lock.txt names them"
    checks = [problem(name, found, advice) for name, found in _differences(known, "versions")]
    with_gpus = [report for report in known if report.hardware]
    advice = "packs may run on any of them; set resources.accelerator_type, or leave nodes out"
    checks += [warning(name, found, advice) for name, found in _differences(with_gpus, "hardware")]
    return tuple(checks) or (ok("versions", "the same everywhere"),)


def _differences(reports: Sequence[NodeReport], of: str) -> list[tuple[str, str]]:
    """Name and text like `2.21.0 on n1, n3; 2.21.1 on n2` of each value that differs.

    Args:
        reports: The nodes' reports.
        of: `versions` or `hardware`.
    """
    names = dict.fromkeys(name for report in reports for name in getattr(report, of))
    found = []
    for name in names:
        nodes: dict[str, list[str]] = {}
        for report in reports:
            nodes.setdefault(getattr(report, of).get(name, "none"), []).append(report.node)
        if len(nodes) > 1:
            texts = [f"{value} on {', '.join(names)}" for value, names in nodes.items()]
            found.append((name, "; ".join(texts)))
    return found
