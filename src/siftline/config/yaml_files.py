"""YAML as people mean it, read in bounded time and memory.

Plain words such as ``no`` and ``on``, dates, ``1:30``, ``010`` and ``1_000`` stay text, much as in YAML 1.2.
A key is text, and given once in its section.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent, Event
from yaml.nodes import MappingNode, Node, ScalarNode

from siftline.errors import ConfigError

_MOST_BYTES = 1 << 20
_MOST_VALUES = 50_000
_MOST_LEVELS = 50

_TAG = "tag:yaml.org,2002:"
_KEYS = {f"{_TAG}str", f"{_TAG}merge"}
_TAGS_TO_WRITE = {None, "!", *(f"{_TAG}{name}" for name in ("str", "seq", "map"))}
_PLAIN = {
    "null": r"null|Null|NULL|~|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9]{0,18})",
    "float": r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(?:0|[1-9][0-9]*)(?=[eE]))(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "merge": r"<<",
}


class Refused(yaml.MarkedYAMLError):
    """Refusal of well-formed YAML; `problem` and `remedy` say why."""

    def __init__(self, problem: str, remedy: str, where: Any) -> None:
        super().__init__(problem=problem, problem_mark=where.start_mark)
        self.remedy = remedy


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text; raise `yaml.YAMLError`, mostly `Refused`, if there is none."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_yaml_file(path: Path) -> Any:
    """Return the value of a YAML file; raise FileNotFoundError, or ConfigError if there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: {reason}", "give the path of a readable file") from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path}: larger than {_MOST_BYTES >> 10:,} KiB", "give the path of a YAML file")
    try:
        return parse_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: not YAML: not UTF-8 text in line {line}", "save it as UTF-8") from error
    except Refused as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {place}{error.problem}", error.remedy) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML{_described(error, content)}", "correct the file") from error


def _described(error: yaml.YAMLError, content: bytes) -> str:
    """Return the place and the reason of an error of PyYAML."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return f"{place}: {error.problem}"
    position = getattr(error, "position", 0)
    character = getattr(error, "character", 0)
    line = content.decode("utf-8-sig").count("\n", 0, position) + 1
    return f" at line {line}: it contains the control character U+{character:04X}"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the words of YAML 1.2 and the types of JSON."""

    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}  # noqa: RUF012  as in PyYAML

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._count = 0
        self._measured: dict[int, tuple[int, int]] = {}  # by node: values, aliases followed, and levels

    def get_single_node(self) -> Node | None:
        self.get_event()  # type: ignore[no-untyped-call]  # the stream begins
        node = None if self.check_event(yaml.StreamEndEvent) else self.compose_document()
        if not self.check_event(yaml.StreamEndEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise Refused("a second document begins", "keep one document in a file", event)
        return node

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._count += 1
        if self._level == _MOST_LEVELS:
            raise Refused(f"nested more than {_MOST_LEVELS} levels deep", "flatten it", event)
        if self._count > _MOST_VALUES:
            raise Refused(f"more than {_MOST_VALUES:,} values", "give fewer", event)
        if not isinstance(event, AliasEvent) and event.tag not in _TAGS_TO_WRITE:
            raise ConstructorError(None, None, f"the tag {event.tag!r} is not allowed", event.start_mark)
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is not None:
            self._measure(node, event)
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in _KEYS or not isinstance(key, ScalarNode):
                shown = repr(key.value) if isinstance(key, ScalarNode) else "of several values"
                raise Refused(f"the key {shown} is not text", "quote it", key)
            if key.value in seen:
                raise Refused(f"{key.value!r} is given twice", "keep one of them", key)
            seen.add(key.value)
        return node

    def _measure(self, node: Node, event: Event) -> None:
        """Refuse what aliases make too large, too deep or endless."""
        if id(node) not in self._measured:
            if isinstance(event, AliasEvent):
                raise Refused(f"{event.anchor!r} contains itself", "remove the alias", event)
            parts = [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else ()
            parts = parts or (() if isinstance(node, ScalarNode) else node.value)
            inner = [self._measured[id(part)] for part in parts]
            levels = 1 + max((part[1] for part in inner), default=0)
            self._measured[id(node)] = (1 + sum(part[0] for part in inner), levels)
        values, levels = self._measured[id(node)]
        if values > _MOST_VALUES or levels > _MOST_LEVELS:
            raise Refused("its aliases stand for too many values", "write the values out", event)


for _name, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"(?:{_pattern})\Z"), None)
_MADE = {"null", "bool", "int", "float", "str", "seq", "map"}
_Loader.yaml_constructors = {
    **{f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"] for name in _MADE},
    f"{_TAG}merge": yaml.SafeLoader.yaml_constructors[f"{_TAG}str"],  # `<<` as a value
}
