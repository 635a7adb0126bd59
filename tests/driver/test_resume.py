"""What a run folder holds of a job: what is missing, and when it is another job's."""

import re
from dataclasses import replace

import numpy as np
import pytest
from made_up_runs import broken, completed, learning_rates

from trialrun.cluster.faults import FaultRules
from trialrun.driver.resume import missing_trials, packs_with_checkpoints, source_digests
from trialrun.errors import InputError
from trialrun.job import SelectSpec, dump_job, load_job
from trialrun.store import RunFolder
from trialrun.store.columns import parameter_kinds
from trialrun.store.files import write_json
from trialrun.trials.plan import plan_trials
from trialrun.trials.results import Checkpoint, PackResult
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

STRANGER = (learning_rates(0.5)[0], 77)
JOB = """
name: medical_trial
model: {builder: "nets.py:build"}
seeds: 3
search: {parameters: {training.learning_rate: {values: [0.1, 0.2]}}}
"""


@pytest.fixture
def job_file(tmp_path):
    (tmp_path / "nets.py").write_text("def build():\n    from ours import one\n    return one\n")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").write_text("from .numbers import one\n")
    (tmp_path / "ours" / "numbers.py").write_text("one = 1\n")
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


@pytest.fixture
def run(tmp_path, job_file):
    """All six trials but the last have been tried; one failed."""
    loaded = load_job(job_file)
    trials = plan_trials(loaded.spec)
    folder = RunFolder.create(tmp_path / "runs", "medical_trial")
    folder.write_job(dump_job(loaded.spec))
    write_json(folder.environment_file, {"sources": source_digests(loaded)})
    results = [
        replace(completed(trial.variant, trial.seed), trial=trial)
        if index != 1
        else replace(broken(trial.variant, trial.seed, error="no luck"), trial=trial)
        for index, trial in enumerate(trials[:5])
    ]
    kinds = parameter_kinds([trial.variant for trial in trials])
    folder.write_pack(PackResult("p000", tuple(results)), kinds)
    return folder


def missing(run, job_file, *overrides):
    loaded = load_job(job_file, overrides)
    trials = missing_trials(run, loaded, plan_trials(loaded.spec))
    return [(trial.variant.variant_id, trial.seed) for trial in trials]


def test_what_failed_and_what_was_not_tried_is_missing(run, job_file):
    assert missing(run, job_file) == [("v00", 1), ("v01", 2)]


def test_seeds_may_be_added(run, job_file):
    expected = [("v00", 1), ("v00", 3), ("v01", 2), ("v01", 3)]
    assert missing(run, job_file, "seeds=4") == expected
    assert missing(run, job_file, "seeds=[0,1,2,3]") == expected


def test_values_may_be_added_at_the_end(run, job_file):
    values = "search.parameters.training.learning_rate.values=[0.1, 0.2, 0.3]"
    assert missing(run, job_file, values)[2:] == [("v02", 0), ("v02", 1), ("v02", 2)]


def test_how_it_is_computed_and_judged_may_change(run, job_file):
    overrides = ["resources.cpus=1", "select.metric=val_accuracy", "training.engine=keras"]
    assert len(missing(run, job_file, *overrides, "training.checkpoint_every=3")) == 2


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("training.epochs=31", "training.epochs: 30 -> 31"),
        ("data.scaling=none", "data.scaling: 'minmax' -> 'none'"),
        ("training.optimizer={name: sgd, momentum: 0.9}", "training.optimizer: 'adam' -> "),
        ("seeds=2", "seeds: 3 -> 2"),
        (
            "search.parameters.training.learning_rate.values=[0.2, 0.1]",
            "search.parameters.training.learning_rate.values: [0.1, 0.2] -> [0.2, 0.1]",
        ),
        ("search.parameters.training.batch_size.values=[10]", "training.batch_size: absent -> "),
    ],
)
def test_another_job_is_refused_and_the_difference_is_shown(run, job_file, override, difference):
    with pytest.raises(InputError, match="holds trials of a job that differs from") as refused:
        missing(run, job_file, override)
    assert difference in str(refused.value)
    assert len(str(refused.value).splitlines()) == 3


