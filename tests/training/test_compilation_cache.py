"""What XLA has compiled is loaded by later processes, and nothing wrong with the folder matters."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trialrun.doctor.compiled import check_compilation_cache
from trialrun.training.compilation_cache import entries as cache_entries
from trialrun.training.compilation_cache.entries import (
    Entry,
    read_entries,
    remove_entries,
    size_of,
    write_entry,
)
from trialrun.training.compilation_cache.folder import (
    chosen_folder,
    for_workers,
    machine_key,
    problem_with,
    turn_on,
)

ENTRY = Entry("a.pb", bytes(range(256)) * 20)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")


@pytest.fixture
def folder(tmp_path):
    """A cache folder with one entry, under the key `k`."""
    write_entry(tmp_path / "cache", "k", ENTRY)
    return tmp_path / "cache"


def file_in(folder: Path) -> Path:
    """The only file."""
    [file] = (folder / "compiled").iterdir()
    return file


# With TensorFlow ---------------------------------------------------------------------------------

# TensorFlow is imported once and has run nothing when processes are forked: each compiles the same
# two functions, or loads them. The order of its other functions differs from process to process.
_PROCESSES = """
import json, os, shutil, sys
from pathlib import Path
from trialrun.training.compilation_cache.folder import turn_on
turn_on(os.environ)
import tensorflow as tf
from trialrun.training.compilation_cache.cached_function import CachedFunction
from contextlib import nullcontext

def loop(x):
    body = lambda i, x: (i + 1, tf.tanh(x @ x) + tf.cast(i, tf.float32))
    return tf.while_loop(lambda i, x: i < 3, body, (0, x))[1]

