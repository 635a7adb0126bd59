"""Which engine trains a pack, and how much memory it is thought to need."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from training_jobs import FEW_ROWS, load_trials, make_task, train

from trialrun.data.splits import steps_per_epoch
from trialrun.driver.preview.devices import Gpus
from trialrun.driver.preview.plan import print_plan
from trialrun.errors import InputError, OutOfMemory
from trialrun.job import load_job
from trialrun.messages import bytes_text
from trialrun.report.format import duration_text
from trialrun.training import dry_run, engine_choice
from trialrun.training.compiled import prepare, slices
from trialrun.training.compiled.prepare import require_device_memory, required_bytes
from trialrun.training.dry_run import examine
from trialrun.training.pack_data import load_pack_data
from trialrun.trials.results import Checkpoint

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def always_measured(monkeypatch):
    monkeypatch.setattr(engine_choice, "read_seconds", lambda name: {})
    monkeypatch.setattr(engine_choice, "_MIN_BYTES_PER_STEP", 0)
    monkeypatch.setattr(engine_choice, "_MIN_SECONDS", 0.0)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Of one folder, so that its programs are compiled once for all tests."""
    return task_of(tmp_path_factory, "dense")


def task_of(tmp_path_factory, builder):
    """Two trials of few operations."""
    folder = tmp_path_factory.mktemp(builder)
    training = {"optimizer": "sgd", "metrics": []}
    given = {"seeds": [1, 2], "data": {"args": FEW_ROWS}, "training": training}
    return make_task(folder, load_trials(folder, builder=builder, **given))


def choose(task):
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    return engine_choice.choose_engine(task, data, {})


def test_a_small_model_is_fused_without_measuring(task, monkeypatch):
    monkeypatch.setattr(engine_choice, "seconds_per_step", lambda prepared: pytest.fail("measured"))
    found = choose(task)
    assert (found.engine, found.reason) == ("fused", "")


def test_each_engine_can_be_timed(task, always_measured):
    found = choose(task)
    assert found.engine in ("fused", "mapped", "keras")
    assert found.engine == "fused" or re.search(r"is faster: [\d,]+ us per step", found.reason)


def test_a_traced_plan_for_gpus_tells_memory_and_the_time_of_steps(task, monkeypatch):
    """The pack of two trials takes 5 steps x 3 epochs of 2 s each, if the room suffices."""
    monkeypatch.setattr(dry_run, "seconds_per_step", lambda prepared: 2.0)
    monkeypatch.setattr(dry_run, "_seconds_to_compile", lambda prepared: 1.0)
    (found,) = examine(task)
    needed = found.shared_bytes + 2 * found.bytes_per_trial
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    prepared = prepare.prepare(task, data, "fused", {})
    assert needed == required_bytes(prepared)[0]
    steps = steps_per_epoch(data.of_trial(0), 8) * 3
    loaded = load_job(task.job_folder / "job.yaml")
    for free_bytes, expected in (
        (needed * 10, "1 pack on 1 device: 1 round of packs. All packs fit: 2 trials of"),
        (needed, "2 packs on 1 device: 2 rounds of packs."),
    ):
        console = Console(file=io.StringIO(), width=200)
        print_plan(console, loaded, trace=True, gpus=Gpus(1, free_bytes))
        words = re.sub(r"\s+", " ", console.file.getvalue())
        assert expected in words, words
        assert f"1 x 2 fused {bytes_text(needed)}" in words
        assert f"Computing the steps takes {duration_text(2 * 2 * steps)} if each" in words
        assert "device is as fast as the CPU here" in words
    assert "at most about 1 trial fit into 70% of" in words


RECURRENT = """
import keras


def lstm():
    hidden = [keras.layers.Reshape((6, 1)), keras.layers.LSTM(4, return_sequences=True)]
    hidden += [keras.layers.Bidirectional(keras.layers.GRU(4))]
    return keras.Sequential([keras.Input((6,)), *hidden, keras.layers.Dense(3, "softmax")])
"""


