"""Prints the oracle's table: each case trained by trialrun and by plain `model.fit`, compared.

    scripts/oracle [--quick] [PATTERN...]

For each case, 32 trials in one pack: the engine that `auto` took, the largest absolute difference
of weights and of logs from `model.fit` for the first and the last of them, and how many times as
many trials per second they make, of one thread, once compiled. `--quick` trains two trials and
measures no time. Exits with 1 when a case is out of its tolerance or on another engine.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from oracle import Comparison, compare
from oracle_cases import CASES, Case

_NUM_TRIALS = 32


def main() -> None:
    """Prints one line per case, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", help="of the cases' kinds and names")
    parser.add_argument("--quick", action="store_true", help="two trials, no timing")
    options = parser.parse_args()
    names = [
        name
        for name, case in CASES.items()
        if not options.patterns
        or any(re.search(pattern, f"{case.kind} {name}") for pattern in options.patterns)
    ]
    results = {}
    print(
        f"{'kind':10}{'case':34}{'engine':8}{'weights':>9}{'logs':>9}{'speed-up':>10}", flush=True
    )
    for name in names:
        results[name] = _compare(name, is_quick=options.quick)
        print(_line(name, CASES[name], results[name]), flush=True)
    fused = sum(result.engine == "fused" for result in results.values())
    wrong = [name for name, result in results.items() if not _is_right(CASES[name], result)]
    print(
        f"\n{len(results)} cases, {fused} fused, {len(wrong)} wrong: {', '.join(wrong) or 'none'}"
    )
    sys.exit(bool(wrong))


def _compare(name: str, *, is_quick: bool) -> Comparison:
    with tempfile.TemporaryDirectory() as folder:
        return compare(
            name, Path(folder), num_trials=2 if is_quick else _NUM_TRIALS, timed=not is_quick
        )


def _is_right(case: Case, result: Comparison) -> bool:
    return result.engine == case.engine and max(result.weights, result.logs) <= case.tolerance


def _line(name: str, case: Case, result: Comparison) -> str:
    speed_up = f"{result.plain_seconds / result.seconds:.0f}"
    shown = f"{case.kind:10}{name:34}{result.engine:8}{result.weights:9.0e}{result.logs:9.0e}"
    mark = "" if _is_right(case, result) else f"  WRONG {result.reason}"
    return f"{shown}{speed_up:>10}{mark}"


if __name__ == "__main__":
    main()
