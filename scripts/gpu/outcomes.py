"""What a check of GPUs found: the words for it, how findings are judged, and the table of them.

`not seen` is an answer of its own: nothing is wrong, and nothing is proved, for a reason that is
said. It imports no TensorFlow, so that a broken one cannot take the table along.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

State = Literal["ok", "failed", "not seen"]
NO_GPU = "no GPU"
_COLORS = {"ok": "green", "failed": "red", "not seen": "yellow"}
_SHARE_IN_USE = 0.5  # without memory growth, TensorFlow takes nearly all memory of a GPU at once


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found.

    Attributes:
        check: Its name.
        state: Whether it is right, wrong, or could not be seen here.
        found: What was found, and of what was not seen, why.
        details: Numbers and texts for the JSON file.
    """

    check: str
    state: State
    found: str
    details: Mapping[str, Any] = field(default_factory=dict)


def append(file: Path, outcome: Outcome) -> None:
    """Keeps an outcome at once, so that what follows cannot lose it."""
    with file.open("a") as stream:
        stream.write(json.dumps(asdict(outcome)) + "\n")


def read(file: Path) -> list[Outcome]:
    """The outcomes that were kept in a file; none if there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        exit_code: Its exit code, if negative the signal that ended it; None if its time was over.
        said: The same in words.
    """

    exit_code: int | None
    said: str


def complete(names: Sequence[str], found: Iterable[Outcome], ended: Ended) -> list[Outcome]:
    """One outcome for each name, in their order: what a program did not tell has failed.

    If it told all and did not end well, its last outcome is not the whole one: it has failed if the
    program died, and was not seen as a whole if its time was over.

    Args:
        names: The checks that the program makes.
        found: What it told; the last word about each counts.
        ended: How it ended.
    """
    by_name = {outcome.check: outcome for outcome in found}
    told = [by_name.get(name) or Outcome(name, "failed", ended.said) for name in names]
    if ended.exit_code == 0 or len(by_name) < len(names):
        return told
    *others, last = told
    has_failed = ended.exit_code is not None or last.state == "failed"
    state: State = "failed" if has_failed else "not seen"
    return [*others, replace(last, state=state, found=f"{last.found}; then {ended.said}")]


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """1 if a check has failed, else 0."""
    return int(any(outcome.state == "failed" for outcome in outcomes))


def print_outcomes(console: Console, outcomes: Iterable[Outcome]) -> None:
    """The table of all checks."""
    table = Table("check", "", "found", box=box.SIMPLE)
    for outcome in outcomes:
        color = _COLORS[outcome.state]
        table.add_row(outcome.check, f"[{color}]{outcome.state}[/]", escape(outcome.found))
    console.print(table)


# ------------------------------------------------------------------------------- what workers saw


def judge_pinning(workers: Sequence[Mapping[str, Any]], num_gpus: int) -> Outcome:
    """Whether each worker's process sees one GPU.

    Args:
        workers: What each process said of itself; see `watched_job`.
        num_gpus: The GPUs of this machine.
    """
    name, given = "pinning", [worker["visible"] for worker in workers]
    details = {"workers": workers}
    if not workers:
        return Outcome(name, "failed", "no worker said what it sees")
    if any(len(gpus) != 1 for gpus in given):
        return Outcome(name, "failed", f"CUDA_VISIBLE_DEVICES of the workers: {given}", details)
    if not num_gpus:
        found = f"{NO_GPU}: each worker was given one of Ray's logical GPUs"
        return Outcome(name, "not seen", found, details)
    seen = [len(worker["gpus"]) for worker in workers]
    if set(seen) != {1}:
        return Outcome(name, "failed", f"TensorFlow sees {seen} GPUs in the workers", details)
    return Outcome(name, "ok", f"each of {len(workers)} workers sees 1 of {num_gpus}", details)


def judge_growth(workers: Sequence[Mapping[str, Any]], num_gpus: int) -> Outcome:
    """Whether memory growth is on, and TensorFlow has not taken the whole GPU; see above."""
    name = "memory growth"
    if not num_gpus:
        return Outcome(name, "not seen", NO_GPU)
    if not workers or not all(worker["growth"] and all(worker["growth"]) for worker in workers):
        return Outcome(name, "failed", "it is off in a worker", {"workers": workers})
    memories = [worker["memory_mib"] for worker in workers if worker["memory_mib"]]
    if not memories:
        return Outcome(name, "not seen", "it is on, but nvidia-smi does not tell used memory")
    used, total = max(memories, key=lambda memory: memory[0] / memory[1])
    found = f"it is on; {used:,} of {total:,} MiB are used"
    if used > _SHARE_IN_USE * total:
        return Outcome(name, "failed", f"{found}: does another process use this GPU?")
    return Outcome(name, "ok", found)


