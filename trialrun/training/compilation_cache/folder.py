"""The user's cache folder: where it is, whether it can be trusted, and for what its files count.

The files hold machine code, which whoever can write them could replace by their own. So a folder
that another user owns, or can write to, is refused.
"""

import functools
import hashlib
import os
import platform
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from trialrun.host import path_from
from trialrun.messages import said_by
from trialrun.trials.versions import installed_versions

VARIABLE = "TRIALRUN_CACHE_DIR"
OFF = "off"
# In the memory of TensorFlow's process, so that no disk can be full, slow, or another's.
IN_MEMORY = "ram://trialrun-compiled"
_FLAGS = "TF_XLA_FLAGS"
# On a GPU, XLA measures which kernels are fastest, and what it loads was never tested there.
_OURS = (
    f"--tf_xla_persistent_cache_directory={IN_MEMORY}"
    " --tf_xla_persistent_cache_device_types=CPU,XLA_CPU_JIT"
)
_THEIRS = "--tf_xla_persistent_cache_"
_SUBFOLDER = "compiled"
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Lines of /proc/cpuinfo by which the code that XLA makes may differ, on x86 and on ARM.
_OF_THE_CPU = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),
)


class CacheRefusedError(OSError):
    """The cache folder cannot be trusted; says why."""


def chosen_folder(environment: Mapping[str, str]) -> Path | None:
    """The folder that TRIALRUN_CACHE_DIR names, or else the usual one; None if it is turned off.

    Args:
        environment: The variables of the process.
    """
    chosen = environment.get(VARIABLE)
    if chosen is not None:
        return None if chosen.strip().lower() in ("", OFF) else path_from(chosen).absolute()
    usual = environment.get("XDG_CACHE_HOME", "")
    return (Path(usual) if Path(usual).is_absolute() else path_from("~/.cache")) / "trialrun"


def for_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """What a user has chosen, as a variable for workers, which have other current folders."""
    if VARIABLE not in environment:
        return {}
    return {VARIABLE: str(chosen_folder(environment) or OFF)}


def turn_on(environment: dict[str, str] | os._Environ[str]) -> None:
    """Makes TensorFlow keep what XLA compiles, unless that is turned off; before its import.

    What the user has set in TF_XLA_FLAGS stays in force; a cache of the user's replaces ours.

    Args:
        environment: The variables of the process, which are changed.
    """
    is_set = is_on(environment) or has_users_own(environment)
    if chosen_folder(environment) is not None and not is_set:
        environment[_FLAGS] = f"{environment.get(_FLAGS, '')} {_OURS}".strip()


def is_on(environment: Mapping[str, str]) -> bool:
    """Whether `turn_on` has turned it on."""
    return IN_MEMORY in environment.get(_FLAGS, "")


def has_users_own(environment: Mapping[str, str]) -> bool:
    """Whether the user has given TensorFlow a cache already."""
    return _THEIRS in environment.get(_FLAGS, "") and not is_on(environment)


def holding(folder: Path) -> Path:
    """The folder of entries inside a cache folder."""
    return folder / _SUBFOLDER


@contextmanager
def opened(folder: Path, *, make: bool) -> Iterator[int]:
    """A descriptor of the folder of entries inside a cache folder, which only its user can write.

    Args:
        folder: The cache folder.
        make: Whether to make what does not exist, for the user alone.

    Raises:
        CacheRefusedError: Another user owns one of the two, or can write to it.
        OSError: There is no such folder, or it cannot be made or read.
    """
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    outer = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _require_own(outer, folder)
        if make:
            with suppress(FileExistsError):
                os.mkdir(_SUBFOLDER, 0o700, dir_fd=outer)
        inner = os.open(_SUBFOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=outer)
        try:
            _require_own(inner, folder / _SUBFOLDER)
            yield inner
        finally:
            os.close(inner)
    finally:
        os.close(outer)


def _require_own(descriptor: int, path: Path) -> None:
    about = os.fstat(descriptor)
    if about.st_uid != os.geteuid():
        raise CacheRefusedError(f"{path} belongs to another user (uid {about.st_uid})")
    if about.st_mode & _OTHERS_CAN_WRITE:
        raise CacheRefusedError(f"other users can write to {path}: `chmod 700 {path}`")


def problem_with(folder: Path) -> str | None:
    """Why a cache folder cannot be used; None if it can, or will be made when it is."""
    try:
        with opened(folder, make=True):
            return None
    except CacheRefusedError as error:
        return said_by(error)
    except OSError as error:
        return f"{folder}: {said_by(error)}"


@functools.cache
def machine_key(root: Path = Path("/")) -> str:
    """A hash, 16 hex digits, of all that compiled code depends on beside the program.

    That is the processor with its features, the cores that may be used, versions, and variables
    that TensorFlow and XLA read. Another machine that shares the folder has another key.

    Args:
        root: The folder that holds `proc`.
    """
    versions = sorted(installed_versions().items())
    variables = sorted(
        (name, value)
        for name, value in os.environ.items()
        if name.startswith(("TF_", "XLA_")) and not name.startswith("TF_CPP_")
    )
    parts = (
        *(platform.machine(), platform.python_version(), versions, variables),
        *(len(os.sched_getaffinity(0)), _processors(root)),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _processors(root: Path) -> list[str]:
    """What /proc/cpuinfo says of the machine's processors, each line once."""
    lines = (root / "proc/cpuinfo").read_text().splitlines()
    return sorted({line for line in lines if line.partition("\t")[0].strip() in _OF_THE_CPU})
