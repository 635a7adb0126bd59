"""A small process that stands where one of Ray's agents would; see `cluster.lean_nodes`.

It is run as a script and uses only Python's standard library, so that it starts at once.

    python placeholder.py FOLDER NODE NAME...   writes for each name that this agent listens at no
                                                port, and waits until its node has ended. Ray adds
                                                options of its own, which it has no use for.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

_LOOK_EVERY_S = 0.2
_NO_PORT = "-1"  # as Ray's own agents write it for what is not installed


def main() -> None:
    """Tells the node that starts this process its ports, and lives as long as that node."""
    node, (folder, node_id, *names) = os.getppid(), sys.argv[1:]
    with contextlib.ExitStack() as stack:
        for name in names:
            if name.startswith("-"):
                continue
            path = Path(folder, f"{name}_{node_id}")
            new = path.with_suffix(".new")
            # It stays open, so that a guardian finds this process; see `cluster.guardian`.
            file = stack.enter_context(new.open("w"))
            file.write(_NO_PORT)
            file.flush()
            new.rename(path)  # the node reads it as soon as it is there
        while os.getppid() == node:
            time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    main()
