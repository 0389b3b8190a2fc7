"""Until when a checkpoint or a release may stay, and what is decided when somebody asks whether it still may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from fedgen.policy.calendar import Period, add
from fedgen.policy.codes import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

# What a run's own files fall under where nothing says otherwise: two years, the default rule of the packs.
OWN_RULE: Final = Period(months=24, days=0)
OWN_ZONE: Final = "UTC"


def retain_until(
    born: int,
    *,
    own: Period = OWN_RULE,
    zone: str = OWN_ZONE,
    contributing: Iterable[int] = (),
    anonymous: bool = False,
) -> int:
    """Return the first instant at which an artefact may no longer stay.

    Guarantees:
        - Never later than the artefact's own rule says.
        - Never later than the earliest end among the records that went into it, unless it was shown to be anonymous.

    Args:
        born: When it was made, microseconds since 1970 in UTC.
        own: The rule for artefacts of its kind.
        zone: By whose clocks the rule runs.
        contributing: Ends of retention of what went into it, microseconds since 1970.
        anonymous: Whether an assessment showed it to be anonymous.

    Source: GDPR Art. 5(1)(e); POLICY 6.7.
    """
    end = add(born, own, ZoneInfo(zone))
    return end if anonymous else min([end, *contributing])


def artefact_code(until: int, at: int, *, held: bool, revoked: bool = False, anonymous: bool = False) -> Code:
    """Return whether an artefact may stay stored at ``at``: legal hold, then retention, then lineage (S7).

    Edge cases:
        - At the bound it is over (S4).

    Args:
        until: Its ``retain_until``.
        at: The instant, microseconds since 1970.
        held: Whether a legal hold covers it.
        revoked: Whether a revoked person is behind it.
        anonymous: Whether an assessment that counts now showed it to be anonymous.
    """
    if held:
        return Code.LEGAL_HOLD_RETAIN
    if until <= at:
        return Code.ARTEFACT_RETENTION_EXPIRED
    if revoked and not anonymous:
        return Code.ARTEFACT_LINEAGE_REVOKED
    return Code.ALLOW
