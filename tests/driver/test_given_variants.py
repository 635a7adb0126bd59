"""Runs of a table of variants: begun, continued without it, and after it was changed."""

import pytest
from made_up_rounds import GRID, JOB, Driver

from trialrun.errors import InputError
from trialrun.job import dump_job

RATES = ["0.9", "0.2", "0.3", "0.8", "0.1", "0.5", "0.7", "0.4", "0.6"]


def of_table(job):
    """The job with a table in place of its parameters."""
    without_parameters = [line for line in job.splitlines() if "parameters:" not in line]
    return "\n".join([*without_parameters, "  method: from", "  from: t.csv"])


def write_table(folder, rates=RATES):
    lines = [f"{number},{rate}" for number, rate in enumerate(rates, 1)]
    (folder / "t.csv").write_text("\n".join(["rank,param.training.learning_rate", *lines]))


@pytest.fixture(params=[JOB, GRID], ids=["rounds", "grid"])
def job(request):
    return request.param


def test_a_table_is_trained_as_the_same_grid_is(tmp_path, job):
    for name in ("table", "grid"):
        (tmp_path / name).mkdir()
    write_table(tmp_path / "table", [*RATES[:3], RATES[0], *RATES[3:]])
    table, grid = Driver(tmp_path / "table", of_table(job)), Driver(tmp_path / "grid", job)
    assert table.live() == grid.live()
    assert table.files == grid.files


def test_a_run_goes_on_without_its_table(tmp_path, job):
    write_table(tmp_path)
    first = Driver(tmp_path, of_table(job))
    batch = first.live(fails=[0])
    (tmp_path / "t.csv").unlink()
    resolved = first.run.job_file.read_text()
    again = Driver(tmp_path, resolved)
    assert dump_job(again.loaded.spec) == resolved
    assert 0 < len(again.live()) < len(batch)


def test_a_changed_table_is_another_job(tmp_path, job):
    write_table(tmp_path)
    Driver(tmp_path, of_table(job)).live()
    write_table(tmp_path, [*RATES[:2], "0.35", *RATES[3:]])
    with pytest.raises(InputError, match="holds trials of a job that differs") as caught:
        Driver(tmp_path, of_table(job))
    assert "search.from[2].training.learning_rate: 0.3 -> 0.35" in str(caught.value)
    write_table(tmp_path, RATES[1:])
    with pytest.raises(InputError, match=r"search\.from: 9 variants -> 8"):
        Driver(tmp_path, of_table(job))


def test_rows_are_added_at_the_end_of_a_table_without_rounds(tmp_path):
    write_table(tmp_path)
    before = Driver(tmp_path, of_table(GRID)).live()
    write_table(tmp_path, [*RATES, "0.05"])
    more = Driver(tmp_path, of_table(GRID))
    trained = more.live()
    assert not set(before) & set(trained)
    assert more.run.rounds.read()[-1].variants[0] == "v09"


def test_rows_are_not_added_to_a_run_with_rounds(tmp_path):
    write_table(tmp_path)
    Driver(tmp_path, of_table(JOB)).live()
    write_table(tmp_path, [*RATES, "0.05"])
    with pytest.raises(InputError, match="no variants can be added to a run with rounds"):
        Driver(tmp_path, of_table(JOB)).live()
