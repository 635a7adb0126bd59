import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from trialrun.driver.preview.plan import print_plan
from trialrun.job import JobSpec, load_job
from trialrun.trials.packing import pack_trials, width_on_cpu
from trialrun.trials.plan import plan_trials, plan_variants
from trialrun.trials.signature import signature_of

JOBS = Path(__file__).parents[2] / "jobs"


def job(**sections):
    return JobSpec.model_validate({"name": "a", **sections})


def rates(*values):
    return {"parameters": {"training.learning_rate": {"values": list(values)}}}


def ids(job_spec):
    return [trial.trial_id for trial in plan_trials(job_spec)]


def sizes(packs):
    return [len(pack.trials) for pack in packs]


def test_variants_are_numbered_in_the_order_of_the_search_with_equal_width():
    variants = plan_variants(job(search=rates(*[i / 1000 for i in range(1, 102)])))
    assert [v.variant_id for v in variants[:2]] == ["v000", "v001"]
    assert variants[-1].variant_id == "v100"
    assert [v.variant_id for v in plan_variants(job())] == ["v00"]


def test_a_variant_has_its_values_in_its_settings_and_the_rest_from_the_job():
    search = {
        "parameters": {
            "training.optimizer.momentum": {"values": [0.5]},
            "model.args.units": {"values": [[4]]},
            "data.scaling": {"values": ["none"]},
        }
    }
    spec = job(training={"optimizer": {"name": "sgd"}, "epochs": 7}, search=search)
    (variant,) = plan_variants(spec)
    assert variant.training.optimizer == {"name": "sgd", "momentum": 0.5}
    assert variant.training.epochs == 7
    assert variant.model.args == {"units": [4]}
    assert variant.data.scaling == "none"
    assert spec.training.optimizer == {"name": "sgd"}  # the job is not changed


def test_trials_are_all_seeds_of_the_first_variant_then_of_the_second():
    trials = plan_trials(job(seeds=[5, 3], search=rates(1e-4, 1e-3)))
    assert [(t.variant.variant_id, t.seed) for t in trials] == [
        ("v00", 5),
        ("v00", 3),
        ("v01", 5),
        ("v01", 3),
    ]
    assert len({t.trial_id for t in trials}) == 4


def test_a_trial_id_is_a_hash_of_the_settings_the_source_and_the_seed(tmp_path):
    # Written out, because finished trials of old runs are found again by these digits.
    settings = {
        "data": {
            "args": {},
            "generator": "trialrun.datasets:medical_trial",
            "scaling": "minmax",
            "seed": "per_trial",
            "validation_split": 0.1,
        },
        "model": {
            "args": {"units": [4]},
            "builder": "nets.py:build",
            "source": hashlib.sha256(b"nets.py\0" + b"0\0").hexdigest()[:16],
        },
        "training": {
            "batch_size": 10,
            "epochs": 30,
            "learning_rate": 0.0001,
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
            "optimizer": "adam",
        },
    }
    text = json.dumps(settings, separators=(",", ":")) + "|seed=3"
    (tmp_path / "nets.py").touch()
    spec = job(model={"builder": f"{tmp_path}/nets.py:build", "args": {"units": [4]}}, seeds=[3])
    assert ids(spec) == [hashlib.sha256(text.encode()).hexdigest()[:16]]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"seeds": [9, 3]},
        {"search": rates(5e-4, 1e-4)},
        {"select": {"metric": "val_accuracy"}},
        {"resources": {"gpus": 0, "max_retries": 9}},
        {"training": {"engine": "keras"}},
    ],
)
def test_a_trial_id_does_not_depend_on_what_surrounds_the_trial(change):
    assert ids(job(seeds=[3]))[0] in ids(job(**{"seeds": [3], **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [4]},
        {"data": {"seed": 3}},
        {"data": {"args": {"n": 1}}},
        {"model": {"args": {"units": [4]}}},
        {"training": {"learning_rate": 2e-4}},
        {"training": {"optimizer": {"name": "adam"}}},
        {"training": {"epochs": 31}},
        {"training": {"early_stopping": {}}},
        {"training": {"reduce_lr_on_plateau": {}}},
        {"training": {"keep_best": "val_loss"}},
        {"training": {"terminate_on_nan": True}},
        pytest.param(
            {"training": {"callbacks": ["keras.callbacks:SwapEMAWeights"]}},
            marks=pytest.mark.tensorflow,
        ),
    ],
)
def test_a_trial_id_depends_on_each_setting_and_the_seed(change):
    assert ids(job(seeds=[3])) != ids(job(**{"seeds": [3], **change}))


