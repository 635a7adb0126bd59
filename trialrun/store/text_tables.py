"""Tables of a run as text: CSV cells, and JSON that is written piece by piece."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import IO, Any

from trialrun.store.files import json_ready


def write_mapping(file: IO[str], content: Mapping[str, Any]) -> None:
    """Writes the same JSON as `json.dumps`, but value by value, as there may be very many."""
    separator = "{"
    for key, value in content.items():
        file.write(f"{separator}{json.dumps(key)}: ")
        separator = ", "
        if isinstance(value, Mapping):
            write_mapping(file, value)
        else:
            file.write(json.dumps(json_ready(value)))
    file.write("}" if content else "{}")


def variants_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; see `RunFolder.write_variants`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(row[name]) for name in columns] for row in rows)
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(json_ready(value))
    return json_ready(value)
