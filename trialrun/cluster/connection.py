"""Reaching a Ray that runs, or starting one inside this process."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Ray reads this when it is imported. Who gives a token wants it to be used.
if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray
from ray._private.state import available_resources_per_node

from trialrun.cluster.embedded import embedded_ray
from trialrun.cluster.head import HeadWatch
from trialrun.cluster.preflight import check_cluster
from trialrun.errors import ClusterError
from trialrun.job import ResourcesSpec
from trialrun.packing import choose_cpus_per_pack

_ROUNDING = 1e-9  # ten packs of 0.1 GPU each fit, though 1 // 0.1 is 9


@dataclass(frozen=True, slots=True)
class Needs:
    """What each pack's task asks Ray for.

    Attributes:
        gpus: 1, a part of one, or 0 when the CPU computes.
        cpus: CPU cores.
        accelerator_type: Kind of GPU; None for any.
    """

    gpus: float
    cpus: int
    accelerator_type: str | None

    def fit_into(self, node: Mapping[str, float]) -> int:
        """How many packs a node with these resources takes at the same time."""
        if self.accelerator_type and f"accelerator_type:{self.accelerator_type}" not in node:
            return 0
        packs = int(node.get("CPU", 0) // self.cpus)
        if self.gpus:  # packs that share a GPU lie on one GPU each, never across two
            packs = min(packs, int(node.get("GPU", 0) * int(1 / self.gpus + _ROUNDING)))
        return packs

    def __str__(self) -> str:
        kind = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        return f"{self.gpus:g} GPU{kind} and {self.cpus} CPU cores"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a connected Ray offers.

    Attributes:
        address: Of the cluster, or `local` for embedded Ray.
        needs: What each pack is given.
        num_devices: Packs that could be trained at the same time when the run connected.
        num_threads: Slices of a pack trained side by side.
        head: Notices when the cluster's head is gone.
    """

    address: str
    needs: Needs
    num_devices: int
    num_threads: int
    head: HeadWatch

    def describe(self) -> dict[str, Any]:
        """What there is, as plain values."""
        return {
            "address": self.address,
            "num_devices": self.num_devices,
            "gpus_per_pack": self.needs.gpus,
            "cpus_per_pack": self.needs.cpus,
            "accelerator_type": self.needs.accelerator_type,
            "num_threads": self.num_threads,
        }


@contextlib.contextmanager
def connect(
    address: str | None, resources: ResourcesSpec, give_up: Callable[[str], None]
) -> Iterator[Cluster]:
    """A connection to Ray, closed at the end.

    Args:
        address: Of a running cluster, or `auto`. None takes RAY_ADDRESS (set inside a Ray job), or
            else starts Ray inside this process; see `embedded`.
        resources: GPUs and CPUs the job may use.
        give_up: Ends the process when the head is lost while Ray cannot be interrupted; is told
            the reason.

    Raises:
        ClusterError: Ray cannot be reached, or has not what the job asks for.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with contextlib.ExitStack() as stack:
        try:
            if address == "local":
                stack.enter_context(embedded_ray(gpus=resources.gpus != 0))
            else:
                address = check_cluster(address)
                stack.callback(ray.shutdown)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ClusterError:
            raise
        except Exception as error:  # Ray raises it bare when its processes do not start in time
            raise ClusterError(f"Ray cannot be reached at {address!r}: {error}") from error
        # Ray prints what it has to say of a lost worker on stdout, which is for the final table.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        head = stack.enter_context(HeadWatch(_addresses_to_watch(), give_up))
        yield _describe(address, resources, head)


def _addresses_to_watch() -> dict[str, str]:
    context = ray.get_runtime_context()
    own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return {
        "Ray's head": context.gcs_address,
        "Ray's node here": f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}",
    }


def _describe(address: str, resources: ResourcesSpec, head: HeadWatch) -> Cluster:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = choose_needs(nodes, resources)
    num_devices = count_devices(needs)
    if num_devices == 0:
        raise ClusterError(
            f"no node of the cluster has what a pack asks for: {needs}; the nodes have"
            f" {'; '.join(sorted({_offer(node) for node in nodes}))}; see `resources` in the job"
        )
    return Cluster(address, needs, num_devices, 1 if needs.gpus else needs.cpus, head)


def choose_needs(nodes: Sequence[Mapping[str, float]], resources: ResourcesSpec) -> Needs:
    """What each pack asks for, when some of it is left to us.

    Args:
        nodes: What each node has, by Ray's names.
        resources: What the job says of it.
    """
    gpus = float(any(node.get("GPU", 0) for node in nodes))
    if resources.gpus != "auto":
        gpus = resources.gpus
    # A head that is to train nothing has no CPU cores for Ray.
    smallest_node = min((int(node["CPU"]) for node in nodes if node.get("CPU")), default=1)
    if resources.cpus != "auto":
        cpus = resources.cpus
    else:
        cpus = 1 if gpus else choose_cpus_per_pack(smallest_node)
    return Needs(gpus, cpus, resources.accelerator_type)


def _offer(node: Mapping[str, float]) -> str:
    """What a node has, for a message."""
    prefix = "accelerator_type:"
    kinds = [name.removeprefix(prefix) for name in node if name.startswith(prefix)]
    of_type = f" of type {', '.join(kinds)}" if kinds else ""
    return f"{node.get('GPU', 0):g} GPUs{of_type} and {node.get('CPU', 0):g} CPU cores"


def count_devices(needs: Needs) -> int:
    """Packs that the cluster's living nodes can train at the same time."""
    return sum(needs.fit_into(node["Resources"]) for node in ray.nodes() if node["Alive"])


def count_idle_devices(needs: Needs) -> int:
    """Packs that they could train beside what they do now."""
    return sum(map(needs.fit_into, available_resources_per_node().values()))
