"""GPUs: what NVIDIA's driver says, what SLURM gave, what is visible here, what Ray counts on."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trialrun.doctor.check import Check, ok, problem, warning

_QUERY = "index,uuid,name,driver_version,memory.total,memory.used"
_KILL_S = 2
_TIMEOUT_S = 20  # a driver that must be loaded first takes some seconds
# The first driver for each CUDA: docs.nvidia.com/deploy/cuda-compatibility, minor versions.
_FIRST_DRIVER = {11: 450, 12: 525, 13: 580}
_IN_USE = 0.1  # of a GPU's memory; an idle driver keeps less
_ASK_SLURM = "ask for GPUs: --gpus-per-node=1, and a partition that has them"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi names it; memory in MiB, None where the driver does not tell."""

    index: str
    uuid: str
    name: str
    driver: str
    memory_mib: int | None
    used_mib: int | None


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVIDIA's driver says.

    Attributes:
        gpus: Those that this process may look at.
        trouble: Why it does not answer; empty if it does, or if there is none.
    """

    gpus: tuple[Gpu, ...]
    trouble: str = ""


def ask_driver(environment: Mapping[str, str]) -> Driver:
    """The GPUs of this machine; none without a driver.

    Args:
        environment: Its PATH is where nvidia-smi is looked for.
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
        return Driver((), f"nvidia-smi cannot be used: {error}")


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and output. A process that a broken driver holds cannot even be killed."""
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
    """The driver, and each kind of trouble with its GPUs."""
    if driver.trouble:
        return (
            problem(
                "NVIDIA driver",
                driver.trouble,
                "run nvidia-smi by hand; a node like that needs a reboot or a new driver (in a"
                " container: --gpus all, or --nv), so leave it out until then",
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
        return warning(name, found, "others compute on it: see nvidia-smi, or ask for another GPU")
    return ok(name, found)


def check_cuda(driver: Driver, cuda: str) -> Check:
    """Whether the driver is new enough for the CUDA that TensorFlow was built with.

    Args:
        driver: What the driver says.
        cuda: Version, e.g. `12.5.1`; empty for a TensorFlow without CUDA.
    """
    if not cuda:
        advice = "install NVIDIA's build: `pip install 'trialrun[gpu]'`"
        return problem("CUDA", "this TensorFlow was built without CUDA", advice)
    first = _FIRST_DRIVER.get(int(cuda.split(".")[0]))
    have = driver.gpus[0].driver
    if first and int(have.split(".")[0]) < first:
        return problem(
            "CUDA",
            f"TensorFlow was built with CUDA {cuda}, which needs a driver from {first}; this is"
            f" {have}",
            "a newer driver must be installed on this machine",
        )
    return ok("CUDA", f"TensorFlow was built with CUDA {cuda}; driver {have} is new enough")


def num_gpus_from_slurm(environment: Mapping[str, str]) -> int | None:
    """How many GPUs of this node SLURM gave the job; None outside of a job."""
    if "SLURM_JOB_ID" not in environment:
        return None
    if (count := environment.get("SLURM_GPUS_ON_NODE", "")).isdecimal():
        return int(count)
    names = environment.get("SLURM_STEP_GPUS") or environment.get("SLURM_JOB_GPUS") or ""
    return sum(_length(part) for part in names.split(",") if part)


def _length(part: str) -> int:
    """Of `3` or `0-3`."""
    bounds = re.fullmatch(r"(\d+)-(\d+)", part)
    return int(bounds[2]) - int(bounds[1]) + 1 if bounds else 1


def visible_gpus(environment: Mapping[str, str], gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """What CUDA lets this process see: indices or names, until the first that names none."""
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return tuple(gpu.index for gpu in gpus)
    visible: list[str] = []
    for one in (part.strip() for part in text.split(",")):
        if one in ("", "-1", "NoDevFiles"):
            break
        visible.append(one)
    return tuple(visible)


def check_given(environment: Mapping[str, str], gpus: Sequence[Gpu]) -> Check:
    """The GPUs that this process sees, against those that SLURM gave and those that there are."""
    name = "GPUs given"
    visible, given = visible_gpus(environment, gpus), num_gpus_from_slurm(environment)
    here = f"{len(visible)} visible"
    if "CUDA_VISIBLE_DEVICES" in environment:
        here += f" (CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']})"
    if given and not gpus:
        return problem(
            name,
            f"SLURM gave {given}, but NVIDIA's driver knows none on this node",
            "tell who looks after the cluster, and leave the node out: --exclude",
        )
    if unknown := [one for one in visible if not _is_there(one, gpus)]:
        return problem(
            name,
            f"{here}, but the driver knows no GPU {', '.join(unknown)}",
            "correct CUDA_VISIBLE_DEVICES; in a SLURM job leave it to SLURM",
        )
    if given is None:
        return ok(name, f"{here} of {len(gpus)}; not inside a SLURM job")
    found = f"SLURM gave {given}, {here}"
    if len(visible) > given:
        return problem(
            name,
            f"{found}: this job would compute on GPUs of others",
            f"{_ASK_SLURM}; until then resources.gpus: 0",
        )
    if len(visible) < given:
        return problem(
            name,
            f"{found}: GPUs that are paid for would idle",
            "do not change CUDA_VISIBLE_DEVICES after SLURM; see nvidia-smi on this node",
        )
    return ok(name, found)


def _is_there(name: str, gpus: Sequence[Gpu]) -> bool:
    """Whether the driver knows it. CUDA takes any clear beginning of a UUID; MIG has its own."""
    if name.startswith("MIG"):
        return bool(gpus)
    return any(name == gpu.index or gpu.uuid.startswith(name) for gpu in gpus)


def check_ray_gpus(
    ray_gpus: float, environment: Mapping[str, str], gpus: Sequence[Gpu], num_visible: int
) -> Check:
    """The GPUs that Ray gives out on a node, against SLURM's and the driver's.

    Args:
        ray_gpus: What Ray counts on there.
        environment: Of a process there.
        gpus: What the driver knows there.
        num_visible: How many of them whoever started Ray could see.
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
            "if nobody pretends on purpose: start Ray without --num-gpus",
        )
    if ray_gpus > expected:
        advice = f"start Ray with --num-gpus={expected}"
        return problem(name, f"{found}: packs would share GPUs, or take those of others", advice)
    if ray_gpus < expected:
        return warning(name, f"{found}: some would idle", f"start Ray with --num-gpus={expected}")
    return ok(name, found)
