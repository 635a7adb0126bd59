"""Makes users' names fit into a figure: folds them into lines, and shortens very long ones."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MAX_LENGTH, _MAX_LINE = 72, 40
_NARROWEST = 14  # shorter names are not folded
_LETTER_WIDTH = 0.5  # times the font size of DejaVu Sans; most letters are wider
_PIECES = re.compile(r"[^\s_\-./,;:]*[\s_\-./,;:]?")

# Keywords for every text with users' names: "$50k" is a name, not a formula.
AS_IT_IS: dict[str, Any] = {"parse_math": False}


def printable(text: str) -> str:
    """The text on one line, without characters that cannot be printed or may not be in an SVG."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def fold(text: str, max_lines: int = 1) -> str:
    """A name on at most `max_lines` lines of about equal length.

    In a name longer than 72 characters (40 on a single line) the middle is left out, because names
    often differ at their ends.
    """
    text = _shorten(printable(text), _MAX_LINE if max_lines == 1 else _MAX_LENGTH)
    width = max(_NARROWEST, math.ceil(len(text) / max_lines))
    while len(lines := _lines(text, width)) > max_lines:
        width += 1
    return "\n".join(lines)


def _shorten(text: str, max_length: int) -> str:
    if len(text) <= max_length:
        return text
    num_last = max_length * 2 // 5
    return f"{text[: max_length - num_last - 1]}…{text[-num_last:]}"


def fold_to_width(text: str, room_in: float, size: float) -> str:
    """A text of any length, on lines that fit into a width.

    Args:
        text: The text.
        room_in: The width in inches.
        size: Font size in points.
    """
    num_letters = int(room_in * 72 / (size * _LETTER_WIDTH))
    lines = _lines(printable(text), max(_NARROWEST, num_letters))
    while num_letters > _NARROWEST and width_in("\n".join(lines), size) > room_in:
        num_letters = int(0.95 * num_letters)
        lines = _lines(printable(text), max(_NARROWEST, num_letters))
    return "\n".join(lines)


def _lines(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` characters, broken after words if possible."""
    lines = [""]
    for piece in _PIECES.findall(text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.strip() for line in lines]


def width_in(text: str, size: float) -> float:
    """The width of a text in inches; for several lines, that of the widest.

    Args:
        text: The text, perhaps of several lines.
        size: Font size in points.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size)
    with no_glyph_warnings():
        extents = [
            text_to_path.get_text_width_height_descent(line, font, ismath=False)
            for line in text.splitlines()
        ]
    return max((width for width, _, _ in extents), default=0.0) / 72


def max_lines_in(room_in: float, size: float) -> int:
    """The number of lines of text that fit into a height; at least one.

    Args:
        room_in: The height in inches.
        size: Font size in points.
    """
    return max(1, int(room_in * 72 / (size * 1.25)))


@contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """Within this context, letters that the font lacks are drawn as boxes without a warning.

    The page shows such a name in letters.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
