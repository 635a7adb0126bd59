"""Job files that mean harm, or nothing: one clear message each, never a traceback, never a hang."""

import os
import string
import time
from pathlib import Path

import pytest
import yaml
from commands import call
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trialrun.errors import InputError
from trialrun.job import dump_job, load_job
from trialrun.trials.plan import plan_trials

REFERENCE = """\
name: a
data: {generator: "trialrun.datasets:medical_trial", args: {}, seed: per_trial, scaling: minmax,
       validation_split: 0.1}
model: {builder: "trialrun.models:mlp", args: {units: [16, 32], activation: relu}}
training: {optimizer: {name: sgd, momentum: 0.9, loss_scaling: {initial_scale: 8}},
           learning_rate: 1e-4, loss: {a: mse, b: {name: huber, delta: 2}},
           loss_weights: {a: 1, b: 2}, metrics: {a: [mae, {name: auc, as: area, curve: PR}]},
           weighted_metrics: {b: [mae]}, class_weight: {0: 1, "1": 2.5},
           learning_rate_schedule: {name: cosine_decay, decay_epochs: 2.5, warmup_steps: 3},
           batch_size: 10, epochs: 30, engine: auto, checkpoint_every: 5, keep_best: val_loss,
           callbacks: [], early_stopping: {patience: 3, baseline: 0.5},
           reduce_lr_on_plateau: {factor: 0.5}}
seeds: 3
search: {method: grid, parameters: {training.learning_rate: {values: [1e-4, 1e-3]}}}
select: {metric: val_loss, goal: minimize}
resources: {gpus: auto, cpus: 1, max_trials_per_pack: auto, max_retries: 2, stall_timeout_s: 9,
            grace_s: 1}
"""
_SECONDS = 5  # a job file is answered in a moment; this is what a hang is

_NASTY = ["", "../../etc", "/", ".", "..", "a/b", "a\nb", "a\0b", "a b", "$(reboot)", "`id`", "-rf"]
_NASTY += ["module:function", "a\0.py:f", "~/x.py:f", "os:system", "trialrun.models:mlp", "x" * 300]
_NASTY += ["{{ name }}", "<script>", "%s%n", "\u202e", "\ud800", "none", "auto", "nan", "val_loss"]
_WORDS = """
name data model training seeds search select resources generator builder args units optimizer
learning_rate parameters training.learning_rate model.args.units data.generator values min max
training.optimizer.name when distribution num_variants method metric epochs
csv npz parquet target task columns categorical missing test test_split stratify scaling
"""
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**30, max_value=2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(_NASTY),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_keys = st.one_of(st.sampled_from(_WORDS.split()), st.text(string.printable, max_size=10))


def check(path: Path, text: bytes) -> None:
    """The file is either a right job that can be planned, or refused with a message."""
    path.write_bytes(text)
    began = time.process_time()  # of this process, whatever others do
    try:
        job = load_job(path).spec
        if job.seeds if isinstance(job.seeds, int) else len(job.seeds) < 1000:
            path.write_text(dump_job(job))
            assert load_job(path).spec == job
    except InputError as error:
        message = str(error)
        assert message.startswith(str(path))
        message.encode()
        assert len(message) < 10_000
    assert time.process_time() - began < _SECONDS


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "job.yaml"


SOMETIMES_SLOW = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@SOMETIMES_SLOW
@given(st.binary(max_size=200))
@example(b"\xff\xfe\x00")
@example(b"name: \x80")
@example("name: a".encode("utf-16"))
@example(b"\0")
def test_any_bytes(path, text):
    check(path, text)


@SOMETIMES_SLOW
@given(st.text("nametrig: -[]{}&*!|>'\"#\n\t,?%@`0123.eE~<", max_size=80))
def test_any_text_of_yamls_own_characters(path, text):
    check(path, text.encode())


def _sections():
    return st.dictionaries(_keys, st.one_of(_values, st.dictionaries(_keys, _values, max_size=4)))


@SOMETIMES_SLOW
@given(_sections())
def test_any_mapping(path, job):
    check(path, yaml.dump(job, allow_unicode=False).encode())


def _places(value, place=()):
    yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*place, key))


_REFERENCE_JOB = yaml.safe_load(REFERENCE)


@settings(SOMETIMES_SLOW, max_examples=300)
@given(st.sampled_from(list(_places(_REFERENCE_JOB))[1:]), _values, st.none() | _keys)
def test_a_right_job_with_one_thing_changed(path, place, value, new_key):
    job = yaml.safe_load(REFERENCE)
    inner = job
    for key in place[:-1]:
        inner = inner[key]
    inner[new_key if new_key is not None else place[-1]] = value
    check(path, yaml.dump(job).encode())


# By hand ------------------------------------------------------------------------------------------


