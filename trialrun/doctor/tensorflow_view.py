"""Examines TensorFlow in a process of its own, so that a crash or a hang becomes a finding."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from trialrun.doctor.check import Check, ok, problem, warning
from trialrun.doctor.gpus import Driver, check_cuda, visible_gpus

_PROGRAM = ("-m", "trialrun.training.device_view")
_LIMIT_S = 180
_KILL_S = 5
_SLOW_IMPORT_S = 60  # 3 to 6 s alone on a local disk; others may be importing at the same time
# A pack's worker silences TensorFlow; here its messages about CUDA are wanted.
_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "0"}
_TELLING = ("dlopen", "cuInit", "CUDA_ERROR", "libdevice", "ptxas")
_REINSTALL = "install it again into an environment of its own: `pip install trialrun`"
_INSTALL_CUDA = "install NVIDIA's libraries too: `pip install 'trialrun[gpu]'`"


class TensorflowView:
    """Starts examining TensorFlow when created; `checks` waits for the findings.

    It is a context manager, which ends the process on exit.

    Args:
        environment: The variables of the process.
        driver: What NVIDIA's driver reports.
        program: The arguments of Python.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        driver: Driver,
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self._driver = driver
        self._assigned = visible_gpus(environment, driver.gpus)
        self._process = subprocess.Popen(
            [sys.executable, *program, *self._assigned],
            env={**environment, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "TensorflowView":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._kill()

    def checks(self, limit_s: float = _LIMIT_S) -> tuple[Check, ...]:
        """Checks of what TensorFlow sees, and whether it computes.

        Args:
            limit_s: Seconds to wait for the process.
        """
        try:
            out, noise = self._process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            noise = self._kill()
            found = f"no answer within {limit_s:g} s"
            advice = "is the folder of Python packages on a slow disk? Is a GPU's driver stuck?"
            return (problem("TensorFlow", f"{found}{_last_line(noise)}", advice),)
        if self._process.returncode:
            found = f"its process ended with {_ending(self._process.returncode)}"
            return (problem("TensorFlow", f"{found}{_last_line(noise)}", _REINSTALL),)
        view = json.loads(out.splitlines()[-1])
        return (
            _check_import(view["import_s"]),
            _check_settings(view),
            *check_devices(view, self._assigned, self._driver, noise),
        )

    def _kill(self) -> str:
        """Ends the process and returns its errors.

        A process that a broken driver blocks cannot even be killed; then there are none.
        """
        self._process.kill()
        try:
            return self._process.communicate(timeout=_KILL_S)[1]
        except subprocess.TimeoutExpired:
            return ""


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(noise: str) -> str:
    lines = noise.strip().splitlines()
    return f": {lines[-1]}" if lines else ""


def _check_import(seconds: float) -> Check:
    found = f"imported in {seconds:.1f} s"
    if seconds > _SLOW_IMPORT_S:
        advice = "each worker waits for that: put the Python environment on a faster disk"
        return warning("TensorFlow", found, advice)
    return ok("TensorFlow", found)


def _check_settings(view: Mapping[str, Any]) -> Check:
    """Checks that ~/.keras/keras.json, which Keras reads, does not change what models compute."""
    found = f"backend {view['backend']}, {view['floatx']}"
    if (view["backend"], view["floatx"]) != ("tensorflow", "float32"):
        return warning("Keras", found, "remove ~/.keras/keras.json: trials would differ by machine")
    return ok("Keras", found)


def check_devices(
    view: Mapping[str, Any], assigned: Sequence[str], driver: Driver, noise: str
) -> tuple[Check, ...]:
    """Checks TensorFlow's GPUs against those given, memory growth, and a computation per device.

    Args:
        view: What `trialrun.training.device_view` printed.
        assigned: The GPUs that its process was given.
        driver: What NVIDIA's driver reports.
        noise: What TensorFlow printed to standard error.
    """
    growth = view["memory_growth"]
    checks = [ok("TensorFlow's device", view["device"])]
    if driver.gpus and assigned:
        checks.append(check_cuda(driver, view["cuda"]))
        if len(growth) < len(assigned):
            reason = next((line for line in noise.splitlines() if _is_telling(line)), "")
            found = f"{len(assigned)} GPUs were given, TensorFlow sees {len(growth)}"
            found += f": {reason.partition('] ')[2] or reason}" if reason else ""
            checks[0] = problem("TensorFlow's device", found, _INSTALL_CUDA)
    if growth:
        checks.append(_check_growth(growth, view["forced_growth"]))
    checks += [_check_computes(device, told) for device, told in view["computes"].items()]
    return tuple(checks)


def _is_telling(line: str) -> bool:
    return any(word in line for word in _TELLING)


def _check_growth(growth: Mapping[str, bool], forced: str) -> Check:
    """Checks that memory growth is on; TF_FORCE_GPU_ALLOW_GROWTH overrides the setting."""
    is_off = forced.lower() in ("false", "0")
    if without := [name for name, is_on in growth.items() if is_off or not is_on]:
        return problem(
            "memory growth",
            f"off on {', '.join(without)}: TensorFlow takes the whole GPU",
            "unset TF_FORCE_GPU_ALLOW_GROWTH",
        )
    return ok("memory growth", f"on, {len(growth)} GPUs")


def _check_computes(device: str, told: Mapping[str, Any]) -> Check:
    name = f"compute {device.removeprefix('/device:')}"
    if told["error"]:
        advice = _INSTALL_CUDA if "GPU" in device else _REINSTALL
        return problem(name, f"fails: {told['error']}", advice)
    if not told["is_right"]:
        return problem(
            name,
            "gives a wrong product of two matrices",
            "do not use this device: its hardware is broken, or memory errors are ignored",
        )
    return ok(name, f"a compiled product is right, {told['seconds']:.2f} s with compiling")
