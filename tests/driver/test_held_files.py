"""A run works with the user's files as they were when it began."""

import pytest

from trialrun.driver.held_files import holding_files
from trialrun.errors import InputError
from trialrun.job import load_job
from trialrun.job.user_code.functions import load_function
from trialrun.trials.plan import plan_trials


@pytest.fixture
def loaded(tmp_path):
    (tmp_path / "mine.py").write_text("from held_of_ours import value\ndef build(): return value\n")
    (tmp_path / "held_of_ours.py").write_text("value = 1\n")
    (tmp_path / "words.txt").write_text("1")
    job = tmp_path / "job.yaml"
    job.write_text("name: a\nmodel: {builder: 'mine.py:build', depends_on: ['*.txt']}\n")
    return load_job(job)


def test_an_edit_during_a_run_does_not_reach_it(loaded):
    trials = plan_trials(loaded.spec)
    with holding_files(loaded, trials) as files:
        (loaded.folder / "held_of_ours.py").write_text("value = 2\n")
        (loaded.folder / "words.txt").write_text("2")
        (loaded.folder / "more.txt").write_text("3")
        assert plan_trials(loaded.spec) == trials
        assert load_function("mine.py:build", loaded.folder)() == 1
    assert files.contents[str(loaded.folder / "held_of_ours.py")] == b"value = 1\n"
    assert plan_trials(loaded.spec) != trials
    assert load_function("mine.py:build", loaded.folder)() == 2


@pytest.mark.parametrize("name", ["mine.py", "held_of_ours.py", "words.txt"])
def test_an_edit_while_trials_are_planned_is_refused(loaded, name):
    trials = plan_trials(loaded.spec)
    path = loaded.folder / name
    path.write_text(path.read_text() + "\n")
    with (
        pytest.raises(InputError, match=r"a file of this job was edited while its trials were"),
        holding_files(loaded, trials),
    ):
        raise AssertionError("it must not begin")
