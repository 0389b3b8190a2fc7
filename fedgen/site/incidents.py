"""The site's own log of what went wrong. The peer learns a code and a number; the rest stays here."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.errors import Code

_TEXT_LIMIT = 2000


class IncidentLog:
    """Appends incidents to a file only the site can read.

    Guarantees:
        - The returned number says nothing about the error.
        - A log that cannot be written never stops the site from refusing.

    Args:
        path: JSON Lines file, created with mode 0600; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def record(self, code: Code, error: BaseException, *, round_number: int) -> str:
        """Write one incident and return its number, 16 hex digits."""
        incident = secrets.token_hex(8)
        if self._path is None:
            return incident
        # The text of the error and the places it passed; locals, and with them rows, are never formatted.
        frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        line = json.dumps(
            {
                "incident": incident,
                "time": datetime.now(UTC).isoformat(),
                "code": str(code),
                "round": round_number,
                "error": type(error).__name__,
                "text": str(error)[:_TEXT_LIMIT],
                "frames": frames[-8:],
            },
            ensure_ascii=False,
        )
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8") as log:
                log.write(line + "\n")
        return incident
