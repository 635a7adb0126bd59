"""Writes variants.csv, whose rows `analysis.variants.variant_rows` makes, and tables like it."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trialrun.job import searched_paths
from trialrun.store.columns import PARAMETER_PREFIX
from trialrun.store.files import json_ready, write_text
from trialrun.store.foreign import neutral

# Words that YAML reads as text.
_PLAIN = re.compile(r"(?!(?:null|true|false)$)[A-Za-z_/](?:[\w./-]|[ :](?=[\w/]))*", re.IGNORECASE)


def write_variants_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as CSV, with lists and mappings as JSON and unknown values as empty cells.

    Args:
        file: The file.
        rows: From `analysis.variants.variant_rows`.
    """
    write_text(file, variants_csv(columns_of(rows), rows))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of variants, whose rows lack the parameters that a variant lacks."""
    return searched_paths(rows)


def variants_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; see `write_variants_csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(neutral, columns))
    writer.writerows(
        [neutral(_csv_cell(name, row[name])) if name in row else "" for name in columns]
        for row in rows
    )
    return text.getvalue()


def _csv_cell(column: str, value: Any) -> Any:
    """A value as text; a parameter as YAML reads it, where text may need quotes."""
    is_parameter = column.startswith(PARAMETER_PREFIX)
    if value is None and is_parameter:
        return "null"
    if isinstance(value, str) and is_parameter:
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(json_ready(value))
    return json_ready(value)
