"""What `scripts/benchmark` makes of its measurements. These here are made up; nothing is timed."""

import io
import sys
import tomllib

import pytest
from commands import ROOT
from packaging.requirements import Requirement
from rich.console import Console

sys.path.append(str(ROOT / "scripts" / "benchmarks"))
import benchmark
from benchmark_report import print_report
from benchmark_rows import Row, compare

SUBJECTS = {subject.name: subject for subject in benchmark.SUBJECTS}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MACHINE = {"cpu": "made up", "cores": 2, "memory_gb": 1.0, "load_before": 0.0, "python": "3"}


def measured(name, **numbers):
    sample = {"trials": 1, "wall_s": 1.0, "s_per_trial": 1.0, "peak_memory_bytes": 2**30}
    return Row(SUBJECTS[name], [{**sample, **numbers}])


ROWS = [
    measured("keras_fit", wall_s=24.0, s_per_trial=16.0),
    measured("keras_fit_compiled", wall_s=12.0, s_per_trial=8.0),
    measured("trialrun_60", trials=60, wall_s=15.0),
    measured("trialrun_1000", trials=1000, wall_s=15.0 + 940 * 0.02),
    measured("fused_steady", s_per_trial=0.02),
    measured("step_products", s_per_trial=0.005),
    measured("roofline", s_per_trial=0.001),
    measured("text_gru", s_per_trial=0.5, fit_s_per_trial=6.0),
    measured("keras_tuner_search", trials=4, marginal_s_per_trial=20.0),
    measured("optuna_study", trials=4, marginal_s_per_trial=18.0),
    measured(
        "augmented_cnn",
        us={"fit": 900, "fit, compiled": 600, "fused": 90, "mapped": 60, "vmap": 240, "jit": 120},
        first_s={"fused": 12, "mapped": 9, "vmap": 6, "jit": 5},
    ),
]


def test_each_ratio_is_of_the_numbers_that_its_title_names():
    ratios = {
        ratio.title: ratio.value for ratio in compare({row.subject.name: row for row in ROWS})
    }
    expected = {
        "60 trials / one model.fit script, command to exit": 15 / 24,
        "60 trials / one compiled script, command to exit": 15 / 12,
        "KerasTuner / trialrun, seconds per further trial": 1000,
        "Optuna with model.fit / trialrun, seconds per further trial": 900,
        "model.fit / trialrun, seconds per further trial": 800,
        "model.fit, compiled / trialrun, seconds per further trial": 400,
        "fused engine / its step's matrix products alone": 4,
        "fused engine / these products at peak speed (a bound)": 20,
        "model.fit / trialrun, masked GRU, core-seconds per trial, steady state": 12,
        "family: augmented CNN, batch 32, best engine / best of JAX": 0.5,
        "family: augmented CNN, batch 32, best engine / best of model.fit": 0.1,
        "family: augmented CNN, batch 32, first call / compiling with JAX, vectorized": 2,
    }
    assert {title: ratios[title] for title in expected} == pytest.approx(expected)
    assert ratios["Ray Tune / trialrun, seconds per further trial"] is None  # not measured


def test_the_report_shows_every_measurement_and_what_failed():
    text = io.StringIO()
    were_measured = {row.subject for row in ROWS}
    failed = [
        Row(subject, error="no") for subject in benchmark.SUBJECTS if subject not in were_measured
    ]
    rows = [*ROWS, *failed]
    ratios = compare({row.subject.name: row for row in rows})
    machine = {**MACHINE, "packages": {"keras-tuner": "1"}}
    print_report(Console(file=text, width=120), machine, rows, ratios, quick=False)
    lines = text.getvalue().splitlines()

    def cells(title):
        [line] = [line for line in lines if line.strip().startswith(title)]
        return line.strip().removeprefix(title).split()

    setting = benchmark.ALL_CORES.split()
    numbers = ["1", "4", "1.00", "20.0", "1.00", "1.00", "1.00"]
    assert cells("KerasTuner, one process") == [*setting, *numbers]
    assert cells("Ray Tune, process per trial") == [*setting, "failed"]
    families = [line for line in lines if "augmented CNN" in line]
    assert families[0].split()[-10:-4] == ["900", "600", "90.0", "60.0", "240", "120"]
    assert "ray_tune was not measured: no" in lines
    assert "…" not in text.getvalue()


def test_every_peer_has_a_program():
    peers = ROOT / "scripts" / "benchmarks" / "peers"
    names = [subject.program or subject.name for subject in SUBJECTS.values() if subject.is_peer]
    assert [name for name in names if not (peers / f"{name}.py").is_file()] == []


def test_what_the_benchmark_installs_is_pinned():
    pinned = {
        Requirement(line).name for line in (ROOT / "scripts" / "lock.txt").read_text().splitlines()
    }
    wanted = {Requirement(line).name for line in PROJECT["optional-dependencies"]["bench"]}
    assert wanted - {PROJECT["name"]} <= pinned
