"""The commands of the README: each is one that its program takes, on files that are there.

What they do is tested where it is made: a laptop in `test_run`, a cluster in `test_ray_jobs`, SLURM
in `test_slurm`; Kubernetes is not run.
"""

import os
import re
import shlex
from collections.abc import Iterator

import pytest
import yaml
from commands import ROOT

from trialrun.cli import cli

README = (ROOT / "README.md").read_text()


def commands() -> Iterator[list[str]]:
    """The words of each command in the README's bash blocks, without comments."""
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            for part in re.split(r" && ", line):
                if words := shlex.split(part, comments=True):
                    yield words


COMMANDS = list(commands())


def of(program: str) -> list[list[str]]:
    found = [words for words in COMMANDS if words[0] == program]
    assert found, f"the README has no command of {program}"
    return found


def assert_trialrun_takes(words: list[str]) -> None:
    name, *arguments = words
    cli.commands[name].make_context(name, list(arguments))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_scripts_and_job_files_that_a_command_names_are_there(words):
    paths = [word for word in words if re.match(r"(scripts|jobs)/", word)]
    assert all((ROOT / path).exists() for path in paths), paths
    if words[0].startswith("scripts/"):
        assert os.access(ROOT / words[0], os.X_OK)


def test_trialrun_takes_its_commands():
    for words in of("scripts/trialrun"):
        assert_trialrun_takes(words[1:])
    for words in of("salloc"):
        assert_trialrun_takes(words[words.index("trialrun") + 1 :])
    table = [line for line in README.splitlines() if line.startswith("| `trialrun ")]
    assert set(re.findall(r"`trialrun (\w+)", "".join(table))) == set(cli.commands)


def test_what_goes_to_trialrun_through_other_programs_is_taken_there():
    for words in of("scripts/submit_ray.sh"):
        assert_trialrun_takes(["run", *words[1:]])
    for words in of("scripts/slurm/submit.sh"):
        if "--" in words:
            assert_trialrun_takes(["run", "JOB.yaml", *words[words.index("--") + 1 :]])


def test_ray_takes_its_command():
    from ray.dashboard.modules.job.cli import job_cli_group

    for words in of("ray"):
        assert words[1] == "job"
        context = job_cli_group.commands[words[2]].make_context(words[2], words[3:])
        entrypoint = list(context.params["entrypoint"])
        assert entrypoint[0] == "trialrun"
        assert_trialrun_takes(entrypoint[1:])


def test_kubernetes_finds_what_its_commands_name():
    folder = ROOT / "scripts" / "kubernetes"
    manifests = "".join((folder / name).read_text() for name in ("rayjob.yaml", "fetch.yaml"))
    for words in of("kubectl"):
        if words[1] == "create":
            assert words[4 if words[2] == "secret" else 3] in manifests
        if words[1] == "apply":
            assert list(yaml.safe_load_all((ROOT / words[words.index("-f") + 1]).read_text()))
        if words[1] in ("cp", "wait"):
            assert any("trialrun-fetch" in word for word in words)
    assert "name: trialrun-fetch" in manifests
