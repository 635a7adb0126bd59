"""Shows the doctor's findings on a terminal, with advice below each that is not ok, or as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trialrun.doctor.check import Check, CheckStatus
from trialrun.doctor.report import NodeReport, Report

_STYLE: dict[CheckStatus, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
_NAME_WIDTH = 19
# For the nodes of a cluster, checks that are ok are only counted, except these.
_ALWAYS_SHOWN = ("GPU", "TensorFlow's device", "memory growth", "Ray's ports", "compute")


class Terminal:
    """Shows findings as they come.

    Args:
        out: The console for findings.
        errors: The console for what is being done now.
    """

    def __init__(self, out: Console, errors: Console) -> None:
        self._out = out
        self._errors = errors

    def heading(self, text: str) -> None:
        """Shows the name of the machine."""
        self._print(f"trialrun doctor on {text}")

    def group(self, title: str, checks: Sequence[Check]) -> None:
        """Shows all checks of a group."""
        self._print(f"\n{title}", style="bold")
        self._out.print(_table(checks))

    def node(self, report: NodeReport) -> None:
        """Shows how many checks are ok, which are not, and the node's devices."""
        shown = [
            check for check in report.checks if check.status != "ok" or _is_always_shown(check)
        ]
        self._print(f"\nNode {report.node}: {checks_text(report.checks)}", style="bold")
        self._out.print(_table(shown))

    def say(self, text: str) -> None:
        """Prints a line to standard error."""
        self._errors.print(f"... {text}", highlight=False, markup=False, soft_wrap=True)

    def conclude(self, report: Report) -> None:
        """Shows the counts, and what they mean."""
        verdict = {
            "ok": "everything works",
            "warning": "it works; see the warnings",
            "problem": "something does not work",
        }[report.status]
        self._print(f"\n{checks_text(report.checks)}: {verdict}", style=_STYLE[report.status])

    def _print(self, text: str, style: str = "") -> None:
        self._out.print(Text(text, style=style))


class Json:
    """Prints the whole report as JSON at the end.

    Args:
        out: The file to print to.
    """

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def heading(self, text: str) -> None:
        """Shows nothing yet; `conclude` prints everything."""

    def group(self, title: str, checks: Sequence[Check]) -> None:
        """Shows nothing yet; `conclude` prints everything."""

    def node(self, report: NodeReport) -> None:
        """Shows nothing yet; `conclude` prints everything."""

    def say(self, text: str) -> None:
        """Shows nothing."""

    def conclude(self, report: Report) -> None:
        """Prints the whole report."""
        self._out.write(json.dumps(report.as_plain_values(), indent=2) + "\n")


def _is_always_shown(check: Check) -> bool:
    return check.name.startswith(_ALWAYS_SHOWN)


def checks_text(checks: Sequence[Check]) -> str:
    """A text like `12 ok, 1 warning, 2 problems`, without counts of zero."""
    count = Counter(check.status for check in checks)
    texts = [f"{count['ok']} ok"] if count["ok"] else []
    for status in ("warning", "problem"):
        if num := count[status]:
            texts.append(f"{num} {status}{'s'[: num != 1]}")
    return ", ".join(texts) or "nothing was checked"


def _table(checks: Sequence[Check]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=len("problem"), no_wrap=True)
    table.add_column(width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    for check in checks:
        # Text, because a path may look like markup.
        found = Text(check.found)
        if check.advice:
            found.append(f"\n-> {check.advice}", style="cyan")
        table.add_row(Text(check.status, style=_STYLE[check.status]), Text(check.name), found)
    return table