def test_a_recurrent_model_is_not_compiled_for_a_few_steps(tmp_path, monkeypatch):
    (tmp_path / "recurrent.py").write_text(RECURRENT)
    trials = load_trials(tmp_path, builder="recurrent.py:lstm", seeds=[1, 2])
    monkeypatch.setattr(
        engine_choice, "prepare", lambda *_: pytest.fail("it was built to be compiled")
    )
    found = choose(make_task(tmp_path, trials))
    assert found.engine == "keras"
    assert found.reason == (
        "not fused or mapped: 3 recurrent cells take longer to compile (about 9 s) than model.fit"
        " takes for the training's 30 steps"
    )


@pytest.mark.parametrize(
    ("num_cells", "num_steps", "passed_over"),
    [(0, 10, []), (1, 900, ["fused", "mapped"]), (1, 1000, []), (2, 1000, ["fused", "mapped"])],
)
def test_engines_are_passed_over_by_counts_alone(num_cells, num_steps, passed_over):
    reasons = engine_choice.engines_not_worth_compiling(num_cells, num_steps)
    assert [engine for of_one in reasons.values() for engine in of_one] == passed_over


def measured(monkeypatch, seconds):
    """Puts seconds per step of each engine in the place of what is measured."""
    monkeypatch.setattr(
        engine_choice, "seconds_per_step", lambda prepared: seconds[prepared.engine]
    )
    monkeypatch.setattr(
        engine_choice, "seconds_per_step_of_keras", lambda prepared: seconds["keras"]
    )


@pytest.mark.parametrize("fastest", ["fused", "mapped", "keras"])
def test_the_fastest_engine_is_chosen_and_the_reason_says_so(
    task, always_measured, monkeypatch, fastest
):
    measured(monkeypatch, {"fused": 3e-3, "mapped": 2.8e-3, "keras": 5e-3} | {fastest: 1e-3})
    found = choose(task)
    expected = f"{fastest} is faster: 1,000 us per step and trial, fused 3,000 us"
    assert (found.engine, found.reason) == (fastest, "" if fastest == "fused" else expected)


def test_what_was_measured_is_remembered_by_program_width_and_threads(
    task, always_measured, monkeypatch
):
    kept = {}
    monkeypatch.setattr(engine_choice, "read_seconds", lambda name: kept.get(name, {}))
    monkeypatch.setattr(engine_choice, "keep_seconds", kept.__setitem__)
    measured(monkeypatch, {"fused": 3e-3, "mapped": 1e-3, "keras": 5e-3})
    before = choose(task)
    measured(monkeypatch, {"fused": 1e-3, "mapped": 3e-3, "keras": 5e-3})
    again = choose(task)
    assert (again.engine, again.reason) == (before.engine, before.reason)
    assert again.engine == again.prepared.engine == "mapped"
    assert choose(replace(task, width=5)).engine == "fused"
    assert len(kept) == 2


def test_the_engine_that_was_found_to_be_the_fastest_trains_the_pack(
    task, always_measured, monkeypatch
):
    measured(monkeypatch, {"fused": 3e-3, "mapped": 1e-3, "keras": 5e-3})
    result = train(task)
    assert {(trial.engine, trial.status) for trial in result.trials} == {("mapped", "completed")}
    assert result.reason.startswith("mapped is faster")


def test_a_pack_that_goes_on_stays_with_its_engine(task, always_measured):
    begun = Checkpoint("p000", ("a", "b"), np.zeros(2, int), {}, (), (), (), engine="mapped")
    task = type(task)(task.pack, task.job_folder, task.select, checkpoint=begun)
    assert choose(task).engine == "mapped"


# What cannot be compiled --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def not_fused(tmp_path_factory):
    """Of a model that has no vectorized form."""
    return task_of(tmp_path_factory, "not_vectorizable")


