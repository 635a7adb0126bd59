"""A real SLURM of two hosts on this machine: each with a network, processes, /tmp and GPUs.

A host lives in Linux namespaces of its own (see slurm_host.sh): it has its own name, address,
processes, /tmp and /dev/shm, two cores of this machine's, and two stand-ins for GPUs, which are
devices that SLURM counts and gives out but that compute nothing. The network, its addresses and
SLURM's ports are in a namespace too, so that several clusters on a machine do not meet. All
processes are descendants of one, which the kernel kills when the tests' process ends, however.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from commands import LIKE_OTHERS

ADDRESSES = {"n1": "10.0.0.11", "n2": "10.0.0.12"}
_SCRIPT = Path(__file__).with_name("slurm_host.sh")
_NEW_NAMESPACES = ("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true")
_PROGRAMS = ("slurmctld", "slurmd", "munged", "ip", "ss", "unshare", "nsenter", "setpriv", "pgrep")
_START_S = 60  # deadlines: only what hangs comes near them
_NULL_DEVICE = os.makedev(1, 3)
_CONFIGURATION = """\
ClusterName=tests
SlurmctldHost=controller(10.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job that is requeued waits until its credential has expired: for two minutes by default.
AuthInfo=cred_expire=5,socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/hosts/%n/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/hosts/%n/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1500
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=10
KillWait=15
MinJobAge=3600
NodeName=n1,n2 NodeAddr=10.0.0.1[1-2] CoresPerSocket=2 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=5
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str:
    """Why a SLURM cannot be started here; empty if it can."""
    if os.geteuid() != 0:
        return "only root can give hosts namespaces of their own"
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)} (packages slurm-wlm, munge, iproute2)"
    if subprocess.run(_NEW_NAMESPACES, capture_output=True, check=False).returncode:
        return "this machine lets nobody make namespaces, as in an unprivileged container"
    return ""


