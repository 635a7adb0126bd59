import pickle
import subprocess
import sys
import textwrap

import pytest

from trialrun.errors import InputError
from trialrun.job.user_code.functions import (
    absolute_reference,
    check_reference,
    load_function,
    parse_reference,
    portable_reference,
)

SOURCE = """
    import math as mathematics
    from os import path
    raise_when_run = 1 / 0
    small = large = None
    typed: int = 3
    if True:
        def in_if(): pass
    try:
        import nothing_like_this
    except ImportError:
        def in_except(): pass
    def outer():
        def inner(): pass
    class Network: pass
    def build(width, depth=2, *, activation="relu", rate): pass
    def _private(): pass
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(textwrap.dedent(SOURCE))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["mathematics", "path", "raise_when_run", "large", "typed", "in_if", "in_except", "Network"],
)
def test_a_name_at_the_top_level_is_found_without_running_the_file(folder, name):
    check_reference(f"nets.py:{name}", folder)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("buidl", "did you mean 'build'"),
        ("inner", "known: "),
        ("x", "known: in_if, in_except"),
    ],
)
def test_a_missing_name_is_refused_with_those_that_exist(folder, name, hint):
    with pytest.raises(InputError, match=f"nets.py has no function '{name}'; {hint}") as caught:
        check_reference(f"nets.py:{name}", folder)
    assert "_private" not in str(caught.value)


def test_the_parameters_of_a_function_are_read_from_its_source(folder):
    parameters = check_reference("nets.py:build", folder)
    assert parameters.names == ("width", "depth", "activation", "rate")
    assert parameters.required == ("width", "rate")
    assert not parameters.takes_any


@pytest.mark.parametrize(
    "definition", ["@wrap\ndef build(): pass", "class build: pass", "build = 1"]
)
def test_parameters_are_unknown_where_the_source_cannot_tell(tmp_path, definition):
    (tmp_path / "nets.py").write_text(definition)
    assert check_reference("nets.py:build", tmp_path) is None


@pytest.mark.parametrize("source", ["from nets2 import *", "def __getattr__(name): pass"])
def test_a_file_that_may_define_any_name_is_accepted(tmp_path, source):
    (tmp_path / "nets.py").write_text(source)
    assert check_reference("nets.py:anything", tmp_path) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net.py:build", "there is no file .*net.py; did you mean 'nets.py'"),
        ("nets:build", "there is no module 'nets'; did you mean 'nets.py:build'"),
        ("no.such.module:build", "there is no module 'no.such.module'"),
        ("json.no_such:build", "there is no module 'json.no_such'"),
        ("json:lods", "json has no function 'lods'; did you mean 'loads' or 'load'"),
        ("build", "expected module:function or file.py:function, got 'build'"),
        ("nets.py", "expected module:function"),
        ("nets.py:", "expected module:function"),
        ("nets.py:a b", "expected module:function"),
        ("a-b:c", "expected module:function"),
    ],
)
def test_a_wrong_reference_is_refused_with_a_hint(folder, reference, message):
    with pytest.raises(InputError, match=message):
        check_reference(reference, folder)


def test_a_file_that_is_no_python_is_refused_with_its_line(tmp_path):
    (tmp_path / "nets.py").write_text("x = 1\ndef build(:\n")
    with pytest.raises(InputError, match=r"nets\.py:2: not valid Python"):
        check_reference("nets.py:build", tmp_path)


def test_checking_a_submodule_does_not_import_its_package(tmp_path, monkeypatch):
    package = tmp_path / "heavy_package_to_check"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "nets.py").write_text("def build(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    check_reference("heavy_package_to_check.nets:build", tmp_path)
    with pytest.raises(InputError, match="has no function 'biuld'"):
        check_reference("heavy_package_to_check.nets:biuld", tmp_path)


def test_a_compiled_module_is_accepted_unseen(tmp_path):
    assert check_reference("math:anything", tmp_path) is None


@pytest.fixture
def clean_imports(monkeypatch):
    """Undoes what loading a file does to this process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("clean_imports")
class TestLoading:
    def test_a_function_of_a_file_can_import_its_neighbors_and_be_pickled(self, tmp_path):
        (tmp_path / "neighbor_of_nets.py").write_text("WIDTH = 7")
        (tmp_path / "nets.py").write_text(
            "from neighbor_of_nets import WIDTH\ndef build(): return WIDTH"
        )
        build = load_function("nets.py:build", tmp_path)
        assert build() == 7
        assert pickle.loads(pickle.dumps(build)) is build

    def test_a_file_is_executed_once_until_it_changes(self, tmp_path):
        file = tmp_path / "nets.py"
        file.write_text("def build(): return 1")
        build = load_function("nets.py:build", tmp_path)
        assert load_function(f"{file}:build", tmp_path / "elsewhere") is build
        file.write_text("def build(): return 2")
        assert load_function("nets.py:build", tmp_path)() == 2

    def test_files_of_one_name_in_two_folders_are_two_modules(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "nets.py").write_text("def build(): pass")
        first = load_function("a/nets.py:build", tmp_path)
        assert load_function("b/nets.py:build", tmp_path) is not first

    @pytest.mark.parametrize(
        ("statement", "shown"),
        [
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise SystemExit(3)", "SystemExit: 3"),
        ],
    )
    def test_a_file_that_raises_is_refused_with_its_exception(self, tmp_path, statement, shown):
        (tmp_path / "nets.py").write_text(f"{statement}\ndef build(): pass")
        with pytest.raises(InputError, match=f"importing nets.py raised {shown}") as caught:
            load_function("nets.py:build", tmp_path)
        assert caught.value.__cause__ is not None
        with pytest.raises(InputError, match=shown):  # no half-made module is left behind
            load_function("nets.py:build", tmp_path)

    def test_a_value_that_cannot_be_called_is_refused(self, tmp_path):
        (tmp_path / "nets.py").write_text("build = 3")
        with pytest.raises(
            InputError, match=r"nets\.py:build must be a function or a class, got a int"
        ):
            load_function("nets.py:build", tmp_path)

    def test_a_function_of_a_module_is_loaded(self, tmp_path):
        assert load_function("json:loads", tmp_path)("3") == 3


def test_a_portable_reference_is_the_same_in_every_folder(tmp_path):
    absolute = absolute_reference("models/nets.py:build", tmp_path)
    assert absolute == f"{tmp_path}/models/nets.py:build"
    assert portable_reference(absolute) == "nets.py:build"
    assert portable_reference("a.b:c") == absolute_reference("a.b:c", tmp_path) == "a.b:c"


def test_a_reference_has_two_halves():
    reference = parse_reference("/a/b:c.py:build")
    assert (reference.source, reference.function) == ("/a/b:c.py", "build")


@pytest.mark.tensorflow
def test_a_file_that_imports_keras_lets_tensorflow_write_nothing(tmp_path):
    (tmp_path / "nets.py").write_text("import math, keras\n\ndef build():\n    pass\n")
    code = (
        "from pathlib import Path;"
        " from trialrun.job.user_code.functions import load_function as load;"
    )
    code += f"load('nets.py:build', Path({str(tmp_path)!r}));"
    code += "from absl import logging; logging.warning('This format is considered legacy.')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout + ended.stderr == ""