def judge_together(workers: Sequence[Mapping[str, Any]], num_gpus: int) -> Outcome:
    """Whether two packs were in training at a time, on two GPUs; see above."""
    name = "two packs on two GPUs"
    if num_gpus == 1:
        return Outcome(name, "not seen", "one GPU only")
    met = {worker["visible"][0] for worker in workers if worker["met"] and worker["visible"]}
    if len(met) < 2:
        return Outcome(name, "failed", "no two workers were in training at a time")
    if not num_gpus:
        found = f"{NO_GPU}: at a time, but on two logical GPUs"
        return Outcome(name, "not seen", found)
    return Outcome(name, "ok", f"at a time, on GPUs {', '.join(sorted(met))}")


# ------------------------------------------------------------------------------- what did not fit


def judge_halving(
    check: str,
    statuses: Mapping[str, Sequence[str]],
    said: Sequence[str],
    reason: str = "",
    *,
    must_be: bool,
) -> Outcome:
    """Whether a pack that was too wide ended in smaller ones.

    Args:
        check: Its name.
        statuses: Pack -> the statuses of its trials, as the run ended.
        said: What the run's log says about packs that were tried again.
        reason: Why what was seen does not count; empty if it does.
        must_be: Whether it is a mistake if the pack is trained as a whole.
    """
    details = {"packs": {pack: len(trials) for pack, trials in statuses.items()}, "said": said}
    flat = [status for trials in statuses.values() for status in trials]
    if not flat or set(flat) != {"completed"}:
        num = flat.count("completed")
        return Outcome(check, "failed", f"{num} of {len(flat)} trials were trained", details)
    widest = max(map(len, statuses.values()))
    found = f"{len(flat)} trials were trained in {len(statuses)} packs of at most {widest}"
    if len(statuses) == 1:
        state: State = "failed" if must_be else "not seen"
        return Outcome(check, state, "the whole pack was trained at once", details)
    if reason:
        return Outcome(check, "not seen", f"{reason}: {found}", details)
    return Outcome(check, "ok", found, details)


# ---------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True, slots=True)
class OracleCase:
    """A case of the oracle, trained by trialrun and by `model.fit` on the same device.

    Attributes:
        name: Of the case.
        engine: That trained it.
        expected_engine: That `auto` must take.
        difference: The largest of weights and logs.
        tolerance: That it must not exceed.
        reason: Why not a better engine, or an error.
    """

    name: str
    engine: str
    expected_engine: str
    difference: float
    tolerance: float
    reason: str

    def is_right(self, *, tf32: bool) -> bool:
        """Whether its engine and its numbers are those expected.

        With TF32 a product keeps 10 bits of each factor, so its differences are shown, not judged.
        """
        is_close = self.difference < float("inf") if tf32 else self.difference <= self.tolerance
        return self.engine == self.expected_engine and is_close


def judge_oracle(
    check: str, cases: Sequence[OracleCase], num_in_all: int, num_gpus: int, *, tf32: bool
) -> Outcome:
    """Whether cases of the oracle came out right.

    Args:
        check: Its name.
        cases: Those that there was time for.
        num_in_all: The cases of the whole table.
        num_gpus: The GPUs of this machine.
        tf32: Whether products may use TF32.
    """
    details = {"cases": [asdict(case) for case in cases]}
    if not cases:
        return Outcome(check, "not seen", "there was no time for a case")
    wrong = [case for case in cases if not case.is_right(tf32=tf32)]
    if wrong:
        shown = ", ".join(
            f"{case.name} ({case.engine}, {case.difference:.0e}) {case.reason}".strip()
            for case in wrong
        )
        return Outcome(check, "failed", f"{len(wrong)} of {len(cases)}: {shown}", details)
    largest = max(case.difference for case in cases)
    found = f"{len(cases)} of {num_in_all} cases, largest difference {largest:.0e}"
    if not num_gpus:
        return Outcome(check, "not seen", f"{NO_GPU}, on the CPU: {found}", details)
    return Outcome(check, "ok", found, details)


def judge_loops(
    check: str, trip_counts: Mapping[str, Sequence[int | None]], platform: str
) -> Outcome:
    """Whether the compiler knows how often each loop of each program runs.

    Args:
        check: Its name.
        trip_counts: Program -> the count of each of its loops, None where it is unknown.
        platform: What the programs were compiled for; `cpu` proves nothing.
    """
    details = {"trip_counts": {name: list(counts) for name, counts in trip_counts.items()}}
    found = "; ".join(
        f"{name}: {', '.join('unknown' if n is None else str(n) for n in counts) or 'no loop'}"
        for name, counts in trip_counts.items()
    )
    if platform == "cpu":
        return Outcome(check, "not seen", f"{NO_GPU}; XLA for the CPU says {found}", details)
    if not trip_counts:
        return Outcome(check, "not seen", "there was no time for a program")
    is_known = all(counts and None not in counts for counts in trip_counts.values())
    return Outcome(check, "ok" if is_known else "failed", found, details)
