"""Where processes of this machine listen, read from /proc. Needs no Ray."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LISTEN = "0A"


class Listening(NamedTuple):
    """A TCP socket that is listened at."""

    program: str
    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.address in ("127.0.0.1", "::1")


def listening_sockets(is_wanted: Callable[[int, str], bool]) -> tuple[Listening, ...]:
    """The listening sockets of this user's processes, ordered by port.

    Args:
        is_wanted: Is asked of each process: its id and its command line.
    """
    places = dict(_places())
    found = {
        Listening(_name(line), *places[inode])
        for pid, line in _own_processes()
        if is_wanted(pid, line)
        for inode in _inodes(pid)
        if inode in places
    }
    return tuple(sorted(found, key=lambda one: (one.port, one.program)))


def _places() -> Iterator[tuple[str, tuple[str, int]]]:
    """Inode -> address and port."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # a machine without IPv6
            for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    address, _, port = fields[1].partition(":")
                    yield fields[9], (_address(address), int(port, 16))


def _address(digits: str) -> str:
    """IPv4, also inside IPv6, is written as such; `*` is every address."""
    if not int(digits, 16):
        return "*"
    if len(digits) == 8 or digits.startswith("0000000000000000FFFF0000"):
        return ".".join(str(part) for part in reversed(bytes.fromhex(digits[-8:])))
    return "::1" if digits == "0" * 24 + "01000000" else digits


def _own_processes() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if folder.stat().st_uid == os.getuid():
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(folder.name), line.decode(errors="replace").strip()


def _inodes(pid: int) -> Iterator[str]:
    with suppress(OSError):  # it has ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    yield target.removeprefix("socket:[").removesuffix("]")


def _name(line: str) -> str:
    """`raylet` of a path and its arguments; of Python's the script; `ray::IDLE` as it is."""
    words = line.split()
    scripts = [Path(word).stem for word in words if word.endswith(".py")]
    if scripts and "python" in Path(words[0]).name:
        return scripts[0]
    return Path(words[0]).name if words else "?"
