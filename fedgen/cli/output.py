"""How results and progress look: plain in a pipe, calm on a terminal, one JSON document with ``--json``."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from fedgen.errors import Code
from fedgen.events import RoundFinished, SiteRefused, StudyFinished, StudyStarted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedgen.events import Event


def emit(document: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Write the result to stdout: exactly one JSON document, or ``text``."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) if as_json else text.rstrip("\n"))
    sys.stdout.write("\n")


def say(line: str) -> None:
    """Write one line of conversation to stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "  ") -> str:
    """Return rows as left-aligned columns."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)


class Progress:
    """Shows four numbers while a run goes on: round, sites, ε spent of ε allowed, time left.

    On a terminal one line is rewritten; in a pipe a line is printed at most every ``every`` seconds.
    """

    def __init__(self, *, every: float = 5.0) -> None:
        self._every = every
        self._terminal = sys.stderr.isatty()
        self._first = 1
        self._rounds = 1
        self._started = time.monotonic()
        self._last = 0.0
        self._study = ""
        self._refused: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Watch one event."""
        if isinstance(event, StudyStarted):
            self._first, self._rounds = event.first_round, event.rounds
            self._study = event.study_hash[:8]
            self._started = time.monotonic()
            resumed = f"   resumed at round {event.first_round}" if event.first_round > 1 else ""
            say(f"study  {event.study}  {event.study_hash[:8]}   {event.sites} sites{resumed}")
        elif isinstance(event, SiteRefused):
            self._refused[event.code] = self._refused.get(event.code, 0) + 1
            if event.round == 0:  # the roll call: a person may have to do something before a round begins
                clear = "\r\x1b[2K" if self._terminal else ""
                say(f"{clear}without  {event.site}: {event.code}{self._word_for(event.code)}")
        elif isinstance(event, RoundFinished):
            self._round(event)
        elif isinstance(event, StudyFinished):
            if self._terminal:
                say("")
            counts = ", ".join(f"{code} x{count}" for code, count in sorted(self._refused.items()))
            say(
                f"{event.outcome}  after {event.rounds} rounds" + (f"   refusals: {counts}" if counts else "")
            )

    def _word_for(self, code: Code) -> str:
        """Return who does what about a site that does not take part, where one sentence says it."""
        if code is Code.NOT_APPROVED:
            return f" (its owner decides there: fedgen site approve {self._study})"
        if code is Code.NOT_ADMITTED:
            return " (it has to join with the newest invitation, or its daemon to be started again)"
        return ""

    def _round(self, event: RoundFinished) -> None:
        now = time.monotonic()
        if not self._terminal and event.round != self._rounds and now - self._last < self._every:
            return
        self._last = now
        done = max(1, event.round - self._first + 1)
        left = (now - self._started) / done * (self._rounds - event.round)
        line = f"round  {event.round}/{self._rounds}   sites {event.sites}/{event.roster}   {spent(event)}"
        line += f"   about {duration(left)} left" if event.round < self._rounds else ""
        if self._terminal:
            sys.stderr.write(f"\r\x1b[2K{line}")
            sys.stderr.flush()
        else:
            say(line)


def spent(event: RoundFinished) -> str:
    """Return what was spent of what is allowed; the figures come from the privacy plan."""
    from fedgen.privacy.statement import short_spent

    return short_spent(event.epsilon, event.allowed)


def duration(seconds: float) -> str:
    """Return a duration a person reads at a glance."""
    if seconds < 90:  # noqa: PLR2004 - below this, seconds read better
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
