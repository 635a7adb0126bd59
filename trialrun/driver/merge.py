"""Merging the runs of a job's shards: checks that they are complete, and copies of their packs."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trialrun.driver.resume import differences
from trialrun.errors import InputError
from trialrun.job import LoadedJob
from trialrun.store import RunFolder
from trialrun.store.columns import pack_file_name
from trialrun.store.files import reading, replace_atomically
from trialrun.store.parquet import list_pack_files, read_about, read_pack_file, write_pack_file
from trialrun.trials.packing import shard_trials
from trialrun.trials.trial import Trial


def check_shards(sources: Sequence[RunFolder], loaded: LoadedJob, trials: Sequence[Trial]) -> None:
    """Raises InputError unless the runs hold all trials of a job, and none of another job.

    A failed trial counts as present.

    Raises:
        InputError: A run belongs to another job, or trials are missing. The message says what is
            wrong with which run, and what to do.
    """
    planned = {trial.trial_id: trial.variant.variant_id for trial in trials}
    recorded: set[str] = set()
    for source in sources:
        rows = source.read_trials("identity")
        if (rows["trial_id"].map(planned) != rows["variant_id"]).any():
            what = f"{source.path}: holds trials of a job that differs from {loaded.path}:"
            lines = [f"  {line}" for line in differences(source, loaded)]
            raise InputError("\n".join([what, *lines]))
        recorded |= set(rows["trial_id"])
    if absent := planned.keys() - recorded:
        count = f"{len(absent)} of {len(planned)} trials"
        lines = [f"  {line}" for line in _who_lacks(sources, trials, absent)]
        raise InputError("\n".join([f"{count} are in none of these runs:", *lines]))


def _who_lacks(
    sources: Sequence[RunFolder], trials: Sequence[Trial], absent: set[str]
) -> Iterator[str]:
    unclaimed = absent
    for source in sources:
        shard = source.read_job().get("resources", {}).get("shard")  # older runs lack this field
        lacking = {trial.trial_id for trial in shard_trials(trials, shard)} & absent
        unclaimed = unclaimed - lacking
        if lacking:
            what = "" if shard is None else f" (shard {shard})"
            yield (
                f"{source.path}{what} lacks {len(lacking)}; to train them: trialrun resume"
                f" {source.path}"
            )
    if unclaimed:
        yield f"{len(unclaimed)} belong to shards whose runs were not given"


def adopt_packs(run: RunFolder, source: RunFolder, check: Callable[[], None]) -> None:
    """Copies packs of a run into another run of the same job that lacks their trials.

    Packs get new numbers, because the packs of all shards are numbered in the same way.

    Args:
        run: The run that receives the packs.
        source: The run that holds them.
        check: Called before each pack is written; raises if another driver has taken over `run`.
    """
    import pyarrow as pa

    rows = run.read_trials("identity")
    held = set(zip(rows["trial_id"], rows["status"] == "failed", strict=True))
    trained = {trial_id for trial_id, is_failed in held if not is_failed}
    first = run.next_pack_number()
    numbers: dict[str, int] = {}
    for file in list_pack_files(source.trials_dir):
        table, about = read_pack_file(file), read_about(file)
        pairs = zip(table["trial_id"].to_pylist(), table["status"].to_pylist(), strict=True)
        if all(trial in trained or (trial, status == "failed") in held for trial, status in pairs):
            continue
        old, letters = _split_pack_id(about["pack_id"])
        pack_id = f"p{numbers.setdefault(old, first + len(numbers)):03d}{letters}"
        name = pack_file_name(pack_id, table["attempt"][0].as_py())
        _copy(source.history_dir / file.name, run.history_dir / f"{name}.parquet")
        states = source.kept.states_dir / f"{file.stem}.npz"
        if states.exists():
            _copy(states, run.kept.states_dir / f"{name}.npz")
        index = table.column_names.index("pack_id")
        table = table.set_column(index, "pack_id", pa.array([pack_id] * table.num_rows))
        check()
        write_pack_file(run.trials_dir / f"{name}.parquet", table, about | {"pack_id": pack_id})


def _split_pack_id(pack_id: str) -> tuple[str, str]:
    """The number and the letters of a pack id: `p003ab`, half of half a pack, -> `p003`, `ab`."""
    number = pack_id.rstrip("abcdefghijklmnopqrstuvwxyz")
    return number, pack_id[len(number) :]


def _copy(source: Path, target: Path) -> None:
    with reading(source), replace_atomically(target) as temporary:
        shutil.copyfile(source, temporary)
