import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_runs import (
    CLASS_NAMES,
    broken,
    completed,
    learning_rates,
    make_variants,
    state_of,
    trial_of,
    write_run,
)
from sklearn.metrics import confusion_matrix

from trialrun.errors import InputError, TrialrunError
from trialrun.store import RunFolder
from trialrun.store.columns import parameter_kinds
from trialrun.store.files import replace_atomically, write_json, write_text
from trialrun.store.repair import set_aside_broken
from trialrun.trials.results import Checkpoint, Output, PackResult
from trialrun.trials.trial import Pack


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path / "runs", "medical_trial")
    folder.write_job("name: medical_trial\n")
    return folder


def write_pack(folder, *trials, pack_id="p000", variants=(), **about):
    kinds = parameter_kinds(variants or [trial.trial.variant for trial in trials])
    trials = tuple(replace(trial, pack_id=pack_id) for trial in trials)
    folder.write_pack(PackResult(pack_id, trials, **about), kinds)


# The folder -----------------------------------------------------------------------------------


def test_a_run_folder_is_named_by_job_time_and_id(tmp_path):
    first, second = (RunFolder.create(tmp_path, "medical_trial") for _ in range(2))
    assert first.path.parent == tmp_path / "medical_trial"
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", first.path.name)
    assert first.path != second.path


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc"])
def test_a_job_name_cannot_lead_out_of_the_runs_folder(tmp_path, name):
    with pytest.raises(InputError, match=re.escape(repr(name))):
        RunFolder.create(tmp_path, name)


def test_a_runs_folder_that_is_a_file_is_wrong_input(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(
        InputError, match=r"runs/job/.*: cannot make the run folder: Not a directory"
    ):
        RunFolder.create(tmp_path / "runs", "job")


def test_a_run_folder_can_be_opened_as_soon_as_it_has_its_job(tmp_path):
    folder = RunFolder.create(tmp_path, "job")
    with pytest.raises(InputError, match=r"is not a run folder: it holds no job\.yaml"):
        RunFolder.open(folder.path)
    folder.write_job("name: job\n")
    assert RunFolder.open(str(folder.path)) == folder
    assert folder.read_job() == {"name": "job"}


def test_opening_a_folder_of_runs_names_the_latest_ones(tmp_path):
    for day in range(1, 8):
        write_text(tmp_path / f"2026110{day}T000000Z-abcdef" / "job.yaml", "name: job\n")
    with pytest.raises(InputError) as error:
        RunFolder.open(tmp_path)
    message = str(error.value)
    assert "holds 7 runs" in message
    assert re.findall(r"2026110(\d)", message) == ["7", "6", "5", "4", "3"]
    assert "and 2 older" in message


def test_opening_what_is_no_folder_says_so(tmp_path):
    with pytest.raises(InputError, match="nowhere: is not a run folder: it does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    (tmp_path / "report.html").write_text("")
    with pytest.raises(InputError, match="it is a file; give the folder"):
        RunFolder.open(tmp_path / "report.html")


@pytest.mark.parametrize("text", ["[1", "- a list", "seeds: 3"])
def test_a_damaged_job_file_is_named(folder, text):
    folder.job_file.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(folder.job_file))):
        folder.read_job()


