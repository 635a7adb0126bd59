"""Checks of Ray: whether it starts, its ports, whether it requires a token, and its nodes."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from trialrun.doctor.check import Check, ok, problem, warning
from trialrun.doctor.clock import ClockWatch
from trialrun.doctor.compiled import check_compilation_cache
from trialrun.doctor.gpus import (
    Driver,
    ask_driver,
    check_driver,
    check_given,
    check_ray_gpus,
    num_gpus_from_slurm,
    visible_gpus,
)
from trialrun.doctor.machine import (
    check_cpus,
    check_memory,
    check_shared_memory,
    check_temporary_folder,
)
from trialrun.doctor.report import NodeReport
from trialrun.doctor.tensorflow_view import TensorflowView
from trialrun.doctor.versions import check_slurm, check_versions, versions_here
from trialrun.errors import ClusterError
from trialrun.host import read_limits

if TYPE_CHECKING:
    from trialrun.cluster.inspect import RayNode
    from trialrun.cluster.sockets import Listening

_PORTS = "Ray's ports"
_WORKERS = ("ray::IDLE", "ray::_")
_SAME_PACKAGE = "does `python -c 'import trialrun'` work there? Is its raylet alive (`ray status`)?"
_SET_TOKEN = (
    "set RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN_PATH for every `ray start` and for"
    " trialrun, or keep others off this network"
)


def check_embedded_ray(driver: Driver) -> tuple[Check, ...]:
    """Starts Ray as a run without a cluster does, and examines it from inside a task.

    Args:
        driver: What NVIDIA's driver reports.
    """
    from trialrun.cluster.inspect import ask_nodes, is_open_head, looking

    began = time.monotonic()
    visible = visible_gpus(os.environ, driver.gpus)
    environment = dict(os.environ)
    try:
        with looking("local") as head:
            [answer] = ask_nodes(_node_itself)
            seconds = time.monotonic() - began
            is_open = is_open_head(head)
    except ClusterError as error:
        advice = "read its message, and try `ray start --head` by hand"
        return (problem("Ray", f"does not start: {error}", advice),)
    if answer.error:
        advice = "read its message; is memory or the number of processes limited?"
        return (problem("Ray", f"starts, but runs no task: {answer.error}", advice),)
    node = answer.value
    return (
        ok("Ray", f"starts and runs a task within {seconds:.1f} s: {node.num_cpus:g} CPU cores"),
        check_ray_gpus(node.num_gpus, environment, driver.gpus, len(visible)),
        check_ports(node, is_open),
    )


def _node_itself(node: "RayNode") -> "RayNode":
    return node


def check_ports(node: "RayNode", is_open: bool | None) -> Check:
    """Checks where a node's Ray listens, and whether a client without a token is answered there.

    Args:
        node: The node.
        is_open: Whether its head answers a client without a token; None if unknown.
    """
    beyond = [socket for socket in node.listening if not socket.is_loopback]
    found = f"beyond loopback: {_ports_text(beyond)}" if beyond else "loopback only"
    if is_open is None:
        return warning(_PORTS, f"{found}; it is not known whether a token is required", _SET_TOKEN)
    if not is_open:
        return ok(_PORTS, f"{found}; the head refuses clients without the token")
    who = "anybody who reaches them" if beyond else "anybody with an account here"
    return warning(_PORTS, f"{found}; no token is required: {who} can run programs", _SET_TOKEN)


def _ports_text(sockets: "Sequence[Listening]") -> str:
    """Programs and their ports: `gcs_server 6379; raylet 40001, 40003`."""
    ports: dict[str, list[str]] = {}
    for socket in sockets:
        program = "workers" if socket.program.startswith(_WORKERS) else socket.program
        ports.setdefault(program.removeprefix("ray::"), []).append(str(socket.port))
    return "; ".join(f"{program} {', '.join(found)}" for program, found in sorted(ports.items()))


def look_at_cluster(address: str) -> Iterator[NodeReport | Check]:
    """Yields a check of the cluster itself, then a report of each node as it answers.

    Args:
        address: The cluster's address, or `auto`.
    """
    from trialrun.cluster.inspect import ask_nodes, is_open_head, looking

    try:
        with looking(address) as head:
            yield ok("Ray cluster", f"connected to {head}")
            is_open = is_open_head(head)
            asked = ClockWatch()
            for answer in ask_nodes(partial(look_at_node, is_open=is_open)):
                if answer.error:
                    yield _silent_node(answer.node.name, answer.error)
                else:
                    yield answer.value.with_clock_compared(asked.span())
    except ClusterError as error:
        yield problem("Ray cluster", str(error), "see the message; try `ray status` on its head")


def _silent_node(name: str, error: str) -> NodeReport:
    return NodeReport(name, (problem("node", f"no answer: {error}", _SAME_PACKAGE),))


def look_at_node(node: "RayNode", *, is_open: bool | None) -> NodeReport:
    """The report of a node, made by a task that runs there.

    Args:
        node: The node with the resources that Ray assumes.
        is_open: Whether the cluster's head answers a client without a token; None if unknown.
    """
    watch = ClockWatch()
    environment = dict(os.environ)
    driver, limits = ask_driver(environment), read_limits()
    checks = [
        *check_versions(),
        check_slurm(environment),
        *check_driver(driver),
        *_check_given_on_node(environment, driver),
        check_ray_gpus(node.num_gpus, environment, driver.gpus, len(driver.gpus)),
        check_cpus(environment, limits, node.num_cpus),
        check_memory(environment, limits, node.memory_bytes),
        check_shared_memory(),
        check_temporary_folder(environment),
        check_compilation_cache(environment),
        check_ports(node, is_open),
    ]
    if node.assigned is None:
        advice = "try again when a GPU is free, to see whether packs can compute there"
        checks.append(warning("TensorFlow", "not tried: all GPUs of the node are in use", advice))
    else:
        with TensorflowView(environment, driver) as view:
            checks += view.checks()
    checks.append(watch.check())
    return NodeReport(
        node.name, tuple(checks), versions_here(), describe_hardware(driver), watch.span()
    )


def _check_given_on_node(environment: Mapping[str, str], driver: Driver) -> tuple[Check, ...]:
    """Checks that a node has GPUs if SLURM gave some.

    Inside a task nothing more can be compared, because Ray has set CUDA_VISIBLE_DEVICES to the
    task's own GPUs.
    """
    if not driver.gpus and num_gpus_from_slurm(environment):
        return (check_given(environment, driver.gpus),)
    return ()


def describe_hardware(driver: Driver) -> dict[str, str]:
    """Name -> value of what should be the same on all nodes with GPUs; empty for one without."""
    if not driver.gpus:
        return {}
    names = sorted({gpu.name for gpu in driver.gpus})
    return {"NVIDIA driver": driver.gpus[0].driver, "GPUs": ", ".join(names)}
