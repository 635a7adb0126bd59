"""How a message shows what it found, and what it may have meant."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
MAX_NAMES_LISTED = 5
_MAX_ERROR = 160
_ERROR_LINE = re.compile(r"\s*[\w.]*(Error|Exception|CannotFuse|CannotShare): ")


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


def in_short(error: BaseException) -> str:
    r"""The type of an error and the beginning of its message, in one line of printable text.

    Keras colors its messages for terminals. TensorFlow begins with the user's stack (`in user
    code:`), of which the line of the error itself is told.

    >>> print(in_short(ValueError("Exception encountered.\n\n\x1b[1mInvalid dtype\x1b[0m")))
    ValueError: Exception encountered. Invalid dtype
    """
    said, kind = _COLOR.sub("", str(error)).strip(), type(error).__name__
    if said.startswith("in user code:"):
        lines = said.splitlines()
        said, kind = next(filter(_ERROR_LINE.match, lines), lines[-1]), ""
    text = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    text = text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]} ..."
    return ": ".join(filter(None, (kind, text)))


def listed(names: Sequence[str], word: str = "and", max_names: int = MAX_NAMES_LISTED) -> str:
    """Names in a sentence; of too many, the first and the number of the others.

    >>> listed(["v01", "v02"]), listed(["v01", "v02", "v03", "v04"], "or", 2)
    ('v01 and v02', 'v01, v02 or 2 more')
    """
    num_more = len(names) - max_names
    if num_more > 1:
        return f"{', '.join(names[:max_names])} {word} {num_more} more"
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def bytes_text(num_bytes: float) -> str:
    """A size with the unit that suits it.

    >>> bytes_text(64 * 2**20)
    '64.0 MiB'
    """
    if round(num_bytes) < 1024:
        return f"{num_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        num_bytes /= 1024
        if round(num_bytes, 1) < 1024:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes / 1024:.1f} TiB"
