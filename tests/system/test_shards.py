"""Shards of a job: a partition of its trials, trained by runs of their own, merged into one."""

import itertools
import json

import pyarrow.parquet as pq
import pytest
from commands import ROOT, call
from durable_runs import JOB, DurableRun
from made_up_driver import RAISES
from ray_nodes import RayNodes

from trialrun import open_run
from trialrun.job import dump_job, load_job
from trialrun.store import RunFolder
from trialrun.trials.packing import shard_trials
from trialrun.trials.plan import plan_trials
from trialrun.trials.signature import signature_of

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def nodes():
    """A node of one core."""
    with RayNodes(1) as nodes:
        yield nodes


def trials_of(tmp_path, seeds, units):
    path = tmp_path / "job.yaml"
    values = [[count] for count in range(1, units + 1)]
    path.write_text(
        f"name: sharded\nseeds: {seeds}\n"
        f"search: {{parameters: {{model.args.units: {{values: {values}}}}}}}\n"
    )
    return plan_trials(load_job(path).spec)


@pytest.mark.parametrize(("seeds", "units"), [(1, 1), (7, 1), (20, 3), (3, 17), (40, 5)])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shards_are_a_partition_and_none_has_much_more_to_do(tmp_path, seeds, units, count):
    trials = trials_of(tmp_path, seeds, units)
    shards = [shard_trials(trials, f"{number}/{count}") for number in range(1, count + 1)]
    together = list(itertools.chain(*shards))
    assert len(together) == len(trials)
    assert {t.trial_id for t in together} == {t.trial_id for t in trials}
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= max(seeds if seeds < 8 else 8, units)


def test_many_signatures_are_not_spread_over_all_shards(tmp_path):
    trials = trials_of(tmp_path, 3, 17)
    shards = [shard_trials(trials, f"{number}/4") for number in range(1, 5)]
    programs = [{signature_of(trial.variant) for trial in shard} for shard in shards]
    assert sum(map(len, programs)) == 17


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/0", "²/3", ""])
def test_a_shard_that_is_none_is_refused(shard):
    for command in ("run", "plan"):
        finished = call(command, "jobs/medical_trial.yaml", "--shard", shard)
        assert finished.code == 2
        assert f"--shard {shard}: resources.shard must be I/N, such as 2/8" in finished.stderr
        assert "--set" not in finished.stderr


def test_a_plan_of_a_shard_shows_its_packs():
    finished = call("plan", "jobs/medical_trial.yaml", "--shard", "2/3")
    assert finished.code == 0
    words = " ".join(finished.stdout.split())
    assert "3 variants x 20 seeds = 60 trials of 30 epochs, 20 of them in shard 2/3" in words


@pytest.mark.parametrize("command", ["run", "plan"])
def test_more_shards_than_trials_are_refused(command):
    options = ["--set", "seeds=1", "--set", "search.parameters={}", "--shard", "2/2"]
    finished = call(command, "jobs/medical_trial.yaml", *options)
    assert finished.code == 2
    message = "--shard 2/2: resources.shard 2/2: has no trial to train, as the job has only 1"
    assert message in finished.stderr


def test_resume_and_run_folder_together_are_refused(tmp_path):
    finished = call("run", "jobs/medical_trial.yaml", "--resume", tmp_path, "--run-folder", "a")
    assert finished.code == 2
    assert "--resume and --run-folder both name the run folder" in finished.stderr


def test_a_run_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    finished = call("run", "jobs/medical_trial.yaml", "--run-folder", tmp_path)
    assert finished.code == 2
    assert "is neither a run folder nor empty: it holds thesis.tex but no job.yaml" in (
        finished.stderr
    )


def test_a_folder_with_a_job_file_of_the_users_own_is_refused(tmp_path):
    text = (ROOT / "jobs" / "medical_trial.yaml").read_text()
    (tmp_path / "job.yaml").write_text(text)
    finished = call("run", tmp_path / "job.yaml", "--run-folder", tmp_path)
    assert finished.code == 2
    assert "holds a job.yaml but no run of this job; give another folder" in finished.stderr
    assert (tmp_path / "job.yaml").read_text() == text


def test_runs_of_shards_become_the_run_of_the_whole_job(tmp_path, nodes):
    shards = [DurableRun(tmp_path / f"shard{number}") for number in (1, 2)]
    first, second = shards
    for number, shard in enumerate(shards, 1):
        folder = shard.home / "runs" / "durable" / "run"
        options = ("--run-folder", folder, "--shard", f"{number}/2")
        finished = shard.begin(nodes.address, options=options).finish()
        assert finished.code == 0, finished
        assert f"This is shard {number}/2" in finished.stderr

    merged = DurableRun(tmp_path / "merged")
    folder = merged.home / "runs" / "durable" / "run"
    finished = merged.merge(first.folder, folder=folder).finish()
    assert finished.code == 2
    assert "6 of 12 trials are in none of these runs" in finished.stderr
    assert "6 belong to shards whose runs were not given" in finished.stderr
    assert not folder.exists()

    finished = merged.merge(first.folder, second.folder, folder=folder).finish()
    assert finished.code == 0, finished
    merged.assert_whole()
    assert "shard: null" in (folder / "job.yaml").read_text()
    assert json.loads((folder / "environment.json").read_text())["ray"]["merged"] == [
        str(first.folder),
        str(second.folder),
    ]

    parts = sorted((folder / "trials").iterdir())
    finished = merged.merge(first.folder, second.folder, folder=folder).finish()
    assert finished.code == 0, finished
    assert sorted((folder / "trials").iterdir()) == parts
    merged.assert_whole()


