"""A Python that has imported what a driver needs, and the programs that are forked from it.

Ray, SciPy, pandas and matplotlib take a core two to three seconds to import, and the tests of
faults start more than a hundred drivers. What is forked is a process like any other: it leads a
session of its own and has its own environment, folder and signals, and Ray reads its variables
anew. What other modules read while they are imported is as it was when the first program began.

    python warm_python.py SOCKET     serves there until the process that started it is gone.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_MODULES = (
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "pandas", "pyarrow.parquet"),
    *("ray", "scipy.stats", "sklearn.preprocessing"),
    *("trialrun.cli", "trialrun.driver.run", "trialrun.cluster", "trialrun.report.page"),
)


class WarmProcess:
    """A program that runs in a fork of the warm Python; what tests use of `subprocess.Popen`.

    Args:
        program: Its file, or `-m` and its module; and its arguments.
        folder: Where it runs.
        environment: All its variables.
        inherited: Those of them that all programs have.
        output: A folder for what it prints.
    """

    def __init__(
        self,
        program: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str],
        inherited: Mapping[str, str],
        output: Path,
    ) -> None:
        self.returncode: int | None = None
        self._streams = [_new_file(output) for _ in ("stdout", "stderr")]
        request = {
            "program": list(program),
            "folder": str(folder),
            "environment": dict(environment),
            "streams": self._streams,
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server(inherited))
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile("r")
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """How it ended, or None while it runs."""
        return self._wait(0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end; returns what it and its descendants have printed until then."""
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired("a program of the warm Python", timeout or 0)
        out, err = (Path(stream).read_text() for stream in self._streams)
        return out, err

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode


def _new_file(folder: Path) -> str:
    handle, path = tempfile.mkstemp(dir=folder, prefix="printed-")
    os.close(handle)
    return path


_STARTED: list[str] = []


def _server(environment: Mapping[str, str]) -> str:
    """Starts the warm Python of this process, if there is none; returns its socket."""
    if _STARTED:
        return _STARTED[0]
    folder = tempfile.TemporaryDirectory(prefix="warm", dir="/tmp")
    path = f"{folder.name}/socket"
    process = subprocess.Popen(
        [sys.executable, __file__, path],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def stop() -> None:
        process.communicate()
        folder.cleanup()

    atexit.register(stop)
    _STARTED.append(path)
    return path


# In the warm Python -------------------------------------------------------------------------------


def serve(path: str) -> None:
    """Forks a program for each connection; each is waited for by a fork of its own."""
    for module in _MODULES:
        __import__(module)
    gc.collect()
    gc.freeze()  # looking for garbage in what was imported would copy its pages in each fork
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Starts a program, says its process and at last how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile("r").readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(**request)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(
    program: list[str], folder: str, environment: dict[str, str], streams: list[str]
) -> None:
    """Makes this process what a new Python would be, and runs the program to its end."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    _read_variables_of_ray()
    os.chdir(folder)
    tempfile.tempdir = None
    opened = [os.open(os.devnull, os.O_RDONLY), *(os.open(s, os.O_WRONLY) for s in streams)]
    for target, source in enumerate(opened):
        os.dup2(source, target)
        os.close(source)
    code = 1
    try:
        _run(program)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _read_variables_of_ray() -> None:
    """Has Ray read again what it read when it was imported: its RAY_... and the token."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _run(program: list[str]) -> None:
    if program[0] == "-m":
        sys.argv = program[1:]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        sys.path[0] = str(Path(program[0]).parent)
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
