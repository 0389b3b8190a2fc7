"""From consent events to where each person stands: pure, vectorised, order-free.

Two clocks: ``effective`` is when the person's word holds, ``recorded`` when it became known here. The rules:

1. An event exists at ``at`` once it is recorded. A restriction acts from the earlier of its two clocks, a
   grant from the later. (So a known restriction acts at once, and a grant never before both clocks have
   come.)
2. A grant holds against a restriction only if it is strictly later in *both* clocks. A device whose clock
   runs fast, or a message that arrives late, cannot revive a consent.
3. A grant ends at ``expires``: at that instant it is over. A newer grant replaces an older one, so an
   expired grant also ends every grant that acted no later than it did.
4. Ties go to the restriction, and to the grant that ends sooner.

Rules 2 and 3 never let a restriction help: adding one only takes grants away.

Source: the as-known-then reading of two clocks follows Snodgrass (1999), "Developing Time-Oriented Database
Applications in SQL"; GDPR Art. 7(1) and 7(3) put the burden of proof on the one who relies on
consent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.reasons import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER: Final = np.iinfo(np.int64).max
_LONG_AGO: Final = np.iinfo(np.int64).min
EVERY_PURPOSE: Final = "*"


class Status(IntEnum):
    """What a person said; all but ``GRANTED`` restrict, and of two at once the greater names the reason."""

    GRANTED = 0
    EXPIRED = 1
    INVALIDATED = 2
    REFUSED = 3
    WITHDRAWN = 4
    OBJECTED = 5


CONSENTED: Final = 0
SILENT: Final = 6
OTHER_PURPOSE: Final = 7
REASON_OF: Final[tuple[Reason | None, ...]] = (
    None,
    Reason.CONSENT_EXPIRED,
    Reason.CONSENT_INVALIDATED,
    Reason.CONSENT_REFUSED,
    Reason.CONSENT_WITHDRAWN,
    Reason.OBJECTED,
    Reason.CONSENT_MISSING,
    Reason.PURPOSE_NOT_CONSENTED,
)


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Consent events as columns of equal length ``m``; instants are microseconds since 1970 in UTC.

    Attributes:
        people: Sorted, distinct identifiers, shape ``(u,)``, bytes.
        purposes: Distinct purposes; ``"*"`` stands for every purpose and is used by restrictions only.
        subject: Index into ``people``, shape ``(m,)``.
        purpose: Index into ``purposes``, shape ``(m,)``.
        status: A :class:`Status`, shape ``(m,)``, uint8.
        recorded: When the event became known, shape ``(m,)``, int64.
        effective: When it holds from by its own account, shape ``(m,)``, int64.
        expires: When a grant is over, :data:`NEVER` if it does not end, shape ``(m,)``, int64.
    """

    people: NDArray[np.bytes_]
    purposes: tuple[str, ...]
    subject: NDArray[np.int64]
    purpose: NDArray[np.int64]
    status: NDArray[np.uint8]
    recorded: NDArray[np.int64]
    effective: NDArray[np.int64]
    expires: NDArray[np.int64]

    def instants(self) -> NDArray[np.int64]:
        """Return, sorted, every instant at which any person's standing may change."""
        ends = self.expires[self.expires != NEVER]
        return np.unique(np.concatenate((self.recorded, self.effective, ends)))


def standing(events: Events, purpose: str, at: int) -> NDArray[np.uint8]:
    """Return where each person of ``events.people`` stands for ``purpose``, as known at ``at``.

    Guarantees:
        - The order of the events, and repeating one, never matters.
        - An event recorded after ``at`` never matters.
        - Adding a restriction never turns anybody's standing into ``CONSENTED``.

    Edge cases:
        ===============================  =================
        no event, or none acting yet     ``SILENT``
        a grant for another purpose only ``OTHER_PURPOSE``
        ===============================  =================

    Args:
        events: The log.
        purpose: Compared exactly.
        at: Microseconds since 1970 in UTC.

    Returns:
        An index into :data:`REASON_OF` for each person, shape ``(u,)``, uint8.
    """
    who, grant = events.subject, events.status == Status.GRANTED
    acting = np.where(
        grant,
        np.maximum(events.effective, events.recorded),
        np.minimum(events.effective, events.recorded),
    )
    live = (events.recorded <= at) & (acting <= at)
    named = np.array([p == purpose for p in events.purposes], dtype=bool)
    every = np.array([p == EVERY_PURPOSE for p in events.purposes], dtype=bool)
    here = live & (named[events.purpose] | (~grant & every[events.purpose]))
    bar, grants = here & ~grant, here & grant

    bar_effective = _latest(events, bar, events.effective)
    bar_recorded = _latest(events, bar, events.recorded)
    later = grants & (events.effective > bar_effective[who]) & (events.recorded > bar_recorded[who])
    lapsed = grants & (events.expires <= at)
    replaced = acting <= _latest(events, lapsed, acting)[who]

    result = np.full(len(events.people), SILENT, dtype=np.uint8)
    result[who[live & grant & ~here]] = OTHER_PURPOSE
    result[who[lapsed]] = Status.EXPIRED
    newest = bar & (acting == _latest(events, bar, acting)[who])
    worst = _latest(events, newest, events.status.astype(np.int64))
    barred = worst != _LONG_AGO
    result[barred] = worst[barred]
    result[who[later & (lapsed | replaced)]] = Status.EXPIRED
    result[who[later & ~lapsed & ~replaced]] = CONSENTED
    return result


def _latest(events: Events, chosen: NDArray[np.bool_], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the greatest chosen value of each person, or the least int64."""
    result = np.full(len(events.people), _LONG_AGO, dtype=np.int64)
    np.maximum.at(result, events.subject[chosen], values[chosen])
    return result