# Writing --------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "summary.json"
    write_text(path, "old")

    def write_half():
        with replace_atomically(path) as temporary:
            temporary.write_text("ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_keeps_the_suffix_that_keras_looks_at(tmp_path):
    with replace_atomically(tmp_path / "best" / "job.weights.h5") as temporary:
        assert temporary.name.endswith(".weights.h5")
        assert temporary.parent == tmp_path / "best"
        temporary.write_text("")


def test_a_writer_that_is_killed_leaves_no_part_that_is_read(folder):
    write_pack(folder, completed(learning_rates(1e-3)[0], 0))
    program = """
import os, sys
from pathlib import Path
from trialrun.store.files import replace_atomically
with replace_atomically(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"PAR1 half a file")
    os.kill(os.getpid(), 9)
"""
    torn = folder.trials_dir / "part-p001.parquet"
    killed = subprocess.run([sys.executable, "-c", program, str(torn)], check=False)
    assert killed.returncode == -9
    assert len(list(folder.trials_dir.iterdir())) == 2  # the torn file is there, under another name
    assert not torn.exists()
    assert len(folder.read_trials()) == 1


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "summary.json"
    contents = [{"numbers": [number] * 20_000} for number in range(2)]
    write_json(path, contents[0])
    writer = threading.Thread(target=lambda: [write_json(path, contents[n % 2]) for n in range(20)])
    writer.start()
    num_reads = 0
    while writer.is_alive() or not num_reads:
        assert json.loads(path.read_text()) in contents
        num_reads += 1
    writer.join()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "figures").write_text("a file where a folder should be")
    with pytest.raises(TrialrunError, match=r"figures/curves\.png: cannot be written: .*exists"):
        RunFolder(tmp_path).write_figure("curves", png=b"", svg=b"")


def test_json_has_null_where_python_has_nan(tmp_path):
    values = {"sd": float("nan"), "max": np.float32("inf"), "n": np.int64(3), "rows": np.eye(2)}
    write_json(tmp_path / "x.json", values)
    strict = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert strict == {"sd": None, "max": None, "n": 3, "rows": [[1.0, 0.0], [0.0, 1.0]]}


def test_variants_csv_is_a_table_that_pandas_reads(folder):
    rows = [
        {"rank": 1, "variant_id": "v00", "param.units": [16, 32], "val_loss_sd": float("nan")},
        {"rank": 2, "variant_id": "v01", "param.units": [8], "val_loss_sd": 0.1 + 0.2},
    ]
    folder.write_variants(rows)
    table = pd.read_csv(folder.variants_file)
    assert list(table.columns) == list(rows[0])
    assert [json.loads(text) for text in table["param.units"]] == [[16, 32], [8]]
    assert np.isnan(table["val_loss_sd"][0])
    assert table["val_loss_sd"][1] == 0.1 + 0.2


# Trials and history ---------------------------------------------------------------------------


def test_the_columns_of_a_part_are_the_contracts(folder):
    variants = make_variants([{"training.learning_rate": 1e-3, "model.args.units": [16, 32]}])
    write_pack(folder, completed(variants[0], 3))
    schema = pq.read_schema(folder.trials_dir / "part-p000.parquet")
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    assert list(zip(schema.names, schema.types, strict=True)) == [
        ("trial_id", text),
        ("variant_id", text),
        ("seed", whole),
        ("status", text),
        ("engine", text),
        ("pack_id", text),
        ("attempt", whole),
        ("epochs", whole),
        ("duration_s", real),
        ("device", text),
        ("node", text),
        ("error", text),
        ("param.training.learning_rate", real),
        ("param.model.args.units", text),
        ("train_loss", real),
        ("train_accuracy", real),
        ("val_loss", real),
        ("val_accuracy", real),
        ("test_loss", real),
        ("test_accuracy", real),
        ("val_confusion_matrix", pa.list_(whole)),
        ("test_confusion_matrix", pa.list_(whole)),
    ]


def test_a_trial_is_read_as_it_was_written(folder):
    trial = completed(learning_rates(1e-3)[0], 3)
    write_pack(folder, trial)
    (row,) = folder.read_trials().to_dict("records")
    expected = {
        "trial_id": trial.trial.trial_id,
        "variant_id": "v00",
        "seed": 3,
        "status": "completed",
        "engine": "fused",
        "pack_id": "p000",
        "attempt": 0,
        "epochs": 4,
        "duration_s": 0.25,
        "device": "CPU",
        "node": "node1",
        "error": "",
        "param.training.learning_rate": 1e-3,
        **trial.metrics,
    }
    assert {name: row[name] for name in expected} == expected


