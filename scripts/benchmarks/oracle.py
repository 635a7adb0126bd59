"""Prints the oracle's table: each case trained by trialrun and by plain `model.fit`, compared.

    scripts/oracle [--quick] [--results FILE] [PATTERN...]

Each case is trained as 32 trials in one pack. For each it prints the engine that `auto` chose, the
largest absolute difference of weights and of logs from `model.fit` for the first and the last
trial, and the speed-up: trials per second of one thread, once compiled, divided by those of
`model.fit`. `--quick` trains two trials and measures no time. At the end it prints a Markdown table
by kind of case. It exits with 1 if a case is out of its tolerance or was trained by another engine
than expected.

All cases take about an hour. With `--results`, each result is added to that CSV file, and cases
that are in it already are not trained again.
"""

import argparse
import csv
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from oracle import Comparison, compare
from oracle_table import TABLE, Line

_NUM_TRIALS = 32
# TensorFlow keeps compiled programs, about 100 MB per case, as long as the process lives.
_CASES_PER_PROCESS = 10


def main() -> None:
    """Prints one line per case, one per kind, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", help="train only cases whose kind and name match")
    parser.add_argument("--quick", action="store_true", help="two trials, no timing")
    parser.add_argument("--results", type=Path, help="a CSV file to keep results in")
    options = parser.parse_args()
    names = [
        name
        for name, line in TABLE.items()
        if not options.patterns
        or any(re.search(pattern, f"{line.kind} {name}") for pattern in options.patterns)
    ]
    print(
        f"{'kind':10}{'case':36}{'engine':8}{'weights':>9}{'logs':>9}{'speed-up':>10}", flush=True
    )
    results = {}
    for name, result in _compare_all(names, options.results, is_quick=options.quick):
        results[name] = result
        print(_shown(name, result), flush=True)
    wrong = [name for name, result in results.items() if not _is_right(TABLE[name], result)]
    print(f"\n{_by_kind(results)}\n\n{len(wrong)} wrong: {', '.join(wrong) or 'none'}")
    sys.exit(bool(wrong))


def _compare_all(
    names: list[str], kept_in: Path | None, *, is_quick: bool
) -> Iterator[tuple[str, Comparison]]:
    """Each case and its result; worker processes are replaced before they use too much memory."""
    kept = {} if kept_in is None else _read(kept_in)
    with ProcessPoolExecutor(
        1, get_context("spawn"), max_tasks_per_child=_CASES_PER_PROCESS
    ) as process:
        for name in names:
            if name not in kept:
                kept[name] = process.submit(_compare, name, is_quick).result()
                if kept_in is not None:
                    _append(kept_in, name, kept[name])
            yield name, kept[name]


def _compare(name: str, is_quick: bool) -> Comparison:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return compare(
                TABLE[name],
                Path(folder),
                num_trials=2 if is_quick else _NUM_TRIALS,
                timed=not is_quick,
            )
        except Exception as error:  # the case is shown as wrong, and the others are still trained
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            return Comparison("none", reason, float("inf"), float("inf"), 1.0, 1.0)


def _read(path: Path) -> dict[str, Comparison]:
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {
            name: Comparison(engine, reason, *map(float, numbers))
            for name, engine, reason, *numbers in csv.reader(file)
        }


def _append(path: Path, name: str, result: Comparison) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow([name, *result])


def _is_right(line: Line, result: Comparison) -> bool:
    return result.engine == line.engine and max(result.weights, result.logs) <= line.tolerance


def _speed_up(result: Comparison) -> float:
    """How many times as fast as `model.fit`; 1 if `model.fit` itself trained the case."""
    return 1.0 if result.engine == "keras" else result.plain_seconds / result.seconds


def _shown(name: str, result: Comparison) -> str:
    line = TABLE[name]
    shown = f"{line.kind:11}{name:36}{result.engine:8}{result.weights:9.0e}{result.logs:9.0e}"
    mark = "" if _is_right(line, result) else f"  WRONG {result.reason}"
    return f"{shown}{_speed_up(result):10.1f}{mark}"


def _by_kind(results: Mapping[str, Comparison]) -> str:
    """A Markdown table by kind: cases, fused cases, largest difference, speed-up of fused cases."""
    kinds = dict.fromkeys(TABLE[name].kind for name in results)
    rows = [
        (kind, [r for name, r in results.items() if TABLE[name].kind == kind]) for kind in kinds
    ]
    lines = [
        "| kind | cases | fused | largest difference | median speed-up |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, group in [*rows, ("all", list(results.values()))]:
        fused = [result for result in group if result.engine == "fused"]
        largest = max(max(result.weights, result.logs) for result in group)
        median = f"{statistics.median(map(_speed_up, fused)):.0f}" if fused else "-"
        lines.append(f"| {kind} | {len(group)} | {len(fused)} | {largest:.0e} | {median} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
