"""How far a run is, as `trialrun status` and `trialrun show` print it; `trialrun list` of many."""

import heapq
import os
import pwd
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trialrun.messages import command_for, counted, visible
from trialrun.report.columns import TextColumn
from trialrun.report.format import (
    clock_text,
    cost_text,
    left_text,
    parameter_text,
    rate_text,
    short_names,
)
from trialrun.report.tables import fits, plain_table
from trialrun.store import RunFolder
from trialrun.store.costs import Costs, problem_with_costs, read_costs
from trialrun.store.files import json_ready
from trialrun.store.run_state import (
    Fields,
    RunState,
    read_summary,
    states_of,
    status_of_running,
)

_REFRESH_S = 1.0
_NUM_PACKS_SHOWN = 20
_NUM_COSTLY = 3
_MAX_REASON = 60  # in a list of runs; `trialrun status` tells all of it
_STYLES = {"running": "green", "ended": "bold", "failed": "red", "dead": "red"}


def print_status(console: Console, run: RunFolder, say: Callable[[str], None]) -> None:
    """Prints how far a run is.

    Args:
        console: The console to print to.
        run: The run.
        say: Called with a message if it takes a while to know whether its driver lives.
    """
    [state] = states_of([run], say)
    console.print(Group(*status_renderables(state, width=console.width)))


