"""GPUs: those that NVIDIA's driver finds, that SLURM gave, that are visible, that Ray counts on."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trialrun.doctor.check import Check, ok, problem, warning
from trialrun.messages import said_by

_QUERY = "index,uuid,name,driver_version,memory.total,memory.used"
_KILL_S = 2
_TIMEOUT_S = 20  # a driver that must be loaded first takes some seconds
# Major CUDA version -> the first driver for it (docs.nvidia.com/deploy/cuda-compatibility, in the
# section on minor version compatibility).
_FIRST_DRIVER = {11: 450, 12: 525, 13: 580}
_IN_USE = 0.1  # the share of a GPU's memory above which it is in use; an idle driver keeps less
_ASK_SLURM = "ask for GPUs: --gpus-per-node=1, and a partition that has them"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi describes it; memory in MiB, None if the driver does not report it."""

    index: str
    uuid: str
    name: str
    driver: str
    memory_mib: int | None
    used_mib: int | None


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVIDIA's driver reports.

    Attributes:
        gpus: The GPUs that it shows to this process.
        trouble: Why the driver does not answer; empty if it does, or if there is no driver.
    """

    gpus: tuple[Gpu, ...]
    trouble: str = ""


def ask_driver(environment: Mapping[str, str]) -> Driver:
    """The GPUs of this machine; none if there is no driver.

    Args:
        environment: The variables; nvidia-smi is looked for on the PATH.
    """
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        is_loaded = Path("/proc/driver/nvidia/version").exists()
        return Driver((), "the driver is loaded, but nvidia-smi is missing" if is_loaded else "")
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        code, told = _run(command, environment)
        if "No devices were found" in told:
            return Driver(())
        if code:
            text = told.strip() or f"exit code {code}"
            return Driver((), f"nvidia-smi says: {text.splitlines()[0]}")
        return Driver(tuple(_parse(line) for line in told.strip().splitlines()))
    except subprocess.TimeoutExpired:
        return Driver((), f"nvidia-smi does not answer within {_TIMEOUT_S} s")
    except (OSError, ValueError) as error:
        return Driver((), f"nvidia-smi cannot be used: {said_by(error)}")


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """A command's exit code and output.

    A process that a broken driver blocks cannot even be killed; its end is waited for only briefly.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        told, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate(timeout=_KILL_S)
        raise
    return process.returncode, told


def _parse(line: str) -> Gpu:
    index, uuid, name, driver, total, used = (field.strip() for field in line.split(","))
    return Gpu(index, uuid, name, driver, _mib(total), _mib(used))


