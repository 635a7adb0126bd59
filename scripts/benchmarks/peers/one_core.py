"""Pins the single-core peers to a core. Import it and call `pin` before any numerical library.

Libraries count cores and start their threads when they are imported; a thread started before
the pinning would go on using the other cores.
"""

import os
import sys


def pin() -> int:
    """Keep this process on one core, with one thread per library.

    Returns:
        The core: the last that the process may use, as the first one serves most interrupts.
    """
    early = {"numpy", "jax", "tensorflow"} & sys.modules.keys()
    if early:
        raise RuntimeError(f"one_core.pin() must come before the import of {sorted(early)}")
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return core
