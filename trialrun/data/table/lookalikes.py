"""How dates, amounts and missing values look, and which categories look like the same one."""

import unicodedata
from collections.abc import Iterable

from trialrun.job.table_spelling import SPACES, number_of, visible_text

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


def by_number(text: str) -> tuple[float, str]:
    """A key that sorts classes and levels: first numbers by their values, then other texts."""
    number = number_of(text)
    return (float("inf") if number is None else number), text


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
    compatible = unicodedata.normalize("NFKC", visible_text(text))
    seen = " ".join(visible_text(compatible).split()).casefold()
    number = number_of(seen)
    return seen if number is None else number
