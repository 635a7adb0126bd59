"""Connects to a running Ray, or starts one inside this process."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

# Ray reads this when it is imported. A user who gives a token wants it to be used.
if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray
from ray._private.state import available_resources_per_node

from trialrun.cluster.embedded import embedded_ray
from trialrun.cluster.head import HeadWatch
from trialrun.cluster.preflight import answers_anybody, check_cluster
from trialrun.errors import ClusterError
from trialrun.job import ResourcesSpec
from trialrun.messages import said_by
from trialrun.trials.needs import Needs, choose_needs


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a connected Ray offers.

    Attributes:
        address: The cluster's address, or `local` for embedded Ray.
        needs: What each pack is given.
        num_devices: Packs that could be trained at the same time when the run connected.
        num_threads: Slices of a pack that are trained side by side.
        head: Notices when the cluster's head is gone.
        is_open: Whether its head answers anybody, without a token.
    """

    address: str
    needs: Needs
    num_devices: int
    num_threads: int
    head: HeadWatch
    is_open: bool = False

    def describe(self) -> dict[str, Any]:
        """The cluster's properties as plain values, for JSON."""
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
    address: str | None,
    resources: ResourcesSpec,
    give_up: Callable[[str], None],
    allow_open: bool = False,
) -> Iterator[Cluster]:
    """Connects to Ray and closes the connection on exit.

    Args:
        address: The address of a running cluster, or `auto`. None takes RAY_ADDRESS (which is set
            inside a Ray job), or else starts Ray inside this process; see `embedded`.
        resources: The GPUs and CPUs that the job may use.
        give_up: Called with the reason when the head is lost while Ray cannot be interrupted; must
            end the process.
        allow_open: Whether the head may answer clients without a token.

    Raises:
        ClusterError: Ray cannot be reached, or does not have what the job asks for.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    is_open = False
    with contextlib.ExitStack() as stack:
        try:
            if address == "local":
                ours = embedded_ray(
                    gpus=resources.gpus != 0,
                    num_workers=lambda node: choose_needs([node], resources).fit_into(node),
                )
                stack.enter_context(ours)
            else:
                address = check_cluster(address)
                is_open = answers_anybody(address)
                if is_open and not allow_open:
                    raise ClusterError(_open_head(address))
                stack.callback(ray.shutdown)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ClusterError:
            raise
        except Exception as error:  # Ray raises a bare Exception if its processes start too slowly
            raise ClusterError(f"Ray cannot be reached at {address!r}: {said_by(error)}") from error
        # Ray prints messages about lost workers on stdout, which is only for the final table.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        head = stack.enter_context(HeadWatch(_addresses_to_watch(), give_up))
        yield replace(_describe(address, resources, head), is_open=is_open)


def _open_head(address: str) -> str:
    return (
        f"the Ray at {address} answers clients that have no token: whoever reaches it can run"
        " programs as its user. Set RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN_PATH for every"
        " `ray start` and for trialrun; or, where only you can reach it, give --allow-open-head"
    )


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
            f" {'; '.join(sorted({_offer(node) for node in nodes}))}; change `resources` in the job"
        )
    return Cluster(address, needs, num_devices, needs.num_threads, head)


def _offer(node: Mapping[str, float]) -> str:
    """A node's GPUs and CPU cores, for a message."""
    prefix = "accelerator_type:"
    types = [name.removeprefix(prefix) for name in node if name.startswith(prefix)]
    kind = f" of type {', '.join(types)}" if types else ""
    return f"{node.get('GPU', 0):g} GPUs{kind} and {node.get('CPU', 0):g} CPU cores"


def count_devices(needs: Needs) -> int:
    """The number of packs that the cluster's living nodes can train at the same time."""
    return sum(needs.fit_into(node["Resources"]) for node in ray.nodes() if node["Alive"])


def count_idle_devices(needs: Needs) -> int:
    """The number of packs that they could train in addition to what they do now."""
    return sum(map(needs.fit_into, available_resources_per_node().values()))
