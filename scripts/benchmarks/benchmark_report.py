"""Prints the benchmark's results: the machine and the tables."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmark_rows import Ratio, Row, divide, fastest, further_trial_s, verdict
from rich import box
from rich.console import Console
from rich.table import Column, Table

LEGEND = """\
s/trial: wall time divided by trials (Ray Tune: two at once); in steady state, of the products and
of scikit-learn core-seconds without compilation. The bound is computed, not run.
s/further: seconds that one more trial takes once everything has started. compiled: jit_compile and
an epoch per execution.
to exit: seconds from the command to its exit. GB: peak of the PSS of all its processes.
With several runs, numbers are medians. pinned: bound to one core, with one thread.
"""
LEGEND_OF_FAMILIES = """\
us of one core per step and trial, once all is compiled; fit, compiled: an epoch per execution, and
jit_compile unless Keras refuses it, as for augmented images; fused and mapped: trialrun's engines;
vmap and jit: Keras on JAX by hand, without the drawing of batch orders. first: core-seconds until
then, of trialrun with its check against Keras.
"""


def print_report(
    console: Console,
    machine: dict[str, Any],
    rows: Sequence[Row],
    ratios: Iterable[Ratio],
    *,
    quick: bool,
) -> None:
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, "
        f"load {machine['load_before']:.2f} before; Python {machine['python']}, "
        + ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
        highlight=False,
    )
    if quick:
        console.print("This was a quick run with few epochs and trials: the ratios mean nothing.")
    families = [row for row in rows if row.samples and "us" in row.samples[0]]
    if others := [row for row in rows if row not in families]:
        console.print(measurements_table(others))
        console.print(LEGEND, style="dim", highlight=False)
    if families:
        console.print(families_table(families))
        console.print(LEGEND_OF_FAMILIES, style="dim", highlight=False)
    if any("timings_s" in sample for row in rows for sample in row.samples):
        console.print(stages_table(rows))
    if measured := [ratio for ratio in ratios if ratio.value is not None]:
        console.print(ratios_table(measured, quick=quick))
    for row in rows:
        if row.error:
            console.print(f"{row.subject.name} was not measured: {row.error}", markup=False)


def measurements_table(rows: Sequence[Row]) -> Table:
    table = Table(Column("what", no_wrap=True), Column("cores", no_wrap=True), box=box.SIMPLE)
    headings = ("runs", "trials", "s/trial", "s/further", "trials/s", "to exit, s", "GB")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    further_s = further_trial_s({row.subject.name: row for row in rows})
    for row in rows:
        if not row.samples:
            table.add_row(row.subject.title, row.subject.setting, *[""] * 2, "failed")
            continue
        is_large = row.subject.name == "trialrun_1000"
        s_per_trial = row.median("s_per_trial")
        table.add_row(
            row.subject.title,
            row.subject.setting,
            str(len(row.samples)),
            f"{row.samples[0]['trials']:,}",
            number(s_per_trial),
            number(further_s if is_large else row.median("marginal_s_per_trial")),
            number(divide(1, s_per_trial)),
            number(row.median("wall_s")),
            number(divide(row.median("peak_memory_bytes"), 2**30)),
        )
    return table


def families_table(rows: Sequence[Row]) -> Table:
    """What a step costs by each way of training a family, and what comes before the first."""
    ways = list(rows[0].samples[0]["us"])
    firsts = list(rows[0].samples[0]["first_s"])
    table = Table(Column("us per step and trial", no_wrap=True), box=box.SIMPLE)
    for heading in (*ways, *(f"{way}, first, s" for way in firsts)):
        table.add_column(heading, justify="right")
    for row in rows:
        steps = (number(fastest(row, [way])) for way in ways)
        first = (number(fastest(row, [way], "first_s")) for way in firsts)
        table.add_row(row.subject.title.removeprefix("family: "), *steps, *first)
    return table


def stages_table(rows: Sequence[Row]) -> Table:
    """Where the wall time of trialrun's runs went, by the runs' own timings."""
    rows = [row for row in rows if row.samples and "timings_s" in row.samples[0]]
    table = Table("stage of trialrun, s", box=box.SIMPLE)
    for row in rows:
        how = ", again" if row.subject.title.endswith(", again") else ""
        table.add_column(f"{row.samples[0]['trials']:,} trials{how}", justify="right")
    for stage in dict.fromkeys(stage for row in rows for stage in row.samples[0]["timings_s"]):
        table.add_row(stage, *(number(median_stage_s(row, stage)) for row in rows))
    table.add_row("command to exit", *(number(row.median("wall_s")) for row in rows))
    return table


def median_stage_s(row: Row, stage: str) -> float | None:
    seconds = [s["timings_s"][stage] for s in row.samples if stage in s["timings_s"]]
    return statistics.median(seconds) if seconds else None


def ratios_table(ratios: Iterable[Ratio], *, quick: bool) -> Table:
    table = Table("ratio", box=box.SIMPLE)
    for heading in ("measured", "target", ""):
        table.add_column(heading, justify="right")
    for ratio in ratios:
        sign = "<=" if ratio.is_upper_bound else ">="
        target = "" if ratio.target is None else f"{sign} {ratio.target:g}"
        table.add_row(ratio.title, number(ratio.value), target, "" if quick else verdict(ratio))
    return table


def number(value: float | None) -> str:
    """A number with three significant digits, without an exponent; `-` for None."""
    if value is None:
        return "-"
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, decimals)}f}"