class SlurmHosts:
    """The two hosts n1 and n2, and what controls them; a context manager.

    Args:
        folder: For its configuration, its log files and the users' home; both hosts see it.
        shared: Further folders that the hosts must see.
    """

    def __init__(self, folder: Path, shared: tuple[Path, ...]) -> None:
        self.folder = folder.resolve()
        self.home = self.folder / "home"
        self._shared = (self.folder, *(path.resolve() for path in shared))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._write_configuration()
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            self._start()
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def call(self, *command: object, **environment: str) -> str:
        """What a command prints that runs beside SLURM's controller; it must succeed."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self._controller}/ns/net", *map(str, command)],
            env=self._environment() | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What SLURM knows of a job: JobState, ExitCode, Restarts, NodeList ..."""
        told = self.call("scontrol", "show", "job", "--oneliner", job_id)
        assert len(told.splitlines()) == 1, told
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def switch_off(self, name: str) -> None:
        """Pulls the plug of a host: its cable falls silent, and all it did ends."""
        pid = self._pid_of(name)
        self._beside_controller("ip", "link", "set", f"cable-{name}", "down")
        os.kill(pid, signal.SIGKILL)

    def switch_on(self, name: str) -> None:
        """Starts a host again, with nothing in /tmp."""
        self._begin(*self._nsenter(), _SCRIPT, "plug", self.folder, name, ADDRESSES[name])

    @contextlib.contextmanager
    def read_only_tmp(self, name: str) -> Iterator[None]:
        """While it lasts, nothing can be made in a host's /tmp; what is shared there can."""
        enter = ["nsenter", f"--target={self._pid_of(name)}", "--mount"]
        subprocess.run([*enter, "mount", "-o", "remount,bind,ro", "/tmp"], check=True)
        try:
            yield
        finally:
            subprocess.run([*enter, "mount", "-o", "remount,bind,rw", "/tmp"], check=True)

    def wait_until_idle(self) -> None:
        """Waits until both hosts are ready for jobs and have none."""

        def states() -> list[str]:
            return self.call("sinfo", "--noheader", "--Node", "--format=%T").split()

        wait_for(lambda: set(states()) == {"idle"}, states, deadline_s=_START_S)

    def root(self, name: str) -> Path:
        """The files of a host, as it sees them."""
        return Path(f"/proc/{self._pid_of(name)}/root")

    def processes(self, name: str) -> dict[int, str]:
        """The processes on a host that are not SLURM's: pid -> command line."""
        found = {}
        for folder in _beneath_namespace(f"/proc/{self._pid_of(name)}/ns/pid"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if line and not line.startswith(("slurmd ", "sleep 3600", f"bash {_SCRIPT}")):
                    found[int(folder.name)] = line
        return found

    def listening_ports(self, name: str) -> set[int]:
        """The TCP ports at which processes on a host listen, but for SLURM's."""
        net, ports = f"--net=/proc/{self._pid_of(name)}/ns/net", set()
        told = subprocess.run(
            ["nsenter", net, "ss", "-Hltnp"], capture_output=True, text=True, check=True
        )
        for line in told.stdout.splitlines():
            if not re.search('"(slurmd|slurmstepd|srun)"', line):
                ports.add(int(line.split()[3].rpartition(":")[2]))
        return ports

    def temporary_files(self, name: str) -> set[str]:
        """What lies in a host's /tmp and /dev/shm, but for what is shared."""
        root = self.root(name)
        shared = {path.parts[2] for path in self._shared if path.is_relative_to("/tmp")}
        in_tmp = {path.name for path in (root / "tmp").iterdir()} - shared
        return in_tmp | {path.name for path in (root / "dev" / "shm").iterdir()}

    def _write_configuration(self) -> None:
        for name in ("etc", "munge", "state", "home", "devices"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(64))
        for number in (0, 1):
            os.mknod(self.folder / "devices" / f"gpu{number}", 0o20600, _NULL_DEVICE)
        etc = self.folder / "etc"
        etc.joinpath("slurm.conf").write_text(_CONFIGURATION.format(folder=self.folder))
        devices = f"{self.folder}/devices/gpu[0-1]"
        etc.joinpath("gres.conf").write_text(f"NodeName=n1,n2 Name=gpu File={devices}\n")
        hosts = {"localhost": "127.0.0.1", "controller": "10.0.0.1", **ADDRESSES}
        etc.joinpath("hosts").write_text("".join(f"{ip} {name}\n" for name, ip in hosts.items()))
        in_tmp = [f"{path}\n" for path in self._shared if path.is_relative_to("/tmp")]
        etc.joinpath("shared").write_text("".join(in_tmp))

    def _start(self) -> None:
        # The kernel kills it when this process is gone, and with it all that is beneath it.
        process = self._begin(
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child"),
            *("--mount-proc", _SCRIPT, "controller", self.folder),
        )
        wait_for(lambda: process.poll() is not None or _children(process.pid), self._last_words)
        [self._controller] = _children(process.pid)
        wait_for(self._answers, self._last_words, deadline_s=_START_S)
        for name in ADDRESSES:
            self.switch_on(name)
        self.wait_until_idle()

    def _stop(self) -> None:
        for pid in _children(self._processes[0].pid):
            os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(timeout=30)

    def _answers(self) -> bool:
        asked = self._beside_controller("scontrol", "ping", check=False)
        return "is UP" in asked.stdout

    def _last_words(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))[-2000:]

    def _pid_of(self, name: str) -> int:
        """Process 1 of a host, by its number on this machine."""
        wanted = [b"bash", bytes(_SCRIPT), b"host", bytes(self.folder), name.encode()]
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if words[:5] == wanted:
                    return int(folder.name)
        raise AssertionError(f"{name} is switched off")

    def _nsenter(self) -> list[str]:
        return ["nsenter", f"--target={self._controller}", *("--net", "--uts", "--mount", "--pid")]

    def _beside_controller(
        self, *command: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._nsenter(), *command],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=check,
            timeout=30,
        )

    def _environment(self) -> dict[str, str]:
        """What a user's shell has; nothing of the shell that runs the tests."""
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            **LIKE_OTHERS,
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self.folder / "etc" / "slurm.conf"),
        }

    def _begin(self, *command: object) -> subprocess.Popen[bytes]:
        with (self.folder / "machines.log").open("a") as log:
            process = subprocess.Popen(
                [*map(str, command)],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process


def wait_for(
    condition: Callable[[], object], say: Callable[[], object], deadline_s: float = 900
) -> None:
    """Waits until something is true; says what is instead when it takes too long."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, say()
        time.sleep(1)  # SLURM's programs cost a core 20 ms and more each time they are asked


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []


def _beneath_namespace(namespace: str) -> list[Path]:
    """The processes of a PID namespace."""
    wanted, found = Path(namespace).stat().st_ino, []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "ns" / "pid").stat().st_ino == wanted:
                found.append(folder)
    return found


if __name__ == "__main__":  # to try something by hand: tests/support/slurm_hosts.py FOLDER
    with SlurmHosts(Path(sys.argv[1]), (Path(__file__).parents[2], Path(sys.prefix))) as hosts:
        print(f"export SLURM_CONF={hosts.folder}/etc/slurm.conf HOME={hosts.home}")
        print(f"nsenter --target {hosts._controller} --net --uts squeue")
        signal.pause()
