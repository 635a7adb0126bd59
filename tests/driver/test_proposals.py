"""Variants that Optuna proposes: new ones, in the log before they are trained, asked for once."""

import io
import json
import math
import shutil
from dataclasses import replace

import optuna
import pytest
from made_up_rounds import GRID, JOB, RACE, TPE, Driver, KilledError
from rich.console import Console

from trialrun.analysis.explanation import explain
from trialrun.driver import proposals
from trialrun.driver.preview.plan import print_plan
from trialrun.driver.progress import ProgressLine
from trialrun.driver.resume import referenced_functions
from trialrun.driver.run import merge_runs, run_job
from trialrun.errors import FileError, InputError
from trialrun.job import Range, load_job
from trialrun.job.document import canonical_json
from trialrun.report.overview import load_overview
from trialrun.search.propose import Told, propose
from trialrun.store.round_log import Decision, Proposals
from trialrun.trials.plan import plan_variants

pytestmark = pytest.mark.long

LOG = ["propose 10 x 2", "propose 10 x 2", "propose 6 x 2", "choose 9 x 4", "choose 3 x 12"]
LEARNING_RATE, BATCH_SIZE = "training.learning_rate", "training.batch_size"


def assignments_of(driver):
    return {
        variant_id: assignment
        for one in driver.run.rounds.read()
        for variant_id, assignment in (one.assignments or {}).items()
    }


def fail(*args, **kwargs):
    raise AssertionError("Optuna was called")


def test_batches_are_proposed_and_then_the_rounds_go_on_with_all_of_them(tmp_path):
    driver = Driver(tmp_path, TPE)
    trained = driver.live()
    assert driver.log == [*LOG, "confirm 2 x 4"]
    assert len(trained) == len(set(trained)) == 26 * 2 + 9 * 2 + 3 * 8 + 2 * 4
    found = assignments_of(driver)
    assert list(found) == [f"v{number:02d}" for number in range(26)]
    assert len(set(map(canonical_json, found.values()))) == 26
    recorded = driver.run.tables.index().parameters
    assert {name: dict(values) for name, values in recorded.items()} == found
    assert Driver(tmp_path, TPE).live() == []


@pytest.mark.parametrize(("goal", "is_better"), [("minimize", False), ("maximize", True)])
def test_proposals_lie_where_variants_are_good(goal, is_better):
    parameters = {"a": Range(min=0, max=1, distribution="uniform")}
    known = {f"v{number:02d}": {"a": number / 39} for number in range(40)}
    scores = {variant_id: assignment["a"] for variant_id, assignment in known.items()}
    decision = Decision((0, 1), scores, {}, {}, "")
    found = propose(parameters, Proposals("tpe", 60, 20, 0), Told(known, decision, goal), [])
    assert len(found) == 20
    assert sum((one["a"] > 0.5) == is_better for one in found) >= 15


def test_of_many_variants_the_best_and_the_latest_are_told(monkeypatch):
    told = []
    real = optuna.study.Study.add_trial
    monkeypatch.setattr(
        optuna.study.Study, "add_trial", lambda self, trial: (told.append(trial), real(self, trial))
    )
    parameters = {"a": Range(min=0, max=1000, distribution="uniform")}
    known = {f"v{number:03d}": {"a": float(number)} for number in range(300)}
    decision = Decision((0,), {name: one["a"] for name, one in known.items()}, {}, {}, "")
    propose(parameters, Proposals("tpe", 301, 20, 0), Told(known, decision, "minimize"), [])
    assert [trial.params["a"] for trial in told] == [*range(25), *range(125, 300)]


def test_what_is_logged_is_never_asked_for_again(tmp_path, monkeypatch):
    driver = Driver(tmp_path, TPE)
    driver.live()
    whole = driver.files
    for number in (4, 5, 6):  # killed when the last variants were in the log
        driver.run.rounds.file_of(number).unlink()
    for file in sorted(driver.run.trials_dir.iterdir())[5:]:
        file.unlink()
    monkeypatch.setattr(optuna.study.Study, "ask", fail)
    monkeypatch.setattr(optuna, "create_study", fail)
    again = Driver(tmp_path, TPE)
    assert again.live()
    assert again.files == whole


