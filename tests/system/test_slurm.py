"""scripts/slurm on a real SLURM of two hosts: what jobs train and share.

The reference job is trained for real; elsewhere training is made up (`made_up_driver`), so that
runs are short and their numbers can be compared exactly. Saved models are made up everywhere. GPUs
are stand-ins: SLURM and Ray count them and give them out, but the CPU computes.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import strangers
from commands import ROOT
from durable_runs import assert_run_is_whole
from slurm_hosts import ADDRESSES, SlurmHosts
from slurm_jobs import Job, needs_slurm, sets
from strangers import Answer, assert_refused

import trialrun
from trialrun.job import load_job
from trialrun.training.pack import train_pack
from trialrun.trials.plan import plan_trials
from trialrun.trials.signature import signature_of
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

pytestmark = [pytest.mark.slurm, needs_slurm]

# Fewer seeds, epochs and batches than the reference job has; by fit, which has little to compile.
SMALL = ("seeds=1", "training.epochs=2", "training.batch_size=100", "training.engine=keras")


def test_the_reference_job_on_a_host_is_that_of_one_process(slurm_user):
    job_file = ROOT / "jobs" / "medical_trial.yaml"
    (slurm_user.home / "job.yaml").write_bytes(job_file.read_bytes())
    job = slurm_user.submit(
        *("--nodelist=n2", "--gpus-per-node=1"),
        run_options=sets(*SMALL),
        MADE_UP_BUT_FOR_TRAINING="yes",
    )
    ended = job.wait_until("COMPLETED")
    assert ended["ExitCode"] == "0:0"
    assert "Run folder: " in job.output()
    job.assert_left_nothing()
    run = trialrun.open_run(job.folder)
    assert set(run.trials["node"]) == {"n2"}
    assert 'gpus_per_pack": 1' in (job.folder / "environment.json").read_text()

    loaded = load_job(job_file, SMALL)
    trials = plan_trials(loaded.spec)
    pack = Pack("p000", signature_of(trials[0].variant), trials)
    *_, result = train_pack(PackTask(pack, loaded.folder, loaded.spec.select), "CPU")
    here = pd.DataFrame({row.trial.trial_id: row.metrics for row in result.trials}).T
    there = run.trials.set_index("trial_id")
    assert set(here.index) == set(there.index)
    names = there.filter(regex="^(train|val|test)_(loss|accuracy)$").columns
    assert len(names) == 6
    np.testing.assert_allclose(there[names], here.loc[there.index, names], rtol=0, atol=1e-4)
    losses = here["val_loss"].groupby({t.trial_id: t.variant.variant_id for t in trials})
    winner = losses.mean().idxmin()
    assert run.variants["variant_id"][0] == winner
    assert run.best.trial_id == losses.idxmin()[winner]


def test_two_jobs_share_a_host_in_peace_also_when_one_is_cancelled(slurm_user):
    """One of them exports few variables, and names its folder as an option of trialrun."""
    options = ("--nodelist=n1", "--gpus-per-node=1")
    slow = {"MADE_UP_SECONDS_PER_EPOCH": "0.7"}
    exported = "PATH,HOME,RUNS_DIR,TRIALRUN,MADE_UP_EPOCHS_FILE,MADE_UP_SECONDS_PER_EPOCH"
    own = (f"--runs-dir={slurm_user.home}/runs", "--set", "name=job1")
    jobs = [
        slurm_user.submit(*options, run_options=("--set", "name=job0"), **slow),
        slurm_user.submit(
            *(*options, f"--export={exported}"), run_options=own, **slow, RUNS_DIR="/nowhere"
        ),
    ]
    for job in jobs:
        job.wait_for_files("trials/part-*.parquet")
    assert {job.state() for job in jobs} == {"RUNNING"}
    assert_token_is_secret(slurm_user.hosts, slurm_user.home)
    assert_closed_to_strangers(slurm_user.hosts)
    names = slurm_user.hosts.temporary_files("n1")
    for job in jobs:
        assert any(re.fullmatch(rf"trialrun-{job.id}-ray-\w{{6}}", name) for name in names)
    cancelled, other = jobs
    slurm_user.hosts.call("scancel", cancelled.id)
    cancelled.wait_until("CANCELLED")
    other.wait_until("COMPLETED")
    assert_run_is_whole(other.folder)
    other.assert_left_nothing()
    assert cancelled.state() == "CANCELLED"
    assert slurm_user.hosts.job(cancelled.id)["Restarts"] == "0"
    tables = [trialrun.open_run(job.folder).trials.assign(job=job.id) for job in jobs]
    table = pd.concat(tables)
    assert set(table["node"].str.partition(":")[0]) == {"n1"}
    # Each job had one GPU, and not that of the other.
    assert (table.groupby("job")["device"].nunique() == 1).all()
    assert set(table["device"]) == {"0", "1"}


def assert_token_is_secret(hosts: SlurmHosts, home: Path) -> None:
    """Whoever lists processes or temporary files, or reads logs, learns nothing."""
    tokens, lines = set(), []
    for pid, line in hosts.processes("n1").items():
        lines.append(line)
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
        found = re.findall(r"RAY_AUTH_TOKEN=(\w+)", environment)
        assert found or not re.match(r"\S*/(gcs_server|raylet)\b", line)
        tokens |= set(found)
        folders = set(Path(f"/proc/{pid}/root/tmp").glob("trialrun-*"))
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    assert len(tokens) == 2  # one per job
    lines += [path.read_text(errors="replace") for path in home.rglob("*") if path.is_file()]
    assert not [line for line in lines for token in tokens if token in line]


def assert_closed_to_strangers(hosts: SlurmHosts) -> None:
    """Nothing on n1 answers another machine that has no token."""
    ports = hosts.listening_ports("n1")
    assert len(ports) >= 2 * 8  # of each: the head, a node (2), its agents (3), driver, worker
    told = hosts.call(sys.executable, strangers.__file__, ADDRESSES["n1"], *ports)
    assert_refused(Answer(*answer) for answer in json.loads(told))


def test_shards_in_a_job_array_become_one_run(slurm_user):
    merging = slurm_user.submit(
        "--shards", "2", "--cpus-per-task=2", MADE_UP_SECONDS_PER_EPOCH="0.5"
    )
    merging.wait_until("COMPLETED")
    [folder] = (slurm_user.home / "runs" / "job").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["merged", "shard-1", "shard-2"]
    assert_run_is_whole(folder / "merged")
    nodes = trialrun.open_run(folder / "merged").trials["node"]
    assert set(nodes.str.partition(":")[0]) == {"n1", "n2"}
    merging.assert_left_nothing()


def test_the_doctor_looks_at_every_node_of_a_job(slurm_user):
    """Without GPUs, of which no driver would know; and there is no TensorFlow to be found."""
    home = slurm_user.home
    (home / "left_out").mkdir()
    (home / "left_out" / "tensorflow.py").write_text("raise ImportError('it is left out')\n")
    doctor = f"{sys.executable} -m trialrun doctor --slurm --json --runs-dir {home}/runs"
    files = (f"--output={home}/trialrun-%j.out", f"--error={home}/doctor.err")
    told = slurm_user.hosts.call(
        *("sbatch", "--parsable", "--nodes=2", "--cpus-per-task=2", *files, "--wrap", doctor),
        PYTHONPATH=str(home / "left_out"),
    )
    job = Job(slurm_user.hosts, home, told.strip())
    assert job.wait_until("FAILED")["ExitCode"] == "1:0"
    report = json.loads(job.output())
    assert [node["node"] for node in report["nodes"]] == ["n1", "n2"]
    assert report["status"] == "problem"
    for node in report["nodes"]:
        checks = {check["name"]: check for check in node["checks"]}
        assert checks["Ray"]["status"] == "ok"
        assert "ImportError: it is left out" in checks["TensorFlow"]["found"]
        assert [name for name in checks if checks[name]["status"] == "problem"] == ["TensorFlow"]
        assert checks["hard links"]["status"] == "ok"
        assert "22.05" in checks["SLURM"]["found"]
