"""A YAML file as plain values, and the place that each of them was written at.

Numbers, booleans and null follow the core schema of YAML 1.2, as users expect: `1e-4` is a number
and `no` is a word (PyYAML alone follows YAML 1.1, where it is the other way round). Only plain
values come out: tags that would build objects, keys that are no text and duplicate keys are
refused.

References:
    YAML 1.2.2, section 10.3 (core schema).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from trialrun.errors import InputError

KeyPath = tuple[str | int, ...]

# Far beyond what people write, and what is read in a moment.
_MAX_BYTES = 1 << 20
_MAX_VALUES = 100_000
_MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says.

    Attributes:
        value: Mappings, lists, texts, numbers, booleans and None.
        places: Path of keys and list positions -> where it was written, e.g. `jobs/a.yaml:12`.
    """

    value: Any
    places: Mapping[KeyPath, str]

    def place(self, path: KeyPath) -> str:
        """Where the value at a path, or the nearest one around it, was written."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def with_value(self, path: KeyPath, value: Any, place: str) -> "Document":
        """The document with another value at a path; mappings on the way are made if absent.

        Raises:
            InputError: Something on the way is no mapping.
        """
        replaced = {key: at for key, at in self.places.items() if key[: len(path)] != path}
        try:
            value = put(self.value, path, value)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        made = (path[:end] for end in range(1, len(path)) if path[:end] not in self.places)
        places = replaced | dict.fromkeys((*made, path), place)
        return replace(self, value=value, places=places)


def read_document(path: Path) -> Document:
    """The document in a UTF-8 file.

    Raises:
        InputError: There is no such file, or it is not one plain YAML mapping.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            limit = f"a job file has at most {_MAX_BYTES >> 20} MiB"
            raise InputError(f"{path}: {limit}, this has {size / 2**20:.1f}")
        if not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: this is no regular file; expected a YAML file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder; expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (OSError, ValueError) as error:  # a null byte in the path is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from error
    reader = _Reader(str(path))
    value = reader.read(text)
    if value is None:
        raise InputError(f"{path}: the file is empty; expected at least `name: ...`")
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a mapping of keys to values, got {show(value)}")
    return Document(value, {(): str(path)} | reader.places)


def parse_value(text: str, place: str) -> Any:
    """The value that a piece of YAML stands for, e.g. 0.0001 for `1e-4`.

    Raises:
        InputError: It is not plain YAML; the message starts with `place`.
    """
    return _Reader(place, has_lines=False).read(text)


def write_yaml(value: Any) -> str:
    """YAML text that `read_document` reads back to the same value."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=None,  # lists of plain values on one line
        sort_keys=False,
        allow_unicode=True,
        width=96,
    )
    assert isinstance(text, str)
    return text


def put(mapping: Any, path: KeyPath, value: Any, done: KeyPath = ()) -> Any:
    """A copy of nested mappings with a value at a path; missing mappings are made.

    >>> put({"a": {"b": 1}}, ("a", "c"), 2)
    {'a': {'b': 1, 'c': 2}}

    Raises:
        InputError: Something on the way is no mapping, or there are too many keys.
    """
    if len(path) > _MAX_DEPTH:
        raise InputError(f"{'.'.join(map(str, path))[:40]}... has more than {_MAX_DEPTH} keys")
    if not path:
        return value
    if not isinstance(mapping, dict):
        where = ".".join(map(str, done))
        raise InputError(f"{where} is no mapping but {show(mapping)}, so it has no {path[0]!r}")
    key, *rest = path
    inner = put(mapping.get(key, {}), tuple(rest), value, (*done, key))
    return mapping | {key: inner}


def plain(value: Any, place: str) -> Any:
    """A Python value as YAML would give it: tuples become lists.

    Raises:
        InputError: The value holds an object that YAML cannot write.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, place) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, place) for key, item in value.items()}
    kind = type(value).__name__
    raise InputError(f"{place}: expected numbers, text, lists and mappings, got {kind} {value!r}")