def test_variants_are_in_the_log_before_they_are_trained(tmp_path):
    driver = Driver(tmp_path, TPE)
    with pytest.raises(KilledError):
        driver.live(chance=1.0)
    assert driver.log == LOG[:1]
    assert not driver.run.tables.index().variant_ids
    assert len(assignments_of(driver)) == 10


def test_every_variant_of_a_small_space_is_proposed_once(tmp_path):
    space = "{values: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}"
    job = TPE.replace("{min: 1e-3, max: 1, distribution: log_uniform}", space)
    with pytest.raises(InputError, match=r"search.num_variants must be at most 14"):
        Driver(tmp_path, job)
    driver = Driver(tmp_path, job.replace("num_variants: 26", "num_variants: 14"))
    driver.live()
    assert driver.log[:2] == ["propose 10 x 2", "propose 4 x 2"]
    assert len(set(map(canonical_json, assignments_of(driver).values()))) == 14


def test_a_lost_trial_is_told_as_the_worst(tmp_path, monkeypatch):
    told = []
    real = optuna.study.Study.add_trial
    monkeypatch.setattr(
        optuna.study.Study, "add_trial", lambda self, trial: (told.append(trial), real(self, trial))
    )
    driver = Driver(tmp_path, TPE)
    driver.live(fails=[("v03", 0), ("v04", 0), ("v04", 1)])
    decision = driver.run.rounds.read()[1].decision
    assert set(decision.lost) == {"v03", "v04"}
    assert decision.scores["v04"] is None
    known = {name: score for name, score in decision.scores.items() if score is not None}
    expected = {f"v{number:02d}": known.get(f"v{number:02d}") for number in range(10)}
    expected |= dict.fromkeys(("v03", "v04"), max(known.values()))
    assert [trial.value for trial in told[:10]] == list(expected.values())


def test_without_any_result_nothing_more_is_proposed(tmp_path):
    driver = Driver(tmp_path, TPE)
    driver.live(fails=range(12))
    assert driver.log == LOG[:1]


CONDITIONAL = """
name: conditional
seeds: 4
search:
  method: tpe
  num_variants: 30
  batch: 10
  rounds: [{seeds: 2, keep: 5}, {seeds: 4}]
  parameters:
    training.learning_rate: {min: 1e-3, max: 1, distribution: log_uniform}
    training.optimizer.momentum: {min: 0.1, max: 0.9, distribution: uniform, when: WHEN}
    training.optimizer.name: {values: [adam, sgd]}
    model.args.units: {values: [[8], [16, 8], [4]]}
    training.batch_size: {min: 8, max: 64, distribution: int_uniform}
""".replace("WHEN", "{training.optimizer.name: sgd}")


def test_an_inactive_parameter_is_absent_and_types_stay(tmp_path):
    driver = Driver(tmp_path, CONDITIONAL)
    driver.live()
    found = assignments_of(driver).values()
    paths = list(driver.loaded.spec.search.parameters)
    for one in found:
        assert ("training.optimizer.momentum" in one) == (one["training.optimizer.name"] == "sgd")
        assert list(one) == [path for path in paths if path in one]
        assert type(one["training.batch_size"]) is int
        assert one["model.args.units"] in ([8], [16, 8], [4])
        assert float(f"{one[LEARNING_RATE]:.6g}") == one[LEARNING_RATE]
    assert {one["training.optimizer.name"] for one in found} == {"adam", "sgd"}
    recorded = driver.run.tables.index().parameters
    assert [dict(one) for one in recorded.values()] == list(found)
    columns = {
        str(driver.run.read_trials()["param.training.batch_size"].dtype),
        str(driver.run.read_trials()["param.training.learning_rate"].dtype),
    }
    assert columns == {"int64", "float64"}


