"""`trialrun doctor` as a command: on this machine, on a Ray of two nodes, and through srun."""

import json
import os
import sys
from pathlib import Path

import pytest
import ray
from commands import Command, call
from ray_nodes import RayNodes

from trialrun.cluster import inspect
from trialrun.doctor.check import Check
from trialrun.doctor.report import NodeReport, Report

pytestmark = pytest.mark.cluster

SECRET = "5ec7e7" * 10


def by_name(node: dict) -> dict[str, dict]:
    return {check["name"]: check for check in node["checks"]}


def doctor(home: Path, *options: object, **environment: str) -> Command:
    return Command(
        home,
        *("doctor", *options),
        program=("-m", "trialrun"),
        environment=environment,
        is_warm=True,
    )


def assert_fits(text: str) -> None:
    """80 columns."""
    assert max(map(len, text.splitlines())) <= 80


def test_a_machine_is_looked_at_and_nothing_secret_is_shown(tmp_path):
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text(SECRET)
    token.chmod(0o644)
    command = doctor(tmp_path, "--runs-dir", tmp_path / "runs")
    finished = command.finish()
    assert finished.code == 0, finished
    assert_fits(finished.stdout)
    assert "mode 0644: others may run programs as you" in " ".join(finished.stdout.split())
    for part in ("Versions", "Ray's ports", "the head refuses", "compute CPU:0", "no jump"):
        assert part in finished.stdout
    assert "importing TensorFlow" in finished.stderr
    assert SECRET not in finished.stdout + finished.stderr
    assert not (tmp_path / "runs").exists()
    assert command.survivors() == {}


# A Ray cluster ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address():
    """Of a Ray of two nodes, the second with one GPU that is not there."""
    with RayNodes(num_gpus=1) as nodes:
        yield nodes.address


OF_TENSORFLOW = {
    "TensorFlow": "imported in",
    "compute CPU:0": "a compiled product is right",
    "Keras": "backend tensorflow, float32",
}


def test_every_node_of_a_cluster_is_looked_at_from_inside_a_task(tmp_path, address):
    """A pretended GPU is a warning."""
    command = doctor(tmp_path, "--address", address, "--json")
    finished = command.finish()
    assert finished.code == 0, finished
    report = json.loads(finished.stdout)
    here, *there = report["nodes"]
    assert by_name(here)["Ray cluster"]["status"] == "ok"
    assert len({node["node"] for node in there}) == 2
    for node in there:
        found = by_name(node)
        assert {found[name]["status"] for name in OF_TENSORFLOW} == {"ok"}
        assert all(part in found[name]["found"] for name, part in OF_TENSORFLOW.items())
        assert found["CPU cores"]["found"].startswith("Ray takes 1 of")
        # This Ray asks for no token.
        assert "no token is required" in found["Ray's ports"]["found"]
        assert "gcs_server" in found["Ray's ports"]["found"]
        assert found["clock"]["found"] == "agrees with the clock of the machine that asked"
    [with_gpu] = [
        found for found in map(by_name, there) if found["GPUs of Ray"]["status"] == "warning"
    ]
    assert "packs would compute on the CPU" in with_gpu["GPUs of Ray"]["found"]
    assert with_gpu["TensorFlow's device"]["found"] == "CPU"
    assert report["across_nodes"] == [
        {"name": "versions", "status": "ok", "found": "the same everywhere", "advice": ""}
    ]


def test_problems_make_the_exit_code_1_and_json_says_which(tmp_path):
    (tmp_path / "runs").touch()
    options = ("--json", "--address", "127.0.0.1:1", "--runs-dir", tmp_path / "runs")
    finished = doctor(tmp_path, *options).finish()
    assert finished.code == 1
    assert finished.stderr == ""
    report = json.loads(finished.stdout)
    assert report["status"] == "problem"
    [node] = report["nodes"]
    problems = [check["name"] for check in node["checks"] if check["status"] == "problem"]
    assert problems == ["runs folder", "Ray cluster"]
    assert "no Ray answers at 127.0.0.1:1" in by_name(node)["Ray cluster"]["found"]


OCCUPY = """
import sys, time, ray
ray.init(address=sys.argv[1])

@ray.remote(num_gpus=1, num_cpus=0)
class Holder:
    def hold(self):
        return "held"

holder = Holder.remote()
ray.get(holder.hold.remote())
print("held", flush=True)
time.sleep(600)
"""


def nodes_with_gpus(all_nodes=inspect._nodes):
    """The node without GPUs is left out, whose TensorFlow takes its time."""
    return [node for node in all_nodes() if node.num_gpus]


def test_a_gpu_in_use_is_not_waited_for(tmp_path, address, monkeypatch):
    holder = Command(tmp_path, address, program=("-c", OCCUPY))
    try:
        assert holder.process.stdout.readline() == "held\n"
        monkeypatch.setattr("trialrun.cluster.inspect._PATIENCE_S", 1.0)
        monkeypatch.setattr("trialrun.cluster.inspect._nodes", nodes_with_gpus)
        used = call("doctor", "--address", address, "--json")
    finally:
        holder.kill()
        holder.process.communicate()
        ray.shutdown()
    assert used.code == 0, used
    _, there = json.loads(used.stdout)["nodes"]
    found = by_name(there)
    assert found["GPUs of Ray"]["status"] == "warning"
    assert found["TensorFlow"]["status"] == "warning"
    assert "all GPUs of the node are in use" in found["TensorFlow"]["found"]


