"""Connects to Ray and runs packs as remote tasks. Only this package imports Ray.

`connection` connects to a running Ray, or starts one through `embedded`. `tasks` trains packs
there. `faults`, which needs no Ray, decides what happens to a pack that cannot be trained.
"""

from trialrun.cluster.connection import Cluster, connect
from trialrun.cluster.tasks import Listener, run_packs

__all__ = ["Cluster", "Listener", "connect", "run_packs"]
