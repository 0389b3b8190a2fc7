"""Why a row may not be used: the closed set of slugs that a site counts and, in buckets, reports."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reason(StrEnum):
    """One reason per excluded row; :data:`MEANINGS` says each in a line."""

    CONSENT_MISSING = "consent-missing"
    PURPOSE_NOT_CONSENTED = "purpose-not-consented"
    CONSENT_EXPIRED = "consent-expired"
    CONSENT_INVALIDATED = "consent-invalidated"
    CONSENT_REFUSED = "consent-refused"
    CONSENT_WITHDRAWN = "consent-withdrawn"
    OBJECTED = "objected"


MEANINGS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.CONSENT_MISSING: "the person has said nothing that applies, and the regime is opt-in",
        Reason.PURPOSE_NOT_CONSENTED: "the person agreed to another purpose, not to this one",
        Reason.CONSENT_EXPIRED: "the person agreed, and the time for which they agreed is over",
        Reason.CONSENT_INVALIDATED: "the consent was found invalid, for example given under a faulty notice",
        Reason.CONSENT_REFUSED: "the person was asked and said no",
        Reason.CONSENT_WITHDRAWN: "the person took their consent back",
        Reason.OBJECTED: "the person objected to the use",
    }
)