def test_confusion_matrices_are_stored_row_by_row_with_the_true_class_as_row(folder):
    labels, guesses = [0, 0, 0, 1, 2, 2], [0, 1, 2, 1, 0, 2]
    matrix = confusion_matrix(labels, guesses)
    trial = replace(completed(learning_rates(1e-3)[0], 0), test_confusion_matrix=matrix)
    write_pack(folder, trial)
    flat = folder.read_trials()["test_confusion_matrix"][0]
    assert flat[0 * 3 + 2] == 1  # true class 0, predicted as class 2
    np.testing.assert_array_equal(flat.reshape(3, 3), matrix)


def test_a_model_that_does_not_classify_has_no_matrix_columns(folder):
    trial = completed(learning_rates(1e-3)[0], 0)
    write_pack(folder, replace(trial, val_confusion_matrix=None, test_confusion_matrix=None))
    assert folder.read_trials().columns[-1] == "test_accuracy"


def test_history_has_a_row_per_epoch_counted_from_one(folder):
    (variant,) = learning_rates(1e-3)
    trials = [completed(variant, 1, epochs=3), completed(variant, 0, epochs=2)]
    write_pack(folder, *trials, broken(variant, 2))
    history = folder.read_history()
    logs = ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert list(history.columns) == ["trial_id", "variant_id", "seed", "epoch", *logs]
    assert list(zip(history["seed"], history["epoch"], strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
        (1, 3),
    ]
    for name in logs:
        np.testing.assert_array_equal(history[name][2:], trials[0].history[name])
        assert history[name].dtype == np.float32


def test_the_history_of_one_variant_can_be_read_alone(tmp_path):
    folder = write_run(tmp_path, learning_rates(1e-3, 1e-2), range(2))
    everything = folder.read_history()
    alone = everything[everything["variant_id"] == "v01"].reset_index(drop=True)
    pd.testing.assert_frame_equal(folder.read_history("v01"), alone)
    assert folder.read_history("no such variant").empty


def test_numbers_of_failed_trials_are_null(folder):
    (variant,) = learning_rates(1e-3)
    write_pack(folder, completed(variant, 0), broken(variant, 1, error="no memory"))
    table = pq.read_table(folder.trials_dir / "part-p000.parquet")
    failed = table.to_pylist()[1]
    measured = table.column_names[table.column_names.index("train_loss") :]
    assert measured[-1] == "test_confusion_matrix"
    assert {failed[name] for name in measured} == {None}
    assert failed["error"] == "no memory"


def test_a_part_whose_trials_all_failed_does_not_hide_the_metrics_of_others(folder):
    (variant,) = learning_rates(1e-3)
    write_pack(folder, broken(variant, 0), pack_id="p000")
    write_pack(folder, completed(variant, 1), pack_id="p001")
    trials = folder.read_trials()
    assert trials["status"].tolist() == ["failed", "completed"]
    assert list(trials.columns[-4:-2]) == ["test_loss", "test_accuracy"]
    assert trials["val_loss"].notna().tolist() == [False, True]


def test_trials_are_sorted_whatever_the_order_of_completion(tmp_path):
    variants = learning_rates(1e-3, 1e-2)
    tables = []
    for name, order in (("forward", [0, 1]), ("backward", [1, 0])):
        folder = RunFolder.create(tmp_path, name)
        for index in order:
            trials = [completed(variants[index], seed) for seed in (5, 2)]
            write_pack(folder, *trials, pack_id=f"p00{index}")
        tables.append(folder.read_trials())
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["seed"].tolist() == [2, 5, 2, 5]


def test_before_the_first_pack_ends_the_tables_are_empty(folder):
    assert folder.read_trials().empty
    assert folder.read_history().empty
    assert folder.read_parameters() == {}
    assert folder.read_packs() == ()
    assert "status" in folder.read_trials()


def test_a_trial_that_was_tried_again_counts_once(folder):
    (variant,) = learning_rates(1e-3)
    write_pack(folder, broken(variant, 0), completed(variant, 1))
    write_pack(folder, *(completed(variant, seed, attempt=1, epochs=6) for seed in (0, 1)))
    trials = folder.read_trials()
    assert trials["attempt"].tolist() == [1, 1]
    assert trials["status"].tolist() == ["completed", "completed"]
    assert folder.read_history().groupby("seed")["epoch"].max().tolist() == [6, 6]


def test_a_later_failure_does_not_take_a_result_away(folder):
    (variant,) = learning_rates(1e-3)
    write_pack(folder, completed(variant, 0, epochs=5))
    write_pack(folder, broken(variant, 0, attempt=1))
    assert folder.read_trials()[["status", "attempt"]].to_numpy().tolist() == [["completed", 0]]
    assert len(folder.read_history()) == 5


def test_a_damaged_part_is_named(folder):
    write_pack(folder, completed(learning_rates(1e-3)[0], 0))
    part = folder.trials_dir / "part-p000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    for read in (folder.read_trials, folder.read_parameters, folder.read_packs):
        with pytest.raises(TrialrunError, match=re.escape(f"{part}: cannot be read")):
            read()


def test_names_in_the_path_of_a_run_do_not_become_columns(tmp_path):
    folder = RunFolder.create(tmp_path / "host=a", "job")
    write_pack(folder, completed(learning_rates(1e-3)[0], 0))
    assert "host" not in folder.read_trials()


def test_what_is_known_of_a_pack_is_kept(folder):
    write_pack(
        folder,
        completed(learning_rates(1e-3)[0], 0),
        class_names=CLASS_NAMES,
        feature_names=("age",),
        reason="no vectorized form of Lambda",
        timings_s={"train": 1.5},
    )
    (pack,) = folder.read_packs()
    assert pack.class_names == CLASS_NAMES
    assert pack.feature_names == ("age",)
    assert pack.reason == "no vectorized form of Lambda"
    assert pack.timings_s == {"train": 1.5}


# Parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([10, 20], pa.int64()),
        ([10, 0.5], pa.float64()),
        ([True, False], pa.bool_()),
        (["relu", "[1]"], pa.string()),
        ([[16, 32], [16]], pa.string()),
        ([{"name": "sgd", "momentum": 0.9}, "adam"], pa.string()),
        ([0.5, None], pa.string()),
        ([1, True], pa.string()),
        ([2**70, 1], pa.string()),
        (["1", 1], pa.string()),
    ],
)
def test_a_parameter_comes_back_as_it_was_and_every_part_has_its_type(folder, values, kind):
    variants = make_variants([{"model.args.x": value} for value in values])
    for index, variant in enumerate(variants):
        write_pack(folder, completed(variant, 0), pack_id=f"p00{index}", variants=variants)
    schemas = [pq.read_schema(part) for part in sorted(folder.trials_dir.iterdir())]
    assert schemas[0].field("param.model.args.x").type == kind
    assert schemas[0].equals(schemas[1])
    read = [parameters["model.args.x"] for parameters in folder.read_parameters().values()]
    assert read == values
    if kind != pa.float64():
        assert [type(value) for value in read] == [type(value) for value in values]


