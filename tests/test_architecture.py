"""The rooms of the architecture, held by walking the imports of every module."""

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from commands import ROOT

import trialrun
from trialrun import errors
from trialrun.job import dump_job, load_job
from trialrun.store import RunFolder
from trialrun.store.columns import parameter_kinds
from trialrun.trials.plan import plan_trials
from trialrun.trials.results import PackResult, TrialResult

PACKAGE = ROOT / "trialrun"

# The rooms that each room may import. A room is a folder, or a module beside them.
MAY_IMPORT = {
    "errors": "",
    "messages": "",
    "host": "",
    "statistics": "",
    "job": "errors messages host",
    "trials": "errors job data",
    "data": "errors messages host job",
    "training": "errors messages host statistics job trials data",
    "store": "errors messages host job trials",
    "cluster": "errors messages host job trials training",
    "analysis": "errors messages statistics job store",
    "search": "errors messages statistics job store analysis",
    "export": "errors messages host statistics job trials data training store",
    "report": "errors messages statistics job store analysis",
    "trackers": "errors messages job store",
    "doctor": "errors messages host store cluster training",
    "driver": "errors messages host job trials data training cluster store analysis"
    " search export report trackers",
    "datasets": "",
    "models": "",
    "api": "errors job store analysis export report driver",
    "cli": "errors messages job store analysis export report trackers doctor driver",
    "__init__": "errors export api",
    "__main__": "cli",
}
# Here TensorFlow and Keras may be imported inside functions; in training/ anywhere.
TENSORFLOW_ROOMS = {"training", "models", "export"}
TENSORFLOW = {"tensorflow", "keras"}
PRIVATE = ("keras.src", "tensorflow.python", "tensorflow.compiler")


class Import(NamedTuple):
    """One import statement's target and where it stands."""

    module: str  # that imports, as `job.load`; a package by its own name, as `job`
    target: str
    in_function: bool
    for_types_only: bool


def _name_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {_name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports(module: str, path: Path) -> Iterator[Import]:
    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, in_function, for_types)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield Import(module, f"{node.module}.{alias.name}", in_function, for_types)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, in_function or is_function, for_types or types)

    return walk(ast.parse(path.read_text(encoding="utf-8")), False, False)


@functools.cache
def all_imports() -> list[Import]:
    """In a function, because each of several processes of tests reads this file."""
    return [one for module, path in MODULES.items() for one in _imports(module, path)]


def _own_module(target: str) -> str | None:
    """`job.load` for `trialrun.job.load.load_job`; None for what is not trialrun's."""
    if not _starts_with(target, "trialrun"):
        return None
    name = target.removeprefix("trialrun").removeprefix(".")
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or "__init__"


def _room(module: str) -> str:
    return module.split(".")[0]


def _starts_with(target: str, *packages: str) -> bool:
    return any(target == package or target.startswith(f"{package}.") for package in packages)


def _names(imports: list[Import]) -> list[str]:
    return [f"{one.module} imports {one.target}" for one in imports]


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """What is left of a graph when all that is in no circle, and leads to none, is taken away."""
    left = dict(graph)
    while free := {one for one, needs in left.items() if not needs & left.keys() - {one}}:
        left = {one: needs for one, needs in left.items() if one not in free}
    return sorted(left)


# Rooms ------------------------------------------------------------------------------------------


def test_every_folder_and_top_module_has_its_row():
    entries = {path.stem for path in PACKAGE.glob("*.py")}
    entries |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert entries == MAY_IMPORT.keys()


def test_a_room_imports_only_what_its_row_says():
    wrong = []
    for one in all_imports():
        if (module := _own_module(one.target)) is not None:
            here, there = _room(one.module), _room(module)
            if there not in (here, *MAY_IMPORT[here].split()):
                wrong.append(f"{one.module} imports {one.target}: {here} may not import {there}")
    assert wrong == []


def test_no_row_allows_what_no_module_needs():
    needed = {(_room(one.module), _room(_own_module(one.target) or "")) for one in all_imports()}
    allowed = {(room, other) for room, text in MAY_IMPORT.items() for other in text.split()}
    assert allowed - needed == set()


