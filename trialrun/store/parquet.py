"""The Parquet files of a run folder: each pack has one file of trials and one of history."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.errors import TrialrunError
from trialrun.store.columns import TrialColumns, columns_of, pack_file_name
from trialrun.store.files import json_ready, reading, replace_atomically

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# The key in the metadata of a file of trials under which facts about the whole pack are stored.
PACK_KEY = b"trialrun.pack"


def list_pack_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder, in the order of their names."""
    return sorted(folder.glob("part-*.parquet"))


def write_pack_file(file: Path, rows: "pa.Table", about: Mapping[str, Any] | None = None) -> None:
    """Writes one Parquet file, whole or not at all.

    Args:
        file: The file.
        rows: Its rows.
        about: Facts about its pack as a whole, stored in its metadata.
    """
    import pyarrow.parquet as pq

    if about is not None:
        rows = rows.replace_schema_metadata({PACK_KEY: json.dumps(json_ready(about))})
    with replace_atomically(file) as temporary:
        pq.write_table(rows, temporary, write_page_checksum=True)


def read_pack_file(
    file: Path,
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
    with reading(file), pq.ParquetFile(file, page_checksum_verification=verify) as parquet:
        names = columns_of(parquet.schema_arrow.names, columns)
        rows = parquet.read(columns=[*dict.fromkeys([*names, *filters])], use_threads=False)
    for name, ids in filters.items():
        rows = rows.filter(pc.is_in(rows[name], value_set=pa.array(ids, pa.string())))
    return rows.select(names)


def by_pack_file(trials: "pd.DataFrame") -> dict[str, list[str]]:
    """Name of a file, without suffix -> ids of the trials that it holds, in their order."""
    wanted: dict[str, list[str]] = {}
    for trial_id, pack_id, attempt in zip(
        trials["trial_id"], trials["pack_id"], trials["attempt"], strict=True
    ):
        wanted.setdefault(pack_file_name(pack_id, attempt), []).append(trial_id)
    return wanted


def columns_in(file: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    import pyarrow.parquet as pq

    with reading(file):
        names: list[str] = pq.read_schema(file).names
    return names


def require_columns(file: Path, columns: Iterable[str]) -> None:
    """Raises TrialrunError if a Parquet file lacks columns, as one from another program does."""
    import pyarrow.parquet as pq

    with reading(file):
        missing = set(columns) - set(pq.read_schema(file).names)
    if missing:
        raise TrialrunError(
            f"{file}: was not written by trialrun: it has no column {min(missing)!r}"
        )


def read_about(file: Path) -> dict[str, Any]:
    """The facts about a pack as a whole that its file of trials stores."""
    import pyarrow.parquet as pq

    with reading(file):
        about: dict[str, Any] = json.loads((pq.read_schema(file).metadata or {})[PACK_KEY])
    return about