def test_an_interrupted_run_compares_whole_batches(tmp_path):
    driver = Driver(tmp_path, TPE)
    driver.live(width=7)
    for number in (3, 4, 5, 6):
        driver.run.rounds.file_of(number).unlink()
    files = sorted(driver.run.trials_dir.iterdir())
    for file in files[4:]:  # the second batch has begun
        file.unlink()
    board = load_overview(driver.run).leaderboard
    assert board.rounds.finalists == tuple(f"v{number:02d}" for number in range(10))
    assert {variant.num_completed for variant in board.variants} == {2}


def test_a_budget_of_time_ends_before_a_batch(tmp_path):
    for name, overrides, num_to_come in (
        ("rounds", {}, 4),
        ("alone", {"search.rounds": None, "search.confirm": False}, 2),
    ):
        folder = tmp_path / name
        folder.mkdir()
        driver = Driver(folder, TPE, **overrides, **{"search.budget": {"time": "2h"}})
        driver.work = replace(driver.work, started_s=-math.inf)
        driver.live()
        assert len(driver.log) == 1
        board = load_overview(driver.run).leaderboard
        assert board.rounds.num_to_come == num_to_come
        whole = "" if name == "alone" else " and the confirmation"
        assert f"{num_to_come} further rounds{whole} were not begun." in explain(board)


def test_a_budget_of_trials_counts_what_is_still_to_be_proposed(tmp_path):
    with pytest.raises(InputError, match=r"search.budget.trials must be at least .* for 26"):
        Driver(tmp_path, TPE, **{"search.budget.trials": 60}).live()
    driver = Driver(tmp_path, TPE, **{"search.budget.trials": 100})
    assert len(driver.live()) <= 100
    assert len(assignments_of(driver)) == 26
    assert Driver(tmp_path, TPE, **{"search.budget.trials": 100}).live() == []


# What cannot go on -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search.num_variants": 30}, "search.num_variants was 26 when this run began, and is 30"),
        ({"search.batch": 8}, "search.batch was 10 when this run began, and is 8 now"),
        ({"search.seed": 3}, "search.seed was 0 when this run began, and is 3 now"),
        (
            {"search.parameters.training.batch_size": {"values": [10, 20, 30]}},
            r"has changed .*: search.parameters.training.batch_size.values: \[10, 20\]",
        ),
        ({"search.rounds": [{"seeds": 3}]}, "search.rounds differs from what the run began with"),
    ],
)
def test_what_proposals_follow_from_cannot_change(tmp_path, change, message):
    driver = Driver(tmp_path, TPE)
    with pytest.raises(KilledError):
        driver.live(chance=1.0)
    log = driver.files
    with pytest.raises(InputError, match=message):
        Driver(tmp_path, TPE, **change).live()
    assert driver.files == log


def test_a_run_does_not_begin_or_end_to_propose(tmp_path):
    (tmp_path / "tpe").mkdir()
    Driver(tmp_path / "tpe", TPE).live()
    with pytest.raises(InputError, match=r"search.method was tpe .* and is random now"):
        Driver(
            tmp_path / "tpe",
            TPE.replace("method: tpe", "method: random").replace("  batch: 10\n", ""),
        )
    for name, job in (("rounds", JOB), ("grid", GRID)):
        (tmp_path / name).mkdir()
        Driver(tmp_path / name, job).live()
        with pytest.raises(InputError, match=r"search.method was grid .* and is tpe now"):
            Driver(tmp_path / name, TPE)


