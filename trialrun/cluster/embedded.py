"""Ray inside this process, which only this run's processes on this machine can reach.

Every socket is bound to loopback and answers only to a token that nobody else has. What Ray writes
to disk is in a folder that only its user can enter, and that is removed at the end, whatever ends
the driver.
"""

import contextlib
import functools
import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import ray
from ray._private import node, parameter, ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # its stub lacks it

from trialrun.cluster import guardian
from trialrun.cluster.lean_nodes import lean_nodes
from trialrun.host import machine_id, num_local_cpus

_TEMPORARY_PREFIX = "trialrun-"
_MAX_PARENT_LENGTH = 8
_ASK_FOR_ENVIRONMENT = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it a task that asks for no GPU would see all of them.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Ray would serve its metrics to anybody, without the token. A port of -1 means no port.
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    # Ray would start a process per core beforehand, of which a run may need one.
    "RAY_prestart_worker_first_driver": "0",
    # A node that looks for its object store before that listens would look again after a second,
    # as about every other one does. As often as these say in all: for ten seconds.
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "500",
}


@contextlib.contextmanager
def embedded_ray(
    *, gpus: bool, num_workers: Callable[[Mapping[str, float]], int]
) -> Iterator[None]:
    """Starts Ray and shuts it down on exit.

    Args:
        gpus: Whether Ray may use the GPUs of this machine.
        num_workers: The resources of this machine (Ray's name -> amount) -> workers needed at a
            time.
    """
    with _temporary_folder() as folder, _environment(folder):
        try:
            with _narrowed(), lean_nodes(num_workers):
                ray.init(
                    address="local",
                    num_cpus=num_local_cpus(),
                    num_gpus=None if gpus else 0,
                    include_dashboard=False,
                    _temp_dir=str(folder / "r"),  # Ray opens this subfolder to everybody
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Sets variables for Ray's processes and restores them on exit, for the next Ray."""
    before = dict(os.environ)
    # A killed worker does not remove the temporary files of TensorFlow and of user code.
    temporary = folder / "t"
    temporary.mkdir()
    os.environ.update({**_ENVIRONMENT, "TMPDIR": str(temporary)})
    # A new local cluster turns token authentication on unless this variable says otherwise. The
    # token is passed in the environment, so that Ray does not write it to a file that all can read.
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    AuthenticationTokenLoader.instance().reset_cache()  # Ray reads it once per process
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _narrowed() -> Iterator[None]:
    """Makes Ray start with few processes, which listen only at 127.0.0.1, and at free ports.

    `_node_ip_address` cannot set the address, because Ray replaces a loopback address by another
    one; on macOS Ray listens there by itself. What follows has no argument of `ray.init`. The
    log monitor would bring us the workers' output, and the other monitor would start more nodes.
    The dashboard's server Ray would start without a dashboard too, and wait until it answers. What
    asks for an environment of the tasks, as `uv run` and a Ray job do, needs one of Ray's agents;
    the workers of this machine run in this process's environment.
    """
    narrowed = functools.partial(parameter.RayParams, include_log_monitor=False, no_monitor=True)
    asks = {name: os.environ.pop(name) for name in _ASK_FOR_ENVIRONMENT if name in os.environ}
    try:
        with (
            mock.patch.object(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", new=False),
            mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", new=False),
            mock.patch.object(parameter, "RayParams", narrowed),
            mock.patch.object(node.Node, "start_api_server"),
        ):
            yield
    finally:
        os.environ.update(asks)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A new private folder, which a guardian removes if this process is killed.

    A later run removes folders whose guardian was killed too.
    """
    parent = _temporary_parent()
    for left_over in parent.glob(f"{_TEMPORARY_PREFIX}*-{_machine_tag()}-*"):
        pid = left_over.name.removeprefix(_TEMPORARY_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):  # another user's, or another process is removing it
            if left_over.stat().st_uid == os.getuid() and not Path("/proc", pid).exists():
                shutil.rmtree(left_over)
    prefix = f"{_TEMPORARY_PREFIX}{os.getpid()}-{_machine_tag()}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))  # 0700
    with subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as guard:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            guard.communicate(b"ended in peace")


def _temporary_parent() -> Path:
    """A folder with a short path: paths of sockets deep inside may have 107 characters at most.

    And one that Ray can use: its node does not start in a folder whose path is not plain ASCII.
    """
    parent = tempfile.gettempdir()
    return Path(parent if len(parent) <= _MAX_PARENT_LENGTH and parent.isascii() else "/tmp")


def _machine_tag() -> str:
    """A short tag that differs between machines and containers that may share the folder."""
    return hashlib.sha256(machine_id().encode()).hexdigest()[:6]
