"""Checks of Ray's token: whether there is one, and who else can read it. It is never shown."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from trialrun.doctor.check import Check, ok, problem, warning

_NAME = "Ray's token"
_MAKE = "copy the cluster's token into it, for your eyes only (mode 0600)"


def check_token(environment: Mapping[str, str], home: Path) -> Check:
    """Checks the token that Ray would use.

    Ray looks for it in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, and in
    ~/.ray/auth_token, in this order.

    Args:
        environment: The variables.
        home: The home folder.
    """
    is_wanted = environment.get("RAY_AUTH_MODE") == "token"
    if "RAY_AUTH_TOKEN" in environment:
        if environment["RAY_AUTH_TOKEN"].strip():
            return ok(_NAME, "in RAY_AUTH_TOKEN")
        return problem(_NAME, "RAY_AUTH_TOKEN is empty", "unset it, or give the token")
    if named := environment.get("RAY_AUTH_TOKEN_PATH"):
        return _check_file(Path(named), "RAY_AUTH_TOKEN_PATH")
    file = home / ".ray" / "auth_token"
    if file.exists():
        return _check_file(file, "~/.ray/auth_token")
    if is_wanted:
        return problem(
            _NAME,
            "RAY_AUTH_MODE is token, but there is none",
            "set RAY_AUTH_TOKEN_PATH to the file of the cluster's token, or unset RAY_AUTH_MODE",
        )
    found = "none; trialrun's own Ray gets a new one for each run, other clusters may require one"
    return ok(_NAME, found)


def _check_file(file: Path, where: str) -> Check:
    try:
        status = file.stat()
    except OSError as error:
        return problem(_NAME, f"{where}: {file}: {error.strerror}", _MAKE)
    if not stat.S_ISREG(status.st_mode):
        return problem(_NAME, f"{where}: {file} is not a file", _MAKE)
    if not os.access(file, os.R_OK):
        return problem(_NAME, f"{where}: you may not read {file}", _MAKE)
    if not file.read_bytes().strip():
        return problem(_NAME, f"{where}: {file} is empty", _MAKE)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return warning(
            _NAME,
            f"{where}: {file} has mode {mode:04o}: others may run programs as you",
            f"chmod 600 {file}",
        )
    return ok(_NAME, f"{where}: {file}, mode {mode:04o}")
