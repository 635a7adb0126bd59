"""The rooms of the architecture, held by walking the imports of every module."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from commands import ROOT

import trialrun
from trialrun.job import dump_job, load_job
from trialrun.plan import plan_trials
from trialrun.records import parameter_kinds
from trialrun.results import PackResult, TrialResult
from trialrun.store import RunFolder

PACKAGE = ROOT / "trialrun"

# The modules of each room, and the rooms that it may import.
ROOMS = {
    "errors": ["errors"],
    "host": ["host", "quiet"],
    "job": [
        *("job", "jobchecks", "specs", "section", "dataspec", "datafiles", "dialect"),
        *("document", "references", "sources", "seeding"),
        *("compilation", "arguments", "vocabulary", "tracking", "ownterms", "builders"),
    ],
    "search": ["search"],
    "plan": ["plan", "identity", "packing"],
    "results": ["results"],
    "datasets": [
        *("datasets", "generated", "arrays", "weights", "streamed", "sizes"),
        *("tabledata", "tablerows", "target", "rawtable", "cells", "spelling", "doubtful"),
        *("encoding", "archives", "holdout", "given", "census"),
    ],
    "task": ["modeltask", "labels"],
    "models": [
        *("models", "inputs", "ownobjects", "lookups", "batches", "untrusted"),
        *("builttask", "logitmetrics"),
    ],
    "training": ["training"],
    "cluster": ["cluster"],
    "store": ["store", "places", "kept", "records", "parts", "tables", "files", "lease"],
    "statistics": ["statistics"],
    "aggregate": [
        *("aggregate", "bounds", "certainty", "edges", "explanation", "grid", "selection"),
        "standing",
    ],
    "export": [
        *("export", "save_trial", "saving", "proof", "rebuild", "loading_code"),
        *("predict", "rawinput", "predictions"),
    ],
    "report": ["report"],
    "trackers": ["trackers"],
    "doctor": ["doctor"],
    "driver": [
        "driver",
        "trainer",
        "environment",
        "interrupts",
        "progress",
        "resume",
        "merge",
        "best",
    ],
    "api": ["api", "__init__"],
    "cli": ["cli", "__main__"],
}
MAY_IMPORT = {
    "errors": "",
    "host": "",
    "job": "errors host",
    "search": "errors job",
    "plan": "job search",
    "results": "plan",
    "datasets": "errors host job task",
    "task": "errors",
    "models": "errors job task",
    "training": "errors host job plan results datasets task models statistics",
    "cluster": "errors host job plan results training",
    "store": "errors host plan results",
    "statistics": "",
    "aggregate": "errors job store statistics",
    "export": "errors host job results datasets task models store statistics",
    "report": "errors host job plan datasets training store statistics aggregate export",
    "trackers": "errors job store",
    "doctor": "errors host plan store cluster",
    "driver": "errors job plan results datasets training cluster store aggregate export report"
    " trackers",
    "api": "errors job models store export driver report",
    "cli": "errors job store export report trackers driver doctor",
}
# Only in these rooms, and outside training/ only inside functions, is TensorFlow or Keras imported.
TENSORFLOW_ROOMS = {"training", "models", "export"}
TENSORFLOW = {"tensorflow", "keras"}
PRIVATE = ("keras.src", "tensorflow.python", "tensorflow.compiler")


class Import(NamedTuple):
    """One import statement's target and where it stands."""

    path: str  # of the importing file, from the package
    target: str
    in_function: bool
    for_types_only: bool


def _imports(path: Path) -> Iterator[Import]:
    relative = path.relative_to(PACKAGE).as_posix()

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(relative, alias.name, in_function, for_types)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{relative}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield Import(relative, f"{node.module}.{alias.name}", in_function, for_types)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, in_function or is_function, for_types or types)

    return walk(ast.parse(path.read_text(encoding="utf-8")), False, False)