def laughs(levels, width):
    lines = ["name: a", "a0: &a0 [x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines)


HOSTILE = {
    "a billion laughs": (laughs(12, 10), "more than 100,000 values"),
    "a quadratic bomb": (f"a: &a [{'x,' * 9000}x]\nb: [{'*a,' * 9000}*a]", "more than 100,000"),
    "an alias that holds itself": ("name: &a [*a]", "holds itself"),
    "lists in lists": ("name: " + "[" * 200_000, "nested too deep"),
    "mappings in mappings": ("name: " + "{a: " * 900, "nested too deep"),
    "deep, but closed": ("name: " + "[" * 60 + "]" * 60, "nested more than 40 deep"),
    "blocks in blocks": ("\n".join(" " * n + "a:" for n in range(1200)), "nested"),
    "ten megabytes": ("name: a\n" + "# " + "x" * 10_000_000, "at most 1.0 MiB, this file has 9.5"),
    "a tag that builds an object": ("name: !!python/object:os.system {}", "tag"),
    "a tag that runs a program": ("name: !!python/object/apply:os.system [reboot]", "tag"),
    "a tag of one's own": ("name: !mine a", "the tag !mine is refused"),
    "a binary": ("name: !!binary aGk=", "tag"),
    "a set": ("name: !!set {a, b}", "tag"),
    "a path that leaves": ("name: ../../etc", "name must be"),
    "an absolute path": ("name: /etc/passwd", "name must be"),
    "a name with a line in it": ('name: "a\\nb"', "name must be"),
    "a name with a null": ('name: "a\\0b"', "name must be"),
    "a name that is a shell command": ('name: "$(reboot)"', "name must be"),
    "a name that is an option": ("name: -rf", "name must be"),
    "a name with a bell": ('name: "a\\ab"', "name must be"),
    "a name with half a character": ('name: "\\ud800"', "not Unicode text"),
    "an endless name": ("name: " + "a" * 101, "name must be"),
    "a number of five thousand digits": ("name: a\nseeds: " + "9" * 5000, "is not of type int"),
    "five thousand digits to base 16": (
        "name: a\nmodel: {args: {units: [0x" + "f" * 5000 + "]}}",
        "is not of type int",
    ),
    "four billion seeds": ("name: a\nseeds: 4294967296", "at most 10,000,000 trials"),
    "a grid without an end": (
        "name: a\nsearch: {parameters: {"
        + ", ".join(f"model.args.a{n}: {{values: {list(range(50))}}}" for n in range(10))
        + "}}\nmodel: {builder: 'trialrun.models:mlp'}",
        "at most 10,000,000 trials",
    ),
    "epochs without an end": ("name: a\ntraining: {epochs: 99999999999999}", "less than"),
    "a merge key": ("name: a\n<<: {seeds: 3}", "unknown key '<<'"),
    "two documents": ("name: a\n---\nname: b", "not YAML"),
    "a key that is a list": ("? [a]\n: b", "a key must be text"),
    "a path of hundreds of keys": (
        "name: a\nsearch: {parameters: {model.args." + ".".join("a" * 300) + ": {values: [1]}}}",
        "has more than 40 keys",
    ),
    "a generator with a null": ('name: a\ndata: {generator: "a\\0.py:f"}', "data.generator"),
    "a table with a null": ('name: a\ndata: {csv: "a\\0.csv", target: y}', "data.csv"),
    "a table of a user who is not": ('name: a\ndata: {csv: "~nobody_/a", target: y}', "data.csv"),
    "a table that is a device": ("name: a\ndata: {csv: /dev/zero, target: y}", "no file"),
    "a table that is a folder": ("name: a\ndata: {csv: /, target: y}", "no file"),
    "a table with an endless name": (
        f"name: a\ndata: {{csv: {'a' * 300}, target: y}}",
        "cannot be read",
    ),
    "a generator in a folder of others": ("name: a\ndata: {generator: '/root/x.py:f'}", "no file"),
    "tabs": ("name:\ta\n\tb: c", "not YAML"),
    "a directive": ("%YAML 9.9\n---\nname: a", "not YAML"),
    "a null byte": ("name: a\0", "not YAML"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_with_one_clear_message(path, what):
    text, expected = HOSTILE[what]
    path.write_text(text)
    began = time.process_time()  # of this process, whatever others do
    finished = call("plan", path)
    assert time.process_time() - began < _SECONDS
    assert finished.code == 2
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    assert finished.stderr.startswith(f"Error: {path}")
    assert expected in finished.stderr
    assert len(finished.stderr) < 2000


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.mkdir(), "this is a folder"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: None, "there is no such file"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, make, expected):
    path = tmp_path / "job.yaml"
    make(path)
    finished = call("run", path)
    assert (finished.code, finished.stdout) == (2, "")
    assert expected in finished.stderr


@pytest.mark.parametrize(
    "override", ["." * 500 + "=1", "a" * 9 + ".b" * 99 + "=1", "name=[[[[", "="]
)
def test_a_hostile_override_is_refused(path, override):
    path.write_text("name: a")
    finished = call("plan", path, "--set", override)
    assert (finished.code, finished.stdout) == (2, "")
    assert len(finished.stderr.splitlines()) <= 2


def test_a_runs_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "job.yaml").write_text("name: a")
    (tmp_path / "runs").write_text("")
    finished = call("run", tmp_path / "job.yaml", "--runs-dir", tmp_path / "runs")
    assert finished.code == 2
    assert "cannot make the run folder" in finished.stderr


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "job.yaml").write_text("name: a")
    finished = call("run", tmp_path / "job.yaml", "--runs-dir", "/proc/nowhere")
    assert finished.code == 2
    assert "/proc/nowhere/a/" in finished.stderr
    assert "cannot make the run folder" in finished.stderr


def test_planning_what_was_accepted_is_quick(path):
    path.write_text(REFERENCE)
    assert len(plan_trials(load_job(path).spec)) == 6