@pytest.fixture(scope="module")
def not_compiled(tmp_path_factory):
    """Of a model that has a vectorized form, but cannot be compiled."""
    return task_of(tmp_path_factory, "not_compilable")


QR = 'layer "orthogonalize": Qr has no vectorized form'
DAWSN = 'not fused or mapped: layer "not_in_xla": XLA cannot compile the operation Dawsn'


def test_what_cannot_be_fused_is_mapped_and_the_reason_is_given(not_fused):
    found = choose(not_fused)
    assert (found.engine, found.reason) == ("mapped", f"not fused: {QR}")


def test_forcing_the_fused_engine_on_what_cannot_be_fused_is_an_input_error(tmp_path):
    training = {"engine": "fused"}
    trials = load_trials(tmp_path, builder="not_vectorizable", seeds=[1], training=training)
    with pytest.raises(InputError, match=f"fused is not possible: {QR}"):
        train(make_task(tmp_path, trials))


def test_where_nothing_can_be_fused_the_mapped_program_is_measured_too(
    not_fused, always_measured, monkeypatch
):
    measured(monkeypatch, {"mapped": 5e-3, "keras": 1e-3})
    found = choose(not_fused)
    assert found.engine == "keras"
    assert found.reason.startswith(f"not fused: {QR}")
    assert found.reason.endswith("; keras is faster: 1,000 us per step and trial, mapped 5,000 us")


def test_what_xla_cannot_compile_is_trained_by_keras_and_the_reason_is_given(not_compiled):
    result = train(not_compiled)
    assert [(row.engine, row.status) for row in result.trials] == [("keras", "completed")] * 2
    assert result.reason == DAWSN


def test_what_xla_cannot_compile_is_examined_as_it_is_trained(not_compiled):
    (found,) = examine(not_compiled)
    assert (found.engine, found.compile_s, found.reason) == ("keras", None, DAWSN)


def test_what_xla_cannot_compile_leads_to_the_next_engine_while_it_is_measured(
    not_compiled, always_measured
):
    found = choose(not_compiled)
    assert (found.engine, found.reason) == ("keras", DAWSN)


# Memory -------------------------------------------------------------------------------------------


