"""What is said of a Ray cluster that cannot be used: at once, and about the token."""

import json
import os
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest
import ray
from commands import ROOT, Command, Finished
from durable_runs import JOB as JOB_OF_RUN
from durable_runs import PROGRAM, DurableRun
from ray_heads import TOKEN, RayHead, bare_head, free_ports

from trialrun.cluster.preflight import require_same_versions
from trialrun.errors import ClusterError

pytestmark = pytest.mark.cluster

JOB = ROOT / "jobs" / "medical_trial.yaml"
OWN_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
_DEADLINE_S = 60
# 10 s on a machine that does nothing else. Ray alone waits for 20 s.
_AT_ONCE_S = 15


@pytest.fixture(scope="module")
def head():
    """The address of a head that asks for a token."""
    with RayHead(has_job_server=False) as head:
        yield head.address


def run(home, address, *options, **environment):
    began = time.monotonic()
    arguments = ["run", JOB, "--runs-dir", home / "runs", *options]
    arguments += ["--address", address] if address else []
    made_up = (PROGRAM, str(home / "driver.pid"))  # no process that saves models need begin
    # While it is imported, trialrun sets the mode for whoever gives a token alone.
    gives_a_token_alone = "RAY_AUTH_MODE" not in environment and any(
        name.startswith("RAY_AUTH_TOKEN") for name in environment
    )
    command = Command(
        home,
        *arguments,
        program=made_up,
        environment=environment,
        is_warm=not gives_a_token_alone,
    )
    finished = command.finish()
    assert time.monotonic() - began < _AT_ONCE_S
    assert finished.stdout == ""
    return finished


def error_of(finished):
    """The one line that a command says, beside where its run is and what Ray itself logs."""
    assert finished.code == 1
    lines = [line for line in finished.stderr.splitlines() if not line.startswith("[20")]
    place, error = lines
    assert place.startswith("Run folder: ")
    return error


@pytest.mark.parametrize(
    ("how", "environment", "expected"),
    [
        ("--address", OWN_TOKEN | {"RAY_AUTH_TOKEN": "f" * 64}, "refuses our token; give this"),
        ("RAY_ADDRESS", {"RAY_AUTH_TOKEN": "f" * 64}, "refuses our token; give this cluster's"),
        ("auto", {}, "refuses our token; give this cluster's token"),
        ("--address", {"RAY_AUTH_MODE": "token"}, "auth_token: No such file or directory); give"),
        ("auto", {"RAY_AUTH_TOKEN_PATH": "/dev/null"}, "(/dev/null: it is empty); give this"),
    ],
)
def test_a_wrong_or_missing_token_is_named(tmp_path, head, how, environment, expected):
    environment = environment if how == "--address" else environment | {"RAY_ADDRESS": head}
    address = {"--address": head, "RAY_ADDRESS": None, "auto": "auto"}[how]
    error = error_of(run(tmp_path, address, **environment))
    assert expected in error
    assert TOKEN not in error


def test_the_right_token_is_used_without_more_words(tmp_path, head):
    """Nor does the head know the variable that the job forwards."""
    made_up = DurableRun(tmp_path, JOB_OF_RUN.replace("{max", "{env: [MADE_UP_DEVICE], max"))
    variables = {"MADE_UP_SECONDS_PER_EPOCH": "0.01", "MADE_UP_DEVICE": "forwarded"}
    finished = made_up.begin(head, **variables, RAY_AUTH_TOKEN=TOKEN).finish()
    assert finished.code == 0, finished
    first, *others = finished.stderr.splitlines()
    assert first == f"Run folder: {made_up.folder}"
    assert [line for line in others if " ended: " not in line] == []
    made_up.assert_whole()
    tables = map(pd.read_parquet, (made_up.folder / "trials").iterdir())
    assert set(pd.concat(tables)["device"]) == {"forwarded"}
    environment = json.loads((made_up.folder / "environment.json").read_text())
    assert environment["env"] == {"MADE_UP_DEVICE": "forwarded"}
    holders = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert holders == []


@pytest.mark.parametrize("environment", [{}, OWN_TOKEN])
def test_a_head_that_answers_anybody_is_refused(tmp_path, environment):
    """It accepts a token too, and does not look at it."""
    with bare_head() as address:
        error = error_of(run(tmp_path, address, **environment))
    assert f"the Ray at {address} answers clients that have no token" in error
    assert "give --allow-open-head" in error


def test_a_slurm_job_does_not_wait_for_the_nodes_of_an_open_head(tmp_path):
    script = ROOT / "scripts" / "slurm" / "await_nodes.py"
    with bare_head() as address:
        done = subprocess.run(
            [
                *(sys.executable, script, "--limit-s", "60", "--steps", str(os.getpid())),
                *("--logs", tmp_path, "--address", address, "--nodes", "n1"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"The Ray at {address} answers without a token; it is ended.\n"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", "no Ray answers at 127.0.0.1:1: "),
        ("no-such-host.invalid:6379", "no Ray answers at no-such-host.invalid:6379: "),
        ("ray://127.0.0.1:10001", "Ray Client cannot stream results"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265 is the address of a job server: submit"),
        ("127.0.0.1", "the address must be host:port or auto, got '127.0.0.1'"),
        ("a:b", "the address must be host:port or auto, got 'a:b'"),
        ("127.0.0.1:99999", "no Ray answers at 127.0.0.1:99999: "),
    ],
)
def test_an_address_where_no_ray_is_is_named(tmp_path, address, expected):
    assert expected in error_of(run(tmp_path, address))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a machine on which no Ray runs is made with unshare, by root",
)
@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (None, "no Ray runs on this machine, so auto finds none: start one"),
        ("127.0.0.1:{free}", "no Ray answers at "),
        ("{head}", "refuses our token; give this cluster's token"),
    ],
)
def test_what_auto_finds_is_looked_at_as_well(tmp_path, head, recorded, expected):
    """Ray records the cluster that was started last, and does not forget it when it has died."""
    (tmp_path / "ray").mkdir()
    if recorded is not None:
        address = recorded.format(head=head, free=free_ports(1)[0])
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    began = time.monotonic()
    done = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "trialrun"),
            *("run", JOB, "--address", "auto", "--runs-dir", tmp_path / "runs"),
        ],
        env=own | {"HOME": str(tmp_path), "RAY_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert time.monotonic() - began < _AT_ONCE_S
    assert expected in error_of(Finished(done.returncode, done.stdout, done.stderr))


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ("{gpus: 1}", "asks for: 1 GPU and 1 CPU cores; the nodes have 0 GPUs and 1 CPU cores;"),
        ("{gpus: 1, accelerator_type: A100}", "asks for: 1 GPU of type A100 and 1 CPU cores; the"),
        ("{cpus: 2}", "asks for: 0 GPU and 2 CPU cores; the nodes have 0 GPUs and 1 CPU cores;"),
    ],
)
def test_a_cluster_without_room_is_named(tmp_path, head, needs, expected):
    options = ["--set", f"resources={needs}"]
    error = error_of(run(tmp_path, head, *options, **OWN_TOKEN))
    assert f"no node of the cluster has what a pack {expected}" in error


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (b'{"ray_version": "2.49.1", "python_version": "3.11.7"}', "runs Ray 2.49.1, this is "),
        (b'{"ray_version": "RAY", "python_version": "3.9.1"}', "runs Python 3.9.1, this is "),
    ],
)
def test_other_versions_are_named(metadata, expected):
    metadata = metadata.replace(b"RAY", ray.__version__.encode())
    with pytest.raises(ClusterError, match=expected):
        require_same_versions("a:1", metadata)
    require_same_versions("a:1", None)
