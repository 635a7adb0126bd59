"""Ray: connecting, and running packs as remote tasks. The only room that imports it.

`connection` starts or reaches a Ray, `tasks` trains packs there, `faults` (which needs no Ray)
decides what follows when one of them cannot be trained.
"""

from trialrun.cluster.connection import Cluster, connect, remove_temporary_folders
from trialrun.cluster.tasks import Listener, run_packs

__all__ = ["Cluster", "Listener", "connect", "remove_temporary_folders", "run_packs"]
