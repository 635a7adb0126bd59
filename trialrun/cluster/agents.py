"""Ray's nodes without Ray's agents.

Each node of Ray starts two agents and waits for them: one serves the dashboard, metrics and jobs,
the other makes the environments that tasks ask for (`runtime_env`). A run on this machine uses
neither, and they are most of the time that a node takes to start: each is a Python process that
imports much. Both would listen at ports, too.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from ray._private import ray_constants, services

from trialrun.cluster import placeholder

_AGENTS = {
    "--dashboard_agent_command": (
        "metrics_agent_port",
        "metrics_export_port",
        "dashboard_agent_listen_port",
    ),
    "--runtime_env_agent_command": ("runtime_env_agent_port",),
}


@contextlib.contextmanager
def no_agents() -> Iterator[None]:
    """Within it, a node that this process starts gets placeholders for its agents.

    Ray has no setting for it, and a node ends with its agents, so there has to be a process. The
    node is told that nothing listens, which Ray itself does for agents that are not installed.
    """
    start = services.start_ray_process

    def start_process(command: Sequence[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            command = without_agents(command)
        return start(command, process_type, *args, **kwargs)

    with mock.patch.object(services, "start_ray_process", start_process):
        yield


def without_agents(command: Sequence[str]) -> list[str]:
    """The command that starts a node, with placeholders in place of its agents."""
    options = dict(word.partition("=")[::2] for word in command)
    node = [options["--session_dir"], options["--node_id"]]
    words = []
    for word in command:
        name = word.partition("=")[0]
        if ports := _AGENTS.get(name):
            agent = [sys.executable, "-I", "-S", placeholder.__file__, *node, *ports]
            word = f"{name}={subprocess.list2cmdline(agent)}"  # as Ray writes them
        words.append(word)
    return words
