"""The rules of the CCPA: disclosed purposes, sale and sharing, minors, sensitive use, automated decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.codes import Code
from fedgen.policy.columns import NO_DAY, NULL, ThreeWay
from fedgen.policy.rules import Facts, View, rule
from fedgen.policy.standing import Flag

if TYPE_CHECKING:
    from fedgen.policy.rules import Mask

LAW: Final = "ccpa"


@rule("C-140m", Code.OUT_OF_SCOPE_DEIDENTIFIED, LAW, "Cal. Civ. Code 1798.140(m)", 130)
def deidentified(view: View, _: Facts) -> Mask:
    """Let through what is deidentified with all three measures."""
    return view.records.deidentified & view.is_record


@rule("C-100a", Code.PURPOSE_NOT_DISCLOSED, LAW, "Cal. Civ. Code 1798.100(a)(1)-(2), (c); 11 CCR 7002", 600)
def not_disclosed(view: View, facts: Facts) -> Mask:
    """Hit purposes no notice at collection named and nobody consented to."""
    if view.retains:
        return view.none()
    purpose = view.request.purpose
    hidden = view.collected_for(lambda purposes: purposes is None or purpose not in purposes)
    if not facts.known_purpose:
        hidden = view.every()
    return hidden & ~view.consent_holds() & ~view.records.compatible & view.is_record


def _sells(view: View) -> bool:
    """Whether the operation is a sale or sharing; a null is one."""
    return not view.retains and view.request.is_sale_or_share is not False


@rule("C-120", Code.OPTED_OUT_SALE_SHARE, LAW, "Cal. Civ. Code 1798.120(a), 1798.135; 11 CCR 7025-7026", 610)
def opted_out(view: View, _: Facts) -> Mask:
    """Hit sales of who opted out, by hand or by signal."""
    return view.has(Flag.OPTED_OUT) & view.is_record if _sells(view) else view.none()


@rule("C-120c", Code.MINOR_OPT_IN_REQUIRED, LAW, "Cal. Civ. Code 1798.120(c); 11 CCR 7070-7071", 620)
def minor(view: View, facts: Facts) -> Mask:
    """Hit sales of minors who did not opt in: a teenager in person, a child through a parent (S6, at request time)."""
    if not _sells(view):
        return view.none()
    standing = view.standing
    bounds = np.array([*facts.minor_days, (NO_DAY, NO_DAY)], dtype=np.int64)
    adult_born, teen_born = bounds[standing.zone, 0], bounds[standing.zone, 1]
    unknown = (standing.birth_day == NO_DAY) | (standing.zone == NULL)
    adult = (standing.birth_day <= adult_born) & ~unknown
    teen = (standing.birth_day <= teen_born) & ~adult & ~unknown
    by_self = (standing.flags & np.uint32(Flag.OPT_IN_BY_SELF)) != 0
    by_parent = (standing.flags & np.uint32(Flag.OPT_IN_BY_PARENT)) != 0
    fine = adult | (teen & by_self) | (~teen & ~unknown & by_parent)
    return view.each(~fine) & view.is_record


@rule("C-121", Code.SENSITIVE_USE_LIMITED, LAW, "Cal. Civ. Code 1798.121; 11 CCR 7027", 630)
def sensitive(view: View, facts: Facts) -> Mask:
    """Hit uses of sensitive information that the person limited."""
    if view.retains or facts.sensitive_permitted:
        return view.none()
    return np.asarray(view.has(Flag.LIMITED) & (view.records.sensitive != ThreeWay.NO) & view.is_record)


@rule("C-ADMT", Code.ADMT_OPTED_OUT, LAW, "11 CCR 7200-7222", 640)
def automated(view: View, facts: Facts) -> Mask:
    """Hit significant decisions about who opted out of automated ones, from the day that counts."""
    if view.retains or not facts.admt_applies or view.request.significant_decision is False:
        return view.none()
    return view.has(Flag.ADMT_OPTED_OUT) & view.is_record
