"""The only spelling of a number, a category and a column's name, in job files and in tables alike.

Whoever compares a word of a job file with what a table holds compares these spellings. What looks
doubtful in a table is in `trialrun.data.table.lookalikes`.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from trialrun.job.table_dialect import Dialect

# Spaces that may stand between groups of digits.
SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_PLAIN = Dialect()
# What Unicode calls default ignorable, beside its categories Cf and Cc: fillers, selectors, ...
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)
_WHOLE_FRACTION = re.compile(r"([+-]?(?:0|[1-9][0-9]*))\.0*")


@functools.cache
def number_pattern(dialect: Dialect) -> str:
    """A regular expression (for RE2 and Python) for cells that are numbers in a dialect."""
    point = re.escape(dialect.decimal)
    whole = r"[0-9]+"
    if dialect.thousands is not None:
        marks = SPACES if dialect.thousands == " " else dialect.thousands
        whole += rf"|[1-9][0-9]{{0,2}}(?:[{re.escape(marks)}][0-9]{{3}})+"
    return rf"^[+-]?(?:(?:{whole})(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?$"


def plain_number(text: str, dialect: Dialect) -> str | None:
    """A number as programs write it: `1.234,5` becomes `1234.5`; None if the text is no number."""
    if not re.match(number_pattern(dialect), text):
        return None
    if dialect.thousands is not None:
        for mark in SPACES if dialect.thousands == " " else dialect.thousands:
            text = text.replace(mark, "")
    return text.replace(dialect.decimal, ".")


def number_of(text: str, dialect: Dialect = _PLAIN) -> float | None:
    """The value of a text that is a number; None for other texts, also for `nan` and `inf`.

    >>> number_of("10"), number_of("nan")
    (10.0, None)
    """
    plain = plain_number(text, dialect)
    return None if plain is None else float(plain)


def clean_text(text: str) -> str:
    """A text without white space around it, in Unicode's form NFC (accents part of letters)."""
    return unicodedata.normalize("NFC", text).strip()


def canonical_text(value: Any, dialect: Dialect = _PLAIN) -> str:
    """A category in its only spelling: 1.0 becomes "1", "a " becomes "a", "TRUE" becomes "True".

    A text such as `007` or `1.10` is not changed: it may be a code or a version.

    Args:
        value: A text of a file, or a value of a typed column.
        dialect: How numbers are written in texts.

    >>> [canonical_text(value) for value in (1.0, "1.0", " a ", "TRUE", "007")]
    ['1', '1', 'a', 'True', '007']
    """
    text = clean_text(str(value))
    if text.casefold() in ("true", "false"):
        return text.casefold().capitalize()
    if isinstance(value, str) and (dialect.decimal != "." or dialect.thousands is not None):
        text = plain_number(text, dialect) or text
    whole = _WHOLE_FRACTION.fullmatch(text)
    if whole is not None:
        text = whole[1]
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))  # without an exponent, as in 1e+16
    return "0" if text == "-0" else text


def same_category(levels: Iterable[Any], dialect: Dialect = _PLAIN) -> str | None:
    """Two of some levels that are one category, as messages show them; None if there are none.

    Args:
        levels: Texts and numbers of a job file, or texts of a table.
        dialect: How numbers are written in texts.

    >>> print(same_category([1, 2, "1.0"]), same_category(["low", "high"]))
    1 and '1.0' None
    """
    return _twice((canonical_text(level, dialect), level) for level in levels)


def same_name(names: Iterable[str]) -> str | None:
    """Two of some names that are one column or class, as messages show them; None without such."""
    return _twice((clean_text(name), name) for name in names)


def _twice(spellings: Iterable[tuple[str, Any]]) -> str | None:
    first: dict[str, Any] = {}
    for spelling, written in spellings:
        if spelling in first:
            return " and ".join(told_apart(first[spelling], written))
        first[spelling] = written
    return None


def told_apart(one: Any, other: Any) -> tuple[str, str]:
    r"""Two values as messages show them, with escapes where texts differ in what nobody sees.

    >>> print(*told_apart("caf\xe9", "cafe\u0301"))
    'caf\xe9' 'cafe\u0301'
    """
    if not (isinstance(one, str) and isinstance(other, str)):
        return repr(one), repr(other)
    if visible_text(one) != visible_text(other):
        return repr(one), repr(other)
    return _escaped(one, set(other)), _escaped(other, set(one))


def _escaped(text: str, plain: set[str]) -> str:
    return "".join(c if c.isascii() or c in plain else ascii(c)[1:-1] for c in repr(text))


def visible_text(text: str) -> str:
    """What a reader sees of a text: a clean text without characters that leave no mark."""
    return clean_text("".join(filter(_leaves_mark, text)))


def _leaves_mark(character: str) -> bool:
    if character.isspace():
        return True
    is_control = unicodedata.category(character) in ("Cc", "Cf")
    return not is_control and not _IGNORABLE.match(character)