def test_an_edited_package_is_another_job(run, job_file):
    (job_file.parent / "ours" / "numbers.py").write_text("one = 2\n")
    with pytest.raises(InputError, match=r"5 of 5 trials are not among its trials") as refused:
        missing(run, job_file)
    assert "  the content of ours/numbers.py has changed\n" in str(refused.value)
    assert "  the source code of nets.py:build has changed\n" in str(refused.value)


def test_an_edited_model_is_another_job(run, job_file):
    (job_file.parent / "nets.py").write_text("def build():\n    return 2\n")
    with pytest.raises(InputError, match=re.escape("the source code of nets.py:build has changed")):
        missing(run, job_file)


def test_a_part_of_another_run_is_set_aside(run, job_file, tmp_path):
    """Somebody copied files: the job is the same, but there are trials that it does not have."""
    stranger = replace(completed(*STRANGER), pack_id="p007")
    run.write_pack(PackResult("p007", (stranger,)), {"training.learning_rate": "float"})
    loaded = load_job(job_file)
    said = []
    trials = missing_trials(run, loaded, plan_trials(loaded.spec), said.append)
    assert [trial.seed for trial in trials] == [1, 2]
    assert len(said) == 1
    assert "part-p007.parquet: it holds trials of another job; set aside as " in said[0]
    assert len(list(run.set_aside_dir.iterdir())) == 2
    assert missing(run, job_file) == [("v00", 1), ("v01", 2)]


def test_an_empty_run_takes_any_job(tmp_path, job_file):
    folder = RunFolder.create(tmp_path / "runs", "medical_trial")
    folder.write_job("name: other\n")
    assert len(missing(folder, job_file)) == 6


def checkpoint_of(pack_id, trials):
    epochs = np.ones(len(trials), np.int64)
    return Checkpoint(pack_id, tuple(t.trial_id for t in trials), epochs, {}, (), (), ())


def test_a_checkpoint_keeps_its_pack_together_and_the_rest_is_packed_anew(job_file):
    trials = plan_trials(load_job(job_file).spec)
    first = checkpoint_of("p001", [trials[4], trials[0]])
    second = checkpoint_of("p002", [trials[1], trials[2]])
    packs, rest = packs_with_checkpoints([first, second], [trials[0], *trials[2:]])
    assert [(pack.pack_id, pack.trials) for pack in packs] == [
        ("p001", (trials[4], trials[0])),
        ("p002", (trials[2],)),
    ]
    assert rest == [trials[3], trials[5]]


def test_a_half_goes_on_from_its_own_checkpoint(job_file):
    trials = plan_trials(load_job(job_file).spec)
    whole, half = checkpoint_of("p001", trials[:4]), checkpoint_of("p001b", trials[2:4])
    packs, _ = packs_with_checkpoints([whole, half], trials[1:4])
    assert [(pack.pack_id, pack.trials) for pack in packs] == [
        ("p001b", trials[2:4]),
        ("p001r", trials[1:2]),
    ]


def test_what_is_left_of_a_pack_never_replaces_its_recorded_half(tmp_path, job_file):
    """The driver was killed when one half was done; what is left is resumed, and halved again."""
    trials = plan_trials(load_job(job_file).spec)
    kinds = parameter_kinds([trial.variant for trial in trials])
    run = RunFolder.create(tmp_path / "runs", "medical_trial")
    rules = FaultRules(2)

    def record(task):
        results = [
            replace(completed(trial.variant, trial.seed, attempt=task.attempt), trial=trial)
            for trial in task.pack.trials
        ]
        run.write_pack(PackResult(task.pack.pack_id, tuple(results)), kinds)

    checkpoint = checkpoint_of("p003", trials)
    run.kept.write_checkpoint(checkpoint)
    task = PackTask(Pack("p003", "s", trials), None, SelectSpec())
    for expected in (3, 5):
        done, _ = rules.answer(task, "error")
        record(done)
        assert len(run.read_trials()) == expected
        rest = trials[expected:]
        recorded = {pack.pack_id for pack in run.read_packs()}
        packs, _ = packs_with_checkpoints(run.kept.trials_of_checkpoints(), rest, recorded)
        assert run.kept.read_checkpoint(packs[0]).trial_ids == tuple(t.trial_id for t in rest)
        task = replace(task, pack=packs[0])
