"""Environment variables that a job names: refused if missing, recorded, secrets as a hash."""

import pytest

from trialrun.driver.forwarded import changed_variables, forwarded_variables, recorded_variables
from trialrun.errors import InputError
from trialrun.job import load_job
from trialrun.store import RunFolder
from trialrun.store.files import write_json


def job_with(tmp_path, env):
    (tmp_path / "job.yaml").write_text(f"name: a\nresources: {{env: {env}}}\n")
    return load_job(tmp_path / "job.yaml")


def test_values_are_those_of_the_driver_and_a_missing_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIALRUN_TEST_ROOT", "/data")
    monkeypatch.delenv("TRIALRUN_TEST_GONE", raising=False)
    assert forwarded_variables(job_with(tmp_path, "[TRIALRUN_TEST_ROOT]")) == {
        "TRIALRUN_TEST_ROOT": "/data"
    }
    with pytest.raises(InputError, match=r"job.yaml:2: resources.env: TRIALRUN_TEST_GONE must be"):
        forwarded_variables(job_with(tmp_path, "[TRIALRUN_TEST_ROOT, TRIALRUN_TEST_GONE]"))


@pytest.mark.parametrize("name", ["PYTHONPATH", "CUDA_VISIBLE_DEVICES", "RAY_AUTH_TOKEN", "a-b"])
def test_what_each_worker_has_itself_cannot_be_forwarded(tmp_path, name):
    with pytest.raises(InputError, match=r"job.yaml:2: resources.env\[0\] must"):
        job_with(tmp_path, f"[{name}]")


def test_secrets_are_recorded_as_a_hash_and_a_change_is_told(tmp_path):
    values = {"ROOT": "/data", "HF_TOKEN": "hush", "STORE": "s3://me:hush@host/bucket"}
    values |= {"BLOB": "https://host/b?v=1&sig=hush", "DB": "me:hush@host", "GH_PAT": "hush"}
    values |= {"SLACK_WEBHOOK": "https://host/hush", "SQL": "Server=a;Password=hush"}
    recorded = recorded_variables(values | {"DATA_PATH": "/d@ta:x"})
    assert (recorded["ROOT"], recorded["DATA_PATH"]) == ("/data", "/d@ta:x")
    assert "hush" not in str(recorded)
    run = RunFolder.create(tmp_path, "a")
    assert list(changed_variables(run, values)) == []
    write_json(run.environment_file, {"env": recorded})
    assert list(changed_variables(run, values)) == []
    [line] = changed_variables(run, values | {"HF_TOKEN": "hush hush"})
    assert line.startswith("HF_TOKEN was hash ")
