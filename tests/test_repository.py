"""What the files around the program promise: CI, hook, forms, changelog, versions of Python."""

import os
import re
import tomllib

import pytest
import yaml
from commands import ROOT, call
from packaging.specifiers import SpecifierSet
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
JOB = WORKFLOW["jobs"]["check-and-test"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = [step["run"] for step in JOB["steps"] if "run" in step]


def promised_pythons() -> list[str]:
    wanted = SpecifierSet(PROJECT["requires-python"])
    return [f"3.{minor}" for minor in range(8, 30) if f"3.{minor}" in wanted]


def test_ci_uses_every_python_that_is_promised():
    assert JOB["strategy"]["matrix"]["python"] == promised_pythons()


def test_the_package_index_is_told_every_python_that_is_promised():
    told = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python :: 3." in line]
    assert told == promised_pythons()


def test_setup_takes_every_python_that_is_promised():
    script = (ROOT / "scripts/setup").read_text()
    [(low, high)] = re.findall(r"\(3, (\d+)\) <= sys\.version_info < \(3, (\d+)\)", script)
    assert [f"3.{minor}" for minor in range(int(low), int(high))] == promised_pythons()


def test_ci_runs_what_people_run():
    assert COMMANDS[-2:] == ["scripts/check", "scripts/test"]


def test_ci_may_only_read():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOB


def test_ci_takes_actions_by_their_commit():
    actions = [step["uses"] for step in JOB["steps"] if "uses" in step]
    assert actions
    assert [one for one in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", one)] == []


def test_the_hook_runs_a_script_that_is_there():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    [hook] = repository["hooks"]
    assert hook["entry"] == "scripts/check"
    assert os.access(ROOT / hook["entry"], os.X_OK)


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_a_form_asks_for_something_and_for_no_id_twice(name):
    body = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())["body"]
    fields = [one for one in body if one["type"] != "markdown"]
    ids = [one["id"] for one in fields]
    assert ids
    assert len(set(ids)) == len(ids)


def test_the_changelog_begins_with_the_version_that_is_worked_on():
    sections = re.findall(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [Version(version) for version, _ in sections]
    assert versions == sorted(set(versions), reverse=True)
    working = Version(PROJECT["version"])
    assert versions[0] == Version(working.base_version)
    assert (sections[0][1] == "unreleased") == working.is_devrelease
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in sections[1:])


def test_what_the_guide_for_contributors_names_is_there():
    """Files and folders, from its commands and from what stands in backquotes."""
    code = re.findall(r"```bash\n(.*?)```", CONTRIBUTING, re.DOTALL)
    words = " ".join(code + re.findall(r"`([^`\n]+)`", CONTRIBUTING)).split()
    pattern = r"\w+/[\w./]*|\w+\.(py|md|toml)"
    names = {word for word in words if re.fullmatch(pattern, word)} - {"a.yaml", "file.py"}
    assert len(names) > 30
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    assert [one for one in sorted(names) if not (ROOT / one).exists() and one not in tests] == []


def test_the_messages_shown_to_contributors_are_those_that_users_see(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "name: a\ntraining:\n  epochs: 0\n  optimiser: adam\n"
    (tmp_path / "a.yaml").write_text(text)
    shown = re.findall(r"^a\.yaml:.*$", CONTRIBUTING, re.MULTILINE)
    told = call("plan", "a.yaml").stderr.removeprefix("Error: ").splitlines()
    assert shown == told
