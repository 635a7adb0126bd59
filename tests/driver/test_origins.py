"""What a run is told, or refused, when it goes on in another world than the one it began in."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_up_runs import completed, learning_rates, trial_of

from trialrun.driver.origins import check_origins
from trialrun.errors import InputError
from trialrun.store import RunFolder
from trialrun.store.columns import parameter_kinds
from trialrun.store.files import write_json
from trialrun.trials.results import PackResult
from trialrun.trials.versions import installed_versions


def run_of(tmp_path, *, pack_id="p000", rate=0.1, fingerprint="aa", **versions):
    variants = learning_rates(0.1, 0.2)[-1 if rate == 0.2 else 0 :][:1]
    run = RunFolder.create(tmp_path, "a_job")
    result = replace(
        completed(variants[0], 0, pack_id=pack_id),
        data_fingerprint=fingerprint,
        versions=installed_versions() | versions if versions != {"none": True} else {},
    )
    run.write_pack(PackResult(pack_id, (result,)), parameter_kinds(variants))
    return run, result.trial.trial_id


def told(runs, **options):
    lines = []
    trials = [trial_of(variant, 0) for variant in learning_rates(0.1, 0.2)]
    check_origins(runs, trials, lines.append, **options)
    return lines


def test_nothing_is_told_of_the_same_versions_and_the_same_data(tmp_path):
    run, trial_id = run_of(tmp_path)
    sample = SimpleNamespace(seed=0, fingerprint="aa")
    assert told([run], samples={trial_id: sample}, strict=True) == []


def test_other_versions_are_told_and_refused_when_asked(tmp_path):
    run, _ = run_of(tmp_path, keras="3.0.0")
    [line] = told([run])
    assert "holds trials that were trained with keras 3.0.0, and this is keras" in line
    with pytest.raises(InputError, match=r"keras 3\.0\.0, .*\nInstall the same versions"):
        told([run_of(tmp_path)[0], run], strict=True)


def test_an_older_run_is_judged_by_its_environment(tmp_path):
    run, _ = run_of(tmp_path, none=True)
    assert told([run]) == []
    write_json(run.environment_file, {"packages": {"numpy": "1.26.4", "pandas": "2.0"}})
    assert "numpy 1.26.4" in told([run])[0]


def test_other_data_of_a_recorded_trial_is_told(tmp_path):
    run, trial_id = run_of(tmp_path)
    [line] = told([run], samples={trial_id: SimpleNamespace(seed=7, fingerprint="bb")})
    assert line.startswith("the generator gives other data for seed 7 than when trial")
    assert "data_fingerprint aa -> bb" in line


@pytest.mark.parametrize(("other", "is_told"), [("aa", False), ("cc", True)])
def test_shards_that_saw_different_data_for_a_seed_are_told(tmp_path, other, is_told):
    runs = [run_of(tmp_path)[0], run_of(tmp_path, rate=0.2, fingerprint=other)[0]]
    lines = told(runs)
    assert bool(lines) == is_told
    assert all("were trained on different data for seed 0" in line for line in lines)
