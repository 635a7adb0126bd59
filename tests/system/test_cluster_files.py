"""cluster.yaml and the Kubernetes manifests: accepted by their readers, as far as can be asked.

Ray ships the validation of `ray up`. No package ships KubeRay's schema, so its fields stand here as
its reference of ray.io/v1 (KubeRay 1.6) gives them; nothing was started on a cloud or a Kubernetes.
"""

import re
import shlex
import subprocess
import tomllib
import zipfile
from importlib.metadata import version

import pytest
import yaml
from commands import ROOT
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

from trialrun.cli import run as trialrun_run

CLUSTER = ROOT / "cluster.yaml"
KUBERNETES = ROOT / "scripts" / "kubernetes"


def options_of_ray_start(text: str) -> dict:
    """The options of a `ray start`, read by Ray, whose commands take long to import."""
    from ray.scripts.scripts import start

    return start.make_context("start", shlex.split(text)).params


# cluster.yaml -------------------------------------------------------------------------------------


def cluster_of(provider: str) -> dict:
    """The cluster file for a provider, made as its first lines say."""
    text = CLUSTER.read_text()
    if provider != "local":
        [command] = re.findall(r"^#   (sed .*) cluster\.yaml > ", text, re.MULTILINE)
        words = [word.replace("#aws", f"#{provider}") for word in shlex.split(command)]
        text = subprocess.run([*words, CLUSTER], capture_output=True, text=True, check=True).stdout
    return yaml.safe_load(text)


@pytest.mark.parametrize("provider", ["local", "aws", "gcp"])
def test_ray_up_accepts_the_cluster_file(provider):
    cluster = cluster_of(provider)
    assert cluster["provider"]["type"] == provider
    config = prepare_config(cluster)
    validate_config(config)
    if provider != "local":
        gpu = config["available_node_types"]["gpu"]
        assert 0 < gpu["min_workers"] <= config["max_workers"]
    with pytest.raises(Exception, match="'speling' was unexpected"):
        validate_config(config | {"speling": 1})


