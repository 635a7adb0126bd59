"""Waits until all nodes of a SLURM job have joined its Ray, or says which have not, and why."""

import argparse
import contextlib
import os
import socket
import sys
import time
from pathlib import Path

import ray
from ray.exceptions import RayError

from trialrun.cluster.preflight import answers_anybody

_POLL_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-s", type=float, required=True)
    parser.add_argument("--steps", type=int, nargs="+", required=True, help="process ids of srun")
    parser.add_argument("--logs", type=Path, required=True, help="folder of the logs NODE.log")
    parser.add_argument("--address", required=True, help="host:port of the head")
    parser.add_argument("--nodes", nargs="+", required=True, help="SLURM's names of the nodes")
    given = parser.parse_args()
    deadline = time.monotonic() + given.limit_s

    missing = set(given.nodes)
    while missing:
        if time.monotonic() > deadline:
            give_up(f"has not joined Ray within {given.limit_s:g} s", missing, given.logs)
        if not all(map(is_alive, given.steps)):
            reason = "has not joined Ray, and a step that starts Ray has ended"
            give_up(reason, missing, given.logs)
        if not ray.is_initialized() and answers(given.address):
            # The head answers a moment before its own node has joined; `init` then raises.
            with contextlib.suppress(ConnectionError, RayError):
                if answers_anybody(given.address):
                    sys.exit(f"The Ray at {given.address} answers without a token; it is ended.")
                ray.init(address=given.address, log_to_driver=False, logging_level="CRITICAL")
        if ray.is_initialized():
            missing -= {node["NodeName"] for node in ray.nodes() if node["Alive"]}
        if missing:
            time.sleep(_POLL_S)
    ray.shutdown()


def give_up(what: str, missing: set[str], logs: Path) -> None:
    print(f"{', '.join(sorted(missing))}: {what}. The ends of the logs:", file=sys.stderr)
    for name in sorted(missing):
        log = logs / f"{name}.log"
        said = log.read_text().splitlines()[-15:] if log.exists() else ["(nothing)"]
        print("\n".join([f"--- {log}", *said]), file=sys.stderr)
    sys.exit(1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
