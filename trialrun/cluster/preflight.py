"""Checks a Ray cluster before connecting to it, so that a problem is reported at once.

Ray itself waits 20 s for a head that does not answer or does not accept the token, and does not
mention the token. Nothing here needs a connection.
"""

import json
import os
import platform
import secrets
import socket
from pathlib import Path
from unittest import mock

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import (  # type: ignore[attr-defined]  # its stub lacks them
    AuthenticationTokenLoader,
    GcsClient,
)
from ray.exceptions import AuthenticationError, RayError

from trialrun.errors import ClusterError
from trialrun.host import silent_stderr
from trialrun.messages import said_by

_TIMEOUT_S = 5.0
TOKEN_HELP = (
    "give this cluster's token: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH,"
    " or the file ~/.ray/auth_token"
)


def check_cluster(address: str) -> str:
    """The `host:port` of a cluster that has passed all checks.

    Args:
        address: `host:port` of its head, or `auto`: RAY_ADDRESS, or else the Ray on this machine.

    Raises:
        ClusterError: The cluster cannot be used; the message says why, and what to do.
    """
    require_token()
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    _check_form(address)
    if address == "auto":
        address = _find_local_ray()
    _check_head(address)
    return address


def require_token() -> None:
    """Raises ClusterError if Ray must use a token but none is given."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")  # Ray uses it as it is given
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        reason = "" if path.read_bytes().strip() else "it is empty"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise ClusterError(
            f"RAY_AUTH_MODE is token, but there is none ({path}: {reason}); {TOKEN_HELP}"
        )


def _check_form(address: str) -> None:
    scheme, separator, _ = address.partition("://")
    if separator and scheme in ("http", "https"):
        raise ClusterError(
            f"{address} is the address of a job server: submit the job to it with"
            f" `scripts/submit_ray.sh` or `ray job submit --address {address}`, or, on a machine of"
            " the cluster, give host:port of its head (the port is usually 6379) or auto"
        )
    if separator:
        raise ClusterError(
            f"{address}: Ray Client cannot stream results; give host:port of the head (the port is"
            " usually 6379) on a machine of the cluster, or use `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or not port.isdecimal()):
        raise ClusterError(f"the address must be host:port or auto, got {address!r}")


def _find_local_ray() -> str:
    try:
        found: str = canonicalize_bootstrap_address("auto")
    except ConnectionError as error:
        raise ClusterError(
            "no Ray runs on this machine, so auto finds none: start one (`ray start --head`), or"
            " give host:port of a head"
        ) from error
    return found


def _check_head(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray answers at {address}: {said_by(error)}; is its head running (`ray start --head"
            " --port ...`), and may this machine reach it?"
        ) from error
    try:
        content = read_metadata(address)
    except AuthenticationError as error:
        raise ClusterError(f"the Ray at {address} refuses our token; {TOKEN_HELP}") from error
    except RayError as error:
        raise ClusterError(
            f"the program that answers at {address} is not Ray: {said_by(error)}; give"
            " host:port of a head"
        ) from error
    require_same_versions(address, content)


def read_metadata(address: str) -> bytes | None:
    """The JSON in which a head describes its cluster.

    Raises:
        AuthenticationError: The head does not accept our token, or wants one and we have none.
        RayError: The head does not answer, or is not Ray.
    """
    content: bytes | None = GcsClient(address=address).internal_kv_get(
        b"CLUSTER_METADATA", b"cluster", timeout=_TIMEOUT_S
    )
    return content


def answers_anybody(address: str) -> bool:
    """Whether a head answers a client that does not have its token.

    A head that asks for no token does not mind a wrong one. Ray's core warns of a refusal by
    itself, which is hidden.

    Raises:
        RayError: The head does not answer, or is not Ray.
    """
    try:
        with (
            mock.patch.dict(os.environ, {"RAY_AUTH_TOKEN": secrets.token_hex(32)}),
            silent_stderr(),
        ):
            AuthenticationTokenLoader.instance().reset_cache()  # it was read before
            read_metadata(address)
    except AuthenticationError:
        return False
    finally:
        AuthenticationTokenLoader.instance().reset_cache()
    return True


def require_same_versions(address: str, metadata: bytes | None) -> None:
    """Raises ClusterError if a cluster runs another Ray, or another minor version of Python.

    Args:
        address: The cluster's address.
        metadata: The JSON that its head keeps, with `ray_version` and `python_version`.
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
