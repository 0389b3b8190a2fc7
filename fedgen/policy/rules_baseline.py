"""The rules of the baseline pack: consent and purpose for people whom no other pack covers, as strict as the GDPR's."""

from __future__ import annotations

from typing import Final

from fedgen.policy import rules_gdpr as gdpr
from fedgen.policy.codes import Code
from fedgen.policy.rules import rule

LAW: Final = "baseline"

for _id, _code, _precedence, _test in (
    ("B-21", Code.OBJECTED, 600, gdpr.objected),
    ("B-6", Code.NO_LAWFUL_BASIS, 610, gdpr.no_basis),
    ("B-7.3c", Code.CONSENT_WITHDRAWN_NO_OTHER_BASIS, 620, gdpr.withdrawn_no_other_basis),
    ("B-5b", Code.PURPOSE_NOT_CONSENTED, 630, gdpr.other_purpose),
    ("B-7.1", Code.CONSENT_MISSING, 631, gdpr.consent_missing),
    ("B-7.3a", Code.CONSENT_WITHDRAWN, 632, gdpr.consent_withdrawn),
    ("B-7.1r", Code.CONSENT_REFUSED, 633, gdpr.consent_refused),
    ("B-7.2i", Code.CONSENT_INVALIDATED, 634, gdpr.consent_invalidated),
    ("B-7.1e", Code.CONSENT_EXPIRED, 640, gdpr.consent_expired),
    ("B-5b.6", Code.PURPOSE_INCOMPATIBLE, 670, gdpr.incompatible),
):
    rule(_id, _code, LAW, "baseline: consent and purpose", _precedence)(_test)