IMPORTS = [one for path in sorted(PACKAGE.rglob("*.py")) for one in _imports(path)]


def _room(module: str) -> str:
    """The room of `job`, `training.fused`, `report`, ..."""
    top = module.split(".")[0]
    return next(room for room, modules in ROOMS.items() if top in modules)


def _room_of_file(path: str) -> str:
    return _room(path.removesuffix(".py").replace("/", "."))


def _starts_with(target: str, *packages: str) -> bool:
    return any(target == package or target.startswith(f"{package}.") for package in packages)


def _names(imports: list[Import]) -> list[str]:
    return [f"{one.path} imports {one.target}" for one in imports]


# Rooms ------------------------------------------------------------------------------------------


def test_every_module_has_one_room_and_every_room_its_rule():
    modules = [p.stem for p in PACKAGE.glob("*.py")]
    modules += [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    in_rooms = [module for room in ROOMS.values() for module in room]
    assert sorted(modules) == sorted(in_rooms)
    assert ROOMS.keys() == MAY_IMPORT.keys()


def test_a_room_imports_only_what_its_row_of_the_table_says():
    wrong = []
    for one in IMPORTS:
        if not _starts_with(one.target, "trialrun"):
            continue
        module = one.target.removeprefix("trialrun.") if "." in one.target else "__init__"
        here, there = _room_of_file(one.path), _room(module)
        if there not in (here, *MAY_IMPORT[here].split()):
            wrong.append(f"{one.path} imports {one.target}: {here} may not import {there}")
    assert wrong == []


def test_the_table_has_no_circle():
    allowed = {room: set(text.split()) for room, text in MAY_IMPORT.items()}
    while allowed:
        free = {room for room, needs in allowed.items() if not needs & allowed.keys()}
        assert free, f"these rooms import each other in a circle: {sorted(allowed)}"
        allowed = {room: needs for room, needs in allowed.items() if room not in free}


def test_only_cluster_imports_ray():
    wrong = [
        i for i in IMPORTS if _starts_with(i.target, "ray") and not i.path.startswith("cluster/")
    ]
    assert _names(wrong) == []


def test_private_names_of_keras_and_tensorflow_are_in_one_module():
    private = [i for i in IMPORTS if _starts_with(i.target, *PRIVATE)]
    assert {one.path for one in private} == {"training/internals.py"}


def test_tensorflow_is_imported_in_training_and_elsewhere_only_inside_functions():
    wrong = [
        one
        for one in IMPORTS
        if _starts_with(one.target, *TENSORFLOW)
        and not one.for_types_only
        and not one.path.startswith("training/")
        and not (one.in_function and _room_of_file(one.path) in TENSORFLOW_ROOMS)
    ]
    assert _names(wrong) == []


def test_what_the_driver_needs_of_training_is_free_of_tensorflow():
    wanted = [i for i in IMPORTS if _starts_with(i.target, "trialrun.training")]
    outside = [i for i in wanted if not i.path.startswith(("training/", "cluster/"))]
    assert {i.target for i in outside if not i.in_function} == {"trialrun.training.PackTask"}
    in_cluster = [i for i in wanted if i.path.startswith("cluster/") and not i.in_function]
    assert {one.target for one in in_cluster} == {"trialrun.training.PackTask"}
    in_package = {i.target for i in IMPORTS if i.path == "training/__init__.py"}
    assert not any(_starts_with(target, *TENSORFLOW) for target in in_package)


def test_no_duration_and_no_order_rests_on_the_clock_of_the_wall():
    """It may be wrong, and it jumps. Only a run folder's name, and the log, tell the time.

    The doctor looks at the clock itself.
    """
    readers = ("time.time(", "datetime.now", "time.time_ns", "utcnow")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for reader in readers
        if reader in path.read_text(encoding="utf-8")
    }
    assert found == {"store.py", "doctor/clock.py"}


