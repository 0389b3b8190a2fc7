"""The closed vocabulary of observation: what may be said, under which keys, and what each key lets through."""

from __future__ import annotations

import math
import re
import sys
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from fedgen.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Role = Literal["site", "coordinator"]
Scalar = str | int | float
REDACTED: Final = "redacted"
_STUDY: Final = re.compile(r"[0-9a-f]{64}")
_RUN: Final = re.compile(r"[0-9a-f]{16,64}")
_SITE: Final = re.compile(r"(?=.*[a-z])[a-z0-9][a-z0-9-]{0,62}")  # digits alone would be somebody's number
_INCIDENT: Final = re.compile(r"[0-9a-f]{16}")
_VERSION: Final = re.compile(r"[0-9]{1,4}\.[0-9a-z.+]{1,27}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LARGEST: Final = 2**53 - 1
STUDY_SHOWN: Final = 12


class Reason(StrEnum):
    """Why a daemon is not ready; the only thing that ``/ready`` says beside yes or no."""

    STARTING = "starting"
    STOPPING = "stopping"
    FAULT = "fault"
    WARMING = "warming"
    DATA_UNREACHABLE = "data-unreachable"
    LEDGER_CLOSED = "ledger-closed"
    CONSENT_STORE_STALE = "consent-store-stale"
    KEYS_MISSING = "keys-missing"
    NOT_JOINED = "not-joined"
    DISK_FULL = "disk-full"
    STATE_UNREACHABLE = "state-unreachable"
    SUPERLINK_DOWN = "superlink-down"
    SUPEREXEC_DOWN = "superexec-down"
    PROXY_DOWN = "proxy-down"
    NODES_MISSING = "nodes-missing"
    CERTIFICATE_EXPIRED = "certificate-expired"


class Door(StrEnum):
    """Why something was turned away before a byte of it was understood."""

    SIZE = "size"
    BUSY = "busy"
    RATE = "rate"
    USER = "user"
    TIMEOUT = "timeout"
    MAGIC = "magic"


class Outcome(StrEnum):
    """How a round, or a whole study, ended."""

    TRAINED = "trained"
    REFUSED = "refused"
    FINISHED = "finished"
    FAILED = "failed"
    COMPLETED = "completed"
    BUDGET = "budget"
    QUORUM = "quorum"
    INTERRUPTED = "interrupted"


class Child(StrEnum):
    """A process that a supervisor looks after."""

    SUPERLINK = "superlink"
    SUPEREXEC = "superexec"
    SUPERNODE = "supernode"
    PROXY = "nginx"
    RELAY = "relay"
    COORDINATOR = "coordinator"


class Said(StrEnum):
    """The events of a log."""

    STARTED = "started"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    JOINED = "joined"
    ROUND_TRAINED = "round-trained"
    ROUND_FINISHED = "round-finished"
    REFUSED = "refused"
    TURNED_AWAY = "turned-away"
    APPROVAL_PENDING = "approval-pending"
    APPROVED = "approved"
    REVOKED = "revoked"
    SITE_LATE = "site-late"
    SITE_LOST = "site-lost"
    RESUMED = "resumed"
    STUDY_STARTED = "study-started"
    STUDY_FINISHED = "study-finished"
    CHILD_STARTED = "child-started"
    CHILD_ENDED = "child-ended"
    CHILD_RESTARTED = "child-restarted"
    ROTATED = "rotated"
    CERTIFICATE_EXPIRING = "certificate-expiring"
    WIPED = "wiped"
    LIBRARY = "library"
    FAULT = "fault"


class Fields(TypedDict, total=False):
    """What a log line or a span may carry; see :data:`KEYS` for what each key lets through."""

    study: str | None
    run: str | None
    round: int
    rounds: int
    attempt: int
    site: str
    sites: int
    kind: Enum
    code: Code | None
    incident: str | None
    seconds: float
    bytes: int
    epsilon: float | None
    outcome: Outcome | str
    reason: Reason
    door: Door
    child: Child | str
    status: int
    error: BaseException
    version: str
    library: str


def _matching(pattern: re.Pattern[str], shown: int | None = None) -> Callable[[Any], Scalar | None]:
    def fit(value: Any) -> Scalar | None:
        return value[:shown] if isinstance(value, str) and pattern.fullmatch(value) else None

    return fit


def _member(words: type[StrEnum]) -> Callable[[Any], Scalar | None]:
    known = {str(word) for word in words}

    def fit(value: Any) -> Scalar | None:
        return str(value) if isinstance(value, str) and str(value) in known else None

    return fit


def _whole(value: Any) -> Scalar | None:
    return int(value) if type(value) is int and abs(value) <= _LARGEST else None


def _figure(value: Any) -> Scalar | None:
    if type(value) not in {int, float} or not math.isfinite(value) or value < 0:
        return None
    return round(float(value), 6)


def _kind(value: Any) -> Scalar | None:
    return value.name.lower().replace("_", "-") if isinstance(value, Enum) else None


def _class(value: Any) -> Scalar | None:
    # The name of a class that a module holds is code; what the error says is not, and is never asked for.
    if not isinstance(value, BaseException):
        return None
    kind = type(value)
    held = getattr(sys.modules.get(kind.__module__), kind.__name__, None)
    return kind.__name__ if held is kind and _NAME.fullmatch(kind.__name__) else None


KEYS: Final[Mapping[str, Callable[[Any], Scalar | None]]] = {
    "study": _matching(_STUDY, STUDY_SHOWN),
    "run": _matching(_RUN, STUDY_SHOWN),
    "round": _whole,
    "rounds": _whole,
    "attempt": _whole,
    "site": _matching(_SITE),
    "sites": _whole,
    "kind": _kind,
    "code": _member(Code),
    "incident": _matching(_INCIDENT),
    "seconds": _figure,
    "bytes": _whole,
    "epsilon": _figure,
    "outcome": _member(Outcome),
    "reason": _member(Reason),
    "door": _member(Door),
    "child": _member(Child),
    "status": _whole,
    "error": _class,
    "version": _matching(_VERSION),
    "library": _matching(_NAME),
}


def fitting(fields: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return what of ``fields`` may be shown, in the order of :data:`KEYS`.

    Guarantees:
        - Only keys of :data:`KEYS` are in the result.
        - A value that its key does not let through becomes ``redacted``; None is left out.
        - Raises nothing, whatever the values are.
    """
    shown: dict[str, Scalar] = {}
    for key, fit in KEYS.items():
        value = fields.get(key)
        if value is None:
            continue
        try:
            kept = fit(value)
        except Exception:  # noqa: BLE001 - a hostile value may fail at being looked at, and is then not shown
            kept = None
        shown[key] = REDACTED if kept is None else kept
    return shown
