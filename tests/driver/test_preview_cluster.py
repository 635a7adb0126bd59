"""What `plan` says of a cluster that is not here, against what a run there would do."""

import io
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
from commands import ROOT, call
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import completed
from rich.console import Console

from trialrun.driver.preview.cluster import Group, Memory, print_known
from trialrun.driver.preview.devices import Devices, Gpus
from trialrun.driver.preview.plan import print_plan
from trialrun.job import dump_job, load_job
from trialrun.store import RunFolder
from trialrun.store.columns import parameter_kinds
from trialrun.trials.needs import choose_needs
from trialrun.trials.packing import make_packs
from trialrun.trials.plan import plan_trials
from trialrun.trials.results import PackResult
from trialrun.trials.trial import Pack

REFERENCE_JOB = ROOT / "jobs" / "medical_trial.yaml"
A100 = "GPU 0: NVIDIA A100-SXM4-40GB, 40960 MiB"


def words_of(text):
    return re.sub(r"\s+", " ", text)


@settings(max_examples=20, deadline=None)
@given(
    rates=st.integers(1, 4),
    batch_sizes=st.integers(1, 3),
    seeds=st.integers(1, 70),
    gpus_of_nodes=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    gpus=st.sampled_from(["auto", 1, 0.5, 0.4, 0.1]),
    width=st.one_of(st.just("auto"), st.integers(1, 64)),
)
def test_the_packs_of_a_plan_are_those_that_a_run_on_as_many_gpus_makes(
    rates, batch_sizes, seeds, gpus_of_nodes, gpus, width
):
    loaded = load_job(
        REFERENCE_JOB,
        {
            "seeds": seeds,
            "resources": {"gpus": gpus, "max_trials_per_pack": width},
            "search.parameters": {
                "training.learning_rate": {"values": [n / 100 for n in range(1, rates + 1)]},
                "training.batch_size": {"values": list(range(10, 10 + batch_sizes))},
            },
        },
    )
    nodes = [{"GPU": float(count), "CPU": 100.0} for count in gpus_of_nodes]
    needs = choose_needs(nodes, loaded.spec.resources)
    num_devices = sum(map(needs.fit_into, nodes))
    made = make_packs(
        loaded.spec, plan_trials(loaded.spec), num_devices, num_threads=needs.num_threads
    )
    console = Console(file=io.StringIO(), width=300)
    print_plan(console, loaded, gpus=Gpus(sum(gpus_of_nodes)))
    printed = console.file.getvalue()
    shown: Counter[tuple[str, int]] = Counter()
    for line in printed.splitlines():
        for count, size in re.findall(r"(\d+) x (\d+)", line):
            if re.match("[0-9a-f]{16} ", line):
                shown[line.split()[0], int(size)] += int(count)
    assert shown == Counter((pack.signature, len(pack.trials)) for pack in made)
    found = re.search(r"(\d+) packs? on (\d+) devices?: (\d+) rounds? of packs", printed)
    assert found is not None, printed
    rounds = -(-len(made) // num_devices)
    assert tuple(map(int, found.groups())) == (len(made), num_devices, rounds)


def test_a_plan_for_gpus_compares_memory_and_says_what_stays_idle():
    finished = call("plan", REFERENCE_JOB, "--gpus", "16", "--gpu-memory", "40GB")
    assert (finished.code, finished.stderr) == (0, "")
    assert [line for line in finished.stdout.splitlines() if len(line) > 80] == []
    words = words_of(finished.stdout)
    for part in (
        "On 16 GPUs: packs at a time: 16, with 16 CPU cores for them.",
        "4 x 9, 3 x 8",
        "7 packs on 16 devices: 1 round of packs, and no pack for 9 devices",
        "of the 37.3 GiB that a pack has. What else they need, and whether they fit, `--trace`",
    ):
        assert part in words, finished.stdout
    shared = ["--set", "resources.gpus=0.5", "--set", "resources.accelerator_type=A100"]
    words = words_of(call("plan", REFERENCE_JOB, "--gpus", "2", *shared).stdout)
    assert "On 2 GPUs of type A100: packs at a time: 4 (2 on each GPU), with 4 CPU cores" in words


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--gpu-memory", "40GB"], ["--gpus; give both"]),
        (["--gpus", "2", "--gpu-memory", "40"], ["40GB or 80GiB, got '40'"]),
        (["--gpus", "2", "--gpu-memory", "0GB"], ["got '0GB'"]),
        (["--gpus", "2", "--gpu-memory", "-1GB"], ["got '-1GB'"]),
        (["--gpus", "2", "--gpu-memory", "much"], ["got 'much'"]),
        (["--gpus", "0"], ["--gpus"]),
        (["--gpus", "2", "--set", "resources.gpus=0"], ["resources.gpus is 0", "leave out --gpus"]),
        (["--measured", "jobs"], ["jobs: is not a run folder"]),
    ],
)
def test_what_cannot_be_planned_is_refused(options, parts):
    finished = call("plan", REFERENCE_JOB, *options)
    assert (finished.code, finished.stdout) == (2, "")
    for part in parts:
        assert part in finished.stderr


