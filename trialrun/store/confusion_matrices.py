"""Writes confusion_matrices.json, some variants at a time, because there may be very many."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trialrun.store.files import json_ready, replace_atomically


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
