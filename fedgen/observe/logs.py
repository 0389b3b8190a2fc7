"""Logs that a stranger may read: one line for an event, closed keys, no free text.

What other libraries log is reduced to who spoke and how loudly: their sentences hold addresses, paths, parameters of
queries and with them rows. A site's own incident file keeps the words (``state/incidents.jsonl``).
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from fedgen.observe.words import Fields, Role, Said, fitting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Unpack

Form = Literal["json", "text"]
Level = Literal["info", "warning", "error"]


class Logs:
    """Writes events of a closed vocabulary.

    Guarantees:
        - A line holds ``time``, ``level``, ``role``, ``event`` and keys of :data:`fedgen.observe.words.KEYS`;
          nothing else.
        - No text of an error, no address, no path and no message of another library is written.
        - A line is written whole; a stream that is closed or full never stops the caller.

    Args:
        role: Who speaks.
        form: ``json`` for machines, ``text`` for people.
        stream: Where to; None is standard error at the time of writing.
    """

    def __init__(self, role: Role, form: Form = "json", stream: TextIO | None = None) -> None:
        self.role: Role = role
        self.form: Form = form
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, event: Said, **fields: Unpack[Fields]) -> None:
        """Write an event that is as it should be."""
        self._write("info", event, fields)

    def warning(self, event: Said, **fields: Unpack[Fields]) -> None:
        """Write an event that somebody should know of."""
        self._write("warning", event, fields)

    def fault(self, event: Said, **fields: Unpack[Fields]) -> None:
        """Write an event that somebody has to do something about."""
        self._write("error", event, fields)

    @contextmanager
    def adopted(self) -> Iterator[None]:
        """Take over what the process logs, warns and dies of, for the length of the block: only classes and names stay.

        Handlers that libraries have set up are taken away, and put back at the end. A library that sets one up later,
        in the block, speaks for itself again.
        """
        root = logging.getLogger()
        known = [logging.getLogger(name) for name in list(root.manager.loggerDict)]
        before = [(it, list(it.handlers), it.propagate) for it in (root, *known)]
        level, died, thread_died = root.level, sys.excepthook, threading.excepthook
        for logger, _, _ in before:
            logger.handlers.clear()
            logger.propagate = True
        root.addHandler(_Foreign(self))
        root.setLevel(logging.WARNING)
        logging.captureWarnings(True)
        sys.excepthook, threading.excepthook = self._died, self._thread_died
        try:
            yield
        finally:
            sys.excepthook, threading.excepthook = died, thread_died
            logging.captureWarnings(False)
            root.setLevel(level)
            for logger, handlers, propagate in before:
                logger.handlers[:] = handlers
                logger.propagate = propagate

    def _died(self, _kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        self.fault(Said.FAULT, error=error)

    def _thread_died(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            self.fault(Said.FAULT, error=args.exc_value)

    def _write(self, level: Level, event: Said, fields: Any) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "role": self.role,
            "event": str(Said(event)),
            **fitting(fields),
        }
        if self.form == "json":
            text = json.dumps(line)
        else:
            rest = " ".join(f"{key}={value}" for key, value in list(line.items())[4:])
            text = f"{line['time']} {level} {line['event']} {rest}".rstrip()
        with self._lock, suppress(OSError, ValueError):
            stream = self._stream or sys.stderr
            stream.write(text + "\n")
            stream.flush()


class _Foreign(logging.Handler):
    """Says that a library spoke, and nothing of what it said."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        package = record.name.partition(".")[0]
        # A logger can be named after anything; a package that is loaded is code.
        fields: Fields = {"library": package if package in {*sys.modules, "py"} else "other"}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = record.exc_info[1]
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        self._logs._write(level, Said.LIBRARY, fields)  # noqa: SLF001 - the other half of one class