@pytest.mark.parametrize("group", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_is_started_with_the_token_and_with_options_that_ray_has(group):
    cluster = cluster_of("local")
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    stop, command = cluster[group]
    assert stop.endswith("/ray stop")
    subprocess.run(["bash", "-n", "-c", command], check=True)
    before, options = command.split(" ray start ")
    assert "RAY_AUTH_MODE=token" in before
    assert "RAY_enable_metrics_collection=0" in before
    assert "trialrun/.venv/bin:$PATH" in before
    options_of_ray_start(options)


def test_the_head_has_a_job_server_that_only_the_head_reaches():
    _, command = cluster_of("local")["head_start_ray_commands"]
    options = options_of_ray_start(command.split(" ray start ")[1])
    assert options["include_dashboard"] is True
    assert options["dashboard_host"] == "127.0.0.1"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(text.startswith("ray[default]") for text in extras["optional-dependencies"]["jobs"])
    assert cluster_of("local")["setup_commands"][-1].endswith("scripts/setup jobs")


def test_of_this_checkout_only_the_jobs_travel(tmp_path):
    """With `ray job submit --working-dir .`; Ray leaves out .git and its like by itself."""
    package = tmp_path / "package.zip"
    excludes = get_runtime_env_default_excludes()
    create_package(str(ROOT), package, include_gitignore=True, excludes=excludes)
    names = zipfile.ZipFile(package).namelist()
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert "jobs" in folders
    assert not folders & {"trialrun", "tests", "scripts", "runs", ".ci", ".git", ".venv"}
    assert {f"jobs/{path.name}" for path in (ROOT / "jobs").glob("*.yaml")} <= set(names)
    assert package.stat().st_size < 1 << 20


# Kubernetes ---------------------------------------------------------------------------------------


FIELDS = {
    "job": {
        *("activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate"),
        *("metadata", "clusterSelector", "submitterConfig", "managedBy", "deletionStrategy"),
        *("entrypoint", "runtimeEnvYAML", "jobId", "submissionMode", "entrypointResources"),
        *("entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished", "suspend"),
        "shutdownAfterJobFinishes",
    },
    "cluster": {
        *("suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "authOptions"),
        *("enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec", "rayVersion"),
        "workerGroupSpecs",
    },
    "head": {"template", "headService", "enableIngress", "rayStartParams", "serviceType"},
    "workers": {
        *("suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds"),
        *("rayStartParams", "template", "scaleStrategy", "numOfHosts"),
    },
}
REQUIRED = {
    "job": {"entrypoint", "rayClusterSpec"},
    "cluster": {"headGroupSpec"},
    "head": {"template", "rayStartParams"},
    "workers": {"groupName", "minReplicas", "maxReplicas", "template", "rayStartParams"},
}
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?")


@pytest.fixture(scope="module")
def documents():
    """Every document of the manifests, by kind."""
    text = "\n---\n".join(path.read_text() for path in sorted(KUBERNETES.glob("*.yaml")))
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def ray_job(documents):
    """The spec of the RayJob."""
    return documents["RayJob"]["spec"]


def pods(documents) -> dict[str, dict]:
    """The pods that the manifests describe."""
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    found = {name: group["template"]["spec"] for name, group in groups.items()}
    return found | {"fetch": documents["Pod"]["spec"]}


def test_the_ray_job_has_the_fields_of_its_kind(documents, ray_job):
    assert documents["RayJob"]["apiVersion"] == "ray.io/v1"
    cluster = ray_job["rayClusterSpec"]
    parts = [("job", ray_job), ("cluster", cluster), ("head", cluster["headGroupSpec"])]
    parts += [("workers", group) for group in cluster["workerGroupSpecs"]]
    for kind, part in parts:
        assert part.keys() <= FIELDS[kind]
        assert REQUIRED[kind] <= part.keys()
        if "rayStartParams" in part:
            assert all(isinstance(value, str) for value in part["rayStartParams"].values())
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token", "secretName": "trialrun-token"}
    for document in documents.values():
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", document["metadata"]["name"])


def test_a_retry_goes_on_in_the_same_run_folder_on_the_claim(documents, ray_job):
    program, command, *arguments = shlex.split(ray_job["entrypoint"])
    assert (program, command) == ("trialrun", "run")
    options = trialrun_run.make_context("run", arguments).params
    head = pods(documents)["head"]
    mounts = {m["mountPath"]: m["name"] for m in head["containers"][0]["volumeMounts"]}
    volumes = {volume.pop("name"): volume for volume in map(dict, head["volumes"])}
    claim = volumes[mounts[str(options["run_folder"].parent)]]["persistentVolumeClaim"]
    assert claim["claimName"] == documents["PersistentVolumeClaim"]["metadata"]["name"]
    assert "configMap" in volumes[mounts[str(options["job"].parent)]]
    assert (ROOT / "jobs" / options["job"].name).is_file()
    assert ray_job["backoffLimit"] > 0
    assert ray_job["shutdownAfterJobFinishes"] is True


def test_pods_mount_what_they_have_and_ask_for_what_they_get(documents):
    for name, pod in pods(documents).items():
        has = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= has, name
            if resources := container.get("resources"):
                assert resources["requests"] == resources["limits"], name
                assert all(
                    isinstance(value, str) and QUANTITY.fullmatch(value)
                    for value in resources["limits"].values()
                ), name
    limits = {n: p["containers"][0].get("resources", {}) for n, p in pods(documents).items()}
    assert limits["gpu"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in limits["head"]["limits"]


def test_the_image_is_made_of_what_the_checkout_has():
    lines = (KUBERNETES / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied
    assert all((ROOT / word).exists() for word in copied), copied
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extras] = re.findall(r"'\.\[(.*)\]'", "\n".join(lines))
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    tags = re.findall(r"trialrun:(\S+)", (KUBERNETES / "rayjob.yaml").read_text())
    assert set(tags) == {project["version"]}