def canonical_json(value: Any) -> str:
    """The same text for the same plain value, on every machine and in every order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def show(value: Any, max_length: int = 60) -> str:
    """A value for a message, as a user would write it in YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def quoted(text: str) -> str:
    r"""A text in quotes that YAML reads back.

    >>> print(quoted("?"), quoted("it's"), quoted(r"\N"), quoted("\t"))
    '?' "it's" '\N' "\t"
    """
    if "'" in text or not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return f"'{text}'"


_TAG = "tag:yaml.org,2002:"
_CORE_SCHEMA = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the core schema of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own mechanism


class _Dumper(yaml.SafeDumper):
    """PyYAML's emitter: quotes what `_Loader` would not read as text, writes no aliases."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own mechanism

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _CORE_SCHEMA:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the nodes of PyYAML into plain values and notes the place of each.

    Attributes:
        source: The file or the option, first in every message.
        has_lines: False for an option, where a line number would say nothing.
        places: Filled while reading.
        num_values: How many values were read, in a list of one.
    """

    source: str
    has_lines: bool = True
    places: dict[KeyPath, str] = field(default_factory=dict)
    num_values: list[int] = field(default_factory=lambda: [0])

    def read(self, text: str) -> Any:
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self._place(mark.line + 1) if mark else self.source
            raise InputError(f"{where}: not YAML: {error.problem or error.context}") from error
        except RecursionError as error:
            raise InputError(f"{self.source}: not a job: values are nested too deep") from error
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.source}: not YAML: {reason}") from error
        return None if node is None else self._value(node, (), ())

    def _value(self, node: yaml.Node, path: KeyPath, around: tuple[yaml.Node, ...]) -> Any:
        """The value of a node; `around` are the nodes that hold it, to refuse endless ones."""
        if node in around:
            raise self._error(node, "an alias that holds itself has no end")
        if len(around) > _MAX_DEPTH:
            raise self._error(node, f"values are nested more than {_MAX_DEPTH} deep")
        self.num_values[0] += 1
        if self.num_values[0] > _MAX_VALUES:
            message = f"more than {_MAX_VALUES:,} values; an alias counts as all that it stands for"
            raise self._error(node, message)
        kind = node.tag.removeprefix(_TAG)
        around = (*around, node)
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            return self._scalar(node, kind)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self._item(item, (*path, i), around) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path, around)
        raise self._error(node, f"the tag {_tag_as_written(node)} is refused: plain values only")

    def _scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        try:
            node.value.encode()
            return _SCALARS[kind](node.value)
        except UnicodeEncodeError:
            raise self._error(node, f"{show(node.value)} is no Unicode text") from None
        except ValueError:
            raise self._error(node, f"{show(node.value)} is no {kind}") from None

    def _item(self, node: yaml.Node, path: KeyPath, around: tuple[yaml.Node, ...]) -> Any:
        self._note(path, node)
        return self._value(node, path, around)

    def _mapping(
        self, node: yaml.MappingNode, path: KeyPath, around: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._value(key_node, path, around)
            if isinstance(key, int) and "class_weight" in ".".join(map(str, path)).split("."):
                key = str(key)  # the number of a class
            if not isinstance(key, str):
                raise self._error(key_node, f"a key must be text, got {show(key)}: quote it")
            if key in mapping:
                first = self.places[*path, key]
                raise self._error(key_node, f"the key {key!r} was given before, at {first}")
            self._note((*path, key), key_node)
            mapping[key] = self._value(value_node, (*path, key), around)
        return mapping

    def _note(self, path: KeyPath, node: yaml.Node) -> None:
        self.places[path] = self._place(node.start_mark.line + 1)

    def _error(self, node: yaml.Node, message: str) -> InputError:
        return InputError(f"{self._place(node.start_mark.line + 1)}: {message}")

    def _place(self, line: int) -> str:
        return f"{self.source}:{line}" if self.has_lines else self.source


def _to_int(text: str) -> int:
    base = {"0x": 16, "0o": 8}.get(text[:2], 10)
    return int(text, base)


def _to_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _to_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": _to_bool,
    "int": _to_int,
    "float": _to_float,
    "str": str,
}


def _tag_as_written(node: yaml.Node) -> str:
    return "!!" + node.tag.removeprefix(_TAG) if node.tag.startswith(_TAG) else str(node.tag)