@pytest.fixture
def pilot(tmp_path):
    """A run of the reference job with two seeds and one variant, trained as one pack."""

    def write(*, device=A100, is_resumed=False, duration_s=2.0):
        job = load_job(REFERENCE_JOB, ["seeds=4"]).spec
        trials = plan_trials(job)
        run = RunFolder.create(tmp_path, job.name)
        run.write_job(dump_job(job))
        results = [
            replace(
                completed(trial.variant, trial.seed),
                trial=trial,
                duration_s=duration_s,
                device=device,
            )
            for trial in trials[:4]
        ]
        timings_s = {"trace": 0.5, "compile": 1.5, "train": 6.0}
        pack = PackResult("p000", tuple(results), timings_s=timings_s, is_resumed=is_resumed)
        run.write_pack(pack, parameter_kinds([trial.variant for trial in trials]))
        return run.path

    return write


@pytest.mark.parametrize(
    ("num_trials", "free_bytes", "expected"),
    [
        (1, 1000, "not even one trial fits into 70% of the 1000 bytes"),
        (9, 1000, "not even one trial fits into 70% of the 1000 bytes"),
        (9, 2000, "packs of at most about 1 trial fit into 70% of the 2.0 KiB"),
        (9, 20000, "All packs fit: 9 trials of s need about 8.9 KiB"),
    ],
)
def test_a_trial_that_is_too_large_by_itself_is_not_said_to_fit(num_trials, free_bytes, expected):
    """Each trial takes 1000 bytes, and a pack 100 more."""
    [first, *_] = plan_trials(load_job(REFERENCE_JOB).spec)
    pack = Pack("p000", "s", (first,) * num_trials)
    console = Console(file=io.StringIO(), width=300)
    group = Group([pack], Memory(100, 1000, is_all=True))
    print_known(console, [group], Devices(1, 1, Gpus(1, free_bytes)), None)
    assert expected in console.file.getvalue()


def test_the_time_of_a_plan_lies_between_what_compiling_may_cost(pilot):
    """192 trials are 4 packs of 48, one after another on 2 GPUs.

    The pack of 4 trials took 8 s, of which 2 s compiled: a pack of 48 takes between 6 s x 12 and
    8 s x 12.
    """
    options = ["--gpus", "2", "--set", "seeds=64", "--set", "resources.max_trials_per_pack=48"]
    run = pilot()
    words = words_of(call("plan", REFERENCE_JOB, *options, "--measured", run).stdout)
    assert "4 packs on 2 devices: 2 rounds of packs." in words
    assert (
        "Training takes 2 min 24 s to 3 min 12 s if each device is as fast as the NVIDIA" in words
    )
    assert "have at most 4 trials; wider ones may take less time per trial" in words
    assert "is not known" not in words
    words = words_of(call("plan", REFERENCE_JOB, "--measured", pilot(device="CPU")).stdout)
    assert "as fast as the CPU in /" in words
    assert "is not known" not in words
    on_gpus = call("plan", REFERENCE_JOB, *options, "--measured", pilot(device="CPU")).stdout
    assert "measured on CPU; how fast a GPU is, is not known" in words_of(on_gpus)


@pytest.mark.parametrize(
    ("is_resumed", "options"),
    [
        (False, ["--set", "training.epochs=31"]),
        (False, ["--set", "model.args.units=[4]"]),
        (True, []),  # its times are those of a part
    ],
)
def test_a_run_of_another_model_or_of_a_part_tells_no_times(pilot, is_resumed, options):
    run = pilot(is_resumed=is_resumed)
    finished = call("plan", REFERENCE_JOB, *options, "--measured", run)
    assert (finished.code, finished.stdout) == (2, "")
    assert (
        f"{run}: holds no pack of this job's trials that was trained in one go" in finished.stderr
    )


@pytest.mark.parametrize("duration_s", [math.nan, math.inf, -1.0])
def test_times_that_no_run_can_have_are_said_to_be_damaged(pilot, duration_s):
    finished = call("plan", REFERENCE_JOB, "--measured", pilot(duration_s=duration_s))
    assert (finished.code, finished.stdout) == (1, "")
    assert "a file of this run is damaged" in finished.stderr
    assert "p000 took" in finished.stderr


def test_whole_trainings_tell_no_time_of_trials_that_are_paused(pilot):
    rounds = "search.rounds=[{seeds: 2, epochs: 5, keep: 1}, {seeds: 4}]"
    finished = call(
        "plan", REFERENCE_JOB, "--set", rounds, "--set", "seeds=4", "--measured", pilot()
    )
    assert (finished.code, finished.stdout) == (2, "")
    assert "search.rounds pauses trials after some of their epochs" in finished.stderr


def test_what_a_run_tells_of_some_packs_is_not_taken_for_all(pilot):
    two_sizes = "search.parameters={training.batch_size: {values: [10, 20]}, "
    two_sizes += "training.learning_rate: {values: [1e-4]}}"
    options = ["--set", two_sizes, "--set", "seeds=4", "--measured", pilot()]
    words = words_of(call("plan", REFERENCE_JOB, *options).stdout)
    assert "How long it takes is not known: " in words
    assert "Training takes" not in words
