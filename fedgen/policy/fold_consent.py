"""From consent events to the state of each person, for one purpose at one instant (S1, S2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedgen.policy.columns import (
    EVERY_PURPOSE,
    LONG_AGO,
    NEVER,
    NULL,
    UNKNOWN,
    Action,
    ConsentEvents,
    GivenBy,
    Request,
)
from fedgen.policy.fold_parts import OPERATIVE, OTHER_PURPOSE, SILENT, Flag, first_after, latest, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Consents:
    """Consent states in the order of the table's people, and when the next event acts or a consent ends."""

    consent: NDArray[np.uint8]
    acting: NDArray[np.int64]
    valid_until: NDArray[np.int64]
    notice: NDArray[np.int32]
    next_change: int


def fold_consents(
    events: ConsentEvents,
    request: Request,
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    flags: NDArray[np.uint32],
) -> Consents:
    """Fold consent events into the state for the request's purpose, per person of the table."""
    index, place = places
    own = _Folded.of(events, request)
    size = len(flags)
    consent = np.full(size, SILENT, dtype=np.uint8)
    acting, until = np.full(size, LONG_AGO, dtype=np.int64), np.full(size, NEVER, dtype=np.int64)
    notice = np.full(size, NULL, dtype=np.int32)
    if np.bincount(place, minlength=1).max() <= 1:  # the usual case: one name, one person
        consent[place], acting[place] = own.consent[index], own.acting[index]
        until[place], notice[place] = own.valid_until[index], own.notice[index]
        flags[place] |= own.flags[index]
        return Consents(consent, acting, until, notice, own.next_change)
    merged = _Folded.of(_renamed(events, index, place, size), request)
    flags[:] |= merged.flags
    return Consents(merged.consent, merged.acting, merged.valid_until, merged.notice, merged.next_change)