def test_rooms_import_each_other_in_no_circle():
    assert _circle({room: set(text.split()) for room, text in MAY_IMPORT.items()}) == []


def test_modules_import_each_other_in_no_circle_not_even_for_types():
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for one in all_imports():
        if module := _own_module(one.target):
            graph[one.module].add(module)
    assert _circle(graph) == []


def test_no_module_imports_a_private_name_of_another():
    private = [
        one
        for one in all_imports()
        if _own_module(one.target) not in (None, "__init__")
        and one.target.rpartition(".")[2].startswith("_")
    ]
    assert _names(private) == []


def test_only_cluster_imports_ray():
    wrong = [
        i for i in all_imports() if _starts_with(i.target, "ray") and _room(i.module) != "cluster"
    ]
    assert _names(wrong) == []


def test_private_names_of_keras_and_tensorflow_are_in_one_folder():
    private = [i for i in all_imports() if _starts_with(i.target, *PRIVATE)]
    folders = {one.module.rpartition(".")[0] for one in private}
    assert folders == {"training.internals"}


def test_tensorflow_is_imported_in_training_and_elsewhere_only_inside_functions():
    wrong = [
        one
        for one in all_imports()
        if _starts_with(one.target, *TENSORFLOW)
        and not one.for_types_only
        and _room(one.module) != "training"
        and not (one.in_function and _room(one.module) in TENSORFLOW_ROOMS)
    ]
    assert _names(wrong) == []


def test_what_other_rooms_import_of_training_at_their_top_is_free_of_tensorflow():
    at_top = [one for one in all_imports() if not one.in_function and not one.for_types_only]
    loads: dict[str, set[str]] = {module: set() for module in MODULES}
    for one in at_top:
        loads[one.module].add(_own_module(one.target) or one.target.split(".")[0])
    for module in MODULES:  # a module's packages are loaded before it
        parts = module.split(".")
        loads[module] |= {".".join(parts[:count]) for count in range(1, len(parts))}
    for module in MODULES:
        if _room(module) == "training":
            continue
        found, waiting = {module}, [module]
        while waiting:
            new = loads.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        assert not found & TENSORFLOW, module


def test_no_duration_and_no_order_rests_on_the_clock_of_the_wall():
    """It may be wrong, and it jumps. Only a run folder's name, status.json and the log tell it.

    The doctor looks at the clock itself. How old the heartbeat of another machine is, only a clock
    tells; where that is in doubt, the heartbeat is watched.
    """
    readers = ("time.time(", "datetime.now", "time.time_ns", "utcnow")
    found = {
        module
        for module, path in MODULES.items()
        for reader in readers
        if reader in path.read_text(encoding="utf-8")
    }
    assert found == {"store.run_folder", "store.run_state", "doctor.clock"}


def test_statistics_knows_arrays_alone():
    outside = [i for i in all_imports() if _room(i.module) == "statistics"]
    packages = {i.target.split(".")[0] for i in outside if not i.in_function}
    assert packages == {"collections", "math", "numpy", "trialrun", "typing"}
    assert {i.target.split(".")[0] for i in outside if i.in_function} == {"scipy"}


def test_no_folder_of_the_package_has_more_entries_than_a_reader_can_see_at_once():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 24


def test_no_module_is_longer_than_four_hundred_lines():
    lengths = {m: len(path.read_text(encoding="utf-8").splitlines()) for m, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 400} == {}


def test_functions_are_short():
    """Their docstrings, with shapes, units and errors, do not count."""
    lengths = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                doc = node.body[0] if ast.get_docstring(node) else None
                of_doc = doc.end_lineno - doc.lineno + 1 if doc else 0
                name = f"{module}:{node.lineno} {node.name}"
                lengths[name] = node.end_lineno - node.lineno + 1 - of_doc
    assert {name: length for name, length in lengths.items() if length > 50} == {}
    assert np.median(list(lengths.values())) <= 7


# Errors of others -------------------------------------------------------------------------------