def test_a_signature_ignores_learning_rate_and_seed_and_nothing_else():
    def signature(**sections):
        return signature_of(plan_variants(job(**sections))[0])

    assert signature() == signature(training={"learning_rate": 1e-2}, seeds=[7])
    different = [
        {"training": {"engine": "keras"}},
        {"training": {"batch_size": 11}},
        {"model": {"args": {"units": [4]}}},
        {"data": {"args": {"n": 1}}},
    ]
    assert len({signature(), *(signature(**sections) for sections in different)}) == 5


def test_trials_that_stop_by_other_rules_share_a_program():
    def signature(**training):
        return signature_of(plan_variants(job(training=training))[0])

    stopping = {"patience": 3, "monitor": "val_accuracy", "restore_best_weights": True}
    assert signature(early_stopping={}) == signature(early_stopping=stopping)
    assert signature(early_stopping={}) != signature()
    assert signature(keep_best="val_loss") == signature(keep_best="val_accuracy")


def test_an_edited_callback_makes_other_trials(tmp_path):
    (tmp_path / "calls.py").write_text("def stop(): ...")
    spec = job(training={"callbacks": [f"{tmp_path}/calls.py:stop"]})
    before = ids(spec)
    (tmp_path / "calls.py").write_text("def stop(): return 1")
    assert ids(spec) != before


def batch_sizes_job(num_seeds, *batch_sizes):
    parameters = {"training.batch_size": {"values": list(batch_sizes)}}
    return job(seeds=num_seeds, search={"parameters": parameters})


@pytest.mark.parametrize(
    ("num_trials", "num_devices", "maximum", "expected"),
    [
        (60, 1, 256, [60]),
        (60, 2, 256, [30, 30]),
        (61, 2, 256, [30, 31]),
        (60, 4, 256, [15] * 4),
        (60, 100, 256, [8, 9, 8, 9, 8, 9, 9]),  # never below 8 trials for the sake of a device
        (15, 2, 256, [15]),
        (16, 2, 256, [8, 8]),
        (60, 1, 20, [20, 20, 20]),
        (61, 1, 20, [15, 15, 15, 16]),  # evenly, and not 20, 20, 20, 1
        (5, 1, 1, [1] * 5),
        (1, 8, 256, [1]),
    ],
)
def test_a_group_is_split_evenly_into_the_fewest_packs_that_fill_the_devices(
    num_trials, num_devices, maximum, expected
):
    packs = pack_trials(
        plan_trials(job(seeds=num_trials)), num_devices=num_devices, max_trials_per_pack=maximum
    )
    assert sorted(sizes(packs)) == sorted(expected)


def test_packs_of_several_signatures_fill_the_devices_without_more_splits():
    trials = plan_trials(batch_sizes_job(40, 10, 20, 30))
    assert sizes(pack_trials(trials, num_devices=3, max_trials_per_pack=64)) == [40, 40, 40]
    assert sorted(sizes(pack_trials(trials, num_devices=4, max_trials_per_pack=64))) == [
        20,
        20,
        40,
        40,
    ]


def test_packs_hold_each_trial_once_in_order_and_one_signature_each():
    # Batch size varies fastest, so the trials of a signature are not neighbors in the plan.
    search = {
        "parameters": {
            "training.learning_rate": {"values": [1e-4, 1e-3]},
            "training.batch_size": {"values": [10, 20]},
        }
    }
    trials = plan_trials(job(seeds=9, search=search))
    packs = pack_trials(trials, num_devices=1, max_trials_per_pack=10)
    packed = [trial.trial_id for pack in packs for trial in pack.trials]
    assert sorted(packed) == sorted(trial.trial_id for trial in trials)
    order = {trial.trial_id: position for position, trial in enumerate(trials)}
    for pack in packs:
        assert {signature_of(trial.variant) for trial in pack.trials} == {pack.signature}
        positions = [order[trial.trial_id] for trial in pack.trials]
        assert positions == sorted(positions)
    assert [pack.pack_id for pack in packs] == ["p000", "p001", "p002", "p003"]
    assert packs[0].signature == signature_of(trials[0].variant) == packs[1].signature


@pytest.mark.parametrize(
    ("rounds", "num_devices", "num_threads", "width"),
    [
        ([], 1, 2, 32),
        ([288, 128, 143, 40], 1, 2, 36),  # two packs of 144, each as two turns of two slices
        ([288, 128, 143, 40], 4, 2, 24),  # packs of 72, 32 and 36
        ([288], 1, 1, 58),
        ([10, 4], 1, 2, 24),
    ],
)
def test_programs_of_all_rounds_have_the_width_that_leaves_the_fewest_gaps(
    rounds, num_devices, num_threads, width
):
    job = JobSpec(name="a")
    assert width_on_cpu(job, rounds, num_devices, num_threads=num_threads) == width