def watch_status(console: Console, run: RunFolder) -> None:
    """Shows how far a run is until it does not run any more; without a terminal only then."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            [state] = states_of([run])
            live.update(Group(*status_renderables(state, width=console.width)), refresh=True)
            if state.state != "running":
                break
            time.sleep(_REFRESH_S)
    if not console.is_terminal:  # rich ends the last line only there
        console.print()


def content_of(state: RunState) -> dict[str, Any]:
    """How far a run is, as values for JSON: its state, and what status.json says."""
    holder = state.holder
    content = {
        "folder": state.run.path,
        "state": state.state,
        "owner": owner_of(state.run.path),
        "age_s": round(state.age_s, 1),
        "silent_s": round(state.silent_s, 1),
        "host": None if holder is None else holder.host,
        "pid": None if holder is None else holder.pid,
        "status": dict(state.status.content) or None,
    }
    ready: dict[str, Any] = json_ready(content)
    return ready


def status_renderables(state: RunState, *, width: int) -> Iterator[RenderableType]:
    """Everything that is printed about how far a run is, for a terminal of `width` columns."""
    status = state.status
    name = status.text("job") or state.run.path.resolve().parent.name
    yield Text.assemble((visible(name), "bold"), "  ", (state.state, _STYLES.get(state.state, "")))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for label, text in _facts(state):
        facts.add_row(Text(label, style="dim"), Text(text))
    yield facts
    if state.state == "running":
        yield from _packs(status, width)


def _facts(state: RunState) -> Iterator[tuple[str, str]]:
    status, holder = state.status, state.holder
    yield "run folder", visible(str(state.run.path))
    if holder is not None:
        process = "" if holder.pid is None else f"process {holder.pid} on "
        yield "driver", f"{process}{holder.host}, last sign {ago_text(state.silent_s)} ago"
    if reason := status.text("reason"):
        yield "why", reason
    if (stage := status.text("stage")) and state.state in ("running", "dead"):
        lasted = clock_text(status.number("stage_s") or 0)
        yield (
            "stage",
            f"{stage} ({lasted}; the command {clock_text(status.number('elapsed_s') or 0)})",
        )
    yield from _numbers(status, is_running=state.state == "running")
    if problem := problem_with_costs(state.run):
        yield "costliest", visible(problem)
    elif most := _most_costly(read_costs(state.run)):
        yield "costliest", most
    if advice := _advice(state):
        yield "to do", advice


def _numbers(status: Fields, *, is_running: bool) -> Iterator[tuple[str, str]]:
    trials, packs, best = status.part("trials"), status.part("packs"), status.part("best")
    if total := trials.count("total"):
        ends = [f"{trials.count(end):,} {end}" for end in ("diverged", "failed", "paused")]
        known = [text for text in ends if not text.startswith("0 ")]
        yield "trials", ", ".join([f"{trials.count('done'):,} of {total:,} have ended", *known])
    if packs.content:
        words = {"done": "have ended", "running": "in training", "waiting": "waiting"}
        if not is_running:  # these numbers are of its last sign of life
            words |= {"running": "in training then", "waiting": "waited"}
        counts = [f"{packs.count(n):,} {w}" for n, w in words.items() if packs.count(n)]
        retries = packs.count("retries")
        counts += [f"{retries:,} tried again"] if retries else []
        yield "packs", ", ".join(counts) or "none yet"
    rate, left = status.number("trials_per_s"), status.part("left_s")
    if is_running and rate and left.content:
        spread = (left.number("expected_s") or 0.0, left.number("low_s"), left.number("high_s"))
        yield "rate", f"{rate_text(rate)}, {left_text(spread)}"
    cost = status.part("cost")
    if text := cost_text(*(cost.number(f"{name}_s") for name in ("device", "lost", "compile"))):
        yield "cost", text
    if (value := best.number("value")) is not None:
        yield "best", f"{best.text('metric')} {value:.4g}, of one trial after one of its epochs"


def _most_costly(costs: Costs) -> str:
    """The variants that have cost most, with their cost; empty if there is only one."""
    if len(costs) < 2:
        return ""
    most = heapq.nlargest(_NUM_COSTLY, costs.items(), lambda item: item[1])
    return ", ".join(f"{variant_id} {clock_text(cost.device_s)}" for variant_id, cost in most)


def _advice(state: RunState) -> str:
    if state.state in ("interrupted", "dead"):
        return visible(command_for("resume", state.run.path))
    return visible(command_for("show", state.run.path)) if state.state == "ended" else ""


def _packs(status: Fields, width: int) -> Iterator[RenderableType]:
    """The packs in training, those that were silent for longest first."""
    packs = status.parts("running")[:_NUM_PACKS_SHOWN]
    if not packs:
        return
    columns = _pack_columns(packs)
    yield Text()
    yield plain_table(_fitting(columns, ("heard", "for", "engine"), width))
    num_more = status.part("packs").count("running") - len(packs)
    if num_more > 0:
        yield Text(f"... and {num_more:,} more", style="dim")


def _fitting(
    columns: Mapping[str, TextColumn], dispensable: Sequence[str], width: int
) -> list[TextColumn]:
    """The columns without as many dispensable ones, in their order, as have no room."""
    shown = dict(columns)
    for name in dispensable:
        if fits([*shown.values()], width):
            break
        del shown[name]
    return [*shown.values()]


def _pack_columns(packs: Sequence[Fields]) -> dict[str, TextColumn]:
    def column(header: str, cells: Iterator[str], *, is_number: bool = False) -> TextColumn:
        return TextColumn(header, tuple(cells), is_number=is_number)

    return {
        "pack": column("pack", (_attempt_text(one) for one in packs)),
        "node": column("node", (one.text("node") for one in packs)),
        "device": column("device", (one.text("device") for one in packs)),
        "engine": column("engine", (one.text("engine") or "starting" for one in packs)),
        "trials": column("trials", (f"{one.count('trials'):,}" for one in packs), is_number=True),
        "epoch": column("epoch", (_epoch_text(one) for one in packs), is_number=True),
        "for": column("for", (clock_text(one.number("for_s") or 0) for one in packs)),
        "heard": column("heard", (f"{ago_text(one.number('heard_s') or 0)} ago" for one in packs)),
    }


def _attempt_text(pack: Fields) -> str:
    attempt = pack.count("attempt")
    return f"{pack.text('pack')}{f', try {attempt + 1}' if attempt else ''}"


def _epoch_text(pack: Fields) -> str:
    return f"{pack.count('epoch'):,} of {pack.count('epochs'):,}"


def ago_text(seconds: float) -> str:
    """About how long something is ago.

    >>> ago_text(3), ago_text(600), ago_text(90_000), ago_text(864_000)
    ('3 s', '10 min', '25 h', '10 days')
    """
    for unit_s, unit, most in ((1, "s", 120), (60, "min", 120), (3600, "h", 48)):
        if seconds < most * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


# What is in training ----------------------------------------------------------------------------


def training_content(run: RunFolder) -> Fields:
    """What the variants in training have come to; nothing unless the run surely runs."""
    return status_of_running(run).part("variants")


def training_renderables(run: RunFolder, *, width: int) -> Iterator[RenderableType]:
    """What the variants in training have come to, the best first, if the run runs."""
    content = training_content(run)
    variants = content.parts("shown")
    if not variants:
        return
    metric = content.text("metric")
    count = counted(content.count("count"), "variant")
    yield Text(f"\nIn training: {count}, each trial at its newest epoch, and so not its result.\n")
    columns = [
        TextColumn("variant", tuple(one.text("variant") for one in variants), is_number=False),
        *_parameter_columns(variants),
        TextColumn("trials", tuple(f"{one.count('trials'):,}" for one in variants)),
        TextColumn("epoch", tuple(f"{one.number('epoch') or 0:g}" for one in variants)),
        TextColumn(f"mean {metric}", tuple(map(_mean_text, variants))),
    ]
    while not fits(columns, width) and any(column.is_parameter for column in columns):
        last = max(index for index, column in enumerate(columns) if column.is_parameter)
        del columns[last]
    yield plain_table(columns)


def _parameter_columns(variants: Sequence[Fields]) -> list[TextColumn]:
    given = [one.part("parameters").content for one in variants]
    paths = list(dict.fromkeys(path for one in given for path in one))
    return [
        TextColumn(
            visible(name),
            tuple(visible(parameter_text(one[path])) if path in one else "-" for one in given),
            is_parameter=True,
        )
        for path, name in short_names(paths).items()
    ]


def _mean_text(variant: Fields) -> str:
    mean = variant.number("mean")
    return "n/a" if mean is None else f"{mean:.4g}"


# Many runs --------------------------------------------------------------------------------------


def print_runs(console: Console, states: Sequence[RunState], folder: Path) -> None:
    """Prints a line per run, the newest first.

    Args:
        console: The console to print to.
        states: The runs.
        folder: The folder that they were found in; they are named from there.
    """
    newest_first = sorted(states, key=lambda state: state.age_s)
    columns = {
        "run": _texts("run", (_name_in(folder, one.run.path) for one in newest_first)),
        "state": _texts("state", (one.state for one in newest_first)),
        "age": _texts("age", (ago_text(one.age_s) for one in newest_first)),
        "owner": _texts("owner", (owner_of(one.run.path) for one in newest_first)),
        "trials": _texts("trials", map(_trials_text, newest_first)),
        "result": _texts("result", map(_result_text, newest_first)),
    }
    console.print(plain_table(_fitting(columns, ("trials", "owner"), console.width)))


def _texts(header: str, cells: Iterator[str]) -> TextColumn:
    return TextColumn(header, tuple(cells), is_number=False)


def _name_in(folder: Path, path: Path) -> str:
    with suppress(ValueError):
        path = path.relative_to(folder) if path != folder else path
    return visible(str(path))


def owner_of(path: Path) -> str:
    """The user to whom a file or folder belongs; the user's number if nobody has it here."""
    try:
        number = os.stat(path).st_uid  # noqa: PTH116 - `owner` of Path has no number
    except OSError:
        return ""
    try:
        return visible(pwd.getpwuid(number).pw_name)
    except KeyError:
        return str(number)


def _trials_text(state: RunState) -> str:
    trials = state.status.part("trials")
    if total := trials.count("total"):
        return f"{trials.count('done'):,}/{total:,}"
    counts = read_summary(state.run).part("counts")
    return f"{counts.count('trials'):,}" if counts.content else ""


def _result_text(state: RunState) -> str:
    """The winner of a run that has ended, or why it did not end."""
    if state.state == "running":
        return state.status.text("stage")
    if state.state != "ended":
        return textwrap.shorten(state.status.text("reason"), _MAX_REASON, placeholder=" ...")
    summary = read_summary(state.run)
    if not summary.content:
        return "summary.json cannot be read"
    chosen = summary.part("selection")
    if not (variant := chosen.text("variant_id")):
        return "nothing was selected"
    mean = chosen.number("mean")
    return f"{variant}, {chosen.text('metric')}{'' if mean is None else f' {mean:.4g}'}"
