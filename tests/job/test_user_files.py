"""What the source of a user's function hashes to: what changes it, and what does not."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import trialrun.models
from trialrun.errors import InputError
from trialrun.job.user_code.files import collect_files, source_digest
from trialrun.job.user_code.functions import parse_reference
from trialrun.job.user_code.imports import own_files
from trialrun.job.user_code.own_files import is_part_of_trialrun, is_users_own

NETS = "import layers_of_ours\n\n\ndef build():\n    return layers_of_ours.make()\n"


@pytest.fixture
def nets(tmp_path):
    """A builder, the module beside it that it imports, one that this imports, and a stranger."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "layers_of_ours.py").write_text("from deep import make\n")
    (tmp_path / "deep.py").write_text("def make():\n    return 1\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    return tmp_path


def digest(folder):
    return source_digest(f"{folder}/nets.py:build")


@pytest.mark.parametrize("name", ["nets.py", "layers_of_ours.py", "deep.py"])
def test_an_edit_of_the_file_or_of_what_it_imports_from_beside_it_is_seen(nets, name):
    before = digest(nets)
    assert len(before) == 16
    (nets / name).write_text((nets / name).read_text() + "y = 2\n")
    assert digest(nets) != before


def test_other_files_folders_and_line_endings_do_not_count(nets, tmp_path_factory):
    before = digest(nets)
    (nets / "other.py").write_text("x = 2\n")
    assert digest(nets) == before
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in nets.iterdir():
        (elsewhere / path.name).write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert digest(elsewhere) == before


def test_a_new_import_is_followed_even_if_the_file_keeps_its_size_and_was_read_before(nets):
    digest(nets)
    path = nets / "nets.py"
    path.write_text(NETS.replace("layers_of_ours", "other_layers__"))
    os.utime(path, ns=(1, 1))
    (nets / "other_layers__.py").write_text("make = int\n")
    before = digest(nets)
    (nets / "other_layers__.py").write_text("make = float\n")
    assert digest(nets) != before


def test_what_is_in_a_module_of_the_user_counts_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_module_of_a_user.py").write_text("def build():\n    pass\n")
    before = source_digest("a_module_of_a_user:build")
    (tmp_path / "a_module_of_a_user.py").write_text("def build():\n    return 1\n")
    assert before
    assert source_digest("a_module_of_a_user:build") != before
    assert "a_module_of_a_user" not in sys.modules


def test_our_own_functions_are_known_by_their_version():
    assert source_digest("trialrun.models:mlp") == ""


def test_a_missing_source_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="no file"):
        source_digest(f"{tmp_path}/nets.py:build")


# Traveling ---------------------------------------------------------------------------------------

ON_ANOTHER_MACHINE = """
import pickle, sys
from pathlib import Path
from trialrun.job.user_code.functions import load_function
from trialrun.job.user_code.files import install_files

files, reference = pickle.load(sys.stdin.buffer)
for _ in range(2):
    install_files(files)
    function = load_function(reference, Path("/"))
print(function(), function.__code__.co_filename)
"""


def load_elsewhere(files, reference):
    """What a process that was handed the files gets from calling the function, and from where."""
    done = subprocess.run(
        [sys.executable, "-c", ON_ANOTHER_MACHINE],
        input=pickle.dumps((files, reference)),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().split()


def test_files_travel_with_what_they_import_from_beside_them(nets):
    reference = f"{nets}/nets.py:build"
    files = collect_files([reference, "trialrun.models:mlp"])
    assert {Path(name).name for name in files.contents} == {
        "nets.py",
        "layers_of_ours.py",
        "deep.py",
    }
    for path in nets.iterdir():
        path.unlink()
    value, where = load_elsewhere(files, reference)
    assert value == "1"
    folder = Path(where).parent
    assert folder.name.startswith("trialrun-files-")
    assert not folder.exists()


def test_files_that_are_there_already_are_used_where_they_are(nets):
    reference = f"{nets}/nets.py:build"
    files = collect_files([reference])
    assert load_elsewhere(files, reference) == ["1", f"{nets}/nets.py"]


def test_an_older_copy_on_the_other_machine_is_not_used(nets):
    reference = f"{nets}/nets.py:build"
    files = collect_files([reference])
    (nets / "deep.py").write_text("def make():\n    return 'old'\n")
    assert load_elsewhere(files, reference)[0] == "1"


# Data files --------------------------------------------------------------------------------------

READ_ELSEWHERE = """
import pickle, sys
from pathlib import Path
from trialrun.errors import InputError
from trialrun.job import DataSpec
from trialrun.job.user_code.files import install_files
from trialrun.data.load import load_splits

files, path = pickle.load(sys.stdin.buffer)
try:
    install_files(files)
    splits = load_splits(DataSpec(csv=path, target="y", seed=0), Path("/"), 0)
    print(len(splits.y_train))
except InputError as error:
    print(error)
"""


def read_elsewhere(files, path):
    """What a process that was handed the files makes of a job's table."""
    done = subprocess.run(
        [sys.executable, "-c", READ_ELSEWHERE],
        input=pickle.dumps((files, str(path))),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(50)))
    return path


def test_a_data_file_travels(table):
    files = collect_files([], [str(table)])
    table.unlink()
    assert read_elsewhere(files, table) == "36"


def test_a_large_data_file_must_be_there_and_the_same(table, monkeypatch):
    monkeypatch.setattr("trialrun.job.user_code.files.MAX_TRAVEL_BYTES", 10)
    files = collect_files([], [str(table)])
    assert sum(map(len, files.contents.values())) == 16
    assert read_elsewhere(files, table) == "36"
    table.write_text(table.read_text() + "50,1\n")
    assert "table.csv has another content on" in read_elsewhere(files, table)
    table.unlink()
    message = read_elsewhere(files, table)
    assert "table.csv does not exist on" in message
    assert "data files of up to 64.0 MiB are sent to other machines" in message


def test_what_is_trialruns_own_is_not_the_users():
    path = Path(trialrun.models.__file__)
    assert is_part_of_trialrun(path)
    assert not is_users_own(path)


def test_a_checkout_of_trialrun_in_the_search_path_is_not_the_users_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(trialrun.__file__).parents[1])
    path = tmp_path / "counts.py"
    path.write_text("from trialrun.datasets import medical_trial as data\n")
    assert [file.path for file in own_files(parse_reference(f"{path}:data"))] == [path]