def test_a_pack_that_does_not_fit_says_how_many_trials_would(tmp_path):
    task = make_task(tmp_path, load_trials(tmp_path, builder="dense", seeds=10))
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    ready = prepare.prepare(task, data, "fused", {})
    needed, per_trial = required_bytes(ready)
    assert per_trial == needed // 10
    require_device_memory(ready, 2 * needed)
    with pytest.raises(OutOfMemory, match=r"10 trials need about .* KiB each") as caught:
        require_device_memory(ready, needed // 2)
    assert caught.value.max_trials == 3  # 0.7 of a half


def test_slices_on_a_gpu_are_as_wide_as_memory_allows(tmp_path, monkeypatch):
    """The device is a CPU; only what it allows is that of a GPU, with small numbers."""
    task = make_task(tmp_path, load_trials(tmp_path, builder="dense", seeds=10))
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    monkeypatch.setattr(slices, "most_per_slice", lambda: 64)
    monkeypatch.setattr(prepare, "MOST_ON_CPU", 2)
    ready = prepare.prepare(task, data, "fused", {})

    def widths(free_bytes):
        fitted = prepare.fitted_to_memory(ready, free_bytes, {})
        assert required_bytes(fitted)[0] <= 0.7 * free_bytes
        return [len(own.indices) for own in fitted.slices]

    peak, inputs = ready.program.memory_bytes(10)
    assert widths(int(peak / 0.7) + 1) == [10]
    assert widths(int((inputs + 0.7 * (peak - inputs)) / 0.7)) == [5, 5]
    assert widths(int((inputs + 0.25 * (peak - inputs)) / 0.7)) == [2, 2, 2, 2, 2]
    with pytest.raises(OutOfMemory):
        widths(int((inputs + 0.1 * (peak - inputs)) / 0.7))


def test_shared_data_is_held_and_counted_once(tmp_path):
    sections = {"data": {"seed": 1, "args": {"num_train": 4000}}}
    trials = load_trials(tmp_path, builder="dense", seeds=10, **sections)
    task = make_task(tmp_path, trials, num_threads=2)
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    ready = prepare.prepare(task, data, "fused", {})
    first, second = ready.slices
    for part in ("train", "val", "test"):
        for one, other in zip(getattr(first, part), getattr(second, part), strict=True):
            assert one is other
    (splits,) = data.splits
    shared = sum(array.nbytes for part in ("train", "val") for array in splits.part(part))
    peak, inputs = ready.program.memory_bytes(5)
    needed, per_trial = required_bytes(ready)
    assert needed == shared + 2 * (peak - shared)
    assert per_trial == (peak - shared) // 5
    assert inputs > shared > 4000 * 6 * 4
    with pytest.raises(OutOfMemory) as caught:
        require_device_memory(ready, int((shared + 4.5 * per_trial) / 0.7))
    assert caught.value.max_trials == 4


WIDE = """
import numpy as np
import keras


def data(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(200, 1024)).astype("float32"), rng.integers(0, 4, 200)
    parts = {"train": slice(100), "validation": slice(100, 150), "test": slice(150, 200)}
    return {name: (x[rows], y[rows]) for name, rows in parts.items()}


def wide():
    hidden = keras.layers.Dense(1024, activation="relu")
    return keras.Sequential([keras.Input((1024,)), hidden, keras.layers.Dense(4, "softmax")])
"""
# Prints for each engine the estimate per trial, and how much memory a trial took while its program
# was compiled and run; each is measured in a process of its own.
MEASURE = """
import os
import sys
from pathlib import Path

import tensorflow as tf
from training_jobs import make_task

from trialrun.job import load_job
from trialrun.trials.plan import plan_trials
from trialrun.training.compiled.prepare import required_bytes
from trialrun.training.compiled.prepare import prepare
from trialrun.training.pack_data import load_pack_data

folder = Path(sys.argv[1])
task = make_task(folder, plan_trials(load_job(folder / "job.yaml").spec))


def status_bytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def measure(engine):
    # What the first compilation of a process takes is no trial's.
    tf.function(lambda x: tf.nn.softmax(tf.tanh(x @ x)), jit_compile=True)(tf.eye(64))
    data, _ = load_pack_data(task.pack.trials, folder)
    ready = prepare(task, data, engine, {})
    own = ready.slices[0]
    orders = tf.constant(own.orders.next_epoch()[None])
    given = own.state, own.train, orders, own.val
    arrays = tf.nest.flatten(given)
    inputs = sum(array.shape.num_elements() * array.dtype.size for array in arrays)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status_bytes("VmRSS")
    state, _ = ready.program.train_epochs(*given)
    state.trainable[0].numpy()
    used = status_bytes("VmHWM") - before + inputs
    print(engine, required_bytes(ready)[1], used // len(task.pack.trials), flush=True)


for engine in ("fused", "mapped"):
    child = os.fork()
    if not child:
        measure(engine)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_the_estimated_memory_is_within_a_factor_of_two_of_what_is_used(tmp_path, subtests):
    (tmp_path / "wide.py").write_text(WIDE)
    (tmp_path / "job.yaml").write_text(
        "{name: wide, seeds: 12, data: {generator: 'wide.py:data'}, model: {builder: 'wide.py:wide'"
        "}, training: {batch_size: 50, epochs: 1}}"
    )
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        cwd=Path(__file__).parents[1] / "support",
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(measured.stdout.splitlines()) == 2
    for line in measured.stdout.splitlines():
        engine, estimate, used = line.split()
        with subtests.test(engine=engine):
            assert int(used) / 2 <= int(estimate) <= int(used) * 2
