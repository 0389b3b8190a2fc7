"""The consent log of a site, first version: who may be used, for what, as known now.

The log is a file a site keeps up to date by its own means; it is read whole, checked whole, and decided on
as a whole. A later version replaces the file by a store with the same question: :meth:`ConsentLog.decide`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from fedgen.policy.calendar import microseconds_of, moment_if_any
from fedgen.policy.fold import CONSENTED, NEVER, OTHER_PURPOSE, REASON_OF, SILENT, standing
from fedgen.policy.log_file import parse, read_bytes

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from fedgen.policy.fold import Events

Regime = Literal["opt-in", "opt-out"]
_MOST_ANSWERS: Final = 4096  # one per site and purpose of a large simulation


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Which rows may be used, and how many may not, by reason.

    Guarantees:
        - ``permitted.sum() + sum(reasons.values()) == len(permitted)``.

    Attributes:
        permitted: Shape ``(n,)``, read-only.
        reasons: A slug of :class:`fedgen.policy.reasons.Reason` to an exact count of rows. It stays at the
            site.
        until: The next instant at which the answer may change if no event is added; None if it cannot.
    """

    permitted: NDArray[np.bool_]
    reasons: dict[str, int]
    until: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Where each person stands from ``since`` until before ``until``, in microseconds since 1970."""

    standing: NDArray[np.uint8]
    since: int
    until: int

    def holds(self, now: int) -> bool:
        return self.since <= now < self.until


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """A decision, what it was made from, and its rows (held, so that their id stays theirs)."""

    subjects: NDArray[np.bytes_]
    state: _State
    decision: Decision


@dataclass(frozen=True, slots=True, eq=False)
class ConsentLog:
    """Every consent event a site knows; made by :meth:`read`.

    Attributes:
        events: The events as columns.
        path: Where they came from.
        digest: SHA-256 of the file's bytes, hex.
    """

    events: Events
    path: Path
    digest: str
    _instants: NDArray[np.int64] = field(init=False, repr=False)
    _states: dict[str, _State] = field(init=False, repr=False, default_factory=dict)
    _decisions: dict[tuple[str, str, int], _Answer] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_instants", self.events.instants())

    @classmethod
    def read(cls, path: str | Path) -> ConsentLog:
        """Return the log in a CSV (also ``.gz``), Parquet or JSON Lines file.

        Columns: ``subject``, ``purpose``, ``status``, ``recorded_at``, and optionally ``effective_at``
            (else as recorded) and ``expires_at`` (grants only; else never). Times are RFC 3339 with an
            offset, or Parquet instants with a zone.

        Guarantees:
            - All or nothing: one row that cannot be understood refuses the file, since it could be a
              withdrawal.
            - A message names file, column and row, never a value.

        Edge cases:
            ==================================  =======================================
            header only, or empty JSON Lines    a log in which nobody said anything
            ``expires_at`` on a restriction     ignored: a restriction does not lapse
            purpose ``*``                       every purpose; refused on a grant
            ==================================  =======================================

        Raises:
            DataError: The file is missing, unreadable, or any row is not understood.
        """
        where = Path(path)
        content = read_bytes(where)
        return cls(events=parse(content, where), path=where, digest=hashlib.sha256(content).hexdigest())

    def reread(self) -> ConsentLog:
        """Return the log as its file is now: this very object if not a byte has changed.

        Raises:
            DataError: As :meth:`read`.
        """
        content = read_bytes(self.path)
        digest = hashlib.sha256(content).hexdigest()
        if digest == self.digest:
            return self
        return ConsentLog(events=parse(content, self.path), path=self.path, digest=digest)

    def decide(
        self, subjects: NDArray[np.bytes_], purpose: str, at: datetime, regime: Regime = "opt-in"
    ) -> Decision:
        """Return which rows may be used for ``purpose``, as known at ``at``.

        Guarantees:
            - ``opt-in``: a row is permitted only on a live grant for exactly this purpose.
            - ``opt-out``: a row is permitted unless the person restricted the use, or limited it in time
              and the time is over; a grant later in both clocks lifts a restriction.
            - Rows of one person are decided alike.
            - The same question for the same array is answered from memory until ``until``.

        Edge cases:
            ==============  ======================
            no rows         an empty decision
            unknown person  as one who said nothing
            ==============  ======================

        Args:
            subjects: The person of each row, shape ``(n,)``, bytes; not changed afterwards.
            purpose: The purpose, compared exactly.
            at: The instant, with a time zone; it serves as the instant of knowledge, too.
            regime: What silence means.

        Raises:
            ValueError: ``at`` has no time zone, ``subjects`` is not bytes, or the regime is unknown.
        """
        if regime not in get_args(Regime):
            raise ValueError(f"regime must be opt-in or opt-out, not {regime!r}")
        if subjects.dtype.kind != "S" or subjects.ndim != 1:
            raise ValueError("subjects must be a one-dimensional array of bytes")
        state = self._state(purpose, microseconds_of(at))
        key = (purpose, regime, id(subjects))
        known = self._decisions.get(key)
        if known is not None and known.state is state:
            return known.decision
        if len(self._decisions) >= _MOST_ANSWERS:
            self._decisions.clear()
        decision = self._decide(subjects, state, regime)
        self._decisions[key] = _Answer(subjects, state, decision)
        return decision

    def _state(self, purpose: str, now: int) -> _State:
        """Return where people stand for ``purpose``, from memory while it holds."""
        known = self._states.get(purpose)
        if known is not None and known.holds(now):
            return known
        place = int(np.searchsorted(self._instants, now, side="right"))
        until = int(self._instants[place]) if place < len(self._instants) else NEVER
        state = _State(standing=standing(self.events, purpose, now), since=now, until=until)
        self._states[purpose] = state
        return state

    def _decide(self, subjects: NDArray[np.bytes_], state: _State, regime: Regime) -> Decision:
        """Answer afresh for these rows."""
        people = self.events.people
        outcomes = np.append(state.standing, np.uint8(SILENT))
        place = np.searchsorted(people, subjects)
        place[place == len(people)] = 0
        known = people[place] == subjects if len(people) else np.zeros(len(subjects), dtype=bool)
        outcome = outcomes[np.where(known, place, len(people))]
        allowed = [CONSENTED] if regime == "opt-in" else [CONSENTED, SILENT, OTHER_PURPOSE]
        permitted = np.isin(outcome, allowed)
        permitted.setflags(write=False)
        counts = np.bincount(outcome[~permitted], minlength=len(REASON_OF))
        reasons = {str(reason): int(n) for reason, n in zip(REASON_OF, counts, strict=True) if reason and n}
        return Decision(permitted=permitted, reasons=reasons, until=moment_if_any(state.until))
