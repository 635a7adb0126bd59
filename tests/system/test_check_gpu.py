"""`scripts/check_gpu`: what it says of what workers saw and of HLO. No GPU is here to be checked.

What workers see is made up. Its program for machines without TensorFlow is tried on a folder that
holds no program; no JAX is needed for that.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT

GPU_SCRIPTS = ROOT / "scripts" / "gpu"


@pytest.fixture(scope="module")
def scripts():
    """The modules of the script that import neither TensorFlow nor JAX."""
    sys.path.insert(0, str(GPU_SCRIPTS))
    names = ("check_gpu", "check_hlo", "dump_folder", "outcomes", "read_hlo")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


# Outcomes ---------------------------------------------------------------------------------------


def worker(gpu, *, met=True, **seen):
    """What a worker with one GPU of its own says."""
    said = {"pid": int(gpu), "visible": [gpu], "gpus": ["GPU:0"], "growth": [True]}
    return said | {"memory_mib": [700, 40_000], "met": met, **seen}


LOGICAL = [worker("0", gpus=[], growth=[]), worker("1", gpus=[], growth=[])]
ALONE = [worker("0", met=False)]
TWO = [worker("0"), worker("1")]
WITHOUT_GROWTH = [worker("0", growth=[False])]
ALL_MEMORY = [worker("0", memory_mib=[39_000, 40_000])]
OF_OTHERS = [worker("0", gpus=["GPU:0", "GPU:1"])]
NOT_PINNED = [worker("0", visible=["0", "1"])]


@pytest.mark.parametrize(
    ("workers", "num_gpus", "pinning", "growth", "together"),
    [
        (TWO, 2, "ok", "ok", "ok"),
        (ALONE, 1, "ok", "ok", "not seen"),
        (ALONE, 2, "ok", "ok", "failed"),
        (LOGICAL, 0, "not seen", "not seen", "not seen"),
        (LOGICAL, 2, "failed", "failed", "ok"),
        (NOT_PINNED, 0, "failed", "not seen", "failed"),
        (NOT_PINNED, 2, "failed", "ok", "failed"),
        (OF_OTHERS, 2, "failed", "ok", "failed"),
        (WITHOUT_GROWTH, 1, "ok", "failed", "not seen"),
        (ALL_MEMORY, 1, "ok", "failed", "not seen"),
        ([], 1, "failed", "failed", "not seen"),
    ],
)
def test_what_workers_saw_is_judged(scripts, workers, num_gpus, pinning, growth, together):
    outcomes = scripts.outcomes
    judges = (outcomes.judge_pinning, outcomes.judge_growth, outcomes.judge_together)
    found = [judge(workers, num_gpus) for judge in judges]
    assert [outcome.state for outcome in found] == [pinning, growth, together]
    assert all(outcome.found for outcome in found)


HALVES = {"p000a": ["completed"] * 2, "p000b": ["completed"] * 2}


@pytest.mark.parametrize(
    ("statuses", "reason", "must_be", "state"),
    [
        (HALVES, "", True, "ok"),
        (HALVES, "no GPU", True, "not seen"),
        ({"p000": ["completed"] * 4}, "", True, "failed"),
        ({"p000": ["completed"] * 4}, "", False, "not seen"),
        (HALVES | {"p000b": ["completed", "failed"]}, "no GPU", False, "failed"),
        ({}, "", True, "failed"),
    ],
)
def test_a_pack_that_did_not_fit_must_end_in_halves(scripts, statuses, reason, must_be, state):
    judge = scripts.outcomes.judge_halving
    assert judge("halving", statuses, [], reason, must_be=must_be).state == state


def case(scripts, difference, engine="fused"):
    return scripts.outcomes.OracleCase("Dense", engine, "fused", difference, 1e-5, "")


@pytest.mark.parametrize(
    ("difference", "engine", "num_gpus", "without", "with_tf32"),
    [
        (1e-6, "fused", 1, "ok", "ok"),
        (1e-6, "fused", 0, "not seen", "not seen"),
        (1e-3, "fused", 1, "failed", "ok"),
        (1e-3, "fused", 0, "failed", "not seen"),
        (1e-6, "mapped", 1, "failed", "failed"),
        (float("inf"), "fused", 1, "failed", "failed"),
    ],
)
def test_differences_are_judged_where_no_product_is_shortened(
    scripts, difference, engine, num_gpus, without, with_tf32
):
    cases = [case(scripts, difference, engine)]
    for tf32, state in ((False, without), (True, with_tf32)):
        outcome = scripts.outcomes.judge_oracle("oracle", cases, 9, num_gpus, tf32=tf32)
        assert outcome.state == state


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minutes", "0"], "--minutes must be a number above 0, got 0"),
        (["--minutes", "nan"], "--minutes must be a number above 0, got nan"),
        (["--json", "no/where.json"], "--json: there is no folder no"),
        (["--dump", __file__], "cannot be written to: File exists; name a folder that is empty"),
        (["--dump", f"{__file__}/x"], "cannot be written to: Not a directory"),
        (["--dump", "/proc/x"], "--dump: /proc/x cannot be written to"),
        (["--dump", str(Path(__file__).parent)], f"{Path(__file__).parent} holds '"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_checked(
    scripts, monkeypatch, capsys, arguments, said
):
    monkeypatch.setattr(sys, "argv", ["check_gpu", *arguments])
    with pytest.raises(SystemExit, match="2"):
        scripts.check_gpu.parse_arguments()
    assert said in capsys.readouterr().err


def test_only_what_has_failed_makes_the_command_fail(scripts):
    outcome = scripts.outcomes.Outcome
    seen = [outcome("a", "ok", "right"), outcome("b", "not seen", "no GPU")]
    assert scripts.outcomes.exit_code(seen) == 0
    assert scripts.outcomes.exit_code([*seen, outcome("c", "failed", "wrong")]) == 1


DYING = """
import os, signal, sys, threading
with open(sys.argv[sys.argv.index("--results") + 1], "w") as file:
    file.write('{"check": "first", "state": "ok", "found": "seen"}\\n')
