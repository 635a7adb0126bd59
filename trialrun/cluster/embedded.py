"""Ray inside this process: reachable from this machine alone, for this run's processes alone.

Every socket is bound to loopback and answers only to a token that nobody else has; what it leaves
on disk lies in a folder of its own that only its user can enter, and is removed at the end,
whatever ends the driver.
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
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import ray
from ray._private import parameter, ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # its stub lacks it

from trialrun.cluster import guardian
from trialrun.host import machine_id, num_local_cpus

_TEMPORARY_PREFIX = "trialrun-"
_MAX_PARENT_LENGTH = 8
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it a task that asks for no GPU would see all of them.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # What Ray measures of itself is served to whoever asks, without the token. No port is -1.
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}


@contextlib.contextmanager
def embedded_ray(*, gpus: bool) -> Iterator[None]:
    """Ray, started and at the end shut down.

    Args:
        gpus: Whether it may use the GPUs of this machine.
    """
    with _temporary_folder() as folder, _environment(folder):
        try:
            with _on_loopback():
                ray.init(
                    address="local",
                    num_cpus=num_local_cpus(),
                    num_gpus=None if gpus else 0,
                    include_dashboard=False,
                    _temp_dir=str(folder / "r"),  # Ray lets everybody into it
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Variables for Ray's processes; at the end they are as before, for whatever Ray comes next."""
    before = dict(os.environ)
    # A worker that is killed does not tidy up what TensorFlow and user code put there.
    temporary = folder / "t"
    temporary.mkdir()
    os.environ.update({**_ENVIRONMENT, "TMPDIR": str(temporary)})
    # A new local cluster turns token authentication on unless this variable says otherwise. The
    # token is given by environment, so that Ray does not write it to a file that all can read.
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
def _on_loopback() -> Iterator[None]:
    """Lets Ray listen at 127.0.0.1 alone, as it does by itself on macOS, and at free ports.

    `_node_ip_address` does not do the one: Ray replaces a loopback address by another. For the
    other there is no argument: where another Ray has its agent's fixed port, ours waits for 5 s.
    """
    free_port = functools.partial(parameter.RayParams, dashboard_agent_listen_port=0)
    with (
        mock.patch.object(ray_constants, "ENABLE_RAY_CLUSTER", new=False),
        mock.patch.object(parameter, "RayParams", free_port),
    ):
        yield


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder of one's own, which a guardian removes when this process has been killed.

    Folders whose guardian was killed too are removed by whoever comes next.
    """
    parent = _temporary_parent()
    for left_over in parent.glob(f"{_TEMPORARY_PREFIX}*-{_machine_tag()}-*"):
        pid = left_over.name.removeprefix(_TEMPORARY_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):  # another user's, or another is removing it
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
    """Sockets lie deep beneath it, and their paths may have 107 characters."""
    parent = Path(tempfile.gettempdir())
    return parent if len(str(parent)) <= _MAX_PARENT_LENGTH else Path("/tmp")


def _machine_tag() -> str:
    """Tells machines, and containers on them, apart that share a folder but not their processes."""
    return hashlib.sha256(machine_id().encode()).hexdigest()[:6]
