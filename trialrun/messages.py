"""Parts of messages for people: values, suggestions, lists, sizes, and what others' errors say."""

import ast
import difflib
import json
import re
import shlex
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MAX_NAMES_LISTED = 5
_MAX_ERROR = 300
_TERMINAL_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CALLING = re.compile(r"Exception encountered when calling (.+)\.(?:\n|$)")
_NO_OUTPUT = re.compile(
    r"Could not automatically infer .*?\(of type (\w+)\)\..*?Error encountered:\s*(.*)", re.S
)
_NO_BUILD = re.compile(r"Unable to automatically build .*?Exception encountered:\s*'(.*)'$", re.S)
_LOST_KEY = "MultilineMessageKeyError.__init__()"
_LEFT_AS_THEY_ARE = "\n\r\t"
_SHOWN = {chr(code): chr(0x2400 + code) for code in range(32)} | {"\x7f": "\u2421"}
_SHOWN |= {character: character for character in _LEFT_AS_THEY_ARE}
_LONE_RETURN = re.compile(r"\r(?!\n)")  # what follows would be written over the line
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_QUOTES = ("'", '"')
_USER_CODE, _GRAPH = "in user code:", "Graph execution error:"
_TYPED = re.compile(r"(?!File )([^\W\d][\w.]*):(?: (.*)|$)")
_STACK = re.compile(
    r"^.*(?:\(most recent call last\):|  File \".*\", line \d+, in .*|<stack traces .*>)$", re.M
)
# How TensorFlow names the operation before and after the message.
_OPERATION = re.compile(r"^\{\{function_node \S+\}\} |\s*\[\[\{\{node .*| \[Op:\w+\].*", re.S)


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


def command_for(name: str, folder: Path) -> str:
    """A command about a folder, such that a shell takes it as it stands.

    >>> command_for("resume", Path("my runs/r1"))
    "trialrun resume 'my runs/r1'"
    """
    return f"trialrun {name} {shlex.quote(str(folder))}"


def in_short(error: BaseException) -> str:
    r"""The type of an error, where in a model it was raised, and what it says, in one line.

    Every error of others (Keras, TensorFlow, a library, the user's code) that becomes part of a
    message of ours goes through here, or through `said_by` where its type tells nothing.

    >>> print(in_short(ValueError("\x1b[1mInvalid\x1b[0m\ndtype")), "|", in_short(AssertionError()))
    ValueError: Invalid dtype | AssertionError
    """
    cause = cause_of(error)
    where = f"{cause.kind} in {cause.call}" if cause.call else cause.kind
    return f"{where}: {cause.said}" if cause.said else where


def said_by(error: BaseException) -> str:
    """What an error says, in one line; its type if it says nothing."""
    cause = cause_of(error)
    return cause.said or cause.kind


class Cause(NamedTuple):
    """The error that Keras and TensorFlow have wrapped in messages of their own.

    Attributes:
        kind: The name of its type.
        said: Its message, shortened to one line of printable text; may be empty.
        call: The innermost call of Keras that raised it, such as `Dense.call()`; empty if none did.
    """

    kind: str
    said: str
    call: str


def cause_of(error: BaseException) -> Cause:
    """The error behind an error: each wrapping is taken off until none is left."""
    cause, key = Cause(type(error).__name__, str(error), ""), _key_error_before(error.__context__)
    while True:
        cause = cause._replace(said=_TERMINAL_CODE.sub("", cause.said).strip())
        if cause.said.startswith(_LOST_KEY) and key is not None:
            cause, key = Cause("KeyError", str(key), cause.call), None
        for unwrap in (_of_key_error, _of_call, _of_symbols, _of_user_code, _of_graph):
            if inner := unwrap(cause):
                cause = inner
                break
        else:
            said = one_line(cause.said)
            is_key = cause.kind == "KeyError" and said and not said.startswith(_QUOTES)
            return cause._replace(said=repr(said) if is_key else said)


def _key_error_before(error: BaseException | None) -> KeyError | None:
    """The error about a key that Keras could not make again with a message of its own."""
    while error is not None and not isinstance(error, KeyError):
        error = error.__context__
    return error


def _of_key_error(cause: Cause) -> Cause | None:
    """A key that is a text of several lines: Python shows it with escapes, as it would a key."""
    if cause.kind != "KeyError" or not cause.said.startswith(_QUOTES):
        return None
    try:
        key = ast.literal_eval(cause.said)
    except (SyntaxError, ValueError):
        return None
    return None if not isinstance(key, str) or key.isprintable() else cause._replace(said=key)


def _of_call(cause: Cause) -> Cause | None:
    """Keras tells the call before the message and its arguments after it."""
    match = _CALLING.match(cause.said)
    if match is None:
        return None
    inside = cause.said[match.end() :]
    said, found, _ = inside.rpartition(f"Arguments received by {match[1]}:")
    return cause._replace(said=said if found else inside, call=match[1])


def _of_symbols(cause: Cause) -> Cause | None:
    """Keras's advice where a layer or a model raises for an input without values."""
    if match := _NO_OUTPUT.match(cause.said):
        return cause._replace(said=match[2], call=f"{match[1]}.call()")
    match = _NO_BUILD.match(cause.said)
    return match and cause._replace(said=match[1])


def _of_user_code(cause: Cause) -> Cause | None:
    """TensorFlow tells the user's stack, then type and message of the error, all of it indented."""
    if not cause.said.startswith(_USER_CODE):
        return None
    lines = textwrap.dedent(cause.said.removeprefix(_USER_CODE)).strip().splitlines()
    for number, line in enumerate(lines):
        if match := _TYPED.match(line):
            said = "\n".join([match[2] or "", *lines[number + 1 :]])
            return cause._replace(kind=match[1].rpartition(".")[2], said=said)
    return cause._replace(said=lines[-1] if lines else "")


def _of_graph(cause: Cause) -> Cause | None:
    """A running graph tells where its operation was made before the message, and its name after."""
    if not cause.said.startswith(_GRAPH):
        return None
    said = _STACK.split(cause.said.removeprefix(_GRAPH))[-1]
    return cause._replace(said=said)


def one_line(text: str) -> str:
    """A text of others in one line of printable text, without TensorFlow's names of operations."""
    text = _OPERATION.sub("", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]} ..."


def visible(text: str) -> str:
    r"""A text whose control characters are shown instead of obeyed; lines and tabs stay.

    >>> print(visible("\x1b[2J red\u202e\rblue"))
    ␛[2J red�␍blue
    """
    if text.isprintable():
        return text
    text = _LONE_RETURN.sub("\u240d", text)
    return "".join(_SHOWN.get(c) or (c if not _is_control(c) else "\ufffd") for c in text)


def _is_control(character: str) -> bool:
    """Whether a character controls a terminal, or the direction in which text is written."""
    return unicodedata.category(character) in ("Cc", "Cs") or character in _DIRECTIONS


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


def counted(count: int, what: str) -> str:
    """A number of things: `1 seed`, `2,000 seeds`."""
    return f"{count:,} {what}{'s'[: count != 1]}"


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
