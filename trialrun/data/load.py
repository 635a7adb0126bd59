"""From a job's section `data` to the data of one trial: asked for, checked, split and scaled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trialrun.data.census import Census, check_classes, take_census
from trialrun.data.fingerprint import DataSample, take_sample
from trialrun.data.generator import check_generated, check_unscaled, check_weights
from trialrun.data.generator_arrays import as_arrays
from trialrun.data.npz import load_archive
from trialrun.data.scaling import LookedUp, check_scaling
from trialrun.data.splits import Part, Splits, make_splits, with_validation
from trialrun.data.streams import Stream, check_streams, read_streams
from trialrun.data.table.encoding import TableEncoder
from trialrun.data.table.load import load_table
from trialrun.data.table.rows import TableSummary
from trialrun.errors import InputError
from trialrun.job import DataSpec
from trialrun.job.random_streams import streams_seeded
from trialrun.job.user_code.functions import load_function, portable_reference
from trialrun.messages import in_short


@dataclass(frozen=True, slots=True, eq=False)
class RawData:
    """The data of a trial in three parts, checked but not yet scaled.

    Attributes:
        output: What a generator returns, or the same made from a file; always in three parts.
        encoder: How a table was encoded; None for other sources.
        streams: Name in `output` -> a part that does not fit into memory; `output` holds only its
            first rows.
        summary: What was done with the rows of a table; None for other sources.
    """

    output: Mapping[str, Any]
    encoder: TableEncoder | None
    streams: Mapping[str, Stream]
    summary: TableSummary | None = None


def load_splits(
    data: DataSpec, job_folder: Path, seed: int, looked_up: LookedUp | None = None
) -> Splits:
    """The data of one trial: generated or read, checked, split and scaled.

    Args:
        data: The section `data` of the job.
        job_folder: The folder to which the path of a generator's file is relative.
        seed: The trial's seed; it decides the generated data and the split unless `data.seed` is
            fixed.
        looked_up: Tells which features of x the model takes as whole numbers (see
            `trialrun.training.model.lookups`), which are not scaled. Absent: none.

    Raises:
        InputError: The data cannot be loaded, or no model could be given such data.
    """
    raw = check_data(data, job_folder, seed)
    encoder = raw.encoder
    splits = make_splits(
        raw.output,
        scaling=data.scaling,
        validation_split=data.validation_split,
        seed=_data_seed(data, seed),
        codes=() if encoder is None else encoder.codes,
        looked_up=looked_up,
    )
    streams = {_PART_OF[name]: stream for name, stream in raw.streams.items()}
    sample = None if data.generator is None else sample_of(data, seed, raw)
    fingerprint = "" if sample is None else sample.fingerprint
    return replace(splits, encoder=encoder, streams=streams, fingerprint=fingerprint)


_PART_OF: Mapping[str, Part] = {"train": "train", "validation": "val", "test": "test"}


def check_data(data: DataSpec, job_folder: Path, seed: int) -> RawData:
    """The data of a trial in three parts, checked but not yet scaled; see `load_splits`."""
    data_seed, encoder, summary = _data_seed(data, seed), None, None
    streams: Mapping[str, Stream] = {}
    if data.generator is not None:
        source = f"data.generator {portable_reference(data.generator)} (seed {data_seed})"
        generator = load_function(data.generator, job_folder)
        output = _generate(generator, data_seed, data.args, source=source)
        output, streams = read_streams(output, source=source)
        output = as_arrays(output, source=source)
    elif data.npz is not None:
        source = f"data.npz {Path(data.npz).name}"
        output = load_archive(data, data_seed, source)
    else:
        source = f"data.{data.source} {Path(str(data.table)).name}"
        table = load_table(data, data_seed)
        output, encoder, summary = table.output, table.encoder, table.summary
    check_generated(output, source=source)
    check_scaling(output["train"][0], data.scaling)
    check_streams(streams, output, data.scaling)
    output = with_validation(output, data.validation_split, data_seed)
    try:
        check_classes(output)
        check_unscaled(output, data.scaling)
        check_weights({part: arrays for part, arrays in output.items() if part not in streams})
    except (InputError, ValueError) as error:
        raise InputError(f"{source}: {error}") from None
    return RawData(output, encoder, streams, summary)


def sample_data(data: DataSpec, job_folder: Path, seed: int) -> DataSample:
    """What the generator gives for a seed, in short; see `load_splits`."""
    return sample_of(data, seed, check_data(data, job_folder, seed))


def sample_of(data: DataSpec, seed: int, raw: RawData) -> DataSample:
    """The data of a trial in short, as it was generated."""
    return take_sample(repr(data), _data_seed(data, seed), raw.output)


def census_of(raw: RawData) -> Census:
    """What the parts of a trial's data hold; streamed parts are left out."""
    return take_census(
        {part: arrays for part, arrays in raw.output.items() if part not in raw.streams}
    )


def _data_seed(data: DataSpec, seed: int) -> int:
    return seed if data.seed == "per_trial" else int(data.seed)


def _generate(
    generator: Callable[..., Any], seed: int, args: Mapping[str, Any], *, source: str
) -> Any:
    try:
        with streams_seeded(seed):  # the same data whatever the process did before
            return generator(seed=seed, **args)
    except Exception as error:
        given = ", ".join(["seed", *args])
        raise InputError(
            f"{source}: when called with {given}, it raised {in_short(error)}"
        ) from error
