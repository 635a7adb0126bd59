"""A YAML file as plain values, and the location (file and line) of each of them.

Numbers, booleans and null follow the core schema of YAML 1.2, as users expect: `1e-4` is a number
and `no` is a word. (PyYAML alone follows YAML 1.1, where `1e-4` is a word and `no` is false.) The
result holds only plain values: tags that would build objects, keys that are not text and duplicate
keys are refused.

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
from yaml.composer import Composer

from trialrun.errors import InputError
from trialrun.messages import bytes_text, said_by, show

KeyPath = tuple[str | int, ...]

# Far more than people write, and still read in a moment.
_MAX_BYTES = 1 << 20
_MAX_VALUES = 100_000
_MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file.

    Attributes:
        value: Mappings, lists, texts, numbers, booleans and None.
        locations: Path of keys and list indices -> its location, e.g. `jobs/a.yaml:12`.
    """

    value: Any
    locations: Mapping[KeyPath, str]

    def location_of(self, path: KeyPath) -> str:
        """The location of the value at a path, or of the nearest value around it."""
        while path not in self.locations:
            path = path[:-1]
        return self.locations[path]

    def with_value(self, path: KeyPath, value: Any, location: str) -> "Document":
        """The document with another value at a path; missing mappings along the path are made.

        Raises:
            InputError: A value along the path is no mapping.
        """
        replaced = {key: where for key, where in self.locations.items() if key[: len(path)] != path}
        try:
            value = put(self.value, path, value)
        except InputError as error:
            raise InputError(f"{location}: {error}") from None
        made = (path[:end] for end in range(1, len(path)) if path[:end] not in self.locations)
        locations = replaced | dict.fromkeys((*made, path), location)
        return replace(self, value=value, locations=locations)


def read_document(path: Path) -> Document:
    """The document in a UTF-8 file.

    Raises:
        InputError: The file does not exist, or is not a YAML mapping of plain values.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            limit = f"a job file may have at most {bytes_text(_MAX_BYTES)}"
            raise InputError(f"{path}: {limit}, this file has {bytes_text(size)}")
        if not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: this is not a regular file; expected a YAML file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder; expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except (OSError, ValueError) as error:  # a null byte in the path is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from error
    reader = _Reader(str(path))
    value = reader.read(text)
    if value is None:
        raise InputError(f"{path}: the file is empty; expected at least `name: ...`")
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a mapping of keys to values, got {show(value)}")
    return Document(value, {(): str(path)} | reader.locations)


def parse_value(text: str, location: str) -> Any:
    """The value of a piece of YAML, e.g. 0.0001 for `1e-4`.

    Raises:
        InputError: The text is not plain YAML; the message starts with `location`.
    """
    return _Reader(location, has_lines=False).read(text)


def write_yaml(value: Any) -> str:
    """The value as YAML text from which `read_document` reads the same value."""
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
        InputError: A value along the path is no mapping, or the path has too many keys.
    """
    if len(path) > _MAX_DEPTH:
        raise InputError(f"{'.'.join(map(str, path))[:40]}... has more than {_MAX_DEPTH} keys")
    if not path:
        return value
    if not isinstance(mapping, dict):
        where = ".".join(map(str, done))
        raise InputError(
            f"{where} is {show(mapping)}, not a mapping, so that {path[0]!r} cannot be set in it"
        )
    key, *rest = path
    inner = put(mapping.get(key, {}), tuple(rest), value, (*done, key))
    return mapping | {key: inner}


def plain(value: Any, location: str) -> Any:
    """A Python value as YAML would return it: tuples become lists.

    Raises:
        InputError: The value holds an object that YAML cannot write.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, location) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, location) for key, item in value.items()}
    kind = type(value).__name__
    raise InputError(
        f"{location}: expected numbers, text, lists and mappings, got {kind} {value!r}"
    )


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal plain values, on every machine, in any order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


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


class _FastLoader(Composer, yaml.CSafeLoader):
    """The same with libyaml's parser, which is several times as fast.

    Its nodes are still composed in Python, where too much nesting is an error and not a crash.
    """

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)


for _name, _pattern, _first in _CORE_SCHEMA:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def _compose(text: str) -> yaml.Node | None:
    """The root node; raises PyYAML's errors, whose words are better than those of libyaml."""
    try:
        return yaml.compose(text, Loader=_FastLoader)
    except (yaml.YAMLError, UnicodeEncodeError):  # a command line may hold what is no text
        return yaml.compose(text, Loader=_Loader)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the nodes of PyYAML into plain values and records the location of each.

    Attributes:
        source: The file or the option, with which every message begins.
        has_lines: False for an option, where a line number has no meaning.
        locations: Path of keys and list indices -> its location; filled while reading.
        num_values: A list whose only item is the number of values read.
    """

    source: str
    has_lines: bool = True
    locations: dict[KeyPath, str] = field(default_factory=dict)
    num_values: list[int] = field(default_factory=lambda: [0])

    def read(self, text: str) -> Any:
        try:
            node = _compose(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self._location(mark.line + 1) if mark else self.source
            raise InputError(f"{where}: not YAML: {error.problem or error.context}") from error
        except RecursionError as error:
            raise InputError(f"{self.source}: not a job: values are nested too deeply") from error
        except yaml.YAMLError as error:
            reason = said_by(error).partition(' in "<')[0]  # PyYAML's name of a text
            raise InputError(f"{self.source}: not YAML: {reason}") from error
        return None if node is None else self._value(node, (), ())

    def _value(self, node: yaml.Node, path: KeyPath, around: tuple[yaml.Node, ...]) -> Any:
        """The value of a node; `around` are the nodes that hold it, to find endless nesting."""
        if node in around:
            raise self._error(node, "this alias holds itself, so that the value would be endless")
        if len(around) > _MAX_DEPTH:
            raise self._error(node, f"values are nested more than {_MAX_DEPTH} deep")
        self.num_values[0] += 1
        if self.num_values[0] > _MAX_VALUES:
            message = (
                f"more than {_MAX_VALUES:,} values (an alias counts as all the values that it"
                " stands for)"
            )
            raise self._error(node, message)
        kind = node.tag.removeprefix(_TAG)
        around = (*around, node)
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            return self._scalar(node, kind)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self._item(item, (*path, i), around) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path, around)
        raise self._error(
            node, f"the tag {_tag_as_written(node)} is refused; only plain values are allowed"
        )

    def _scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        try:
            node.value.encode()
            return _SCALARS[kind](node.value)
        except UnicodeEncodeError:
            raise self._error(node, f"{show(node.value)} is not Unicode text") from None
        except ValueError:
            raise self._error(node, f"{show(node.value)} is not of type {kind}") from None

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
                raise self._error(
                    key_node, f"a key must be text, got {show(key)}; put quotes around it"
                )
            if key in mapping:
                first = self.locations[*path, key]
                raise self._error(key_node, f"the key {key!r} was already given at {first}")
            self._note((*path, key), key_node)
            mapping[key] = self._value(value_node, (*path, key), around)
        return mapping

    def _note(self, path: KeyPath, node: yaml.Node) -> None:
        self.locations[path] = self._location(node.start_mark.line + 1)

    def _error(self, node: yaml.Node, message: str) -> InputError:
        return InputError(f"{self._location(node.start_mark.line + 1)}: {message}")

    def _location(self, line: int) -> str:
        return f"{self.source}:{line}" if self.has_lines else self.source


def _to_int(text: str) -> int:
    base = {"0x": 16, "0o": 8}.get(text[:2], 10)
    number = int(text, base)
    str(number)  # a ValueError if it has more digits than Python would write again
    return number


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
