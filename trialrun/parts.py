"""The Parquet files of a run folder: a pack is one file of trials and one of history."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.errors import TrialrunError
from trialrun.files import json_ready, reading, replace_atomically
from trialrun.records import TrialColumns, columns_of, part_name

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PACK_KEY = b"trialrun.pack"  # what is said of a pack as a whole, in the metadata of its trials


def list_parts(folder: Path) -> list[Path]:
    """The files in a folder, in the order of their names."""
    return sorted(folder.glob("part-*.parquet"))


def write_part(part: Path, rows: "pa.Table", about: Mapping[str, Any] | None = None) -> None:
    """Writes one file, whole or not at all.

    Args:
        part: The file.
        rows: Its rows.
        about: What it says of its pack as a whole.
    """
    import pyarrow.parquet as pq

    if about is not None:
        rows = rows.replace_schema_metadata({PACK_KEY: json.dumps(json_ready(about))})
    with replace_atomically(part) as temporary:
        pq.write_table(rows, temporary, write_page_checksum=True)


def read_part(
    part: Path,
    columns: TrialColumns = "all",
    *,
    trial_ids: Sequence[str] | None = None,
    variant_ids: Sequence[str] | None = None,
    verify: bool = False,
) -> "pa.Table":
    """The rows of one file, or those of some trials or variants.

    A run may have thousands of small files: what pyarrow offers for folders of them takes three
    times as long for each.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = {"trial_id": trial_ids, "variant_id": variant_ids}
    filters = {name: ids for name, ids in wanted.items() if ids is not None}
    with reading(part), pq.ParquetFile(part, page_checksum_verification=verify) as file:
        names = columns_of(file.schema_arrow.names, columns)
        rows = file.read(columns=[*dict.fromkeys([*names, *filters])], use_threads=False)
    for name, ids in filters.items():
        rows = rows.filter(pc.is_in(rows[name], value_set=pa.array(ids, pa.string())))
    return rows.select(names)


def by_part(trials: "pd.DataFrame") -> dict[str, list[str]]:
    """Name of the part that holds them -> trials, in the order of the trials."""
    wanted: dict[str, list[str]] = {}
    for trial_id, pack_id, attempt in zip(
        trials["trial_id"], trials["pack_id"], trials["attempt"], strict=True
    ):
        wanted.setdefault(part_name(pack_id, attempt), []).append(trial_id)
    return wanted


def column_names(part: Path) -> list[str]:
    """The columns that a part has."""
    import pyarrow.parquet as pq

    with reading(part):
        names: list[str] = pq.read_schema(part).names
    return names


def require_columns(part: Path, columns: Iterable[str]) -> None:
    """Raises TrialrunError for a Parquet file that this program did not write."""
    import pyarrow.parquet as pq

    with reading(part):
        missing = set(columns) - set(pq.read_schema(part).names)
    if missing:
        raise TrialrunError(f"{part}: is not ours: it has no column {min(missing)!r}")


def read_about(part: Path) -> dict[str, Any]:
    """What a part says of its pack as a whole."""
    import pyarrow.parquet as pq

    with reading(part):
        about: dict[str, Any] = json.loads((pq.read_schema(part).metadata or {})[PACK_KEY])
    return about