def test_no_trials_make_no_packs():
    assert pack_trials((), num_devices=2, max_trials_per_pack=8) == ()


def test_the_reference_job_is_sixty_trials_of_one_signature():
    trials = plan_trials(load_job(JOBS / "medical_trial.yaml").spec)
    assert len(trials) == 60
    assert sorted({t.variant.training.learning_rate for t in trials}) == [1e-4, 3e-4, 1e-3]
    assert len(pack_trials(trials, num_devices=1, max_trials_per_pack=256)) == 1


def test_the_sweep_is_a_thousand_trials_of_six_signatures():
    trials = plan_trials(load_job(JOBS / "medical_trial_sweep.yaml").spec)
    assert 1000 <= len(trials) <= 1100
    assert len({trial.trial_id for trial in trials}) == len(trials)
    assert len({signature_of(trial.variant) for trial in trials}) == 6


def test_loading_and_planning_a_job_imports_nothing_heavy():
    code = (
        "import sys; from trialrun.job import load_job; from trialrun.trials.plan import *;"
        "from trialrun.trials.packing import *;"
        f"trials = plan_trials(load_job({str(JOBS / 'medical_trial.yaml')!r}).spec);"
        "pack_trials(trials, num_devices=2, max_trials_per_pack=64);"
        "import trialrun.datasets; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"tensorflow", "keras", "ray", "sklearn", "pandas", "matplotlib", "scipy", "pyarrow"}
    assert heavy.isdisjoint(done.stdout.split())


COUNTED = """
from pathlib import Path

from trialrun.datasets import medical_trial


def data(seed):
    with (Path(__file__).parent / "generated.txt").open("a") as file:
        file.write(f"{seed}\\n")
    return medical_trial(seed)
"""


@pytest.mark.parametrize("trace", [False, pytest.param(True, marks=pytest.mark.tensorflow)])
def test_the_plan_generates_the_data_of_a_trial_once_and_compares_it_when_traced(tmp_path, trace):
    (tmp_path / "counted.py").write_text(COUNTED)
    (tmp_path / "job.yaml").write_text(
        "{name: a, seeds: [7], data: {generator: 'counted.py:data'}, training: {engine: keras}}"
    )
    console = Console(file=io.StringIO(), width=200)
    print_plan(console, load_job(tmp_path / "job.yaml"), trace=trace)
    # A process that trains, or traces, asks once more: it must be given the same.
    assert (tmp_path / "generated.txt").read_text() == ("7\n7\n" if trace else "7\n")
    said = "v00: classifier of 2 classes (loss sparse_categorical_crossentropy)."
    assert (said in console.file.getvalue()) == trace  # what the model is, it must be built to know


def test_a_plan_lists_columns_the_target_and_the_rows_of_each_part(tmp_path):
    rows = [f"{n},c{n % 8},{n / 2 if n % 12 else ''},{'ny'[n % 2]}" for n in range(60)]
    (tmp_path / "d.csv").write_text("\n".join(["age,clinic,dose,y", *rows]))
    (tmp_path / "job.yaml").write_text(
        "{name: a, seeds: 2, data: {csv: d.csv, target: y, missing: drop}}"
    )
    console = Console(width=80, record=True, file=io.StringIO())
    print_plan(console, load_job(tmp_path / "job.yaml"))
    printed = console.export_text()
    assert max(map(len, printed.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "clinic one-hot 8 0 c0, c1, c2, c3, c4, ... (8 in all)" in lines
    assert "dose number 1 5 numbers" in lines
    assert "Target 'y': classification, 2 classes, because it holds no numbers." in lines
    assert "in all 39 5 11" in lines
    assert any("5 of 60 rows lack a value and are left out" in line for line in lines)


def test_the_plan_says_which_rows_of_a_file_are_in_two_parts(tmp_path, capsys):
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    np.savez(tmp_path / "d.npz", x_train=x[:50], y_train=y[:50], x_test=x[40:], y_test=y[40:])
    (tmp_path / "job.yaml").write_text("{name: a, data: {npz: d.npz}}")
    print_plan(Console(width=200), load_job(tmp_path / "job.yaml"))
    shown = capsys.readouterr().out
    assert "Data of seed 0: Warning: " in shown
    assert "of 20 test rows are among the training rows too, more than chance explains" in shown
