"""How embedded Ray starts; tests/system/test_embedded_ray.py starts a real one."""

import subprocess
import sys

import pytest
from ray._private import worker

from trialrun.cluster import embedded, lean_nodes, placeholder


class State:
    """Ray's view of its nodes, of which one is known at the third look."""

    def __init__(self):
        self.looks = [[], [{"NodeID": "other"}], [{"NodeID": "other"}, {"NodeID": "own"}]]

    def _initialize_global_state(self, options):
        assert options == "options of address"

    def node_table(self):
        return self.looks.pop(0)

    def get_node(self, node_id):
        return {"node_id": node_id, "looks_left": len(self.looks)}


def test_a_node_is_looked_for_until_ray_knows_it(monkeypatch):
    pauses = []
    monkeypatch.setattr(lean_nodes, "GlobalState", State)
    monkeypatch.setattr(lean_nodes.services, "_get_gcs_client_options", "options of {}".format)
    monkeypatch.setattr(lean_nodes.time, "sleep", pauses.append)
    assert lean_nodes.node_when_known("address", "own") == {"node_id": "own", "looks_left": 0}
    assert len(pauses) == 2
    assert max(pauses) < 0.1


def test_no_environment_is_asked_for_which_an_agent_would_have_to_make(monkeypatch):
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "not.there")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with embedded._narrowed():
        assert "RAY_JOB_CONFIG_JSON_ENV_VAR" not in embedded.os.environ
        assert worker._maybe_modify_runtime_env({}, False) == {}
        assert not embedded.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    assert embedded.os.environ["RAY_RUNTIME_ENV_HOOK"] == "not.there"


def test_a_node_starts_no_agents_and_no_more_workers_than_it_needs(tmp_path):
    command = [
        *("raylet", "--labels=", "--head", f"--session_dir={tmp_path}", "--node_id=abc"),
        "--static_resource_list=node:__internal_head__,1.0,CPU,8,GPU,2",
        "--maximum_startup_concurrency=8",
        "--dashboard_agent_command=python agent.py",
        "--runtime_env_agent_command=python main.py",
    ]
    *kept, starting, dashboard, environments = lean_nodes.lean_command(
        command, lambda node: int(node["GPU"])
    )
    assert kept == command[:6]
    assert starting == "--maximum_startup_concurrency=2"
    for option, names in ((dashboard, "--dashboard_agent_command="), (environments, "--runtime")):
        assert option.startswith(names)
    words = [*dashboard.partition("=")[2].split(), "--disable-metrics-collection"]
    assert words[:4] == [sys.executable, "-I", "-S", placeholder.__file__]
    # Its parent ends when all is written, and so does it: its output is waited for.
    node = f'"$@" & until [ -e {tmp_path}/dashboard_agent_listen_port_abc ]; do :; done'
    subprocess.run(["sh", "-c", node, "sh", *words], check=True, capture_output=True)
    ports = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{port}_abc": "-1" for port in ports
    }


@pytest.mark.parametrize(
    ("given", "used"), [("/scratch", "/scratch"), ("/scratch1", "/tmp"), ("/tmp/å", "/tmp")]
)
def test_rays_files_are_where_its_sockets_and_its_node_can_be(monkeypatch, given, used):
    monkeypatch.setattr(embedded.tempfile, "gettempdir", lambda: given)
    assert str(embedded._temporary_parent()) == used
