"""How numbers, dates, amounts and categories are written, and one spelling for each category."""

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from trialrun.job.table_dialect import Dialect

# Spaces that may stand between groups of digits.
SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_PLAIN = Dialect()
_WHOLE_FRACTION = re.compile(r"([+-]?(?:0|[1-9][0-9]*))\.0*")

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:[ap]m)?\s*(?:z|[+-]\d{2}:?\d{2})?"
_DAY = (
    r"(?:\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    rf"|\d{{1,2}}[-/. ]+{_MONTH}[-/., ]*(?:\d{{4}}|\d{{2}})|{_MONTH} *\d{{1,2}},? +\d{{4}})"
)
# Dates (ISO, or day, month and year in any order, also with names of months), times, or both.
DATE = rf"(?i)^(?:{_DAY}(?:[t ,]+{_CLOCK})?|{_CLOCK})$"
# A number with groups of digits, a decimal comma, a currency or a percent sign: not a category.
_DIGITS = rf"[.,]?\d+(?:[.,'{SPACES}]\d+)*(?:e[+-]?\d+)?"
_SIGN = "[+\N{MINUS SIGN}-]?"
SIGNED_AMOUNT = rf"(?i)^[<>~≤≥(]?\s*{_SIGN}\s*(?:[$€£¥]\s*{_DIGITS}|{_DIGITS}\s*[%‰$€£¥°]?)\)?$"
# A number and a unit, such as 12 kg; this may also be a category, such as 4WD.
AMOUNT_WITH_UNIT = rf"(?i)^(?P<number>[+-]?{_DIGITS})\s*(?P<unit>[a-zµμ°/²³]+)$"

# Words that files use for missing values. They only cause notes: a word counts as a missing value
# only if the job names it.
MISSING_WORDS = frozenset(
    {"?", "-", "--", ".", "*", "na", "n/a", "nan", "-nan", "null", "none", "nil", "nd", "missing"}
    | {"#n/a", "#na", "#null!", "n.a.", "(null)", "<na>", r"\n", "nat", "unknown"}  # MySQL: \N
)
# Texts that stand for numbers which are not finite.
INFINITIES = frozenset(f"{sign}{word}" for sign in ("", "+", "-") for word in ("inf", "infinity"))


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


def number_of(text: str) -> float | None:
    """The value of a text that is a plain number; None for other texts, also for `nan` and `inf`.

    >>> number_of("10"), number_of("nan")
    (10.0, None)
    """
    plain = plain_number(text, _PLAIN)
    return None if plain is None else float(plain)


def by_number(text: str) -> tuple[float, str]:
    """A key that sorts classes and levels: first numbers by their values, then other texts."""
    number = number_of(text)
    return (float("inf") if number is None else number), text


def clean_text(text: str) -> str:
    """A text without white space around it, in Unicode's form NFC (accents part of letters)."""
    return unicodedata.normalize("NFC", text).strip()


def similar_texts(texts: Iterable[str]) -> tuple[str, str] | None:
    """Two categories that look like the same one; None if there are none.

    They differ only in case, in the spelling of a number, in the kind or number of spaces, in
    invisible characters, or in characters that Unicode calls compatible.
    """
    first: dict[str | float, str] = {}
    for text in sorted(texts):
        key = _seen(text)
        if key in first:
            return first[key], text
        first[key] = text
    return None


def _seen(text: str) -> str | float:
    """The value of a number, or a text reduced to what a reader sees, without case."""
    number = number_of(text)
    if number is not None:
        return number
    shown = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return " ".join("".join(shown).split()).casefold()


def canonical_text(value: Any, dialect: Dialect = _PLAIN) -> str:
    """A category in its only spelling: 1.0 becomes "1", "a " becomes "a", "TRUE" becomes "True".

    A text such as `007` or `1.10` is not changed: it may be a code or a version.

    Args:
        value: A text of a file, or a value of a typed column.
        dialect: How numbers are written.

    >>> [canonical_text(value) for value in (1.0, "1.0", " a ", "TRUE", "007")]
    ['1', '1', 'a', 'True', '007']
    """
    text = clean_text(str(value))
    if text.casefold() in ("true", "false"):
        return text.casefold().capitalize()
    if dialect.decimal != "." or dialect.thousands is not None:
        text = plain_number(text, dialect) or text
    whole = _WHOLE_FRACTION.fullmatch(text)
    if whole is not None:
        text = whole[1]
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))  # without an exponent, as in 1e+16
    return "0" if text == "-0" else text
