"""From events to where each person stands at one instant, as known at one instant: every word of the vocabulary.

What :mod:`fedgen.policy.fold` does for the consent log of a site, for consent and all rights (S1, S2):

1. An event exists if it was recorded by K. A restriction acts from the earlier of its clocks, a permission from the
later. 2. Of what acts by T, a permission counts only if it is strictly later in both clocks than every restriction
it answers. 3. The newest permission that counts is operative. Of several at one instant the least generous word
holds in each respect. 4. If none counts, the latest restriction decides; of several at one instant the greater
:class:`Action`.

Every step is a maximum or a conjunction, so the order of events, their identifiers and repetitions cannot matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedgen.policy.columns import NO_DAY, NULL, ConsentEvents, Request, RightsEvents, Subjects
from fedgen.policy.fold_consent import fold_consents
from fedgen.policy.fold_parts import OPERATIVE, OTHER_PURPOSE, SILENT, Flag
from fedgen.policy.fold_rights import fold_rights

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OPERATIVE", "OTHER_PURPOSE", "SILENT", "Flag", "Names", "Standing", "stand"]


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where each person of a table stands; one place more than people, for what belongs to no person.

    Attributes:
        people: The people asked about, shape ``(u,)``.
        flags: Bits of :class:`Flag`, uint32, shape ``(u + 1,)``.
        consent: A restrictive :class:`Action`, SILENT, OTHER_PURPOSE or OPERATIVE, uint8.
        acting: When the operative consent began to act, int64.
        valid_until: When it is over, int64; NEVER if it does not end.
        notice: Version of its notice, int32, or NULL.
        birth_day: Days since 1970, int32, or NO_DAY.
        residence: Index into ``countries``, int16, or NULL.
        zone: Index into ``zones``, int16, or NULL.
        countries: See :class:`~fedgen.policy.columns.Subjects`.
        zones: See there.
        next_change: The earliest instant after T at which an event begins to act or an operative consent ends.
    """

    people: NDArray[np.bytes_]
    flags: NDArray[np.uint32]
    consent: NDArray[np.uint8]
    acting: NDArray[np.int64]
    valid_until: NDArray[np.int64]
    notice: NDArray[np.int32]
    birth_day: NDArray[np.int32]
    residence: NDArray[np.int16]
    zone: NDArray[np.int16]
    countries: tuple[str, ...]
    zones: tuple[str, ...]
    next_change: int

    @property
    def needs_reconfirmation(self) -> NDArray[np.bool_]:
        """Which people agreed, and are blocked by a restriction that came late or lies later, shape ``(u,)``."""
        return np.asarray((self.flags[:-1] & np.uint32(Flag.NEEDS_RECONFIRMATION)) != 0)