def test_a_lost_or_changed_record_of_proposals_is_refused(tmp_path):
    driver = Driver(tmp_path, TPE)
    driver.live()
    files = driver.files
    before = {file: file.read_bytes() for file in driver.run.trials_dir.iterdir()}
    file = driver.run.rounds.file_of(2)
    changed = json.loads(files[file.name])
    changed["variants"][0] = "v99"
    file.write_text(json.dumps(changed))
    with pytest.raises(FileError, match="it does not say what is proposed"):
        Driver(tmp_path, TPE)
    changed = json.loads(files[file.name])
    changed["assignments"]["v10"] = [30]
    file.write_text(json.dumps(changed))
    with pytest.raises(FileError, match=r"assignments.v10: Input should be an object"):
        Driver(tmp_path, TPE)
    for number in (6, 5, 4, 3, 2):
        driver.run.rounds.file_of(number).unlink()
    with pytest.raises(FileError, match="the record of what was proposed is changed or missing"):
        Driver(tmp_path, TPE)
    with pytest.raises(FileError, match="the record of what was proposed is missing"):
        load_overview(driver.run)
    driver.run.rounds.file_of(1).unlink()
    with pytest.raises(FileError, match="the record of what was proposed is changed or missing"):
        Driver(tmp_path, TPE)
    assert {file: file.read_bytes() for file in driver.run.trials_dir.iterdir()} == before
    with pytest.raises(FileError, match="the record of what was proposed is missing"):
        load_overview(driver.run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({BATCH_SIZE: 30}, "training.batch_size = 30 was proposed, which search.parameters does"),
        ({BATCH_SIZE: "20"}, "training.batch_size = '20' was proposed"),
        ({BATCH_SIZE: None}, "training.batch_size = nothing was proposed"),
        ({LEARNING_RATE: "high"}, "training.learning_rate = 'high' was proposed"),
        ({LEARNING_RATE: 5.0}, "training.learning_rate = 5.0 was proposed"),
        ({LEARNING_RATE: True}, "training.learning_rate = true was proposed"),
        ({LEARNING_RATE: [0.1]}, r"training.learning_rate = \[0.1\] was proposed"),
        ({"training.epochs": 3}, "training.epochs = 3 was proposed"),
        ({LEARNING_RATE: 0.5}, r"training.learning_rate is 0.5, but it was trained with"),
        (LEARNING_RATE, "training.learning_rate has no value"),
    ],
)
def test_a_changed_value_of_the_record_is_told_with_its_file(tmp_path, change, message):
    driver = Driver(tmp_path, TPE)
    driver.live()
    file = driver.run.rounds.file_of(2)
    changed = json.loads(file.read_bytes())
    if isinstance(change, str):
        del changed["assignments"]["v10"][change]
    else:
        changed["assignments"]["v10"] |= change
    file.write_text(json.dumps(changed))
    with pytest.raises(FileError, match=f"round-0002.json: v10: {message}"):
        Driver(tmp_path, TPE)


def test_a_condition_that_the_record_does_not_meet_is_told(tmp_path):
    job = TPE.replace("values: [10, 20]", "values: [10, 20], when: {training.optimizer: [sgd]}")
    job += "    training.optimizer: {values: [adam, sgd]}\n"
    driver = Driver(tmp_path, job)
    driver.live()
    file = driver.run.rounds.file_of(2)
    changed = json.loads(file.read_bytes())
    variant_id = next(
        name for name, one in changed["assignments"].items() if one["training.optimizer"] == "adam"
    )
    changed["assignments"][variant_id][BATCH_SIZE] = 10
    file.write_text(json.dumps(changed))
    with pytest.raises(FileError, match=f"{variant_id}: {BATCH_SIZE} has a value, but its `when`"):
        Driver(tmp_path, job)


@pytest.mark.tensorflow
def test_user_code_that_moved_makes_the_same_variants(tmp_path):
    builders = "\n".join(
        f"def {name}(units=4):\n    import keras\n    return keras.Sequential([])\n"
        for name in ("first", "second")
    )
    job = TPE.replace(BATCH_SIZE, "model.builder").replace(
        "[10, 20]", "[code.py:first, code.py:second]"
    )
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "code.py").write_text(builders)
    driver = Driver(tmp_path / "here", job)
    driver.live()
    shutil.move(tmp_path / "here", tmp_path / "there")
    again = Driver(tmp_path / "there", job)
    assert again.live() == []
    builder = again.work.trials[-1].variant.model.builder
    assert builder.startswith(str(tmp_path / "there"))
    assert len(proposals.planned_trials(again.loaded.spec, again.run.rounds.read())) == 26 * 12


