"""A real Ray of two nodes on this machine, whose parts can be killed one by one."""

import os
import signal
from collections.abc import Mapping
from typing import Self
from unittest import mock

from commands import beneath
from ray._private.node import Node
from ray.cluster_utils import Cluster

from trialrun.cluster.lean_nodes import lean_nodes

_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
# Without what the tests do not need, and a start takes a quarter less.
HEAD = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


def started_fast():
    """Nodes that start within it do so as those of `cluster.embedded` do."""
    return lean_nodes(lambda node: int(node["CPU"]))


class RayNodes:
    """A head and other nodes with one core each; a context manager.

    Args:
        num_nodes: With the head.
        settings: Ray's internal ones, for all nodes.
        num_gpus: That each node but the head pretends to have; None for those that it has.
    """

    def __init__(
        self,
        num_nodes: int = 2,
        settings: Mapping[str, object] | None = None,
        num_gpus: int | None = None,
    ) -> None:
        self._num_nodes = num_nodes
        self._num_gpus = num_gpus
        # A worker that Ray starts before a task asks for it is hardly ever the right one.
        self._settings = {
            "prestart_worker_first_driver": False,
            "raylet_client_connect_timeout_milliseconds": 20,  # see `cluster.embedded`
            "raylet_client_num_connect_attempts": 500,
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        os.environ.pop("RAY_AUTH_MODE", None)
        self._cluster: Cluster | None = None
        self._head_is_dead = False
        self.make_whole()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    @property
    def address(self) -> str:
        """What `--address` takes."""
        assert self._cluster is not None
        return self._cluster.address

    def make_whole(self, num_nodes: int = 0) -> None:
        """Starts what was killed; or has so many nodes from now on."""
        self._num_nodes = num_nodes or self._num_nodes
        if self._head_is_dead:
            self._stop()
        if self._cluster is None:
            head = {**_NODE, **HEAD, "_system_config": self._settings}
            with started_fast(), mock.patch.object(Node, "start_api_server"):
                self._cluster = Cluster(initialize_head=True, head_node_args=head)
        while len(self._cluster.list_all_nodes()) < self._num_nodes:
            with started_fast():
                self._cluster.add_node(**_NODE, num_gpus=self._num_gpus)
        while len(self._cluster.list_all_nodes()) > self._num_nodes:
            self._cluster.remove_node(self._second_node())

    def kill(self, what: str) -> None:
        """Kills a worker process, the second node or the head, without a warning."""
        assert self._cluster is not None
        if what == "worker":
            self._kill_workers()
        elif what == "node":
            self._cluster.remove_node(self._second_node(), allow_graceful=False)
        else:
            self._cluster.head_node.kill_gcs_server(check_alive=False)
            self._head_is_dead = True

    def _second_node(self):
        [node] = self._cluster.worker_nodes
        return node

    def _kill_workers(self) -> None:
        """One that trains, or an idle one if none does."""
        own = os.getpid()
        workers = beneath(own, b"ray::_train") + beneath(own, b"ray::IDLE")
        for pid in workers[:1]:
            os.kill(pid, signal.SIGKILL)

    def _stop(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
            self._cluster = None
            self._head_is_dead = False
