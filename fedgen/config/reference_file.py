"""Fill in a reference configuration: a YAML file in which every key stands, commented, some of them switched off.

A line that begins with ``#`` and no single space behind it is a key that is off; ``# `` begins a comment.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.schema.lines import Key

Scalar = str | int | float | None
_LINE: Final = re.compile(r"(?P<off>#?)(?P<indent>(?:  )*)(?P<key>[a-z0-9_]+):(?P<rest>.*)")
_TO_DO: Final = "  # FILL IN"


def fill(text: str, values: Mapping[Key, Scalar]) -> str:
    """Return a reference file with these values in place; keys that were off are switched on.

    Guarantees:
        - Every other line stays as it is, comments too.

    Edge cases:
        - A value of None leaves the key empty and says that it must be filled in: the file is refused until it is.

    Args:
        text: The reference file.
        values: Key, as its parts, to the value; no lists and no sections.

    Raises:
        ValueError: A key is not in the file, or its section is off.
    """
    left, lines = dict(values), []
    above: list[tuple[str, bool]] = []  # the keys that a line stands below, and whether they are on
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            lines.append(line)
            continue
        above = above[: len(match["indent"]) // 2]
        key = (*(name for name, _ in above), match["key"])
        wanted = key in left and all(on for _, on in above)
        above.append((match["key"], wanted or not match["off"]))
        lines.append(f"{match['indent']}{match['key']}:{_written(left.pop(key))}" if wanted else line)
    if left:
        raise ValueError(f"the reference file has no key {'.'.join(map(str, next(iter(left))))}")
    return "\n".join(lines) + "\n"


def switch_off(text: str, key: str) -> str:
    """Return a reference file with one top-level key off, as if it had been left out."""
    return re.sub(rf"^{re.escape(key)}:", f"#{key}:", text, flags=re.MULTILINE)


def switch_on(text: str) -> str:
    """Return a reference file with every key on."""
    return re.sub(r"^#(?=[a-z]|  )", "", text, flags=re.MULTILINE)


def _written(value: Scalar) -> str:
    if value is None:
        return _TO_DO
    text = json.dumps(value, ensure_ascii=False)  # JSON's way of writing a text is YAML's too
    # YAML 1.1 reads 1e-06 as a text: it wants a point.
    return f" {text.replace('e', '.0e', 1)}" if isinstance(value, float) and "." not in text else f" {text}"