def _raw_errors(module: str, path: Path) -> Iterator[str]:
    """Where the text of an error that is not trialrun's own becomes part of a message as it is.

    An error that is raised again `from None` has the words of the function that raised it.
    """
    own = {name for name, value in vars(errors).items() if isinstance(value, type)}
    for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        assert handler.type is not None
        types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        names = {ast.unparse(one).rpartition(".")[2] for one in types}
        foreign = {name for name in names if name not in own and not name.startswith("_")}
        if not foreign:
            continue
        raised = [node for node in ast.walk(handler) if isinstance(node, ast.Raise)]
        is_own = raised and all(isinstance(node.cause, ast.Constant) for node in raised)
        if foreign == {"ValueError"} and is_own:
            continue
        asked = {  # as in `str(error) if isinstance(error, ExportError) else in_short(error)`
            id(node.body)
            for node in ast.walk(handler)
            if isinstance(node, ast.IfExp) and "isinstance(" in ast.unparse(node.test)
        }
        raw = {handler.name, f"str({handler.name})", f"repr({handler.name})"}
        for node in ast.walk(handler):
            shown = node.value if isinstance(node, ast.FormattedValue) else node
            if ast.unparse(shown) not in raw or id(shown) in asked:
                continue
            if isinstance(node, ast.FormattedValue | ast.Call):
                yield f"{module}:{node.lineno}"


def test_what_others_raise_is_told_through_one_function():
    """`in_short` and `said_by` give one line, without colors, of what is behind an error."""
    raw = {line for module, path in MODULES.items() for line in _raw_errors(module, path)}
    # An error of TensorFlow, made of one that its compiler raised.
    assert {line.partition(":")[0] for line in raw} == {"training.program.program"}


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

# One process runs them all, and tells after each what is loaded by then.
_WATCH = """
import json, sys
from trialrun.cli import main
for line in sys.stdin:
    sys.argv = ["trialrun", *json.loads(line)]
    try:
        main()
    except SystemExit as end:
        code = end.code
    heavy = {"tensorflow", "keras", "ray", "jax", "torch", "optuna", "matplotlib.pyplot"}
    heavy &= sys.modules.keys()
    sys.stderr.write("\\n" + json.dumps([sys.argv[1:], code, sorted(heavy)]) + "\\n")
"""


def _codes_and_heavy_modules(commands: Iterable[list[str]]) -> list[list[object]]:
    done = subprocess.run(
        [sys.executable, "-c", _WATCH],
        input="".join(f"{json.dumps(command)}\n" for command in commands),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]


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


def test_what_needs_no_training_loads_neither_tensorflow_nor_ray(made_up_run):
    job, run = "jobs/medical_trial.yaml", str(made_up_run.path)
    codes = [
        (["--help"], 0),
        (["--version"], 0),
        (["plan", job], 0),
        (["plan", "jobs/medical_trial_sweep.yaml"], 0),
        (["plan", "jobs/medical_trial_rounds.yaml", "--set", "search.method=tpe"], 0),
        (["plan", job, "--set", "training.epochs=0"], 2),
        (["run", job, "--set", "training.optimiser=adam"], 2),
        (["run", job, "--set", "data.args={num_train_older_with: -1}"], 2),
        (["show", "jobs"], 2),
        (["resume", "jobs"], 2),
        (["run", job, "--resume", "jobs"], 2),
        (["doctor", "--slurm"], 2),
        (["run", job, "--resume", run], 2),  # of another job
        (["show", run], 0),
        (["show", "--json", run], 0),
        (["status", run], 0),
        (["status", "jobs"], 2),
        (["list", run], 0),
        (["run", job, "--set", "training.epochs=0", "--on-end", "exit 3"], 2),
        (["report", run], 0),
    ]
    expected = [[command, code, []] for command, code in codes]
    assert _codes_and_heavy_modules(command for command, _ in codes) == expected


def test_importing_trialrun_loads_neither_tensorflow_nor_ray():
    names = "{'tensorflow', 'keras', 'ray', 'pandas', 'sklearn', 'matplotlib', 'optuna'}"
    code = f"import sys, trialrun; assert not {names} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