threading.Event().wait() if "hang" in sys.argv else os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("how", "said"), [("die", "exit code -9"), ("hang", "within 1 s")])
def test_a_check_that_dies_or_hangs_loses_no_other(scripts, tmp_path, how, said):
    (tmp_path / "dying.py").write_text(DYING)
    part = scripts.check_gpu.Part("a", (str(tmp_path / "dying.py"), how), ("first", "second"), 1)
    first, second = scripts.check_gpu.run_part(part, [], limit_s=1)
    assert (first.check, first.state) == ("first", "ok")
    assert (second.check, second.state) == ("second", "failed")
    assert said in second.found


@pytest.mark.parametrize(
    ("code", "told", "states"),
    [
        (0, ["ok", "ok"], ["ok", "ok"]),
        (0, ["ok"], ["ok", "failed"]),
        (-11, ["ok"], ["ok", "failed"]),
        (-11, ["ok", "ok"], ["ok", "failed"]),
        (None, ["ok", "ok"], ["ok", "not seen"]),
        (None, ["ok", "failed"], ["ok", "failed"]),
        (None, [], ["failed", "failed"]),
    ],
)
def test_what_a_program_did_not_end_is_not_taken_for_right(scripts, code, told, states):
    outcomes, names = scripts.outcomes, ["first", "second"]
    found = [outcomes.Outcome(name, state, "") for name, state in zip(names, told, strict=False)]
    complete = outcomes.complete(names, found, outcomes.Ended(code, "how"))
    assert [outcome.check for outcome in complete] == names
    assert [outcome.state for outcome in complete] == states


def test_all_checks_together_end_in_time_and_have_names_of_their_own(scripts):
    parts = scripts.check_gpu.PARTS
    assert sum(part.limit_s for part in parts) <= 60 * scripts.check_gpu.MINUTES - 10
    checks = [check for part in parts for check in part.checks]
    assert len(set(checks)) == len(checks)
    assert all((GPU_SCRIPTS / part.words[0]).exists() for part in parts)


# HLO --------------------------------------------------------------------------------------------

