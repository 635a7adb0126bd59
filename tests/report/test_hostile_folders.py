"""Run folders that somebody else made: a message, nothing changed outside, nothing obeyed."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import ROOT, call
from made_up_runs import finish, learning_rates, write_run

import trialrun
from trialrun.errors import FileError, InputError
from trialrun.store import RunFolder

sys.path.append(str(ROOT / "scripts" / "benchmarks"))
from fuzz_run_folder import EVIL, fuzz, replace_by_pipe, replace_by_zeros, without_figures

NESTED = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def run(tmp_path):
    return finish(write_run(tmp_path / "runs", learning_rates(0.1, 0.2), range(2)))


@pytest.mark.parametrize(
    ("name", "replace", "message"),
    [
        ("trials/part-p000.parquet", replace_by_pipe, "is neither a file nor a folder"),
        ("job.yaml", replace_by_pipe, "is not a run folder"),
        ("summary.json", replace_by_zeros, "has 953.7 MiB; trialrun writes at most 512.0 MiB"),
        ("variants.csv", replace_by_zeros, "has 953.7 MiB"),
    ],
)
def test_what_would_be_waited_for_is_refused_at_once(run, name, replace, message):
    replace(run.path / name, None, None)
    with pytest.raises(InputError, match=message):
        RunFolder.open(run.path)


@pytest.mark.parametrize("target", ["precious", "precious/file.txt", "nothing", "/dev/zero"])
def test_a_link_out_of_the_folder_is_refused_before_it_is_written_through(run, tmp_path, target):
    precious = tmp_path / "precious" / "file.txt"
    precious.parent.mkdir()
    precious.write_text("precious")
    run.figures_dir.symlink_to(tmp_path / target)
    finished = call("report", run.path)
    assert finished.code == 2
    assert f"{run.figures_dir}: is a link to " in finished.stderr
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


def test_a_link_within_the_folder_is_fine(run):
    (run.path / "latest.json").symlink_to(run.summary_file)
    assert RunFolder.open(run.path) == run


@pytest.mark.parametrize("content", [NESTED, "[]", '{"selection": 7}', '{"data": [null]}', "\0"])
def test_a_summary_of_another_shape_is_one_message(run, content):
    run.summary_file.write_text(content)
    finished = call("show", run.path)
    assert finished.code in (0, 1)
    assert "Traceback" not in finished.stderr
    assert len(finished.stderr.splitlines()) <= 1
    if finished.code:
        assert str(run.path) in finished.stderr
        with pytest.raises(FileError):
            trialrun.open_run(run.path).best  # noqa: B018 - it is read


def test_texts_of_others_are_shown_and_not_obeyed(tmp_path):
    variants = learning_rates(0.1, 0.2)
    run = finish(write_run(tmp_path, variants, range(2), class_names=(EVIL, "b")))
    part = run.trials_dir / "part-p001.parquet"
    table = pq.read_table(part)
    for name, value in (("status", "failed"), ("error", EVIL)):
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(name), pa.array([value] * 2))
    pq.write_table(table, part)
    shown = call("show", run.path)
    assert shown.code == 0, shown
    assert "␛[2J" in shown.stdout
    assert not set(shown.stdout) & {"\x1b", "\x07", "\u202e"}
    assert EVIL in json.loads(call("show", run.path, "--json").stdout)["class_names"]


def test_no_text_is_a_formula_and_numbers_stay(run):
    run.write_variants(
        [{"variant_id": "=cmd()", "param.model.args.name": "=1+1", "+x": -1.5, "n": "@a"}]
    )
    header, row = run.variants_file.read_text().splitlines()
    assert header == "variant_id,param.model.args.name,'+x,n"
    assert row == '\'=cmd(),"""=1+1""",-1.5,\'@a'


def test_a_tracker_that_another_names_is_used_only_on_demand(run, tmp_path):
    job = run.job_file.read_text()
    run.job_file.write_text(f"{job}output: {{mlflow: 'sqlite:///{tmp_path}/x.db'}}\n")
    with without_figures():
        assert call("report", run.path).code == 0
    assert not (tmp_path / "x.db").exists()
    assert not run.tracking_file.exists()


def test_damaged_folders_give_messages(run):
    """A part of what scripts/fuzz_run_folder does."""
    told = []
    with without_figures():
        found = fuzz(run.path, 4, seed=1, patience_s=300, tell=told.append)
    assert not any(found.values()), told
