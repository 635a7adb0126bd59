"""Where in the user's own code an error was raised."""

import json
import pickle

import pytest

from trialrun.errors import InputError, OutOfMemory
from trialrun.job.user_code.frames import note_frames, told, where_raised
from trialrun.job.user_code.functions import load_function
from trialrun.job.user_code.own_files import move_folder

CODE = """
import json


def builder():
    return block("a")


def block(name):
    return {}[name]


def notes():
    try:
        block("b")
    except KeyError as error:
        raise OSError("cannot note") from error


def reads():
    json.loads("{")


def falls(depth):
    if depth:
        falls(depth - 1)
    raise RuntimeError("too deep")
"""


@pytest.fixture
def error_of(tmp_path):
    """What an error says that a function of the user raises, as trialrun raises it again."""
    (tmp_path / "nets.py").write_text(CODE)

    def error_of(name, *args):
        error = InputError("it raised")
        try:
            load_function(f"nets.py:{name}", tmp_path)(*args)
        except Exception as raised:
            error.__cause__ = raised.with_traceback(raised.__traceback__.tb_next)  # without this
        return error

    return error_of


def own(error, tmp_path):
    """The calls in the user's file."""
    return where_raised(error).replace(f"{tmp_path}/", "").splitlines()


def test_the_innermost_call_is_first(error_of, tmp_path):
    assert own(error_of("builder"), tmp_path) == [
        "  at nets.py:10 in block: return {}[name]",
        '  called at nets.py:6 in builder: return block("a")',
    ]


def test_the_calls_of_a_cause_follow_in_a_group_of_their_own(error_of, tmp_path):
    assert own(error_of("notes"), tmp_path) == [
        '  at nets.py:17 in notes: raise OSError("cannot note") from error',
        "because of KeyError: 'b'",
        "  at nets.py:10 in block: return {}[name]",
        '  called at nets.py:15 in notes: block("b")',
    ]


def test_calls_in_pythons_own_library_are_left_out(error_of, tmp_path):
    assert own(error_of("reads"), tmp_path) == ['  at nets.py:21 in reads: json.loads("{")']


def test_of_a_deep_recursion_only_the_ends_are_told(error_of, tmp_path):
    lines = own(error_of("falls", 100), tmp_path)
    assert len(lines) < 12
    assert lines[0] == '  at nets.py:27 in falls: raise RuntimeError("too deep")'
    assert "... 91 more calls ..." in lines[8]


def test_an_error_without_the_users_code_has_no_calls():
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    trace = caught.value.__traceback__.tb_next  # without this file
    assert where_raised(caught.value.with_traceback(trace)) == ""
    assert told(InputError("epochs must be at least 1")) == "epochs must be at least 1"


def test_noted_calls_travel_between_processes(error_of):
    raised = error_of("builder")
    error = OutOfMemory("GPU 0 is out of memory", 3)
    note_frames(error, raised)
    there = pickle.loads(pickle.dumps(error))
    assert told(there) == f"GPU 0 is out of memory\n{where_raised(raised)}"
    assert there.max_trials == 3


def test_a_file_that_was_sent_has_the_path_that_the_user_knows(error_of, tmp_path):
    move_folder(tmp_path / "mine", tmp_path)
    assert f"  at {tmp_path}/mine/nets.py:10 in block" in where_raised(error_of("builder"))