HLO = """\
HloModule train, is_scheduled=true

%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %n = f32[2]{0} negate(%p)
}

%graph (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  %a = f32[2]{0} fusion(%p), kind=kLoop, calls=%fused
  ROOT %b = f32[2]{0} custom-call(%a), custom_call_target="__cublas$gemm"
}

%step (arg: (s32[], /*index=1*/f32[2])) -> (s32[], f32[2]) {
  %arg = (s32[], f32[2]{0}) parameter(0)
  %x = f32[2]{0} get-tuple-element(%arg), index=1
  %c = f32[2]{0} call(%x), to_apply=%graph
  %s = (f32[2]{0}, f32[2]{0}, u32[]) copy-start(%c)
  %d = f32[2]{0} copy-done(%s)
  %i = s32[] fusion(%d), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[2]{0}) tuple(%i, %d)
}

%go_on (arg: (s32[], f32[2])) -> pred[] {
  %arg = (s32[], f32[2]{0}) parameter(0)
  ROOT %r = pred[] fusion(%arg), kind=kLoop, calls=%fused
}

%epoch (arg: (s32[], f32[2])) -> (s32[], f32[2]) {
  %arg = (s32[], f32[2]{0}) parameter(0)
  %w = (s32[], f32[2]{0}) while(%arg), condition=%go_on, body=%step, backend_config={"known_trip_count":{"n":"189"},"known_init_step":{"init":"0","step":"1"}}
  %y = f32[2]{0} get-tuple-element(%w), index=1
  %z = f32[2]{0} fusion(%y), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[2]{0}) tuple(%y, %z)
}

ENTRY %main (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %p = (s32[], f32[2]{0}) parameter(0)
  ROOT %w = (s32[], f32[2]{0}) while(%p), condition=%go_on, body=%epoch, backend_config={"known_induction_variable":{"tuple_index":"0"}}
}
"""  # noqa: E501 - XLA does not break lines


def test_loops_are_read_from_hlo(scripts):
    """A step starts the two of its recorded graph, a copy and a fusion; an epoch one of its own."""
    loops = scripts.read_hlo.loops_of(HLO)
    assert loops == [(1, None, 1), (2, 189, 4)]
    assert scripts.read_hlo.step_loop(loops) == loops[1]
    assert scripts.read_hlo.loops_of(HLO.partition("ENTRY")[0]) == []


@pytest.mark.parametrize(
    ("counts", "platform", "state"),
    [
        ([2, 189], "gpu", "ok"),
        ([2, None], "gpu", "failed"),
        ([], "gpu", "failed"),
        ([2, None], "cpu", "not seen"),
    ],
)
def test_every_loop_must_be_known_on_a_gpu(scripts, counts, platform, state):
    assert scripts.outcomes.judge_loops("loops", {"128": counts}, platform).state == state


# The other way ----------------------------------------------------------------------------------


def test_a_folder_that_is_carried_has_few_files_and_is_small(scripts, tmp_path):
    for name in scripts.dump_folder.WRITTEN:
        (tmp_path / name).write_bytes(b"0")
    files = scripts.dump_folder.finish(tmp_path)
    named = ["check_hlo.py", "inputs.npz", "manifest.json", "programs.npz", "read_hlo.py"]
    assert [path.name for path in files] == sorted(path.name for path in tmp_path.iterdir())
    assert [path.name for path in files] == named
    with (tmp_path / "inputs.npz").open("wb") as large:
        large.truncate(scripts.dump_folder.MAX_BYTES)
    with pytest.raises(RuntimeError, match="40,000,000 at most"):
        scripts.dump_folder.finish(tmp_path)


def test_a_worker_that_dies_is_told_and_the_rest_is_not_seen(scripts, tmp_path):
    """A worker needs the inputs, which are not there."""
    folder = tmp_path / "dump"
    folder.mkdir()
    np.savez(folder / "programs.npz", **{"128": np.zeros(1, np.uint8), "512": np.zeros(1)})
    for name in scripts.dump_folder.TAKEN_ALONG:
        (folder / name).write_text((GPU_SCRIPTS / name).read_text())
    (folder / "manifest.json").write_text(json.dumps({"made_with": "nothing"}))
    command = [sys.executable, folder / "check_hlo.py", folder, "--seconds", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done
    assert "inputs.npz" in done.stderr
    first, second = json.loads((folder / "check_hlo.json").read_text())["programs"]
    assert (first["name"], first["state"]) == ("128", "failed")
    assert (second["name"], second["state"]) == ("512", "not seen")


@pytest.mark.parametrize(
    ("difference", "device", "state"),
    [
        (1e-5, "gpu", "ok"),
        (1e-5, "cpu", "not seen"),
        (1, "cpu", "failed"),
        (np.nan, "gpu", "failed"),
    ],
)
def test_losses_are_compared_with_those_of_the_cpu(scripts, difference, device, state):
    assert scripts.check_hlo.judge({"loss_difference": difference}, device)["state"] == state