# A SLURM job. These programs are stand-ins: this machine is both nodes ----------------------------

SCONTROL = """
import sys
assert sys.argv[1:] == ["show", "hostnames", "n[1-2]"]
print("n1\\nn2")
"""
# Runs the command once for each node (one after the other) and mixes their lines, as srun does.
SRUN = """
import itertools, os, subprocess, sys
options = [word for word in sys.argv[1:] if word.startswith("--")]
if options == ["--version"]:
    print("slurm-wlm 22.05.8")
    sys.exit()
at = sys.argv.index(PYTHON)
assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--overlap", "--label"} <= set(options)
assert "RAY_ADDRESS" not in os.environ
own = [*sys.argv[at:], *MORE]
tasks = [subprocess.run(c or own, capture_output=True, text=True) for c in COMMANDS]
for stream in ("stdout", "stderr"):
    lines = [getattr(task, stream).splitlines() for task in tasks]
    for group in itertools.zip_longest(*lines):
        for rank, line in enumerate(group):
            if line is not None:
                getattr(sys, stream).write(f"{rank}: {line}\\n")
sys.exit(max(task.returncode for task in tasks))
"""


def slurm_job(folder: Path, commands: list[list[str] | None]) -> dict[str, str]:
    """The environment of a job on two nodes.

    Args:
        folder: Where the programs are written.
        commands: What each node runs; None for what srun is told to run.
    """
    folder.mkdir(parents=True)
    # In place of a Ray of its own, which tests/system/test_slurm.py waits for.
    more = ["--address", "127.0.0.1:1"]
    values = f"PYTHON = {sys.executable!r}\nCOMMANDS = {commands!r}\nMORE = {more!r}\n"
    for name, content in (("srun", values + SRUN), ("scontrol", SCONTROL)):
        file = folder / name
        file.write_text(f"#!{sys.executable}\n{content}")
        file.chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "RAY_ADDRESS": "127.0.0.1:1",
    }


def test_a_node_of_a_slurm_job_is_asked_through_srun_and_a_silent_one_is_a_problem(tmp_path):
    broken = [sys.executable, "-c", "raise ModuleNotFoundError(\"No module named 'trialrun'\")"]
    environment = slurm_job(tmp_path / "bin", [None, broken])
    options = ("--slurm", "--json", "--runs-dir", tmp_path / "runs")
    command = doctor(tmp_path / "home", *options, **environment)
    finished = command.finish()
    assert finished.code == 1, finished
    good, bad = json.loads(finished.stdout)["nodes"]
    assert (good["node"], bad["node"]) == ("n1", "n2")
    found = by_name(good)
    assert "no Ray answers at 127.0.0.1:1" in found["Ray cluster"]["found"]
    assert found["clock"]["found"] == "agrees with the clock of the machine that asked"
    assert found["SLURM"]["found"] == "slurm-wlm 22.05.8; job 7 on n[1-2]"
    assert "shared with the node that asked" in found["runs folder"]["found"]
    assert list(tmp_path.glob(".trialrun-*")) == []
    [check] = bad["checks"]
    assert check["found"] == "no answer: ModuleNotFoundError: No module named 'trialrun'"
    assert command.survivors() == {}


def test_nodes_of_a_slurm_job_that_differ_are_shown_in_80_columns(tmp_path):
    """What the nodes answer is made up."""
    commands = []
    for rank, version in enumerate(("2.60.0", "2.60.1")):
        checks = (
            Check("runs folder", "warning", "/a/long/path" * 12, "choose another [folder]"),
            Check("TensorFlow's device", "ok", "GPU 0: NVIDIA A100-SXM4-40GB, 40960 MiB"),
            Check("Python", "ok", "3.11.7"),
        )
        report = Report((NodeReport(f"host{rank}", checks, {"ray": version}),))
        (tmp_path / f"{rank}.json").write_text(json.dumps(report.as_plain_values(), indent=2))
        commands.append(["cat", str(tmp_path / f"{rank}.json")])
    environment = slurm_job(tmp_path / "bin", commands)
    finished = doctor(tmp_path / "home", "--slurm", **environment).finish()
    assert finished.code == 1
    assert_fits(finished.stdout)
    for part in (
        *("Node n1: 2 ok, 1 warning", "Node n2: 2 ok, 1 warning", "[folder]", "A100-SXM4-40GB"),
        *("2.60.0 on n1; 2.60.1 on n2", "4 ok, 2 warnings, 1 problem: something does not work"),
    ):
        assert part in finished.stdout
    assert "3.11.7" not in finished.stdout  # of a node what is ok is only counted


def test_outside_of_a_slurm_job_slurm_is_refused_with_what_to_do(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    finished = call("doctor", "--slurm")
    assert finished.code == 2
    assert "not inside one; try `salloc --nodes=2 trialrun doctor --slurm`" in finished.stderr
    assert finished.stdout == ""
    assert call("doctor", "--slurm", "--address", "auto").code == 2
