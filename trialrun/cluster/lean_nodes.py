"""Nodes of Ray that start at once, and start no process that nobody uses.

Each node of Ray starts two agents and waits for them: one serves the dashboard, metrics and jobs,
the other makes the environments that tasks ask for (`runtime_env`). A run on this machine uses
neither, and they are most of the time that a node takes to start: each is a Python process that
imports much. Both would listen at ports, too.

When tasks come in, Ray starts up to two workers for each: one because a task waits, and one for the
task itself. It starts one alone where no more may be starting.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from ray._private import ray_constants, services
from ray._private.state import GlobalState

from trialrun.cluster import placeholder

_AGENTS = {
    "--dashboard_agent_command": (
        "metrics_agent_port",
        "metrics_export_port",
        "dashboard_agent_listen_port",
    ),
    "--runtime_env_agent_command": ("runtime_env_agent_port",),
}
_RESOURCES = "--static_resource_list"
_MOST_STARTING = "--maximum_startup_concurrency"
_ASK_EVERY_S = 0.02
_ASK_FOR_S = 5.0


@contextlib.contextmanager
def lean_nodes(num_workers: Callable[[Mapping[str, float]], int]) -> Iterator[None]:
    """Within it, a node that this process starts gets placeholders for its agents.

    Ray has no setting for it, and a node ends with its agents, so there has to be a process. The
    node is told that nothing listens, which Ray itself does for agents that are not installed. It
    is used as soon as Ray knows it.

    Args:
        num_workers: A node's resources (Ray's name -> amount) -> workers that it needs at a time.
    """
    start = services.start_ray_process

    def start_process(command: Sequence[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            command = lean_command(command, num_workers)
        return start(command, process_type, *args, **kwargs)

    with (
        mock.patch.object(services, "start_ray_process", start_process),
        mock.patch.object(services, "get_node", node_when_known),
    ):
        yield


def lean_command(
    command: Sequence[str], num_workers: Callable[[Mapping[str, float]], int]
) -> list[str]:
    """The command that starts a node as `lean_nodes` says, from Ray's own."""
    options = dict(word.partition("=")[::2] for word in command)
    names_and_amounts = options[_RESOURCES].split(",")
    amounts = map(float, names_and_amounts[1::2])
    resources = dict(zip(names_and_amounts[::2], amounts, strict=True))
    instead = {_MOST_STARTING: str(max(1, num_workers(resources)))}
    for agent, ports in _AGENTS.items():
        words = [sys.executable, "-I", "-S", placeholder.__file__]
        words += [options["--session_dir"], options["--node_id"], *ports]
        instead[agent] = subprocess.list2cmdline(words)  # as Ray writes them
    changed = []
    for word in command:
        name = word.partition("=")[0]
        changed.append(f"{name}={instead[name]}" if name in instead else word)
    return changed


def node_when_known(gcs_address: str, node_id: str) -> dict[str, Any]:
    """What Ray knows of a node that has just been started, as soon as it knows it.

    Ray itself looks once a second, which is most of the time that it takes to start.
    """
    state = GlobalState()
    state._initialize_global_state(services._get_gcs_client_options(gcs_address))
    until = time.monotonic() + _ASK_FOR_S
    while time.monotonic() < until and not any(
        known["NodeID"] == node_id for known in state.node_table()
    ):
        time.sleep(_ASK_EVERY_S)
    found: dict[str, Any] = state.get_node(node_id)
    return found
