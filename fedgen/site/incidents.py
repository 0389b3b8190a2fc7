"""The site's own log of what went wrong. The peer learns a code and a number; the rest stays here."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.errors import Code

_TEXT_LIMIT: Final = 2000
_FRAMES: Final = 8
_MOST_BYTES: Final = 8 * 2**20


class IncidentLog:
    """Appends incidents to a file only the site can read.

    Guarantees:
        - The returned number says nothing about the error.
        - :meth:`record` raises nothing: a log that cannot be written, or an error that cannot be put in words,
          never stops the site from refusing.
        - Whoever makes it refuse all day fills no disk: beyond 8 MiB the file becomes ``<name>.1``, and the one
          that was called so goes.

    Args:
        path: JSON Lines file, created with mode 0600; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def record(self, code: Code, error: BaseException, *, round_number: int) -> str:
        """Write one incident and return its number, 16 hex digits."""
        incident = secrets.token_hex(8)
        if self._path is not None:
            with contextlib.suppress(Exception):
                _append(self._path, _line(incident, code, error, round_number))
        return incident


def _line(incident: str, code: Code, error: BaseException, round_number: int) -> bytes:
    """Return the text of the error and the places it passed; locals, and with them rows, are never formatted."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error may fail at its own description, and is still an incident
        text = "(cannot be put in words)"
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    entry = {
        "incident": incident,
        "time": datetime.now(UTC).isoformat(),
        "code": str(code),
        "round": round_number,
        "error": type(error).__name__,
        "text": text[:_TEXT_LIMIT],
        "frames": frames[-_FRAMES:],
    }
    # Text of foreign origin may hold half a surrogate pair, which UTF-8 has no bytes for.
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _append(path: Path, line: bytes) -> None:
    """Append one line to a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size >= _MOST_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "ab") as log:
        log.write(line)
