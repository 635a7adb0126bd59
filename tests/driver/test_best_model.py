"""Whatever becomes of the best model's files, a run has its reports. Training is made up here."""

import json
import time
from dataclasses import replace

import made_up_rounds
import pytest
from commands import call
from made_up_export import MadeUpExport
from made_up_runs import completed, state_of

import trialrun.driver.run
from trialrun.errors import ClusterError, ExportError
from trialrun.export.check import SavedFormat
from trialrun.export.process import SavedModel
from trialrun.store.columns import parameter_kinds
from trialrun.trials.results import PackResult

REPORTS = ("variants.csv", "summary.json", "report.html", "confusion_matrices.json")
LOST = SavedModel.lost("the disk is full")
PROVED = SavedModel((SavedFormat(".keras", "m.keras", True),), summary="a model")


class CountedExport(MadeUpExport):
    """Gives what the test says, and counts."""

    saved = PROVED
    num_saved = 0

    def try_untrained(self, *_):
        raise ExportError("the generator is slow today")

    def export(self, *_):
        CountedExport.num_saved += 1
        return CountedExport.saved


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job of one trial, which is trained at once."""

    def train(work, batch, cluster):
        results = tuple(replace(completed(t.variant, t.seed), trial=t) for t in batch.trials)
        result = PackResult("p000", results, {"v00": state_of(results[0])})
        work.run.kept.write_states(result)
        work.run.write_pack(result, parameter_kinds([trial.variant for trial in batch.trials]))

    monkeypatch.setattr(trialrun.driver.run, "connect_to_cluster", lambda *_: None)
    monkeypatch.setattr(trialrun.driver.run, "train_missing", train)
    monkeypatch.setattr(trialrun.driver.run, "ExportProcess", CountedExport)
    monkeypatch.setattr(CountedExport, "saved", PROVED)
    path = tmp_path / "job.yaml"
    path.write_text("name: best\nseeds: 1\n")
    return path


def words(text):
    """A text without the ends of a terminal's lines."""
    return " ".join(text.split())


def run(job):
    finished = call("run", job, "--runs-dir", job.parent)
    (folder,) = job.parent.glob("best/*")
    return finished, folder


def test_a_run_whose_model_is_lost_has_its_reports_and_resume_tries_again(job, monkeypatch):
    monkeypatch.setattr(CountedExport, "saved", LOST)
    finished, folder = run(job)
    assert finished.code == 1, finished
    assert f"The best model was not saved. To try again: trialrun resume {folder}" in words(
        finished.stderr
    )
    assert "The best model was not saved: not as" in words(finished.stdout)
    assert "the disk is full" in words(finished.stdout)
    assert all((folder / name).is_file() for name in REPORTS)
    assert "the disk is full" in (folder / "report.html").read_text()
    saved = json.loads((folder / "summary.json").read_text())["best_model"]
    assert (saved["proved"], saved["problem"]) == (False, "the disk is full")

    monkeypatch.setattr(CountedExport, "saved", PROVED)
    monkeypatch.setattr(CountedExport, "num_saved", 0)
    for _ in range(2):  # the second time there is nothing left to do
        assert call("resume", folder).code == 0
        assert CountedExport.num_saved == 1
    saved = json.loads((folder / "summary.json").read_text())["best_model"]
    assert [one["name"] for one in saved["formats"]] == [".keras"]


def test_a_run_whose_time_is_over_while_trials_are_paused_ends_well(job, monkeypatch):
    """It has no best model yet, which is not lost; no tracker gets trials that have no result."""

    def train(work, batch, cluster):
        time.sleep(1)
        results = tuple(
            made_up_rounds.result_of(trial, pause_after=batch.pause_after) for trial in batch.trials
        )
        number = work.run.next_pack_number()
        kinds = parameter_kinds([trial.variant for trial in batch.trials])
        work.run.write_pack(PackResult(f"p{number:03d}", results), kinds)

    monkeypatch.setattr(trialrun.driver.run, "train_missing", train)
    text = made_up_rounds.RUNGS.replace("name: rounds", "name: best\noutput: {tensorboard: true}")
    job.write_text(text.replace("  confirm:", "  budget: {time: 1s}\n  confirm:"))
    finished, folder = run(job)
    to_come = ("2 further rounds and the confirmation", "1 further round and the confirmation")
    for not_begun, epochs in zip(to_come, (9, 20), strict=True):
        assert finished.code == 0, finished
        said, told = words(finished.stdout), words(finished.stderr)
        assert f"{not_begun} were not begun." in said
        assert f"{not_begun} were not begun. To go on: trialrun resume {folder}" in told
        assert "# variant learning_rate n val_loss" in said
        why = f"the trials are paused after epoch {epochs}, and `trialrun resume` goes on"
        assert f"There is no best model yet: {why}." in said
        assert "not saved" not in said + told
        saved = json.loads((folder / "summary.json").read_text())["best_model"]
        assert saved == {"proved": False, "problem": why, "formats": [], "notes": []}
        page = words((folder / "report.html").read_text())
        assert f"There is no best model yet: {why}." in page
        assert "not saved" not in page
        again = call("report", folder)
        assert (again.code, again.stderr) == (0, "")
        assert not (folder / "tensorboard").exists()
        finished = call("resume", folder)
    assert finished.code == 1, finished  # the made-up trials have no weights to save


def test_a_best_trial_that_cannot_be_trained_again_costs_the_model_alone(job, monkeypatch):
    def refuse(*_):
        raise ClusterError("Ray cannot be reached")

    _, folder = run(job)
    for name in ("summary.json", "report.html"):
        (folder / name).unlink()
    for path in (folder / "states").iterdir():
        path.unlink()
    monkeypatch.setattr(trialrun.driver.run, "connect_to_cluster", refuse)
    finished = call("resume", folder)
    assert finished.code == 1, finished
    assert "the best trial cannot be trained again: Ray cannot be reached" in words(finished.stdout)
    assert all((folder / name).is_file() for name in REPORTS)
