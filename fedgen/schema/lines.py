"""Where each key of a file stands: the path of a key, and its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Key: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """Where each key and list item of a file stands.

    Args:
        places: Path of keys and list positions to one-based line; empty where the format has no lines.
    """

    places: Mapping[Key, int] = field(default_factory=dict)

    def of(self, path: Key) -> int | None:
        """Return the line of ``path``, else of its nearest parent in the file, else None."""
        for size in range(len(path), -1, -1):
            line = self.places.get(tuple(path[:size]))
            if line is not None:
                return line
        return None


def dotted(path: Key) -> str:
    """Return ``("columns", 0, "min")`` as ``columns.0.min``."""
    return ".".join(str(part) for part in path)
