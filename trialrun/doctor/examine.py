"""Runs `trialrun doctor`: examines this machine, or also the nodes of a cluster or SLURM job."""

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console

from trialrun.doctor.check import Check
from trialrun.doctor.clock import ClockWatch
from trialrun.doctor.compiled import check_compilation_cache
from trialrun.doctor.gpus import Driver, ask_driver, check_driver, check_given
from trialrun.doctor.machine import (
    check_cpus,
    check_loopback,
    check_memory,
    check_shared_memory,
    check_temporary_folder,
)
from trialrun.doctor.ray_view import check_embedded_ray, describe_hardware, look_at_cluster
from trialrun.doctor.report import NodeReport, Report, compare_nodes
from trialrun.doctor.slurm import look_at_allocation
from trialrun.doctor.storage import check_storage
from trialrun.doctor.tensorflow_view import TensorflowView
from trialrun.doctor.terminal import Json, Terminal
from trialrun.doctor.token import check_token
from trialrun.doctor.versions import check_slurm, check_versions, versions_here
from trialrun.errors import EXIT_FAILED
from trialrun.host import read_limits


def diagnose(address: str | None, *, slurm: bool, as_json: bool, runs_dir: Path) -> int:
    """Examines, prints the findings, and returns the exit code.

    Args:
        address: The address of a Ray cluster; None for RAY_ADDRESS, or else for this machine alone.
        slurm: Whether to examine the nodes of this SLURM job instead.
        as_json: Whether to print JSON.
        runs_dir: Where run folders are made.

    Returns:
        0 if there is no problem, else 1.
    """
    # While Ray is connected, stdout is redirected to stderr. The findings go to the real stdout.
    out = Console(file=sys.stdout)
    screen = Json(out.file) if as_json else Terminal(out, Console(stderr=True))
    address = address or os.environ.get("RAY_ADDRESS")
    if slurm:
        report = examine_allocation(runs_dir, screen)
    elif address and address != "local":
        report = examine_cluster(address, runs_dir, screen)
    else:
        report = examine_machine(runs_dir, screen)
    screen.conclude(report)
    return EXIT_FAILED if report.status == "problem" else 0


class Screen(Protocol):
    """Shows findings as they come."""

    def heading(self, text: str) -> None:
        """Shows the name of the machine that the next findings are about."""

    def group(self, title: str, checks: Sequence[Check]) -> None:
        """Shows findings about one thing."""

    def node(self, report: NodeReport) -> None:
        """Shows everything that was found on a node of a cluster."""

    def say(self, text: str) -> None:
        """Shows what is being done now, if it takes seconds."""

    def conclude(self, report: Report) -> None:
        """Shows the result, after everything has been examined."""


def examine_machine(runs_dir: Path, screen: Screen) -> Report:
    """Examines this machine as a run without a cluster would use it.

    Args:
        runs_dir: Where run folders are made.
        screen: Shows each group as soon as it is known.
    """
    watch, environment = ClockWatch(), dict(os.environ)
    driver = ask_driver(environment)
    checks = _look_quickly(runs_dir, driver, screen, _check_machine)
    screen.say("starting Ray")
    checks += _shown(screen, "Ray", check_embedded_ray(driver))
    # After Ray, not at the same time: with few cores Ray would then take too long to start.
    screen.say("importing TensorFlow")
    with TensorflowView(environment, driver) as view:
        checks += _shown(screen, "TensorFlow", view.checks())
    checks += _shown(screen, "Clock", (watch.check(),))
    return Report((_report_here(checks, driver, watch),))


def examine_cluster(address: str, runs_dir: Path, screen: Screen) -> Report:
    """Examines this machine as the driver's, and every node of a Ray cluster from inside a task.

    Args:
        address: The cluster's address, or `auto`.
        runs_dir: Where the driver makes run folders.
        screen: Shows each group and each node as soon as it is known.
    """
    watch, environment = ClockWatch(), dict(os.environ)
    driver = ask_driver(environment)
    checks = _look_quickly(runs_dir, driver, screen, _check_driver_machine)
    screen.say(f"asking the nodes of the Ray cluster at {address}")
    nodes = []
    for found in look_at_cluster(address):
        if isinstance(found, Check):
            checks += _shown(screen, "Ray", (found,))
            continue
        screen.node(found)
        nodes.append(found)
    checks += _shown(screen, "Clock", (watch.check(),))
    return _compared(_report_here(checks, driver, watch), nodes, screen)


def examine_allocation(runs_dir: Path, screen: Screen) -> Report:
    """Examines every node of the SLURM job that this process is in.

    Args:
        runs_dir: Where run folders are made.
        screen: Shows each node.

    Raises:
        InputError: This process is not in a SLURM job.
    """
    nodes = look_at_allocation(dict(os.environ), runs_dir, screen.say)
    for node in nodes:
        screen.node(node)
    across = compare_nodes(nodes)
    screen.group("Across nodes", across)
    return Report(tuple(nodes), across)


def _look_quickly(
    runs_dir: Path,
    driver: Driver,
    screen: Screen,
    check_machine: Callable[[Mapping[str, str]], tuple[Check, ...]],
) -> list[Check]:
    """The checks that need neither Ray nor TensorFlow and take less than a second together."""
    environment = dict(os.environ)
    screen.heading(platform.node())
    groups: dict[str, Callable[[], tuple[Check, ...]]] = {
        "Versions": lambda: (*check_versions(), check_slurm(environment)),
        "GPUs": lambda: (*check_driver(driver), check_given(environment, driver.gpus)),
        "Machine": lambda: check_machine(environment),
        "Runs": lambda: check_storage(runs_dir, environment),
    }
    return [check for title, look in groups.items() for check in _shown(screen, title, look())]


def _check_machine(environment: Mapping[str, str]) -> tuple[Check, ...]:
    """The checks of a machine that runs Ray and trains packs."""
    limits = read_limits()
    return (
        check_cpus(environment, limits),
        check_memory(environment, limits),
        check_shared_memory(),
        check_temporary_folder(environment),
        check_compilation_cache(environment),
        *_check_driver_machine(environment),
    )


def _check_driver_machine(environment: Mapping[str, str]) -> tuple[Check, ...]:
    """The checks of a machine that only runs the driver, while a cluster's nodes train packs."""
    return (check_loopback(), check_token(environment, Path.home()))


def _shown(screen: Screen, title: str, checks: tuple[Check, ...]) -> tuple[Check, ...]:
    screen.group(title, checks)
    return checks


def _report_here(checks: Sequence[Check], driver: Driver, watch: ClockWatch) -> NodeReport:
    return NodeReport(
        platform.node(), tuple(checks), versions_here(), describe_hardware(driver), watch.span()
    )


def _compared(here: NodeReport, nodes: Sequence[NodeReport], screen: Screen) -> Report:
    driver = NodeReport("this machine", here.checks, here.versions)  # its hardware does not matter
    across = compare_nodes((driver, *nodes))
    if across:
        screen.group("Across nodes", across)
    return Report((here, *nodes), across)
