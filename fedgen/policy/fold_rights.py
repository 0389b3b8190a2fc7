"""From rights events to flags of each person, at one instant (S1, S2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.columns import NEVER, NULL, UNKNOWN, GivenBy, Request, Right, RightsEvents
from fedgen.policy.fold_parts import Flag, first_after, latest, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LIFTS: Final = frozenset(
    {
        Right.ERASURE_REQUEST_CANCELLED,
        Right.LEGAL_HOLD_RELEASED,
        Right.RESTRICTION_LIFTED,
        Right.OBJECTION_REJECTED,
        Right.OPT_IN_SALE_SHARE,
        Right.LIMIT_SENSITIVE_LIFTED,
    }
)


def fold_rights(
    events: RightsEvents,
    request: Request,
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    flags: NDArray[np.uint32],
) -> int:
    """Fold rights events into flags of the table's people; return the next instant at which one begins to act."""
    row, who = spread(events.subject, len(events.people), *places)
    if len(row) == 0:  # the usual case
        return NEVER
    kind, effective, recorded = events.kind[row], events.effective[row], events.recorded[row]
    lifts = np.isin(kind, [int(right) for right in _LIFTS])
    acts = np.where(lifts, np.maximum(effective, recorded), np.minimum(effective, recorded))
    seen = recorded <= request.horizon
    strange = (kind == UNKNOWN) | (events.given_by[row] == UNKNOWN)
    flags[who[seen & strange]] |= np.uint32(Flag.MALFORMED)
    live = seen & (acts <= request.time) & ~strange
    rights = _Rights(events, row, who, kind, acts, effective, recorded, live, len(flags))

    def mark(flag: Flag, mask: NDArray[np.bool_]) -> None:
        flags[mask] |= np.uint32(flag)

    mark(Flag.HOLD, rights.held())
    mark(Flag.ERASURE, rights.stands((Right.ERASURE_REQUEST,), Right.ERASURE_REQUEST_CANCELLED))
    mark(Flag.ERASURE_EXCEPTION, rights.latest_has_exception())
    mark(Flag.RESTRICTED, rights.stands((Right.RESTRICTION,), Right.RESTRICTION_LIFTED))
    purpose = [NULL, *(i for i, name in enumerate(events.scopes) if name == request.purpose)]
    mine = np.isin(events.scope[row], purpose)
    mark(Flag.OBJECTED, rights.stands((Right.OBJECTION,), Right.OBJECTION_REJECTED, mine))
    mark(Flag.EVER_OBJECTED, rights.stands((Right.OBJECTION,), None, mine))
    mark(Flag.LIMITED, rights.stands((Right.LIMIT_SENSITIVE,), Right.LIMIT_SENSITIVE_LIFTED))
    mark(Flag.ADMT_OPTED_OUT, rights.stands((Right.ADMT_OPT_OUT,), None))
    out, by_self, by_parent = rights.sale()
    mark(Flag.OPTED_OUT, out)
    mark(Flag.OPT_IN_BY_SELF, by_self)
    mark(Flag.OPT_IN_BY_PARENT, by_parent)
    later = first_after(acts[seen], request.time)
    return min(later, first_after(recorded, request.time)) if request.known_at is None else later


@dataclass(frozen=True, slots=True, eq=False)
class _Rights:
    """Rights events of the people of a table, and the questions about them."""

    events: RightsEvents
    row: NDArray[np.int64]
    who: NDArray[np.int64]
    kind: NDArray[np.uint8]
    acts: NDArray[np.int64]
    effective: NDArray[np.int64]
    recorded: NDArray[np.int64]
    live: NDArray[np.bool_]
    groups: int

    def _lifted(self, on: NDArray[np.bool_], off: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return, per event, whether it is a lift that is later in both clocks than every restriction in ``on``."""
        effective = latest(self.groups, self.who, self.effective, on)
        recorded = latest(self.groups, self.who, self.recorded, on)
        return off & (self.effective > effective[self.who]) & (self.recorded > recorded[self.who])

    def _any(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> NDArray[np.bool_]:
        result = np.zeros(self.groups, dtype=bool)
        result[self.who[chosen]] = True
        return result

    def stands(
        self,
        restricts: tuple[Right, ...],
        lift: Right | None,
        where: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Return, per person, whether a restriction of these kinds stands."""
        here = self.live if where is None else self.live & where
        on = here & np.isin(self.kind, restricts)
        result = self._any(on)
        if lift is not None:
            result &= ~self._any(self._lifted(on, here & (self.kind == lift)))
        return result

    def held(self) -> NDArray[np.bool_]:
        """Return, per person, whether a legal hold stands: each is of one matter, and released for that alone."""
        here = np.flatnonzero(
            self.live & ((self.kind == Right.LEGAL_HOLD) | (self.kind == Right.LEGAL_HOLD_RELEASED))
        )
        scope, scopes = self.events.scope[self.row[here]], len(self.events.scopes) + 1
        matters, matter = np.unique(self.who[here] * scopes + scope + 1, return_inverse=True)
        on = self.kind[here] == Right.LEGAL_HOLD
        effective = latest(len(matters), matter, self.effective[here], on)[matter]
        recorded = latest(len(matters), matter, self.recorded[here], on)[matter]
        lifted = ~on & (self.effective[here] > effective) & (self.recorded[here] > recorded)
        free = np.zeros(len(matters), dtype=bool)
        free[matter[lifted]] = True
        return self._any(here[on & ~free[matter]])

    def latest_has_exception(self) -> NDArray[np.bool_]:
        """Return, per person, whether every latest erasure request carries an exception."""
        on = self.live & (self.kind == Right.ERASURE_REQUEST)
        last = on & (self.acts == latest(self.groups, self.who, self.acts, on)[self.who])
        bare = last & (self.events.exception[self.row] == NULL)
        return self._any(last) & ~self._any(bare)

    def sale(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return, per person: opted out; opted in, by themselves; opted in, by a parent.

        A signal (GPC) gives way only to an opt-in that followed a notice of the conflict.
        """
        out, signal = (
            self.live & (self.kind == Right.OPT_OUT_SALE_SHARE),
            self.live & (self.kind == Right.GPC),
        )
        opt_in = self.live & (self.kind == Right.OPT_IN_SALE_SHARE)
        counts = self._lifted(out, self._lifted(signal, opt_in))
        answers = self.events.after_conflict_notice[self.row] | ~self._any(signal)[self.who]
        counts &= answers
        newest = counts & (self.acts == latest(self.groups, self.who, self.acts, counts)[self.who])
        by = self.events.given_by[self.row]
        in_ = self._any(newest)
        by_self = in_ & ~self._any(newest & (by != GivenBy.SUBJECT))
        by_parent = in_ & ~self._any(newest & (by != GivenBy.PARENT))
        return (self._any(out) | self._any(signal)) & ~in_, by_self, by_parent
