"""A family of models trained in six ways, each on one core: `model.fit`, trialrun, Keras on JAX.

    python scripts/benchmarks/peers/family.py FAMILY [--trials 32]

Each side is a process of its own, because Keras has one backend per process. Prints one JSON line:
`us`, microseconds of the core per step and trial once everything is compiled, of `fit` (as a user
writes it), `fit, compiled` (`jit_compile` and an epoch per execution), trialrun's engines `fused`
and `mapped`, and `vmap` and `jit` of Keras on JAX by hand, both from initial weights and batch
orders that are there; and `first_s`, core-seconds before that: of trialrun the first call less a
later one, which includes its check against plain Keras, of JAX the tracing and compiling.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

_SIDES = ("family_fit", "family_trialrun", "family_jax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("--trials", type=int, default=32)
    args = parser.parse_args()
    us: dict[str, float] = {}
    first_s: dict[str, float] = {}
    for side in _SIDES:
        program = Path(__file__).with_name(f"{side}.py")
        command = [sys.executable, str(program), args.family, str(args.trials)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        report = json.loads(said.splitlines()[-1])
        us |= report["us"]
        first_s |= report.get("first_s", {})
    print(json.dumps({"us": us, "first_s": first_s, "trials": args.trials}))


if __name__ == "__main__":
    main()
