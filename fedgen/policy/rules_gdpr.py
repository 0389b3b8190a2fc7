"""The rules of the GDPR (S7): objection, basis, consent, notice, child, purpose, special categories, transfer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.calendar import MICROSECONDS_A_DAY, birthdays, day_number, local_day, zone
from fedgen.policy.codes import Code
from fedgen.policy.columns import NEVER, NO_DAY, NULL, Action, Basis
from fedgen.policy.rules import Facts, View, rule
from fedgen.policy.rules_shared import anonymous
from fedgen.policy.standing import OPERATIVE, OTHER_PURPOSE, SILENT, Flag, Standing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedgen.policy.rules import Mask

LAW: Final = "gdpr"
_GROWN_UP: Final = 19 * 366
CRIMINAL: Final = frozenset({"criminal", "criminal_conviction", "criminal_convictions", "criminal_offence"})
_ART_9_LETTER: Final = re.compile(r"(?:^|[^0-9])9\W*_?2\W*_?([a-j])\W*$|^\W*([a-j])\W*$", re.IGNORECASE)
_DENIED: Final = re.compile(r"(?:^|_)(?:no|not(?!_for_profit)|none|without|never)(?:_|$)")
_ART_9_WORDS: Final = (
    ("employment", "b"), ("social_protection", "b"), ("vital", "c"), ("foundation", "d"), ("not_for_profit", "d"),
    ("made_public", "e"), ("manifestly_public", "e"), ("legal_claim", "f"), ("substantial_public", "g"),
    ("medic", "h"), ("health_care", "h"), ("healthcare", "h"), ("public_health", "i"), ("research", "j"),
    ("archiv", "j"), ("statistic", "j"), ("explicit_consent", "a"),
)  # fmt: skip


def art9_letter(condition: str | None) -> str | None:
    """Return the letter of Art. 9(2) that a condition names, or None: what is not recognised opens nothing."""
    if condition is None:
        return None
    found = _ART_9_LETTER.search(condition)
    if found is not None:
        return (found[1] or found[2]).lower()
    plain = re.sub(r"[\s-]+", "_", condition.lower())
    if _DENIED.search(plain):
        return None
    return next((letter for word, letter in _ART_9_WORDS if word in plain), None)


def _on_consent(view: View) -> Mask:
    return np.asarray((view.records.basis == Basis.CONSENT) & view.is_record)


def _consent_asked(view: View) -> Mask:
    """Return the rows on consent where its state decides: every use, and storage no other consent carries."""
    asked = _on_consent(view)
    return asked & ~view.has(Flag.CONSENT_FOR_ANY) if view.retains else asked


def _state(view: View, state: int) -> Mask:
    return np.asarray(_consent_asked(view) & (view.consent == state))


@rule("G-21", Code.OBJECTED, LAW, "GDPR Art. 21(1), 21(6)", 600)
def objected(view: View, facts: Facts) -> Mask:
    """Hit who objects, where the basis or the purpose gives the right to."""
    if view.retains:
        return view.none()
    basis = view.records.basis
    open_to = (basis == Basis.PUBLIC_TASK) | (basis == Basis.LEGITIMATE_INTEREST) | facts.research
    return np.asarray(view.has(Flag.OBJECTED) & open_to & view.is_record)


@rule("G-21m", Code.OBJECTED, LAW, "GDPR Art. 21(2)-(3)", 601)
def objected_marketing(view: View, facts: Facts) -> Mask:
    """Hit who ever objected to direct marketing: there is nothing to balance."""
    if view.retains or not facts.direct_marketing:
        return view.none()
    return view.has(Flag.EVER_OBJECTED) & view.is_record


@rule("G-6", Code.NO_LAWFUL_BASIS, LAW, "GDPR Art. 6(1)", 610)
def no_basis(view: View, _: Facts) -> Mask:
    """Hit records nobody named a basis for."""
    return np.asarray((view.records.basis == Basis.NONE) & view.is_record)


@rule("G-7.3c", Code.CONSENT_WITHDRAWN_NO_OTHER_BASIS, LAW, "GDPR Art. 7(3), 17(1)(b)", 620)
def withdrawn_no_other_basis(view: View, _: Facts) -> Mask:
    """Hit stored records whose only basis was taken back."""
    if not view.retains:
        return view.none()
    return _consent_asked(view) & view.has(Flag.WITHDREW_ANY)


@rule("G-5b", Code.PURPOSE_NOT_CONSENTED, LAW, "GDPR Art. 5(1)(b), 6(1)(a)", 630)
def other_purpose(view: View, _: Facts) -> Mask:
    """Hit people who agreed to something else."""
    return _state(view, OTHER_PURPOSE)


@rule("G-7.1", Code.CONSENT_MISSING, LAW, "GDPR Art. 7(1)", 631)
def consent_missing(view: View, _: Facts) -> Mask:
    """Hit people of whom no event is known."""
    return _state(view, SILENT)


@rule("G-7.3a", Code.CONSENT_WITHDRAWN, LAW, "GDPR Art. 7(3)", 632)
def consent_withdrawn(view: View, _: Facts) -> Mask:
    """Hit people who took their consent back."""
    return view.none() if view.retains else _state(view, Action.WITHDRAWN)


@rule("G-7.1r", Code.CONSENT_REFUSED, LAW, "GDPR Art. 4(11), 7(1)", 633)
def consent_refused(view: View, _: Facts) -> Mask:
    """Hit people who said no."""
    return _state(view, Action.REFUSED)


@rule("G-7.2i", Code.CONSENT_INVALIDATED, LAW, "GDPR Art. 4(11), 7(2), 7(4)", 634)
def consent_invalidated(view: View, _: Facts) -> Mask:
    """Hit consents that were found invalid."""
    return _state(view, Action.INVALIDATED)


@rule("G-7.1e", Code.CONSENT_EXPIRED, LAW, "GDPR Art. 4(11), 5(1)(e), 7(1)", 640)
def consent_expired(view: View, _: Facts) -> Mask:
    """Hit consents that were said to be over, or whose time is; half-open."""
    over = (view.standing.consent == OPERATIVE) & (view.standing.valid_until <= view.request.time)
    return np.asarray(_consent_asked(view) & (view.each(over) | (view.consent == Action.EXPIRED)))


@rule("G-7.2", Code.CONSENT_SUPERSEDED, LAW, "GDPR Art. 4(11), 7(2)", 650)
def notice_too_old(view: View, facts: Facts) -> Mask:
    """Hit consents given under an older notice than the purpose asks for; a purpose not in the pack asks for any."""
    if view.retains:
        return view.none()
    old = view.standing.consent == OPERATIVE
    if facts.min_notice is not None:
        old &= (view.standing.notice < facts.min_notice) | (view.standing.notice == NULL)
    elif facts.known_purpose:
        return view.none()
    return _on_consent(view) & view.each(old)


@rule("G-8", Code.CHILD_PARENTAL_CONSENT_REQUIRED, LAW, "GDPR Art. 8(1)", 660)
def child(view: View, facts: Facts) -> Mask:
    """Hit consents that children gave by themselves to an information-society service (S6)."""
    if view.retains or view.request.information_society_service is False:
        return view.none()
    asked, standing = _on_consent(view), view.standing
    hit = np.zeros(len(standing.flags), dtype=bool)
    hit[view.records.subject[asked]] = True
    hit &= (standing.consent == OPERATIVE) & ((standing.flags & np.uint32(Flag.BY_PARENT)) == 0)
    # Who was 19 for certain needs no calendar: no country asks for more than 18.
    days = np.floor_divide(standing.acting, MICROSECONDS_A_DAY) - standing.birth_day
    known = (standing.birth_day != NO_DAY) & (standing.residence != NULL) & (standing.zone != NULL)
    hit &= ~known | (days < _GROWN_UP)
    people = np.flatnonzero(hit)
    hit[people] = _was_child(standing, facts, people)
    return asked & view.each(hit)


def _was_child(standing: Standing, facts: Facts, people: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return who was under the age of their country when their consent began to act, on their own calendar."""
    birth, where, zones = standing.birth_day[people], standing.residence[people], standing.zone[people]
    unknown = (birth == NO_DAY) | (where == NULL) | (zones == NULL)
    acting = standing.acting[people]
    day = np.floor_divide(acting, MICROSECONDS_A_DAY)
    # A local day differs from the UTC day by one at most: only people within a day of a bound need their zone.
    low, high = (
        _came_of_age(facts, standing, birth, where, day - 1),
        _came_of_age(facts, standing, birth, where, day + 1),
    )
    result: NDArray[np.bool_] = ~low
    for place in np.flatnonzero((low != high) & ~unknown):
        own = local_day(int(acting[place]), zone(standing.zones[int(zones[place])]))
        one = slice(place, place + 1)
        result[place] = not _came_of_age(facts, standing, birth[one], where[one], np.array([own]))[0]
    return np.asarray(result | unknown)


