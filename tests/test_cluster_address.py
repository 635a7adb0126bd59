"""What is said of a Ray cluster that cannot be used: at once, and about the token."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray
from commands import ROOT, Command

from trialrun.cluster.preflight import check_versions
from trialrun.errors import ClusterError

TOKEN = "0123456789abcdef" * 4
RAY = Path(sys.executable).with_name("ray")
JOB = ROOT / "jobs" / "medical_trial.yaml"


@pytest.fixture(scope="module")
def head():
    """A head that asks for a token; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=1"),
            *("--include-dashboard=false", f"--temp-dir={folder}"),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
    time.sleep(1)
    yield address
    process.terminate()
    process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def run(home, address, **environment):
    began = time.monotonic()
    command = Command(
        home, "run", JOB, "--address", address, "--runs-dir", home / "runs", environment=environment
    )
    finished = command.finish()
    assert time.monotonic() - began < 10
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""
    return finished


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RAY_AUTH_TOKEN": "f" * 64}, "refuses our token; give this cluster's token"),
        ({}, "refuses our token; give this cluster's token"),
        ({"RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE is token, but there is none; give"),
    ],
)
def test_a_wrong_or_missing_token_is_named(tmp_path, head, environment, expected):
    finished = run(tmp_path, head, **environment)
    assert finished.code == 1
    assert expected in finished.stderr
    assert TOKEN not in finished.stderr


def test_the_right_token_is_used_without_more_words(tmp_path, head):
    options = ["seeds=1", "training.epochs=1", "search.parameters={}"]
    command = Command(
        tmp_path,
        "run",
        JOB,
        *(word for option in options for word in ("--set", option)),
        *("--address", head, "--runs-dir", tmp_path / "runs"),
        environment={"RAY_AUTH_TOKEN": TOKEN},
    )
    finished = command.finish()
    assert finished.code == 0, finished
    holders = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert holders == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", "no Ray answers at 127.0.0.1:1: "),
        ("no-such-host.invalid:6379", "no Ray answers at no-such-host.invalid:6379: "),
        ("ray://127.0.0.1:10001", "Ray Client cannot stream results"),
        ("127.0.0.1", "--address must be host:port or auto, got '127.0.0.1'"),
        ("a:b", "--address must be host:port or auto, got 'a:b'"),
        ("127.0.0.1:99999", "no Ray answers at 127.0.0.1:99999: "),
    ],
)
def test_an_address_where_no_ray_is_is_named(tmp_path, address, expected):
    finished = run(tmp_path, address)
    assert finished.code == 1
    assert expected in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


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
        check_versions("a:1", metadata)
    check_versions("a:1", None)