def numbers(others):
    for _ in range(others):
        tf.function(lambda x: x + 1)(tf.zeros([]))
    function = CachedFunction(loop, "loop", nullcontext)
    x = tf.linspace(0.0, 1.0, 36)
    return [function(tf.reshape(x, (n, 36 // n))[:, :n]).numpy().tolist() for n in (3, 4)]

def forked(others=0):
    reading, writing = os.pipe()
    if not os.fork():
        try:
            os.write(writing, json.dumps(numbers(others)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.wait()
    with os.fdopen(reading) as answer:
        return json.load(answer)

def files():
    return {f.name: f.stat().st_ino for f in (folder / "compiled").iterdir()}

folder = Path(os.environ["TRIALRUN_CACHE_DIR"])
told = {"cold": forked(others=3), "files": files()}
told |= {"warm": forked(), "same files": files()}
from trialrun.training.compilation_cache import entries
for file in (folder / "compiled").iterdir():  # whole, but not what this TensorFlow can load
    rest = file.read_bytes()[len(entries._MAGIC) + 32:]
    name, _, content = rest.partition(b"\\n")
    wrong = entries.Entry(name.decode(), content[:len(content) // 2])
    entries.write_entry(folder, file.name.rpartition("-")[0], wrong)
told |= {"wrong": forked(), "new files": files()}
shutil.rmtree(folder)
folder.touch()
told["no folder"] = forked()
from trialrun.training.compilation_cache.measured import keep_seconds, read_seconds
for place in ("no folder", "new folder"):
    keep_seconds("program", {"fused": 0.5, "keras": 1.25})
    told["seconds in " + place] = [read_seconds("program"), read_seconds("other program")]
    folder.is_file() and folder.unlink()
print(json.dumps(told))
"""


@pytest.mark.tensorflow
def test_a_second_process_compiles_nothing_and_no_number_differs(tmp_path):
    environment = {**os.environ, "TRIALRUN_CACHE_DIR": str(tmp_path / "cache")}
    program = [sys.executable, "-c", _PROCESSES]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["cold"] == told["warm"] == told["wrong"] == told["no folder"]
    assert len(told["files"]) == 2
    assert told["same files"] == told["files"]
    # What TensorFlow could not load is gone, and compiled anew under another name.
    assert len(told["new files"]) == 2
    assert not told["new files"].keys() & told["files"].keys()
    assert told["seconds in no folder"] == [{}, {}]
    assert told["seconds in new folder"] == [{"fused": 0.5, "keras": 1.25}, {}]


# The folder --------------------------------------------------------------------------------------


def test_the_folder_is_the_users_cache_folder_or_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert chosen_folder({}) == tmp_path / ".cache" / "trialrun"
    assert chosen_folder({"XDG_CACHE_HOME": "/scratch/c"}) == Path("/scratch/c/trialrun")
    assert chosen_folder({"XDG_CACHE_HOME": "not/absolute"}) == tmp_path / ".cache" / "trialrun"
    assert chosen_folder({"TRIALRUN_CACHE_DIR": "~/mine"}) == tmp_path / "mine"
    for off in ("", "off", " OFF "):
        assert chosen_folder({"TRIALRUN_CACHE_DIR": off}) is None
    # Workers have other current folders.
    for chosen, given in (("here", str(Path("here").absolute())), ("", "off")):
        assert for_workers({"TRIALRUN_CACHE_DIR": chosen}) == {"TRIALRUN_CACHE_DIR": given}
    assert for_workers({}) == {}


def test_the_users_own_flags_stay_in_force():
    given = {"TF_XLA_FLAGS": "--tf_xla_enable_lazy_compilation=false"}
    turn_on(given)
    before, _, ours = given["TF_XLA_FLAGS"].partition(" ")
    assert before == "--tf_xla_enable_lazy_compilation=false"
    assert "--tf_xla_persistent_cache_directory=ram://" in ours
    for untouched in (
        {"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory=/my/own"},
        {"TRIALRUN_CACHE_DIR": "off"},
        dict(given),
    ):
        environment = dict(untouched)
        turn_on(environment)
        assert environment == untouched


def test_another_processor_has_another_key(tmp_path, monkeypatch):
    def key(*lines: str) -> str:
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc" / "cpuinfo").write_text("\n".join(lines) + "\n")
        machine_key.cache_clear()
        return machine_key(tmp_path)

    own = key("model\t\t: 1", "flags\t\t: fma avx2", "cpu MHz\t\t: 2000.1")
    assert key("model\t\t: 1", "flags\t\t: fma avx2", "cpu MHz\t\t: 3107.9") == own
    assert key("model\t\t: 1", "flags\t\t: fma avx2 avx512f") != own
    assert key("model\t\t: 2", "flags\t\t: fma avx2") != own
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert key("model\t\t: 1", "flags\t\t: fma avx2") != own
    machine_key.cache_clear()


def test_only_its_user_can_enter_the_folder(folder):
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "compiled").stat().st_mode & 0o777 == 0o700
    assert file_in(folder).stat().st_mode & 0o777 == 0o600
    assert problem_with(folder) is None


@pytest.mark.parametrize("inner", ["", "compiled"])
@pytest.mark.parametrize("mode", [0o770, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(folder, inner, mode):
    (folder / inner).chmod(mode)
    assert_refused(folder, "other users can write to")


@needs_root
@pytest.mark.parametrize("inner", ["", "compiled"])
def test_a_folder_of_another_user_is_refused(folder, inner):
    os.chown(folder / inner, 12345, -1)
    assert_refused(folder, "belongs to another user (uid 12345)")


def test_a_link_to_entries_elsewhere_is_refused(folder, tmp_path):
    (folder / "compiled").rename(tmp_path / "elsewhere")
    (folder / "compiled").symlink_to(tmp_path / "elsewhere")
    assert_refused(folder, str(folder))


def test_a_file_in_the_way_is_a_problem_and_no_more(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "cache"):
        assert_refused(path, str(path))


def assert_refused(folder: Path, reason: str) -> None:
    assert reason in str(problem_with(folder))
    assert read_entries(folder, "k") == []
    write_entry(folder, "k", ENTRY)  # says nothing
    check = check_compilation_cache({"TRIALRUN_CACHE_DIR": str(folder)})
    assert (check.status, reason in check.found) == ("warning", True)


def test_the_doctor_tells_where_the_cache_is_and_changes_nothing(folder, tmp_path):
    check = check_compilation_cache({"TRIALRUN_CACHE_DIR": str(folder)})
    assert check.status == "ok"
    assert f"{folder}: 1 compiled function, 5." in check.found
    assert "of at most 512.0 MiB" in check.found
    check = check_compilation_cache({"TRIALRUN_CACHE_DIR": str(tmp_path / "not" / "yet")})
    assert (check.status, "0 compiled functions" in check.found) == ("ok", True)
    assert not (tmp_path / "not").exists()
    assert "turned off" in check_compilation_cache({"TRIALRUN_CACHE_DIR": ""}).found


# Its files ---------------------------------------------------------------------------------------


def test_an_entry_is_read_as_it_was_written_and_only_under_its_key(folder):
    assert read_entries(folder, "k") == [ENTRY]
    assert read_entries(folder, "k2") == []
    write_entry(folder, "k", Entry("b.pb", b"of changed code"))
    assert {entry.name for entry in read_entries(folder, "k")} == {"a.pb", "b.pb"}
    remove_entries(folder, "k")
    assert size_of(folder) == (0, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:30],
        lambda content: content + b"\0",
        lambda content: content[:-1] + b"\0",
        lambda content: b"of another program",
    ],
)
def test_a_file_that_is_not_whole_counts_as_absent_and_is_replaced(folder, damage):
    file = file_in(folder)
    file.write_bytes(damage(file.read_bytes()))
    assert read_entries(folder, "k") == []
    write_entry(folder, "k", ENTRY)
    assert read_entries(folder, "k") == [ENTRY]


def test_a_process_killed_in_the_middle_of_a_write_leaves_nothing_that_counts(folder, monkeypatch):
    pid = os.fork()
    if not pid:
        monkeypatch.setattr(os, "replace", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        write_entry(folder, "k", Entry("b.pb", b"never to be seen"))
    os.waitpid(pid, 0)
    assert len(list((folder / "compiled").iterdir())) == 2
    assert read_entries(folder, "k") == [ENTRY]
    [left] = (folder / "compiled").glob(".new-*")
    write_entry(folder, "k", ENTRY)
    assert left.exists()  # somebody may be writing it
    os.utime(left, (0, 0))
    write_entry(folder, "k", ENTRY)
    assert not left.exists()


def test_the_files_that_were_not_used_for_longest_go_when_there_is_too_much(folder, monkeypatch):
    monkeypatch.setattr(cache_entries, "MAX_BYTES", 20 * len(ENTRY.content))
    for number in range(15):
        write_entry(folder, f"k{number}", ENTRY)
        for age, file in enumerate(sorted((folder / "compiled").iterdir())):
            os.utime(file, (10**9 + age, 10**9 + age))
    read_entries(folder, "k0")  # is used now
    writers = [
        threading.Thread(target=write_entry, args=(folder, f"new{number}", ENTRY))
        for number in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert size_of(folder)[1] <= 20 * len(ENTRY.content)
    assert read_entries(folder, "k0") == [ENTRY]
    assert read_entries(folder, "k1") == []


def test_a_full_disk_loses_nothing_but_the_new_entry(small_disk):
    write_entry(small_disk / "cache", "k", ENTRY)
    write_entry(small_disk / "cache", "large", Entry("b.pb", bytes(2 << 20)))
    assert read_entries(small_disk / "cache", "large") == []
    assert read_entries(small_disk / "cache", "k") == [ENTRY]
    assert len(list((small_disk / "cache" / "compiled").iterdir())) == 1


def test_a_folder_that_can_only_be_read_is_read(small_disk):
    write_entry(small_disk / "cache", "k", ENTRY)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    write_entry(small_disk / "cache", "k2", ENTRY)
    assert read_entries(small_disk / "cache", "k") == [ENTRY]
    assert read_entries(small_disk / "cache", "k2") == []
    assert problem_with(small_disk / "cache") is None
    check = check_compilation_cache({"TRIALRUN_CACHE_DIR": str(small_disk / "cache")})
    assert (check.status, "nothing can be added" in check.found) == ("warning", True)