def test_statistics_knows_arrays_alone():
    outside = [i for i in IMPORTS if i.path.startswith("statistics/")]
    packages = {i.target.split(".")[0] for i in outside if not i.in_function}
    assert packages == {"collections", "math", "numpy", "trialrun", "typing"}
    assert {i.target.split(".")[0] for i in outside if i.in_function} == {"scipy", "statsmodels"}


# Names ------------------------------------------------------------------------------------------


def test_all_lists_exactly_the_public_names():
    # `import trialrun` binds submodules too; a function may have the name of none of them.
    modules = {path.stem for path in PACKAGE.iterdir()}
    public = {name for name in vars(trialrun) if not name.startswith("_")} - modules
    assert public == set(trialrun.__all__)
    assert sorted(trialrun.__all__) == trialrun.__all__
    assert not set(trialrun.__all__) & modules


def test_every_module_says_what_it_owns():
    silent = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


# What a process loads ---------------------------------------------------------------------------

_WATCH = """
import json, sys
from trialrun.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
heavy = sorted({"tensorflow", "keras", "ray", "jax", "torch"} & sys.modules.keys())
sys.stderr.write("\\n" + json.dumps([code, heavy]))
"""


def _exit_code_and_heavy_modules(*arguments: object) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    code, heavy = json.loads(done.stderr.splitlines()[-1])
    return code, heavy


@pytest.fixture(scope="module")
def made_up_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of a run that nobody trained: two variants, two seeds, made-up numbers."""
    folder = tmp_path_factory.mktemp("runs")
    job_file = folder / "job.yaml"
    job_file.write_text(
        "name: made_up\nseeds: 2\n"
        "search: {parameters: {training.learning_rate: {values: [0.1, 0.2]}}}\n"
    )
    job = load_job(job_file).spec
    trials = plan_trials(job)
    run = RunFolder.create(folder, job.name)
    run.write_job(dump_job(job))
    results = tuple(
        TrialResult(
            trial=trial,
            status="completed",
            engine="fused",
            pack_id="p000",
            attempt=0,
            metrics=dict.fromkeys(("train_loss", "val_loss", "test_loss"), 0.5 + trial.seed),
            history={name: np.ones(3, np.float32) for name in ("loss", "val_loss")},
        )
        for trial in trials
    )
    kinds = parameter_kinds([trial.variant for trial in trials])
    run.write_pack(PackResult(pack_id="p000", trials=results), kinds)
    return run


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["plan", "jobs/medical_trial.yaml"], 0),
        (["plan", "jobs/medical_trial_sweep.yaml"], 0),
        (["plan", "jobs/medical_trial.yaml", "--set", "training.epochs=0"], 2),
        (["run", "jobs/medical_trial.yaml", "--set", "training.optimiser=adam"], 2),
        (["run", "jobs/medical_trial.yaml", "--set", "data.args={num_train_older_with: -1}"], 2),
        (["show", "jobs"], 2),
        (["resume", "jobs"], 2),
        (["run", "jobs/medical_trial.yaml", "--resume", "jobs"], 2),
        (["doctor", "--slurm"], 2),
    ],
)
def test_what_needs_no_training_loads_neither_tensorflow_nor_ray(arguments, code):
    assert _exit_code_and_heavy_modules(*arguments) == (code, [])


def test_another_job_is_refused_without_tensorflow_and_ray(made_up_run):
    arguments = ["run", "jobs/medical_trial.yaml", "--resume", made_up_run.path]
    assert _exit_code_and_heavy_modules(*arguments) == (2, [])


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["report"]])
def test_a_run_is_looked_at_without_tensorflow_and_ray(made_up_run, arguments):
    assert _exit_code_and_heavy_modules(*arguments, made_up_run.path) == (0, [])


def test_importing_trialrun_loads_neither_tensorflow_nor_ray():
    names = "{'tensorflow', 'keras', 'ray', 'pandas', 'sklearn', 'matplotlib'}"
    code = f"import sys, trialrun; assert not {names} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
