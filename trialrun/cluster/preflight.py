"""A look at a Ray cluster before connecting to it, so that what is wrong is said at once.

Ray itself waits 20 s for a head that does not answer or does not take the token, and says nothing
of the token. Nothing here needs a connection.
"""

import json
import os
import platform
import socket
from pathlib import Path

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub lacks it
from ray.exceptions import AuthenticationError, RayError

from trialrun.errors import ClusterError

_TIMEOUT_S = 5.0
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN_HELP = (
    "give this cluster's token: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH,"
    " or the file ~/.ray/auth_token"
)


def check_cluster(address: str) -> None:
    """Raises ClusterError when a connection to a cluster would fail.

    Args:
        address: `host:port` of its head, or `auto`, of which only the token is looked at.
    """
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address}: Ray Client cannot stream results; give host:port of the head (6379 as a"
            " rule) on a machine of the cluster, or use `ray job submit`"
        )
    wants_token = os.environ.get("RAY_AUTH_MODE") == "token"
    has_token = any(os.environ.get(name) for name in _TOKEN_VARIABLES)
    if wants_token and not has_token and not Path("~/.ray/auth_token").expanduser().is_file():
        raise ClusterError(f"RAY_AUTH_MODE is token, but there is none; {_TOKEN_HELP}")
    if address != "auto":
        _check_head(address)


def _check_head(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"--address must be host:port or auto, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray answers at {address}: {error}; is its head running (`ray start --head"
            " --port ...`), and may this machine reach it?"
        ) from error
    try:
        content = GcsClient(address=address).internal_kv_get(
            b"CLUSTER_METADATA", b"cluster", timeout=_TIMEOUT_S
        )
    except AuthenticationError as error:
        raise ClusterError(f"the Ray at {address} refuses our token; {_TOKEN_HELP}") from error
    except RayError as error:
        raise ClusterError(f"what answers at {address} is no Ray: {error}") from error
    check_versions(address, content)


def check_versions(address: str, metadata: bytes | None) -> None:
    """Raises ClusterError when a cluster runs another Ray, or another minor version of Python.

    Args:
        address: Of the cluster.
        metadata: The JSON that its head keeps: `ray_version` and `python_version`.
    """
    there = json.loads(metadata or b"{}")
    for name, here in (("ray", ray.__version__), ("python", platform.python_version())):
        version = there.get(f"{name}_version", here)
        digits = 2 if name == "python" else 3
        if version.split(".")[:digits] != here.split(".")[:digits]:
            raise ClusterError(
                f"the cluster at {address} runs {name.capitalize()} {version}, this is {here};"
                " they must be the same"
            )