def stand(
    people: NDArray[np.bytes_],
    consent: ConsentEvents,
    rights: RightsEvents,
    subjects: Subjects,
    request: Request,
) -> Standing:
    """Return where each of ``people`` stands for a request.

    Guarantees:
        - The order of the events, their identifiers, and repeating one never matter.
        - An event recorded after K never matters.
        - Adding a restriction never makes anybody's consent operative nor takes a restricting flag away.

    Edge cases:
        - A person without a profile has no birth date, residence or zone.
        - An alias under two people makes whoever is asked about under it, or under either, ambiguous.

    Args:
        people: Sorted, distinct identifiers as the records hold them, shape ``(u,)``.
        consent: Every consent event the store knows.
        rights: Every rights event the store knows.
        subjects: Every profile the store knows.
        request: Purpose, T and K.

    Source: as-known-then over two clocks after Snodgrass (1999); GDPR Art. 7(1), 7(3).
    """
    names = Names.of(people, subjects)
    flags = np.zeros(len(people) + 1, dtype=np.uint32)
    flags[names.ambiguous] |= np.uint32(Flag.AMBIGUOUS)
    state = fold_consents(consent, request, names.places(consent.people), flags)
    change = min(state.next_change, fold_rights(rights, request, names.places(rights.people), flags))
    profile = names.profile
    known = np.flatnonzero(profile >= 0)
    birth, residence, zone = (
        np.full(len(people) + 1, NO_DAY, dtype=np.int32),
        np.full(len(people) + 1, NULL, dtype=np.int16),
        np.full(len(people) + 1, NULL, dtype=np.int16),
    )
    birth[known] = subjects.birth_day[profile[known]]
    residence[known] = subjects.residence[profile[known]]
    zone[known] = subjects.zone[profile[known]]
    bad = known[subjects.malformed[profile[known]]]
    flags[bad] |= np.uint32(Flag.MALFORMED)
    return Standing(
        people=people,
        flags=flags,
        consent=state.consent,
        acting=state.acting,
        valid_until=state.valid_until,
        notice=state.notice,
        birth_day=birth,
        residence=residence,
        zone=zone,
        countries=subjects.countries,
        zones=subjects.zones,
        next_change=change,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """Which names mean whom: identifiers, other identifiers, and the places of people in a table."""

    people: NDArray[np.bytes_]
    subjects: Subjects
    profile: NDArray[np.int64]
    ambiguous: NDArray[np.int64]

    @classmethod
    def of(cls, people: NDArray[np.bytes_], subjects: Subjects) -> Names:
        """Match the names of a table with profiles."""
        profile, twice = _profiles(people, subjects)
        # Two names in a table may be one person: each then has the same profile, and the same events below.
        hit = np.flatnonzero(profile >= 0)
        unclear = hit[_unclear(subjects)[profile[hit]]]
        return cls(people, subjects, profile, np.concatenate((np.flatnonzero(twice), unclear)))

    def places(self, others: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs ``(index into others, place in people)`` of names that mean one person."""
        if len(self.subjects.alias) == 0:
            found = _find(self.people, others)
            known = np.flatnonzero(found >= 0)
            return known, found[known]
        of_table, of_others = self._owner(self.people, self.profile), self._owner(others, None)
        order = np.argsort(of_table, kind="stable")
        first = np.searchsorted(of_table[order], of_others, side="left")
        last = np.searchsorted(of_table[order], of_others, side="right")
        count = last - first
        index = np.repeat(np.arange(len(others)), count)
        step = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        return index, order[np.repeat(first, count) + step]

    def _owner(self, names: NDArray[np.bytes_], profile: NDArray[np.int64] | None) -> NDArray[np.bytes_]:
        """Return the main identifier for each name; a name nobody has stands for itself."""
        held = _profiles(names, self.subjects)[0] if profile is None else profile
        width = max(names.dtype.itemsize, self.subjects.people.dtype.itemsize)
        owner = names.astype(f"S{width}")
        hit = held >= 0
        owner[hit] = self.subjects.people[held[hit]]
        return owner


def _unclear(subjects: Subjects) -> NDArray[np.bool_]:
    """Return whose identifiers may mean somebody else: marked so, or sharing a name with another profile."""
    result, alias, owner = subjects.ambiguous.copy(), subjects.alias, subjects.alias_of
    twice = np.flatnonzero((alias[1:] == alias[:-1]) & (owner[1:] != owner[:-1]))
    main = _find(subjects.people, alias)
    other = np.flatnonzero((main >= 0) & (main != owner))
    for places in (owner[twice], owner[twice + 1], owner[other], main[other]):
        result[places] = True
    return result


def _find(sorted_names: NDArray[np.bytes_], names: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return the place of each name in sorted, distinct names, or -1."""
    if len(sorted_names) == 0 or len(names) == 0:
        return np.full(len(names), -1, dtype=np.int64)
    if len(sorted_names) == len(names) and np.array_equal(sorted_names, names):
        return np.arange(len(names))
    place = np.searchsorted(sorted_names, names)
    place[place == len(sorted_names)] = 0
    return np.where(sorted_names[place] == names, place, -1)


def _profiles(names: NDArray[np.bytes_], subjects: Subjects) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the profile each name belongs to, or -1, and whether it belongs to two."""
    profile = _find(subjects.people, names)
    twice = np.zeros(len(names), dtype=bool)
    if len(subjects.alias):
        first = np.searchsorted(subjects.alias, names, side="left")
        last = np.searchsorted(subjects.alias, names, side="right")
        aliased = last > first
        owner = subjects.alias_of[np.minimum(first, len(subjects.alias) - 1)]
        twice = aliased & (profile >= 0) & (profile != owner)
        for place in np.flatnonzero(last - first > 1):
            twice[place] |= len(np.unique(subjects.alias_of[first[place] : last[place]])) > 1
        profile = np.where((profile < 0) & aliased, owner, profile)
    return profile, twice
