"""How a message shows what it found, and what it may have meant."""

import difflib
import json
from collections.abc import Iterable
from typing import Any


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: similar known words, or else all of them.

    >>> suggest("adm", ["adam", "sgd"])
    "did you mean 'adam'?"
    >>> suggest("xyz", ["adam", "sgd"])
    'known: adam, sgd'
    """
    names = list(known)
    by_lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3)
    if near:
        return f"did you mean {' or '.join(repr(by_lower[name]) for name in near)}?"
    return f"known: {', '.join(names) or 'none'}"


def show(value: Any, max_length: int = 60) -> str:
    """A value as messages show it: the way a user would write it in YAML, shortened if long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def quoted(text: str) -> str:
    r"""A text in quotes, from which YAML reads the same text.

    >>> print(quoted("?"), quoted("it's"), quoted(r"\N"), quoted("\t"))
    '?' "it's" '\N' "\t"
    """
    if "'" in text or not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return f"'{text}'"


def bytes_text(num_bytes: float) -> str:
    """A size with the unit that suits it.

    >>> bytes_text(64 * 2**20)
    '64.0 MiB'
    """
    if num_bytes < 1024:
        return f"{num_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        num_bytes /= 1024
        if num_bytes < 1024:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes / 1024:.1f} TiB"
