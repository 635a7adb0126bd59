"""Ray: connecting, and running packs as remote tasks. The only room that imports it.

`connection` reaches a Ray, or starts the one of `embedded`; `tasks` trains packs there; `faults`
(which needs no Ray) decides what follows when one of them cannot be trained.
"""

from trialrun.cluster.connection import Cluster, connect
from trialrun.cluster.tasks import Listener, run_packs

__all__ = ["Cluster", "Listener", "connect", "run_packs"]
