"""Read a file a person wrote, remember the line of each key, and explain what is wrong in one line.

YAML is read by the core schema of YAML 1.2 (Source: yaml.org/spec/1.2.2, section 10.3), which is JSON's idea
of a scalar: ``no`` and ``2020-01-01`` stay text, ``1e-5`` is a number, ``010`` is ten. Only the safe composer
is used, no object is ever constructed from a tag. JSON and TOML are read by suffix through the same door.
"""

from __future__ import annotations

import codecs
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

from fedgen.errors import ConfigError
from fedgen.schema.explain import Flaw, explain, nearest
from fedgen.schema.lines import Key, Lines, dotted

_TEXT: Final = codecs.lookup("utf-8-sig")  # now: who has put on another user may not reach Python's own files

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Flaw",
    "Lines",
    "explain",
    "load_yaml",
    "nearest",
    "parse_yaml",
]

MAX_BYTES: Final = 2**20
MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 64

_TAG: Final = "tag:yaml.org,2002:"


def load_yaml(path: str | Path) -> tuple[Any, Lines]:
    """Return the content of a YAML, JSON or TOML file, and the lines of its keys.

    Guarantees:
        - Nothing but text, numbers, booleans, None, lists and dicts comes out (TOML: also dates).
        - A key that stands twice in one mapping is refused, never silently overwritten.
        - At most ``MAX_BYTES`` are read and ``MAX_NODES`` values made, whatever the aliases say.

    Edge cases:
        ======================  ========================================
        byte order mark         ignored
        key that is not text    taken as its text, so ``1: x`` is key "1"
        TOML                    read, without line numbers
        ======================  ========================================

    Args:
        path: The file; ``.json`` and ``.toml`` are read as such, all else as YAML.

    Raises:
        ConfigError: Missing, unreadable, too large, not UTF-8, not valid, empty, or a duplicate key.
    """
    path = Path(path)
    text = _text(path)
    suffix = path.suffix.lower()
    if suffix == ".toml":
        return _toml(text, path), Lines()
    if suffix == ".json":
        return _json(text, path)
    data, lines = parse_yaml(text, path)
    if data is None:
        raise ConfigError("the file is empty", where=path)
    return data, lines


def _text(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("no such file", where=path) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or 'input error'}", where=path) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"larger than {MAX_BYTES // 2**20} MiB", where=path, hint="is this the right file?")
    try:
        return _TEXT.decode(raw)[0]
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError("not UTF-8 text", where=path, line=line, hint="save the file as UTF-8") from None


def _toml(text: str, path: Path) -> Any:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else None
        raise ConfigError("not valid TOML", where=path, line=line) from None


def _json(text: str, path: Path) -> tuple[Any, Lines]:
    try:
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON: {error.msg}", where=path, line=error.lineno) from None
    except RecursionError:
        raise ConfigError("nested too deeply", where=path) from None
    except Flaw as flaw:
        raise ConfigError(str(flaw), where=path, key=dotted(flaw.key) or None, hint=flaw.hint) from None
    except ValueError:
        raise ConfigError("a number that is too long", where=path) from None
    try:
        # Only for the lines. A tab may not indent YAML; JSON that is no YAML at all has no lines.
        _, lines = parse_yaml(text.replace("\t", " "), path)
    except ConfigError:
        lines = Lines()
    return data, lines


def _no_constant(_: str) -> Any:
    raise Flaw("NaN and infinity are not numbers of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise Flaw("this key stands twice", key=(twice,), hint="keep one of them")
    return seen


class _CoreLoader(yaml.SafeLoader):
    """The composer with the scalars of the YAML 1.2 core schema; its constructors are never used."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own attribute, filled once below


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _CoreLoader.add_implicit_resolver(_TAG + _tag, re.compile(_pattern), _first)


def parse_yaml(text: str, where: str | Path) -> tuple[Any, Lines]:
    """Return the value that a YAML text holds, None if it holds none, and the lines of its keys.

    Args:
        text: YAML, of any length the caller allows.
        where: What an error names as its place.

    Raises:
        ConfigError: Not valid YAML, a tag, a duplicate key, or too many or too deeply nested values.
    """
    try:
        root = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        what = f"not valid YAML: {error.problem or error.context}"
        raise ConfigError(what, where=where, line=_line_of(error, text)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError("a character that text does not hold", where=where, line=line) from None
    except RecursionError:
        raise ConfigError("nested too deeply", where=where) from None
    if root is None:
        return None, Lines()
    walk = _Walk(where)
    return walk.value(root, ()), Lines(walk.places)


_yaml = parse_yaml  # its first name


def _line_of(error: yaml.MarkedYAMLError, text: str) -> int | None:
    """Return where to look: what is never closed is found out at the end, but mended at its beginning."""
    end = text.rstrip()
    mark = error.problem_mark or error.context_mark
    if mark is not None and error.context_mark is not None and mark.index >= len(end):
        mark = error.context_mark
    return None if mark is None else min(mark.line, end.count("\n")) + 1


class _Walk:
    """One pass over the composed nodes: values, lines and limits together."""

    def __init__(self, where: str | Path) -> None:
        self.where = where
        self.places: dict[Key, int] = {}
        self._made = 0

    def value(self, node: yaml.Node, path: Key) -> Any:
        """Return the plain value of ``node`` and note its line; an alias counts each time it is used."""
        line = node.start_mark.line + 1
        self._made += 1
        if self._made > MAX_NODES or len(path) > MAX_DEPTH:
            raise ConfigError("too many or too deeply nested values", where=self.where, line=line)
        self.places.setdefault(path, line)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        raise self._fault("tags are not read here", node, path)

    def _mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._fault("a key must be text", key_node, path)
            key = str(key_node.value)
            place = (*path, key)
            if key in found:
                first = self.places[place]
                raise self._fault(f"this key stands twice, first in line {first}", key_node, place)
            self.places[place] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, place)
        return found

    def _scalar(self, node: yaml.ScalarNode, path: Key) -> Any:
        text = str(node.value)
        kind = node.tag.removeprefix(_TAG)
        try:
            match kind:
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
                case "float":
                    return float(re.sub(r"\.(?=[iInN])", "", text))
                case _:
                    raise self._fault("tags are not read here", node, path)
        except (ValueError, KeyError):
            raise self._fault(f"not a value of the type {kind}", node, path) from None

    def _fault(self, what: str, node: yaml.Node, path: Key) -> ConfigError:
        return ConfigError(what, where=self.where, line=node.start_mark.line + 1, key=dotted(path) or None)
