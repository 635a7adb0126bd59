"""An edit of anything that a trial is made of makes another trial, wherever it is and how small."""

import compileall
import os
import pickle
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from trialrun.errors import InputError
from trialrun.job import load_job
from trialrun.job.user_code.depends_on import files_named, folders_named
from trialrun.job.user_code.files import collect_files
from trialrun.trials.plan import plan_trials

MINE = """
import packed_of_ours.layers as layers
from packed_of_ours import heads
from packed_of_ours.named import *
from spread.deep import thing

def data(seed):
    return None

def build(width=4):
    from lazily import late
    import importlib
    importlib.import_module("by_text")
    import built_of_ours
    return late()
"""
VALUE = "value = 1\n"
# file -> its content; the edit of each is `1` -> `2`, so that lengths stay
TREE = {
    "mine.py": f"{MINE}\n{VALUE}",
    "packed_of_ours/__init__.py": VALUE,
    "packed_of_ours/layers.py": f"from .inner.core import *\nfrom . import beside\n{VALUE}",
    "packed_of_ours/heads.py": f"from ..packed_of_ours import uncle\n{VALUE}",
    "packed_of_ours/uncle.py": VALUE,
    "packed_of_ours/named/__init__.py": f"__all__ = ['starred']\n{VALUE}",
    "packed_of_ours/named/starred.py": VALUE,
    "packed_of_ours/inner/__init__.py": VALUE,
    "packed_of_ours/inner/core.py": f"from ..cousin import value\n{VALUE}",
    "packed_of_ours/beside.py": VALUE,
    "packed_of_ours/cousin.py": VALUE,
    "spread/deep.py": f"thing = 1\n{VALUE}",  # a package without an __init__.py
    "lazily.py": f"def late(): return 1\n{VALUE}",
    "by_text.py": VALUE,
    f"built_of_ours{EXTENSION_SUFFIXES[0]}": VALUE,
    "losses.py": f"import terms_of_ours\ndef mine(y, p): return y\n{VALUE}",
    "terms_of_ours.py": VALUE,
    "calls.py": f"def callback(): return None\n{VALUE}",
    "named/scan.txt": VALUE,
    "named/deep/er.txt": VALUE,
    "words.txt": VALUE,
}
STRANGERS = ["stranger.py", "packed_of_ours/stranger.py", "named/.hidden", "named/other.csv"]
JOB = """
name: edits
data: {generator: "mine.py:data", depends_on: ["named/**/*.txt"]}
model: {builder: "mine.py:build", depends_on: [words.txt]}
training: {loss: "losses.py:mine", callbacks: ["calls.py:callback"]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    for name, content in {**TREE, **dict.fromkeys(STRANGERS, VALUE)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "job.yaml").write_text(JOB)
    return folder


def first_id(folder):
    return plan_trials(load_job(folder / "job.yaml").spec)[0].trial_id


def edit(path, old="1", new="2"):
    """Changes a file so that it keeps its length and the time of its last change."""
    times = path.stat()
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", TREE)
def test_an_edit_never_goes_unseen(folder, name):
    before = first_id(folder)
    edit(folder / name)
    edited = first_id(folder)
    edit(folder / name, "2", "1")
    assert edited != before == first_id(folder)


@pytest.mark.parametrize("pattern", ["data", "data/**", "da*/**/*.txt"])
def test_an_edit_in_a_folder_that_a_link_leads_to_is_seen(tmp_path, pattern):
    (tmp_path / "data").mkdir()
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "back").symlink_to(tmp_path)
    (tmp_path / "far" / "deep" / "a.txt").write_text(VALUE)
    (tmp_path / "job.yaml").write_text(f"name: linked\nmodel: {{depends_on: ['{pattern}']}}\n")
    before = first_id(tmp_path)
    edit(tmp_path / "far" / "deep" / "a.txt")
    assert first_id(tmp_path) != before


@pytest.mark.parametrize("pattern", [".", "**"])
def test_a_run_beside_the_job_changes_no_id(tmp_path, pattern):
    (tmp_path / "job.yaml").write_text(f"name: whole\nmodel: {{depends_on: ['{pattern}']}}\n")
    before = first_id(tmp_path)
    run = tmp_path / "runs" / "whole" / "1"
    (run / "lease").mkdir(parents=True)
    (run / "job.yaml").write_text(VALUE)
    assert first_id(tmp_path) == before
    (tmp_path / "runs" / "other.txt").write_text(VALUE)
    assert first_id(tmp_path) != before


def test_each_file_counts_once_towards_the_most_that_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("trialrun.job.user_code.depends_on._MAX_FILES", 4)
    for name in ("xa/b/c/1", "xa/b/c/2", "xb/3", "xc/4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert len(files_named([f"{tmp_path}/x*/**"])) == 4
    (tmp_path / "xc" / "5").write_text("")
    with pytest.raises(InputError, match="at most 4 files"):
        files_named([f"{tmp_path}/x*/**"])


def test_what_a_job_does_not_use_does_not_count(folder):
    before = first_id(folder)
    for name in STRANGERS:
        edit(folder / name)
    assert first_id(folder) == before


def test_the_id_is_the_same_in_another_folder(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert first_id(tmp_path / "elsewhere") == first_id(folder)


def test_a_file_that_joins_or_leaves_a_pattern_makes_other_trials(folder):
    before = first_id(folder)
    (folder / "named" / "new.txt").write_text("")
    joined = first_id(folder)
    (folder / "named" / "new.txt").unlink()
    assert joined != before == first_id(folder)


def test_a_module_of_the_import_path_counts_with_its_package(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    job = folder / "by_module.yaml"
    job.write_text("name: m\nmodel: {builder: 'packed_of_ours.inner.core:value'}\n")

    def planned():
        return plan_trials(load_job(job).spec)[0].trial_id

    for name in ("packed_of_ours/__init__.py", "packed_of_ours/cousin.py"):
        before = planned()
        edit(folder / name)
        edited = planned()
        edit(folder / name, "2", "1")
        assert edited != before


def test_the_packages_around_a_module_count_though_it_imports_none_of_them(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    reference = "packed_of_ours.named.starred:value"
    (folder / "by_module.yaml").write_text(f"name: m\nmodel: {{builder: '{reference}'}}\n")
    sent = collect_files([reference]).contents
    assert {name.removeprefix(f"{folder}/packed_of_ours/") for name in sent} == {
        "__init__.py",
        "named/__init__.py",
        "named/starred.py",
    }


def test_a_compiled_module_of_the_user_counts(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    job = folder / "by_module.yaml"
    job.write_text("name: m\nmodel: {builder: 'built_of_ours:build'}\n")
    before = plan_trials(load_job(job).spec)[0].trial_id
    name = f"built_of_ours{EXTENSION_SUFFIXES[0]}"
    edit(folder / name)
    edited = plan_trials(load_job(job).spec)[0].trial_id
    edit(folder / name, "2", "1")
    assert edited != before


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("no_such.txt", "must match at least one file, but .*/no_such.txt matches none"),
        ("*.nothing", "must match at least one file"),
        ("../**/*.txt", "must stay in the job's folder, got '../"),
        ("/*", "must stay in the job's folder, got '/"),
        ("~/**", "must stay in the job's folder, got '~"),
        ("~nobody_of_this_name/x", "must match at least one file, but .*/~nobody_of_this_name/x"),
    ],
)
def test_a_pattern_without_files_or_without_bounds_is_refused(folder, pattern, message):
    job = folder / "refused.yaml"
    job.write_text(f"name: r\nmodel: {{depends_on: ['{pattern}']}}\n")
    with pytest.raises(InputError, match=rf"refused.yaml:2: model.depends_on {message}"):
        load_job(job)


@pytest.mark.parametrize("source", ["def f(:", "x = " + "+".join(["1"] * 30_000), "x = '\0'"])
def test_an_imported_file_that_python_cannot_read_is_named_with_its_folder(tmp_path, source):
    (tmp_path / "pack_of_ours").mkdir()
    (tmp_path / "pack_of_ours" / "__init__.py").write_text(source)
    (tmp_path / "mine.py").write_text("import pack_of_ours\n")
    with pytest.raises(InputError, match=r"/pack_of_ours/__init__.py:.* not valid Python: \w"):
        collect_files([f"{tmp_path}/mine.py:f"])


def test_two_files_that_are_imported_by_one_name_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "terms.py").write_text(f"{name} = 1\n")
        (tmp_path / name / "mine.py").write_text("import terms\n")
    references = [f"{tmp_path}/{name}/mine.py:f" for name in ("a", "b")]
    with pytest.raises(InputError, match=r"two modules are imported as terms\.py: .*; rename|so"):
        collect_files(references)


# On another machine ------------------------------------------------------------------------------

ELSEWHERE = """
import pickle, sys
from pathlib import Path
from trialrun.errors import InputError
from trialrun.job.user_code.files import install_files
from trialrun.job.user_code.functions import load_function

