"""Finds the sockets at which processes of this machine listen, from /proc. Needs no Ray."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LISTEN = "0A"


class Listening(NamedTuple):
    """A TCP socket at which a program listens."""

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
        is_wanted: Selects processes, by their id and command line.
    """
    addresses = dict(_places())
    found = {
        Listening(_name(line), *addresses[inode])
        for pid, line in _own_processes()
        if is_wanted(pid, line)
        for inode in _inodes(pid)
        if inode in addresses
    }
    return tuple(sorted(found, key=lambda socket: (socket.port, socket.program)))


def _places() -> Iterator[tuple[str, tuple[str, int]]]:
    """The inode of each listening socket, with its address and port."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # a machine without IPv6
            for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    address, _, port = fields[1].partition(":")
                    yield fields[9], (_address(address), int(port, 16))


def _address(digits: str) -> str:
    """The usual form of an IPv4 address, also inside IPv6, and of `::1`; `*` for all addresses."""
    if not int(digits, 16):
        return "*"
    if len(digits) == 8 or digits.startswith("0000000000000000FFFF0000"):
        return ".".join(str(byte) for byte in reversed(bytes.fromhex(digits[-8:])))
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
    """A process's short name: a Python script's name, or else the program's, such as `raylet`."""
    words = line.split()
    scripts = [Path(word).stem for word in words if word.endswith(".py")]
    if scripts and "python" in Path(words[0]).name:
        return scripts[0]
    return Path(words[0]).name if words else "?"