def _mib(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def check_driver(driver: Driver) -> tuple[Check, ...]:
    """Checks the driver, and the memory of each GPU."""
    if driver.trouble:
        return (
            problem(
                "NVIDIA driver",
                driver.trouble,
                "run nvidia-smi by hand. In a container, start it with --gpus all (docker) or --nv"
                " (apptainer); otherwise the node needs a reboot or a new driver: leave it out"
                " until then",
            ),
        )
    if not driver.gpus:
        return (ok("NVIDIA driver", "no NVIDIA GPU: the CPU computes"),)
    checks = [ok("NVIDIA driver", f"{driver.gpus[0].driver}, {len(driver.gpus)} GPUs")]
    checks += [_check_memory(gpu) for gpu in driver.gpus]
    return tuple(checks)


def _check_memory(gpu: Gpu) -> Check:
    name = f"GPU {gpu.index}"
    if gpu.memory_mib is None or gpu.used_mib is None:
        return ok(name, gpu.name)
    found = f"{gpu.name}, {gpu.memory_mib} MiB, {gpu.used_mib} MiB in use"
    if gpu.used_mib > _IN_USE * gpu.memory_mib:
        advice = "others compute on it: see nvidia-smi, or ask for another GPU"
        return warning(name, found, advice)
    return ok(name, found)


def check_cuda(driver: Driver, cuda: str) -> Check:
    """Whether the driver is new enough for the CUDA that TensorFlow was built with.

    Args:
        driver: What NVIDIA's driver reports; it has at least one GPU.
        cuda: CUDA's version, e.g. `12.5.1`; empty for a TensorFlow without CUDA.
    """
    if not cuda:
        advice = "install NVIDIA's build: `pip install 'trialrun[gpu]'`"
        return problem("CUDA", "this TensorFlow was built without CUDA", advice)
    first = _FIRST_DRIVER.get(int(cuda.split(".")[0]))
    have = driver.gpus[0].driver
    if first and int(have.split(".")[0]) < first:
        return problem(
            "CUDA",
            f"TensorFlow was built with CUDA {cuda}, which needs a driver from {first} on; this is"
            f" {have}",
            "install a newer driver on this machine",
        )
    return ok("CUDA", f"TensorFlow was built with CUDA {cuda}; driver {have} is new enough")


def num_gpus_from_slurm(environment: Mapping[str, str]) -> int | None:
    """The number of GPUs of this node that SLURM gave the job; None outside of a job."""
    if "SLURM_JOB_ID" not in environment:
        return None
    if (count := environment.get("SLURM_GPUS_ON_NODE", "")).isdecimal():
        return int(count)
    names = environment.get("SLURM_STEP_GPUS") or environment.get("SLURM_JOB_GPUS") or ""
    return sum(_length(indices) for indices in names.split(",") if indices)


def _length(indices: str) -> int:
    """The number of indices in a text like `3` or `0-3`."""
    bounds = re.fullmatch(r"(\d+)-(\d+)", indices)
    return int(bounds[2]) - int(bounds[1]) + 1 if bounds else 1


def visible_gpus(environment: Mapping[str, str], gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The indices or names of the GPUs that CUDA shows this process.

    Like CUDA, this stops at the first entry of CUDA_VISIBLE_DEVICES that names no GPU.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return tuple(gpu.index for gpu in gpus)
    visible: list[str] = []
    for name in (entry.strip() for entry in text.split(",")):
        if name in ("", "-1", "NoDevFiles"):
            break
        visible.append(name)
    return tuple(visible)


def check_given(environment: Mapping[str, str], gpus: Sequence[Gpu]) -> Check:
    """Compares the GPUs that this process sees with those that SLURM gave and those that exist."""
    name = "GPUs given"
    visible, given = visible_gpus(environment, gpus), num_gpus_from_slurm(environment)
    here = f"{len(visible)} visible"
    if "CUDA_VISIBLE_DEVICES" in environment:
        here += f" (CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']})"
    if given and not gpus:
        return problem(
            name,
            f"SLURM gave {given}, but NVIDIA's driver finds none on this node",
            "tell the cluster's administrators, and leave the node out with --exclude",
        )
    if unknown := [gpu for gpu in visible if not _is_there(gpu, gpus)]:
        return problem(
            name,
            f"{here}, but the driver finds no GPU {', '.join(unknown)}",
            "correct CUDA_VISIBLE_DEVICES; in a SLURM job leave it to SLURM",
        )
    if given is None:
        return ok(name, f"{here} of {len(gpus)}; not inside a SLURM job")
    found = f"SLURM gave {given}, {here}"
    if len(visible) > given:
        return problem(
            name,
            f"{found}: this job would compute on GPUs of other users",
            f"{_ASK_SLURM}; until then set resources.gpus: 0",
        )
    if len(visible) < given:
        return problem(
            name,
            f"{found}: GPUs of this job would stay idle",
            "do not change CUDA_VISIBLE_DEVICES after SLURM set it; run nvidia-smi on this node",
        )
    return ok(name, found)


def _is_there(name: str, gpus: Sequence[Gpu]) -> bool:
    """Whether the driver finds a GPU with this name, as CUDA understands names.

    CUDA accepts an index or the beginning of a UUID. MIG devices have UUIDs of their own, which are
    not looked up.
    """
    if name.startswith("MIG"):
        return bool(gpus)
    return any(name == gpu.index or gpu.uuid.startswith(name) for gpu in gpus)


def check_ray_gpus(
    ray_gpus: float, environment: Mapping[str, str], gpus: Sequence[Gpu], num_visible: int
) -> Check:
    """Compares the GPUs that Ray offers on a node with those of SLURM and of the driver.

    Args:
        ray_gpus: The number of GPUs that Ray counts on there.
        environment: The variables of a process there.
        gpus: The GPUs that the driver finds there.
        num_visible: How many of them were visible where Ray was started.
    """
    name = "GPUs of Ray"
    given = num_gpus_from_slurm(environment)
    expected = num_visible if given is None else given
    whose = f"{num_visible} visible" if given is None else f"SLURM gave {given}"
    found = f"Ray counts on {ray_gpus:g}, {whose}"
    if not ray_gpus and not (expected and gpus):
        return ok(name, "none, and Ray knows it")
    if ray_gpus and not gpus:
        return warning(
            name,
            f"Ray counts on {ray_gpus:g}, but there is none: packs would compute on the CPU",
            "start Ray without --num-gpus, unless these are logical GPUs for tests",
        )
    if ray_gpus > expected:
        advice = f"start Ray with --num-gpus={expected}"
        return problem(name, f"{found}: packs would share GPUs, or use other users' GPUs", advice)
    if ray_gpus < expected:
        advice = f"start Ray with --num-gpus={expected}"
        return warning(name, f"{found}: some would stay idle", advice)
    return ok(name, found)
