"""A real Ray cluster as `ray start` makes it, with a token, a job server and perhaps more nodes.

Several of them live side by side on a machine: each has ports and temporary folders of its own, and
is ended by the ids of its processes (`ray stop` would end all others too).
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from commands import LIKE_OTHERS
from ray._private.services import GCS_SERVER_EXECUTABLE

TOKEN = "0123456789abcdef" * 4
RAY = Path(sys.executable).with_name("ray")
_DEADLINE_S = 300  # only a hanging Ray comes near it
_STOP_S = 30


class RayHead:
    """A head, and as many further nodes as asked for; a context manager.

    Args:
        num_nodes: Nodes, the head included.
        num_cpus: CPU cores of each.
        has_job_server: Whether jobs can be submitted to it.
        environment: Variables of all its processes beside those of the tests.

    Attributes:
        folder: Its own, readable by its owner only; sockets lie beneath it, so its path is short.
        address: What `--address` takes.
        url: Of the job server.
    """

    def __init__(
        self,
        num_nodes: int = 1,
        num_cpus: int = 1,
        *,
        has_job_server: bool = True,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._num_nodes, self._num_cpus = num_nodes, num_cpus
        self._has_job_server = has_job_server
        self._nodes: list[subprocess.Popen[bytes]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_raylet_client_connect_timeout_milliseconds": "20",  # see `cluster.embedded`
            "RAY_raylet_client_num_connect_attempts": "500",
            **LIKE_OTHERS,
            **environment,
        }

    def __enter__(self) -> Self:
        try:
            port, server, client = free_ports(3)
            self.address, self.url = f"127.0.0.1:{port}", f"http://127.0.0.1:{server}"
            self._start(
                *("--head", f"--port={port}", f"--ray-client-server-port={client}"),
                *(f"--include-dashboard={self._has_job_server}", f"--dashboard-port={server}"),
                "--no-monitor",
            )
            self._wait_for(self._is_whole)
            # One after the other: Ray gives a node 30 s to start, beside other tests.
            for _ in range(self._num_nodes - 1):
                self._start(f"--address={self.address}")
                self._wait_for(self._is_whole)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for node in reversed(self._nodes):
            node.send_signal(signal.SIGTERM)
        for node in self._nodes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(_STOP_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *options: str) -> None:
        """Starts a node with ports and a temporary folder of its own."""
        agent, metrics, environments, dashboard = free_ports(4)
        temporary = self.folder / str(len(self._nodes))
        with (self.folder / f"{len(self._nodes)}.log").open("wb") as log:
            node = subprocess.Popen(
                [
                    *(RAY, "start", "--block", f"--num-cpus={self._num_cpus}", *options),
                    *(f"--temp-dir={temporary}", f"--object-store-memory={80 << 20}"),
                    *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
                    f"--runtime-env-agent-port={environments}",
                    *(f"--dashboard-agent-grpc-port={dashboard}", "--include-log-monitor=false"),
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._nodes.append(node)

    def ask(self, path: str, method: str = "GET") -> Any:
        """What the job server answers, with the token."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request, timeout=_DEADLINE_S) as answer:
            return json.load(answer)

    def _is_whole(self) -> bool:
        server = int(self.url.rpartition(":")[2])
        if self._has_job_server:
            return _listens(server) and self._num_living() == len(self._nodes)
        logs = [(self.folder / f"{i}.log").read_text() for i in range(len(self._nodes))]
        return all("Ray runtime started" in log for log in logs)

    def _num_living(self) -> int:
        """How many nodes have reported; of a node that has not, the head knows next to nothing."""
        nodes = self.ask("/nodes?view=summary")["data"]["summary"]
        return sum(
            node.get("raylet", {}).get("state") == "ALIVE" and "ip" in node for node in nodes
        )

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            logs = [(self.folder / f"{i}.log").read_text() for i in range(len(self._nodes))]
            assert all(node.poll() is None for node in self._nodes), logs
            assert time.monotonic() < deadline, logs
            time.sleep(0.1)


@contextlib.contextmanager
def bare_head(**environment: str) -> Iterator[str]:
    """The address of a head without a node, which is there in half a second."""
    [port] = free_ports(1)
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with tempfile.TemporaryDirectory() as logs:
        settings = base64.b64encode(b"{}").decode()
        head = subprocess.Popen(
            [
                *(GCS_SERVER_EXECUTABLE, f"--gcs_server_port={port}", f"--log_dir={logs}"),
                *(f"--config_list={settings}", "--node-ip-address=127.0.0.1"),
                *("--metrics-agent-port=-1", "--session-name=bare", "--ray-commit=none"),
            ],
            env={**own, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + _DEADLINE_S
            while not _listens(port):
                assert head.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            head.kill()
            head.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(num_ports: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(num_ports)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