for files, reference in pickle.load(sys.stdin.buffer):
    install_files(files)
    try:
        print(load_function(reference, Path("/"))())
    except InputError as error:
        print(error)
"""


def call_elsewhere(*calls):
    """What another process gets from functions of which it was handed the files."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=pickle.dumps(calls),
        capture_output=True,
        check=True,
        cwd="/",
    )
    return done.stdout.decode().splitlines()


def test_packages_and_named_files_travel(tmp_path, monkeypatch):
    """The folder is edited after the files were taken, and the library's is gone."""
    job, library = tmp_path / "job", tmp_path / "library"
    (job / "code" / "ours_to_go" / "sub").mkdir(parents=True)
    (job / "code" / "mine.py").write_text(
        "from pathlib import Path\n"
        "def build():\n"
        "    from ours_to_go.sub.core import width\n"
        "    import from_a_path_to_go\n"
        "    words = Path(__file__).parents[1] / 'words.txt'\n"
        "    return width, from_a_path_to_go.value, words.read_text()\n"
    )
    for name in ("ours_to_go", "ours_to_go/sub"):
        (job / "code" / name / "__init__.py").write_text("")
    core = job / "code" / "ours_to_go" / "sub" / "core.py"
    core.write_text("from ..base import width\n")
    base = job / "code" / "ours_to_go" / "base.py"
    base.write_text("width = 1\n")
    (job / "words.txt").write_text("word")
    library.mkdir()
    (library / "from_a_path_to_go.py").write_text("value = 7\n")
    compileall.compile_dir(job, quiet=1)
    monkeypatch.syspath_prepend(library)
    reference = f"{job}/code/mine.py:build"
    named = [str(job / "words.txt")]
    files = collect_files([reference], files_named(named), folders_named(named))
    shutil.rmtree(library)
    edit(base, "1", "3")
    assert call_elsewhere((files, reference)) == ["(1, 7, 'word')"]


def test_an_import_that_reading_does_not_show_is_refused_until_it_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("hidden = __import__('unseen' + '_here')\nbuild = dict\n")
    unseen = tmp_path / "unseen_here.py"
    unseen.write_text("value = 5\n")
    reference = f"{tmp_path}/mine.py:build"
    refused = call_elsewhere((collect_files([reference]), reference))
    assert "unseen_here (" in refused[0]
    assert "name its file in model.depends_on" in refused[0]
    named = collect_files([reference], [str(unseen)])
    assert call_elsewhere((named, reference)) == ["{}"]


def test_a_module_beside_is_executed_as_it_is_and_not_as_it_was_compiled(tmp_path):
    (tmp_path / "mine.py").write_text("from beside_mine import value\ndef build(): return value\n")
    (tmp_path / "beside_mine.py").write_text("value = 1\n")
    compileall.compile_dir(tmp_path, quiet=1)
    edit(tmp_path / "beside_mine.py")
    reference = f"{tmp_path}/mine.py:build"
    assert call_elsewhere((collect_files([reference]), reference)) == ["2"]