def test_other_programs_read_all_parts_at_once(tmp_path):
    folder = write_run(tmp_path, make_variants([{"x": [1]}, {"x": "one"}]), range(2))
    everything = pd.read_parquet(folder.trials_dir)
    pd.testing.assert_frame_equal(everything, folder.read_trials())


# States ---------------------------------------------------------------------------------------


def test_a_state_comes_back_with_its_arrays_in_order(folder):
    variants = learning_rates(1e-3, 1e-2)
    for index, variant in enumerate(variants):
        trial = completed(variant, 5, pack_id=f"p00{index}")
        state = state_of(trial, ml_dtypes.bfloat16)
        folder.kept.write_states(PackResult(trial.pack_id, (trial,), {variant.variant_id: state}))
    written = state_of(completed(variants[0], 5), ml_dtypes.bfloat16)
    read = folder.kept.read_state(written.trial_id)
    assert (read.trial_id, read.seed) == (written.trial_id, 5)
    assert read.non_trainable == ()
    for group in ("trainable", "optimizer"):
        for array, expected in zip(getattr(read, group), getattr(written, group), strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(read.test_predictions, written.test_predictions)


def test_a_state_keeps_more_arrays_than_ten_in_order(folder):
    trial = completed(learning_rates(1e-3)[0], 0)
    many = replace(state_of(trial), trainable=tuple(np.array(number) for number in range(25)))
    folder.kept.write_states(PackResult("p000", (trial,), {"v00": many}))
    read = folder.kept.read_state(many.trial_id)
    assert [int(array) for array in read.trainable] == list(range(25))


def test_a_state_that_was_not_kept_is_missed_by_name(folder):
    trial = completed(learning_rates(1e-3)[0], 0)
    folder.kept.write_states(PackResult("p000", (trial,), {"v00": state_of(trial)}))
    with pytest.raises(TrialrunError, match=r"states: holds no state of trial 0123"):
        folder.kept.read_state("0123")
    folder.kept.limit_states(1 << 20)
    assert folder.kept.has_state(trial.trial.trial_id)
    folder.kept.limit_states(100)
    assert not folder.kept.states_dir.exists()
    assert not folder.kept.has_state(trial.trial.trial_id)


# Checkpoints --------------------------------------------------------------------------------------


def checkpoint_of(trials, *, pack_id="p000", epochs=3):
    count = len(trials)
    return Checkpoint(
        pack_id=pack_id,
        trial_ids=tuple(trial.trial_id for trial in trials),
        epochs=np.arange(count) + epochs,
        history={"loss": np.random.default_rng(0).random((count, 9), np.float32)},
        trainable=(np.arange(count * 6.0).reshape(count, 2, 3),),
        non_trainable=(),
        optimizer=(np.arange(count), np.ones((count, 4), ml_dtypes.bfloat16)),
    )


def test_a_checkpoint_comes_back_for_the_whole_pack_and_for_its_halves(folder):
    trials = [trial_of(learning_rates(1e-3)[0], seed) for seed in range(4)]
    written = checkpoint_of(trials)
    folder.kept.write_checkpoint(written)
    for pack_id, places in (("p000", [0, 1, 2, 3]), ("p000b", [2, 3]), ("p000ba", [2])):
        pack = Pack(pack_id, "s", tuple(trials[place] for place in places))
        read = folder.kept.read_checkpoint(pack)
        assert read.trial_ids == tuple(trial.trial_id for trial in pack.trials)
        np.testing.assert_array_equal(read.epochs, written.epochs[places])
        np.testing.assert_array_equal(read.history["loss"], written.history["loss"][places])
        for name in ("trainable", "non_trainable", "optimizer"):
            for array, other in zip(getattr(read, name), getattr(written, name), strict=True):
                assert array.dtype == other.dtype
                np.testing.assert_array_equal(array, other[places])
    for stranger in ("p001", "p0000", "p0000a"):
        assert folder.kept.read_checkpoint(Pack(stranger, "s", tuple(trials))) is None
    assert folder.next_pack_number() == 1
    folder.kept.remove_checkpoint("p000")
    assert folder.kept.trials_of_checkpoints() == []


def test_a_state_is_kept_until_its_trial_has_ended_or_is_paused_later(folder):
    results = [completed(learning_rates(1e-3)[0], seed) for seed in range(4)]
    trials = [result.trial for result in results]
    folder.kept.write_checkpoint(checkpoint_of(trials))
    assert folder.kept.read_checkpoint(Pack("p000r", "s", tuple(trials[:3]))).epochs.all()
    later = replace(checkpoint_of(trials[:3]), pack_id="p000r")
    folder.kept.write_checkpoint(later)
    ended, paused, failed = (
        replace(result, status=status)
        for result, status in zip(results, ("completed", "paused", "failed"), strict=False)
    )
    folder.kept.forget_older(PackResult("p000r", (ended, paused, failed)))
    ids = [trial.trial_id for trial in trials]
    assert [one[:2] for one in folder.kept.trials_of_checkpoints()] == [
        ("p000", (ids[2], ids[3])),  # the failed one may be tried again
        ("p000r", (ids[1], ids[2])),
    ]
    # What `p000r` does not hold is found in the checkpoint before.
    assert folder.kept.read_checkpoint(Pack("p000rr", "s", (trials[3],))).epochs.all()
    folder.kept.forget_trials({ids[1], ids[2]})
    assert [one[:2] for one in folder.kept.trials_of_checkpoints()] == [("p000", (ids[3],))]


def test_what_was_trained_beyond_an_epoch_is_no_state_of_it(folder):
    trials = [completed(learning_rates(1e-3)[0], seed).trial for seed in range(3)]
    kept = replace(
        checkpoint_of(trials), epochs=np.array([3, 9, 4]), ended=np.array([True, True, False])
    )
    assert kept.up_to(4).epochs.tolist() == [3, 0, 4]
    assert kept.up_to(4).ended.tolist() == [True, False, False]


# Broken and foreign files -------------------------------------------------------------------------


def test_the_draft_of_a_killed_driver_is_removed(folder):
    folder.trials_dir.mkdir()
    draft = folder.trials_dir / ".03f67c46-part-p000.parquet"
    draft.write_bytes(b"whole, but not yet renamed")
    assert set_aside_broken(folder) == []
    assert not draft.exists()


def cut_in_the_middle(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(bytes(content))


def somebody_elses(path):
    pq.write_table(pa.table({"a": [1, 2]}), path)


@pytest.mark.parametrize("damage", [cut_in_the_middle, flip_a_byte, somebody_elses, Path.unlink])
@pytest.mark.parametrize("kind", ["trials", "history"])
def test_a_broken_part_is_set_aside_with_its_pair_and_the_others_stay(tmp_path, damage, kind):
    run = write_run(tmp_path, learning_rates(1e-3, 1e-2), range(3))
    damage(run.path / kind / "part-p000.parquet")
    lines = set_aside_broken(run)
    if (kind, damage) == ("trials", Path.unlink):
        assert lines == []  # nothing is listed, so nothing is missed: its history is not looked at
    else:
        assert len(lines) == 1
        assert "part-p000.parquet" in lines[0]
        assert "set aside as set_aside/" in lines[0]
        assert list(run.set_aside_dir.iterdir())
    assert set(run.read_trials()["variant_id"]) == {"v01"}
    assert len(run.read_history()) == 3 * 4
    assert run.next_pack_number() == 2
    assert set_aside_broken(run) == []


def test_a_broken_state_or_checkpoint_is_set_aside(folder):
    trial = completed(learning_rates(1e-3)[0], 0)
    folder.kept.write_states(PackResult("p000", (trial,), {"v00": state_of(trial)}))
    folder.kept.write_checkpoint(checkpoint_of([trial.trial]))
    assert set_aside_broken(folder) == []
    for path in (*folder.kept.states_dir.iterdir(), *folder.kept.checkpoints_dir.iterdir()):
        cut_in_the_middle(path)
    assert len(set_aside_broken(folder)) == 2
    assert not folder.kept.has_state(trial.trial.trial_id)
    assert folder.kept.trials_of_checkpoints() == []


def test_a_state_cannot_run_code(folder):
    trial = completed(learning_rates(1e-3)[0], 0)
    pickled = replace(state_of(trial), trainable=(np.array([{}], object),))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        folder.kept.write_states(PackResult("p000", (trial,), {"v00": pickled}))
    assert not list(folder.kept.states_dir.iterdir())


def test_the_run_folder_is_at_hand_without_pandas_and_pyarrow():
    program = "import sys, trialrun.store; print(*{'pandas', 'pyarrow'} & set(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    assert told.stdout.strip() == ""


def test_what_attempts_of_a_pack_wrote_stands_in_one_file(folder):
    folder.write_output(Output("p003", 0, "first\n"))
    folder.write_output(Output("p003", 1, ""))
    assert (folder.logs_dir / "p003.log").read_text() == (
        "=== p003, attempt 0 ===\nfirst\n=== p003, attempt 1 ===\n(nothing was written)\n"
    )
    folder.write_output(Output("p003", 2, "x" * (2 << 20)))
    assert (folder.logs_dir / "p003.log").stat().st_size == 1 << 20
