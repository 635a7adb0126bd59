"""The Parquet files of a run folder: each pack has one file of trials and one of history."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.errors import TrialrunError
from trialrun.store.columns import TrialColumns, columns_of, part_name
from trialrun.store.files import json_ready, reading, replace_atomically

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# The key in the metadata of a file of trials under which facts about the whole pack are stored.
PACK_KEY = b"trialrun.pack"


def list_parts(folder: Path) -> list[Path]:
    """The Parquet files in a folder, in the order of their names."""
    return sorted(folder.glob("part-*.parquet"))


def write_part(part: Path, rows: "pa.Table", about: Mapping[str, Any] | None = None) -> None:
    """Writes one Parquet file, whole or not at all.

    Args:
        part: The file.
        rows: Its rows.
        about: Facts about its pack as a whole, stored in its metadata.
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
    """The rows of one Parquet file, or only those of some trials or variants.

    A run may have thousands of small files. Files are read one by one, because pyarrow's functions
    for whole folders take three times as long per file.
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
    """Name of a file, without suffix -> ids of the trials that it holds, in their order."""
    wanted: dict[str, list[str]] = {}
    for trial_id, pack_id, attempt in zip(
        trials["trial_id"], trials["pack_id"], trials["attempt"], strict=True
    ):
        wanted.setdefault(part_name(pack_id, attempt), []).append(trial_id)
    return wanted


def column_names(part: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    import pyarrow.parquet as pq

    with reading(part):
        names: list[str] = pq.read_schema(part).names
    return names


def require_columns(part: Path, columns: Iterable[str]) -> None:
    """Raises TrialrunError if a Parquet file lacks columns, as one from another program does."""
    import pyarrow.parquet as pq

    with reading(part):
        missing = set(columns) - set(pq.read_schema(part).names)
    if missing:
        raise TrialrunError(
            f"{part}: was not written by trialrun: it has no column {min(missing)!r}"
        )


def read_about(part: Path) -> dict[str, Any]:
    """The facts about a pack as a whole that its file of trials stores."""
    import pyarrow.parquet as pq

    with reading(part):
        about: dict[str, Any] = json.loads((pq.read_schema(part).metadata or {})[PACK_KEY])
    return about