def test_code_that_may_be_proposed_later_is_sent_and_watched_from_the_start(tmp_path):
    names = ["first", "second", "third"]
    code = "\n".join(f"def {name}(units=4):\n    return units\n" for name in names)
    (tmp_path / "code.py").write_text(code)
    (tmp_path / "job.yaml").write_text(
        TPE.replace("batch: 10", "batch: 2")
        .replace(BATCH_SIZE, "model.builder")
        .replace("[10, 20]", str([f"code.py:{name}" for name in names]))
    )
    loaded = load_job(tmp_path / "job.yaml")
    drawn = {variant.model.builder for variant in plan_variants(loaded.spec)}
    assert len(drawn) < 3
    builders = {f"{tmp_path}/code.py:{name}" for name in names}
    assert builders <= set(referenced_functions(loaded))


def test_without_optuna_nothing_is_begun(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_text(TPE)
    monkeypatch.setattr(proposals, "find_spec", lambda name: None)
    progress = ProgressLine(Console(quiet=True))
    with pytest.raises(InputError, match=r"job.yaml:.*pip install 'trialrun\[search\]'"):
        run_job(load_job(tmp_path / "job.yaml"), runs_dir=tmp_path / "runs", progress=progress)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("job", "field"),
    [
        (TPE, "method: tpe"),
        (JOB, "rounds"),
        (RACE, "rounds"),
        (GRID, "confirm"),
    ],
)
def test_a_run_that_decides_is_not_merged(tmp_path, job, field):
    driver = Driver(tmp_path, job)
    driver.live()
    progress = ProgressLine(Console(quiet=True))
    with pytest.raises(InputError, match=f"search.{field} has no shards to merge"):
        merge_runs(driver.loaded, [driver.run], runs_dir=tmp_path / "runs", progress=progress)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "job",
    [
        TPE,
        TPE.replace("tpe", "random").replace("  batch: 10\n", ""),
        GRID.replace("{training.l", "\n    training.l").replace("}}", "}")
        + "    training.batch_size: {values: [10, 20]}\n",
    ],
)
def test_another_order_of_what_is_searched_is_another_job(tmp_path, job):
    driver = Driver(tmp_path, job)
    driver.live()
    lines = job.splitlines(keepends=True)
    before = {file: file.read_bytes() for file in driver.run.trials_dir.iterdir()}
    with pytest.raises(InputError, match=r"search.parameters: the order training.learning_rate, "):
        Driver(tmp_path, "".join([*lines[:-2], lines[-1], lines[-2]]))
    assert {file: file.read_bytes() for file in driver.run.trials_dir.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search.num_variants": 10}, "must be more than the first batch of 10, which is drawn at"),
        ({"search.num_variants": None}, "give the number of variants to propose"),
        ({"search.method": "random"}, "search.batch is only for method: tpe, got method: random"),
        ({"search.batch": 0}, "search.batch must be at least 1, got 0"),
        ({"resources.shard": "1/2"}, "a job with search.method: tpe cannot be sharded"),
    ],
)
def test_a_job_that_cannot_be_right_is_refused(tmp_path, changes, message):
    (tmp_path / "job.yaml").write_text(TPE)
    with pytest.raises(InputError, match=message):
        load_job(tmp_path / "job.yaml", changes)


# What is said ------------------------------------------------------------------------------------


def test_a_plan_says_how_many_are_drawn_and_proposed(tmp_path):
    (tmp_path / "job.yaml").write_text(TPE)
    console = Console(record=True, width=200, file=io.StringIO())
    print_plan(console, load_job(tmp_path / "job.yaml"))
    said = " ".join(console.export_text().split())
    assert "10 are drawn at random; 16 more are proposed by what those before reached" in said
    assert "26 variants x 12 seeds = 312 trials" in said
    assert "rounds 1-3 26 variants x 2 seeds 52 trials round 4 9 variants x 4 seeds" in said
    assert "Packs of the first round" in said