def _came_of_age(
    facts: Facts,
    standing: Standing,
    birth: NDArray[np.int32],
    where: NDArray[np.int16],
    day: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return who was of age on a day, by the row of their country in force on it."""
    pack = facts.pack
    age = np.full(len(birth), pack.child_age_default, dtype=np.int64)
    for place, country in enumerate(standing.countries):
        mine = where == place
        for row in sorted(pack.child_age.get(country, ()), key=lambda row: row.from_):
            age[mine & (day >= day_number(row.from_))] = row.age
    return birthdays(np.where(birth == NO_DAY, 0, birth), age) <= day


@rule("G-5b.6", Code.PURPOSE_INCOMPATIBLE, LAW, "GDPR Art. 5(1)(b), 6(4)", 670)
def incompatible(view: View, _: Facts) -> Mask:
    """Hit records on another basis that were collected for something else, without a compatibility assessment."""
    if view.retains:
        return view.none()
    basis, purpose = view.records.basis, view.request.purpose
    other = (basis != Basis.CONSENT) & (basis != Basis.NONE)
    foreign = view.collected_for(lambda purposes: purposes is None or purpose not in purposes)
    return np.asarray(other & foreign & ~view.records.compatible & view.is_record)


@rule("G-9", Code.SPECIAL_CATEGORY_NO_CONDITION, LAW, "GDPR Art. 9(1)-(2)", 680)
def special_category(view: View, _: Facts) -> Mask:
    """Hit special categories without an explicit consent and without another condition."""
    if view.retains:
        return view.none()
    special = view.categories(lambda _, special: special is None or bool(special))
    letters = [art9_letter(condition) for condition in view.records.art9_conditions]
    opens = np.array([letter not in {None, "a"} for letter in letters] + [False], dtype=bool)
    explicit = view.consent_holds() & view.has(Flag.EXPLICIT)
    return np.asarray(special & ~opens[view.records.art9_condition] & ~explicit & view.is_record)


@rule("G-10", Code.SPECIAL_CATEGORY_NO_CONDITION, LAW, "GDPR Art. 10", 681)
def criminal(view: View, _: Facts) -> Mask:
    """Hit data on convictions, or that may be, unless a law that allows it is on file."""
    if view.retains:
        return view.none()
    convicts = view.categories(
        lambda plain, special: plain is None or bool(CRIMINAL & (plain | (special or frozenset())))
    )
    return convicts & ~view.records.criminal_law & view.is_record


def _leaves(view: View, facts: Facts) -> Mask:
    """Return what would be a transfer: everything personal, artefacts too unless shown to be anonymous."""
    if view.retains or facts.stays_in or facts.adequate:
        return view.none()
    return ~anonymous(view)


@rule("G-46", Code.TRANSFER_NO_SAFEGUARD, LAW, "GDPR Art. 44-46, 49", 690)
def no_safeguard(view: View, facts: Facts) -> Mask:
    """Hit what goes to a country that is not adequate now, for this importer, without a tool of Art. 46."""
    return _leaves(view, facts) if not facts.safeguarded else view.none()


@rule("G-46t", Code.TRANSFER_TIA_MISSING, LAW, "GDPR Art. 46; CJEU C-311/18", 691)
def no_tia(view: View, facts: Facts) -> Mask:
    """Hit what goes there with a tool, but without an assessment of the transfer's impact."""
    return _leaves(view, facts) if facts.safeguarded and not view.goes_to.tia else view.none()


__all__ = ["NEVER", "art9_letter"]