def test_failed_trials_are_merged_once_and_trained_when_the_merged_run_is_extended(tmp_path, nodes):
    """Seed 1 of both variants raises, until its code is mended."""
    job = JOB + f"data: {{args: {{num_test_older_with: {RAISES}}}}}\n"
    shard = DurableRun(tmp_path / "shard", job)
    assert shard.begin(nodes.address, options=("--shard", "1/1")).finish().code == 1
    merged = DurableRun(tmp_path / "merged")
    folder = merged.home / "runs" / "durable" / "run"
    for runs in ((shard.folder,), (shard.folder, shard.folder)):
        finished = merged.merge(*runs, folder=folder).finish()
        assert finished.code == 1, finished
        costs = [run / "costs.json" for run in (folder, shard.folder)]
        assert costs[0].read_text() == costs[1].read_text()
        trials = open_run(folder).trials
        assert sorted(trials["status"]) == ["completed"] * 10 + ["failed"] * 2
        parts = [pq.read_table(part).num_rows for part in (folder / "trials").iterdir()]
        assert sum(parts) == sum(
            pq.read_table(part).num_rows for part in (shard.folder / "trials").iterdir()
        )
    more = ("--run-folder", folder, "--set", "seeds=7")
    (merged.home / "job.yaml").write_text(job)
    assert merged.begin(nodes.address, options=more).finish().code == 1
    trials = open_run(folder).trials
    assert sorted(trials["status"]) == ["completed"] * 12 + ["failed"] * 2


def test_a_merge_into_one_of_the_runs_is_refused(tmp_path):
    shard = tmp_path / "shard"
    loaded = load_job("jobs/medical_trial.yaml")
    RunFolder.at(shard).write_job(dump_job(loaded.spec))
    finished = call("merge", shard, "--run-folder", shard)
    assert finished.code == 2
    assert "is one of the runs to merge; give another folder" in finished.stderr


@pytest.fixture(scope="module")
def one(tmp_path_factory, nodes):
    """A run of the whole job."""
    run = DurableRun(tmp_path_factory.mktemp("one") / "home")
    assert run.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish().code == 0
    return run


def test_runs_whose_variants_have_other_names_are_not_merged(tmp_path, nodes, one):
    """The same trials, but what is v00 in one run is v01 in the other."""
    other = DurableRun(tmp_path / "other", JOB.replace("[0.1, 0.2]", "[0.2, 0.1]"))
    assert other.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish().code == 0
    finished = one.merge(one.folder, other.folder, folder=tmp_path / "merged").finish()
    assert finished.code == 2
    assert (
        f"{other.folder}: holds trials of a job that differs from {one.folder}" in finished.stderr
    )


def test_a_shard_that_was_interrupted_is_named_and_merged_when_it_is_finished(tmp_path, nodes):
    shard = DurableRun(tmp_path / "shard")
    command = shard.begin(nodes.address, options=("--shard", "1/1"))
    command.wait_for(lambda: shard.has_reached("while results are written"))
    command.terminate()
    assert command.finish().code == 75
    merged = DurableRun(tmp_path / "merged")
    folder = merged.home / "runs" / "durable" / "run"
    finished = merged.merge(shard.folder, folder=folder).finish()
    assert finished.code == 2
    assert f"{shard.folder} (shard 1/1) lacks " in finished.stderr
    assert f"trialrun resume {shard.folder}" in finished.stderr
    assert shard.resume(nodes.address).finish().code == 0
    assert merged.merge(shard.folder, folder=folder).finish().code == 0
    merged.assert_whole()


def test_runs_of_two_jobs_are_not_merged(tmp_path, nodes, one):
    other = DurableRun(tmp_path / "other", JOB.replace("epochs: 5", "epochs: 4"))
    assert other.begin(nodes.address, MADE_UP_SECONDS_PER_EPOCH="0.01").finish().code == 0
    finished = one.merge(one.folder, other.folder, folder=tmp_path / "merged").finish()
    assert finished.code == 2
    assert (
        f"{other.folder}: holds trials of a job that differs from {one.folder}" in finished.stderr
    )
    assert "training.epochs: 4 -> 5" in finished.stderr


def test_a_run_folder_is_made_and_then_gone_on_with(tmp_path, nodes):
    run = DurableRun(tmp_path / "home")
    options = ("--run-folder", run.home / "runs" / "durable" / "mine")
    command = run.begin(nodes.address, options=options)
    command.wait_for(lambda: run.has_reached("while results are written"))
    command.terminate()
    assert command.finish().code == 75
    finished = run.begin(nodes.address, options=options).finish()
    assert finished.code == 0, finished
    run.assert_whole()
    began = json.loads((run.folder / "environment.json").read_text())
    assert len(began["earlier"]) == 1
