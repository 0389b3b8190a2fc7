"""The gate: the only place that lets rows through to training.

A :class:`PermittedTable` is what a learner reads, and :func:`permit` is the only way to get one. Whoever
holds one can therefore rely on it that consent was asked for each row and that the cohort is large enough
to hide in. Counts of who was left out are exact and stay at the site; what leaves is bucketed
(:func:`fedgen.messages.bucket`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from fedgen.data.growing import GrowingArray
from fedgen.errors import Code, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fedgen.data.encoded import EncodedTable
    from fedgen.policy.consent import Decision
    from fedgen.schema.codec import Codes

    Subjects = NDArray[np.bytes_]

_TOKEN: Final = object()
_CHUNK_ROWS: Final = 65_536


class PermittedTable:
    """Rows that may be used now; made by :func:`permit` only.

    Guarantees:
        - Neither rows nor counts can be changed, and the table cannot be pickled or copied past the gate.

    Attributes:
        codes: Shape ``(n, width)``, read-only.
        subjects: Whose each of these rows is, shape ``(n,)``, read-only; None where the table does not say.
        excluded: Reason to the exact number of rows left out. It stays at the site.

    Raises:
        TypeError: It is made by anybody else.
    """

    __slots__ = ("_codes", "_excluded", "_subjects")

    def __init__(
        self,
        codes: Codes,
        excluded: dict[str, int],
        subjects: Callable[[], Subjects | None] = lambda: None,
        *,
        token: object = None,
    ) -> None:
        if token is not _TOKEN:
            raise TypeError("a PermittedTable is made by fedgen.data.gate.permit only")
        self._codes = codes
        self._excluded = excluded
        self._subjects = subjects

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("a PermittedTable is made by fedgen.data.gate.permit only")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PermittedTable stays in the process that was permitted to use it")

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def codes(self) -> Codes:
        """The rows' codes."""
        return self._codes

    @property
    def subjects(self) -> Subjects | None:
        """Whose each row is; taken from the table when asked, because only some studies need it."""
        return self._subjects()

    @property
    def excluded(self) -> dict[str, int]:
        """Reason to number of rows; a copy."""
        return dict(self._excluded)


def permit(table: EncodedTable, decision: Decision | None, *, min_cohort: int) -> PermittedTable:
    """Return the rows of ``table`` that ``decision`` permits.

    Guarantees:
        - No row outside of ``decision.permitted`` is in the result, and every row inside it is, in order.
        - The cohort is counted in persons where the table says whose each row is, else in rows.
        - Without a need to leave rows out nothing is copied; rows on disk are copied to disk, not to memory.
        - No message holds a count.

    Edge cases:
        =======================  ==========================================
        ``decision`` = None      consent is not the ground: every row
        nobody permitted         refused (``consent``), before the cohort
        ``min_cohort`` = 0       any number of rows but zero
        =======================  ==========================================

    Args:
        table: All rows of the site.
        decision: Which rows may be used, or None if no consent is needed.
        min_cohort: Fewest persons to train on, at least zero.

    Raises:
        Refused: Nobody is permitted (code ``consent``), or too few are (code ``cohort-too-small``).
        ValueError: The decision is not of these rows, or ``min_cohort`` is negative.
    """
    if min_cohort < 0:
        raise ValueError(f"min_cohort must be at least zero, not {min_cohort}")
    if decision is not None and decision.permitted.shape != (len(table),):
        raise ValueError("the decision is not of the rows of this table")
    chosen = None if decision is None else np.flatnonzero(decision.permitted)
    rows = len(table) if chosen is None else len(chosen)
    if not rows:
        code = Code.CONSENT if decision is not None and len(table) else Code.COHORT_TOO_SMALL
        raise Refused("no row may be used", code=code, hint="the site's log counts the reasons")
    if not _reaches(table, chosen, min_cohort):
        hint = f"the site asks for {min_cohort} persons"
        raise Refused("too few persons to hide among", code=Code.COHORT_TOO_SMALL, hint=hint)
    excluded = {} if decision is None else dict(decision.reasons)
    return PermittedTable(
        _take(table.codes, chosen), excluded, lambda: _whose(table.subjects, chosen), token=_TOKEN
    )


def _whose(subjects: Subjects | None, chosen: np.ndarray[Any, Any] | None) -> Subjects | None:
    """Return the subjects of the chosen rows, read-only."""
    if subjects is None:
        return None
    result = subjects[:] if chosen is None else subjects[chosen]
    result.setflags(write=False)
    return result


def _reaches(table: EncodedTable, chosen: np.ndarray[Any, Any] | None, least: int) -> bool:
    """Say whether there are ``least`` persons; looks at more rows only as long as it is not sure."""
    rows = len(table) if chosen is None else len(chosen)
    if rows < least or table.subjects is None:
        return rows >= least
    seen = min(rows, 2 * least)
    while True:
        some = table.subjects[:seen] if chosen is None else table.subjects[chosen[:seen]]
        if len(np.unique(some)) >= least:
            return True
        if seen == rows:
            return False
        seen = min(rows, 2 * seen)


def _take(codes: Codes, chosen: np.ndarray[Any, Any] | None) -> Codes:
    """Return the chosen rows, read-only."""
    result: Codes
    if chosen is None or len(chosen) == len(codes):
        result = codes[:]
    elif isinstance(codes, np.memmap):
        growing = GrowingArray(codes.dtype, codes.shape[1:])
        for start in range(0, len(chosen), _CHUNK_ROWS):
            growing.append(codes[chosen[start : start + _CHUNK_ROWS]])
        result = growing.finish()
    else:
        result = codes[chosen]
    result.setflags(write=False)
    return result
