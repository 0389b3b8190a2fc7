"""The lines of keys in a TOML file, which the standard library's reader does not tell.

Only what a study needs is followed: tables, arrays of tables, keys at the start of a line, inline tables and
strings. A key that is not found has the line of its nearest parent.
"""

from __future__ import annotations

import re
from typing import Final

from fedgen.schema.lines import Key, Lines

_NAME: Final = r"(?:[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')"
_PATH: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_TABLE: Final = re.compile(rf"\s*(\[\[?)\s*({_PATH})\s*\]")
_PAIR: Final = re.compile(rf"\s*({_PATH})\s*=\s*")
_INLINE: Final = re.compile(rf"[{{,]\s*({_PATH})\s*=")


def toml_lines(text: str) -> Lines:
    """Return where each key of a valid TOML text stands.

    Edge cases:
        - Text that looks like a key inside a multi-line string is noted too; nobody asks for its line.

    Args:
        text: The file's content.
    """
    places: dict[Key, int] = {(): 1}
    counts: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header, pair = _TABLE.match(line), _PAIR.match(line)
        if header is not None:
            table = _keys(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                places.setdefault(table, number)
                table = (*table, counts[table])
            _note(places, table, number)
        elif pair is not None:
            key = (*table, *_keys(pair[1]))
            _note(places, key, number)
            for inner in _INLINE.finditer(line, pair.end()):
                _note(places, (*key, *_keys(inner[1])), number)
    return Lines(places)


def _keys(path: str) -> Key:
    """Return the parts of a dotted key, without their quotes."""
    return tuple(part.strip("\"'") for part in re.findall(_NAME, path))


def _note(places: dict[Key, int], key: Key, number: int) -> None:
    """Remember the first line of a key and of the parents it implies."""
    for size in range(1, len(key) + 1):
        places.setdefault(key[:size], number)
