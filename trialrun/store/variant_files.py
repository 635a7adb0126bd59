"""What is told of variants: the text of variants.csv, and confusion_matrices.json."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trialrun.job import searched_paths
from trialrun.store.columns import PARAMETER_PREFIX
from trialrun.store.files import json_ready, replace_atomically
from trialrun.store.foreign import neutral

# Words that YAML reads as text.
_PLAIN = re.compile(r"(?!(?:null|true|false)$)[A-Za-z_/](?:[\w./-]|[ :](?=[\w/]))*", re.IGNORECASE)


@contextmanager
def writing_confusion_matrices(
    path: Path, class_names: Sequence[str]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Writes confusion_matrices.json, which is there when the context ends without an error.

    Args:
        path: The file.
        class_names: Names of the classes.

    Yields:
        A function that adds some variants, from `analysis.variants.confusion_matrices`.
    """
    about = {"class_names": list(class_names), "rows": "true class", "columns": "predicted class"}
    with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(about, ensure_ascii=False)[:-1] + ', "variants": {')
        separator = ""

        def write(variants: Mapping[str, Any]) -> None:
            nonlocal separator
            for variant_id, matrices in variants.items():
                file.write(f"{separator}\n{json.dumps(variant_id)}: ")
                _write_mapping(file, matrices)
                separator = ","

        yield write
        file.write("}}\n")


def _write_mapping(file: IO[str], content: Mapping[str, Any]) -> None:
    """Writes the same JSON as `json.dumps`, but value by value, as there may be very many."""
    separator = "{"
    for key, value in content.items():
        file.write(f"{separator}{json.dumps(key)}: ")
        separator = ", "
        if isinstance(value, Mapping):
            _write_mapping(file, value)
        else:
            file.write(json.dumps(json_ready(value)))
    file.write("}" if content else "{}")


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of variants, whose rows lack the parameters that a variant lacks."""
    return searched_paths(rows)


def variants_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; see `RunFolder.write_variants`."""
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
