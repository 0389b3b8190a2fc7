"""What can go wrong, drawn as a tree, with the exit code a script sees.

::

    FedgenError                 1    a defect: unexpected, asks for `fedgen doctor`
    ├── UsageError              2    the command line was off
    ├── ConfigError             3    a file we were given is wrong: file, line, key, hint
    │   └── DataError           3    a row, column or table does not fit its schema
    ├── Refused                 4    consent, policy or a site said no (a result, recorded)
    ├── BudgetExhausted         5    would exceed ε or δ; nothing was spent
    ├── IntegrityError          6    a signature, hash or ledger does not match
    ├── ReleaseRefused          7    the evidence did not satisfy the gate
    ├── QuorumLost              8    too few sites to go on; the last good model is kept
    ├── MissingExtra            9    names the exact install command
    └── Interrupted           130    state is settled; the run can be resumed

An error is one line a person can act on: what, where, how to mend it. What may leave a site is
only its :class:`Code`, never its text.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class Code(StrEnum):
    """The closed set of reasons that may travel between a site and a coordinator.

    A code carries no value derived from a row. Anything a site cannot name becomes ``FAULT``.
    """

    FAULT = "fault"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    UNKNOWN_SENDER = "unknown-sender"
    BAD_SIGNATURE = "bad-signature"
    BAD_SEAL = "bad-seal"
    WRONG_STUDY = "wrong-study"
    WRONG_RECIPIENT = "wrong-recipient"
    STALE_ROUND = "stale-round"
    REPLAYED = "replayed"
    OUT_OF_ORDER = "out-of-order"
    WRONG_SHAPE = "wrong-shape"
    NOT_FINITE = "not-finite"
    NOT_ADMITTED = "not-admitted"
    NOT_APPROVED = "not-approved"
    STUDY_REFUSED = "study-refused"
    CONSENT = "consent"
    COHORT_TOO_SMALL = "cohort-too-small"
    BUDGET = "budget"
    LEDGER = "ledger"
    DATA = "data"
    STORAGE = "storage"
    LATE = "late"
    DROPPED = "dropped"


def _plain(text: str) -> str:
    """Return text on one line, without what a terminal would obey or read backwards."""
    line = " ".join(text.split())
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line
    )


class FedgenError(Exception):
    """A fault with one line for a person: what, where, how to mend it.

    Guarantees:
        - ``str(error)`` is one line and never holds a value taken from a row.
        - ``exit_code`` is stable and promised in docs/reference/cli.md.

    Args:
        what: The fault, in one clause.
        where: A file, command or place, if there is one.
        line: One-based line in ``where``.
        key: The dotted key in ``where``.
        hint: How to mend it, in one clause.
    """

    exit_code: ClassVar[int] = 1
    site_code: ClassVar[Code] = Code.FAULT

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = _plain(what)
        self.where = None if where is None else str(where)
        self.line = line
        self.key = key
        self.hint = hint

    def __str__(self) -> str:
        """Return ``where:line: key: what (hint)`` on one line."""
        place = self.where or ""
        if place and self.line is not None:
            place += f":{self.line}"
        parts = [p for p in (place, self.key or "", self.what) if p]
        text = ": ".join(parts)
        # A key or a path is somebody else's text and may hold line breaks, or what commands a terminal.
        return _plain(f"{text} ({self.hint})" if self.hint else text)

    def diagnostics(self) -> dict[str, str | int]:
        """Return the parts that are set, for ``--json``."""
        parts: dict[str, str | int | None] = {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "line": self.line,
            "key": self.key,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }
        return {name: value for name, value in parts.items() if value is not None}


class UsageError(FedgenError):
    """The command line was off (exit 2)."""

    exit_code = 2


class ConfigError(FedgenError):
    """A study, site or schema file is wrong (exit 3)."""

    exit_code = 3
    site_code = Code.STUDY_REFUSED


class DataError(ConfigError):
    """A table does not fit its declared schema (exit 3)."""

    site_code = Code.DATA


class Refused(FedgenError):
    """Consent, policy or a site said no (exit 4): a result, not a fault.

    Args:
        what: The refusal in one clause.
        code: The reason that may leave the site.
        where: See :class:`FedgenError`.
        line: See :class:`FedgenError`.
        key: See :class:`FedgenError`.
        hint: See :class:`FedgenError`.
    """

    exit_code = 4
    site_code = Code.STUDY_REFUSED

    def __init__(
        self,
        what: str,
        *,
        code: Code = Code.STUDY_REFUSED,
        where: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what, where=where, line=line, key=key, hint=hint)
        self.code = code


class BudgetExhausted(FedgenError):
    """The next step would exceed ε or δ; nothing was spent (exit 5)."""

    exit_code = 5
    site_code = Code.BUDGET


class IntegrityError(FedgenError):
    """A signature, hash, seal or ledger does not match (exit 6).

    Args:
        what: What did not match.
        code: The reason that may travel.
        where: See :class:`FedgenError`.
        hint: See :class:`FedgenError`.
    """

    exit_code = 6
    site_code = Code.BAD_SIGNATURE

    def __init__(
        self,
        what: str,
        *,
        code: Code = Code.BAD_SIGNATURE,
        where: str | Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.code = code


class ReleaseRefused(FedgenError):
    """The evidence did not satisfy the release gate (exit 7)."""

    exit_code = 7


class QuorumLost(FedgenError):
    """Too few sites answered; the last good model is kept (exit 8)."""

    exit_code = 8


class MissingExtra(FedgenError):
    """An optional part of fedgen is not installed (exit 9).

    Args:
        extra: The extra that brings it, e.g. ``"sim"``.
        needed_for: What the user asked for.
    """

    exit_code = 9

    def __init__(self, extra: str, *, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an extra", hint=f"pip install 'fedgen[{extra}]'")
        self.extra = extra


class Interrupted(FedgenError):
    """Stopped by the user; everything is settled and can be resumed (exit 130)."""

    exit_code = 130


def code_of(error: BaseException) -> Code:
    """Return the one thing about ``error`` that may leave a site.

    Guarantees:
        - The result is a member of :class:`Code`; no text of ``error`` is in it.
        - An error this package did not raise itself is ``FAULT``.
    """
    if isinstance(error, (Refused, IntegrityError)):
        return error.code
    if isinstance(error, FedgenError):
        return error.site_code
    if isinstance(error, OSError):
        return Code.STORAGE
    return Code.FAULT


def errors_by_name() -> dict[str, type[FedgenError]]:
    """Return the errors that are made of what, where and hint alone, by name; inverse of ``diagnostics()["error"]``."""
    plain = (
        UsageError,
        ConfigError,
        DataError,
        Refused,
        BudgetExhausted,
        IntegrityError,
        QuorumLost,
        Interrupted,
    )
    return {kind.__name__: kind for kind in plain}