def _renamed(
    events: ConsentEvents, index: NDArray[np.int64], place: NDArray[np.int64], size: int
) -> ConsentEvents:
    """Return the events with the table's places as subjects, once for each name that means the same person."""
    row, subject = spread(events.subject, len(events.people), index, place)
    return ConsentEvents(
        people=np.zeros(size, dtype="S1"),
        purposes=events.purposes,
        subject=subject,
        purpose=events.purpose[row],
        action=events.action[row],
        explicit=events.explicit[row],
        given_by=events.given_by[row],
        notice_version=events.notice_version[row],
        effective=events.effective[row],
        recorded=events.recorded[row],
        valid_until=events.valid_until[row],
        seq=events.seq[row],
        event_id=events.event_id,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Folded:
    """Consent states in the order of the events' people."""

    consent: NDArray[np.uint8]
    acting: NDArray[np.int64]
    valid_until: NDArray[np.int64]
    notice: NDArray[np.int32]
    flags: NDArray[np.uint32]
    next_change: int

    @classmethod
    def of(cls, events: ConsentEvents, request: Request) -> _Folded:
        people, at = len(events.people), request.time
        seen = events.recorded <= request.horizon
        grants = events.action <= Action.RENEWED
        acts = np.where(
            grants,
            np.maximum(events.effective, events.recorded),
            np.minimum(events.effective, events.recorded),
        )
        strange = (events.action == UNKNOWN) | (events.given_by == UNKNOWN)
        live = seen & (acts <= at) & ~strange
        flags = np.zeros(people, dtype=np.uint32)
        flags[events.subject[seen & strange]] |= np.uint32(Flag.MALFORMED)
        named = np.array([p == request.purpose for p in events.purposes] or [False], dtype=bool)
        every = np.array([p == EVERY_PURPOSE for p in events.purposes] or [False], dtype=bool)
        here = live & (named[events.purpose] | (~grants & every[events.purpose]))
        group = _Group.of(events, acts, grants, here, events.subject, people)
        consent = group.state
        other = np.zeros(people, dtype=bool)
        other[events.subject[live & grants & ~named[events.purpose]]] = True
        consent[(consent == SILENT) & other] = OTHER_PURPOSE
        flags[group.explicit] |= np.uint32(Flag.EXPLICIT)
        flags[group.by_parent] |= np.uint32(Flag.BY_PARENT)
        flags[group.blocked] |= np.uint32(Flag.NEEDS_RECONFIRMATION)
        if request.operation == "retain":
            _of_any_purpose(events, acts, grants, live, every, at, flags)
        later = first_after(acts[seen], at)
        if request.known_at is None:
            later = min(later, first_after(events.recorded, at))
        later = min(later, first_after(events.valid_until[live & grants], at))
        return cls(consent, group.acting, group.valid_until, group.notice, flags, later)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """What holds in each group of events: a person, or a person and a purpose."""

    state: NDArray[np.uint8]
    acting: NDArray[np.int64]
    valid_until: NDArray[np.int64]
    notice: NDArray[np.int32]
    explicit: NDArray[np.bool_]
    by_parent: NDArray[np.bool_]
    blocked: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        events: ConsentEvents,
        acts: NDArray[np.int64],
        grants: NDArray[np.bool_],
        here: NDArray[np.bool_],
        group: NDArray[np.integer],
        groups: int,
    ) -> _Group:
        rows = np.flatnonzero(here)
        who, acts_at = group[rows], acts[rows]
        bar = ~grants[rows]
        effective, recorded = events.effective[rows], events.recorded[rows]
        bar_effective = latest(groups, who, effective, bar)
        bar_recorded = latest(groups, who, recorded, bar)
        counts = ~bar & (effective > bar_effective[who]) & (recorded > bar_recorded[who])
        state = np.full(groups, SILENT, dtype=np.uint8)
        last = bar & (acts_at == latest(groups, who, acts_at, bar)[who])
        word = np.zeros(groups, dtype=np.uint8)
        np.maximum.at(word, who[last], events.action[rows][last])
        state[who[last]] = word[who[last]]
        blocked = np.zeros(groups, dtype=bool)
        # A word given later, and overtaken by an older restriction that was recorded after it.
        blocked[who[~bar & (effective > bar_effective[who])]] = True
        acting = latest(groups, who, acts_at, counts)
        chosen = counts & (acts_at == acting[who])
        mine, picked = who[chosen], rows[chosen]
        until, notice = np.full(groups, NEVER, dtype=np.int64), np.full(groups, np.iinfo(np.int32).max)
        explicit, by_parent = np.zeros(groups, dtype=bool), np.zeros(groups, dtype=bool)
        explicit[mine] = by_parent[mine] = True
        np.minimum.at(until, mine, events.valid_until[picked])
        np.minimum.at(notice, mine, events.notice_version[picked])
        explicit[mine[~events.explicit[picked]]] = False
        by_parent[mine[events.given_by[picked] != GivenBy.PARENT]] = False
        state[mine] = OPERATIVE
        blocked[mine] = False
        state_notice = np.where(state == OPERATIVE, notice, NULL).astype(np.int32)
        return cls(state, acting, until, state_notice, explicit, by_parent, blocked)


def _of_any_purpose(
    events: ConsentEvents,
    acts: NDArray[np.int64],
    grants: NDArray[np.bool_],
    live: NDArray[np.bool_],
    every: NDArray[np.bool_],
    at: int,
    flags: NDArray[np.uint32],
) -> None:
    """Set, per person, whether a consent for any purpose still holds, and whether one for any was withdrawn."""
    withdrawn = np.zeros(len(flags), dtype=bool)
    held = np.zeros(len(flags), dtype=bool)
    wide = ~grants & every[events.purpose]
    for purpose in range(len(events.purposes)):
        if every[purpose]:
            continue
        here = live & ((events.purpose == purpose) | wide)
        group = _Group.of(events, acts, grants, here, events.subject, len(flags))
        held |= (group.state == OPERATIVE) & (group.valid_until > at)
        withdrawn |= group.state == Action.WITHDRAWN
    if every.any():
        group = _Group.of(events, acts, grants, live & wide, events.subject, len(flags))
        withdrawn |= group.state == Action.WITHDRAWN
    flags[held] |= np.uint32(Flag.CONSENT_FOR_ANY)
    flags[withdrawn] |= np.uint32(Flag.WITHDREW_ANY)
