"""The gate of a run: documents and settings that must be there before a round starts or a release leaves.

A gate rule is a pure question about :class:`RunFacts` and a pack, as a row's rule is about a row. **None means
nobody said, and nobody said means no.** All gate rules of a law are on; there is no switch for them in a pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

from fedgen.policy.calendar import day_number, local_day, moment_of, start_of_day, zone
from fedgen.policy.codes import Code
from fedgen.policy.columns import Basis, Destination
from fedgen.policy.engine import SystemState, is_adequate, system_code
from fedgen.policy.run_facts import SERVICE_TERMS, Dpia, Recipient, RunFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedgen.policy.columns import Request
    from fedgen.policy.pack import Pack
    from fedgen.policy.packs import LoadedPack

    Question = Callable[["RunFacts", Pack, int], bool]

__all__ = ["GATE", "SERVICE_TERMS", "Dpia", "GateRule", "Recipient", "Refusal", "RunFacts", "run_gate"]


@dataclass(frozen=True, slots=True)
class GateRule:
    """One entry of the gate's registry; ``mend`` says what to file."""

    id: str
    code: Code
    law: str
    citation: str
    mend: str
    hits: Question


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a run or a release may not start, and what to file."""

    rule: str
    code: Code
    law: str
    citation: str
    mend: str


GATE: Final[dict[str, GateRule]] = {}


def _gate(id_: str, code: Code, law: str, citation: str, mend: str) -> Callable[[Question], Question]:
    def register(question: Question) -> Question:
        if id_ in GATE:
            raise ValueError(f"two gate rules are called {id_}")
        GATE[id_] = GateRule(id_, code, law, citation, mend, question)
        return question

    return register


def run_gate(
    facts: RunFacts,
    packs: Mapping[str, LoadedPack],
    request: Request,
    laws: Sequence[str] | None = None,
    state: SystemState | None = None,
) -> tuple[Refusal, ...]:
    """Return every reason against this run or release; empty: it may start.

    Guarantees:
        - A fact nobody stated refuses.
        - A rule that fails refuses.

    Args:
        facts: What the run is and which documents stand behind it.
        packs: By law.
        request: Its time decides which dated facts hold.
        laws: The laws that apply; None: every pack's.
        state: The engine's footing.
    """
    refusals: list[Refusal] = []
    for law in packs if laws is None else laws:
        loaded, stop = packs.get(law), Code.NO_APPLICABLE_PACK
        if loaded is not None and request.time >= start_of_day(
            loaded.pack.in_force_from, zone(loaded.pack.tz)
        ):
            found = system_code(loaded, request, state or SystemState())
            if found is None:
                refusals += [
                    _refusal(rule, law)
                    for rule in GATE.values()
                    if _hit(rule, law, facts, loaded.pack, request)
                ]
                continue
            stop = found
        refusals.append(Refusal("S7", stop, law, "", "load a pack for this law that somebody answers for"))
    return tuple(refusals)


def _refusal(rule: GateRule, law: str) -> Refusal:
    return Refusal(rule.id, rule.code, law, rule.citation, rule.mend)


def _hit(rule: GateRule, law: str, facts: RunFacts, pack: Pack, request: Request) -> bool:
    if rule.law not in {law, "*"} and not (rule.law == "baseline" and law not in {"gdpr", "ccpa"}):
        return False
    try:
        return bool(rule.hits(facts, pack, request.time))
    except Exception:  # noqa: BLE001 - whatever failed, the rule must not be skipped
        return True


@_gate("G-6f", Code.INTEREST_ASSESSMENT_MISSING, "gdpr", "GDPR Art. 6(1)(f); EDPB Opinion 28/2024",
       "file a legitimate-interest assessment: interest, necessity, balancing, mitigations")  # fmt: skip
def _interest(facts: RunFacts, _: Pack, __: int) -> bool:
    return (facts.bases is None or Basis.LEGITIMATE_INTEREST in facts.bases) and not facts.lia_id


@_gate("G-13", Code.NOTICE_NOT_SERVED, "gdpr", "GDPR Art. 13, 14",
       "serve every cohort a notice that names it all, or name the reason of Art. 14(5)")  # fmt: skip
def _notice(facts: RunFacts, pack: Pack, _: int) -> bool:
    if facts.notice_exemption:
        return False
    purpose = pack.purposes.get(facts.purpose)
    least = 1 if purpose is None or purpose.min_notice_version is None else purpose.min_notice_version
    return facts.notice_version is None or facts.notice_version < least or facts.notice_covers is not True


@_gate("C-100n", Code.NOTICE_NOT_SERVED, "ccpa", "Cal. Civ. Code 1798.100(a)",
       "serve a notice at collection that names this purpose")  # fmt: skip
def _notice_at_collection(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.notice_version is None or facts.notice_covers is not True


@_gate("G-22", Code.HUMAN_REVIEW_MISSING, "gdpr", "GDPR Art. 22",
       "name the basis (contract, law, explicit consent) and the route to human review")  # fmt: skip
def _automated(facts: RunFacts, _: Pack, __: int) -> bool:
    if facts.solely_automated is False:
        return False
    based = facts.automated_basis in {"contract", "law", "explicit_consent"} and bool(facts.review_route_id)
    special = facts.special_categories is not False and facts.special_condition not in {"a", "g"}
    return not based or special


@_gate("G-89", Code.RESEARCH_SAFEGUARDS_MISSING, "gdpr", "GDPR Art. 89(1)",
       "file the safeguards: pseudonymisation, minimisation, ethics")  # fmt: skip
def _research(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.research_derogation is not False and not facts.research_safeguards_id


@_gate("G-9r", Code.SPECIAL_CATEGORY_NO_CONDITION, "gdpr", "GDPR Art. 9(1)-(2)",
       "name the condition of Art. 9(2) that the run rests on")  # fmt: skip
def _special(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.special_categories is not False and facts.special_condition not in set("abcdefghij")


@_gate("G-25", Code.DEFAULT_LOOSENED, "*", "GDPR Art. 25; Cal. Civ. Code 1798.100(c)",
       "keep the private defaults, or name who approves each change")  # fmt: skip
def _defaults(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.loosened is None or (bool(facts.loosened) and not facts.approver)


@_gate("G-26", Code.CONTROLLER_ARRANGEMENT_MISSING, "gdpr", "GDPR Art. 26",
       "file the arrangement between the controllers and name its id")  # fmt: skip
def _joint(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.joint_controllers is not False and not facts.arrangement_id


@_gate("G-28", Code.PROCESSOR_AGREEMENT_MISSING, "gdpr", "GDPR Art. 28",
       "file the processing agreement, the digest of the instructions and the list of sub-processors")  # fmt: skip
def _processors(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.recipients is None or any(
        who.kind in {"processor", "service_provider", "contractor"}
        and not (who.contract_id and who.instructions_sha256 and who.subprocessors_known is True)
        for who in facts.recipients
    )


@_gate("C-100d", Code.PROCESSOR_AGREEMENT_MISSING, "ccpa", "Cal. Civ. Code 1798.100(d); 11 CCR 7051, 7053",
       "file the contract with every term that 1798.100(d) asks for")  # fmt: skip
def _contracts(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.recipients is None or any(
        not who.contract_id or not who.terms >= SERVICE_TERMS for who in facts.recipients
    )


@_gate("G-32", Code.SECURITY_MEASURE_MISSING, "*", "GDPR Art. 32; Cal. Civ. Code 1798.100(e)",
       "turn on what the pack's security table asks for, and let the run show it")  # fmt: skip
def _security(facts: RunFacts, pack: Pack, _: int) -> bool:
    asked = pack.security
    return any(
        wanted and shown is not True
        for wanted, shown in (
            (asked.tls, facts.tls),
            (asked.mutual_tls, facts.mutual_tls),
            (asked.encryption_at_rest, facts.encryption_at_rest),
            (asked.secure_sum, facts.secure_sum),
            (asked.differential_privacy, facts.differential_privacy),
        )
    )


@_gate("G-35", Code.DPIA_MISSING, "gdpr", "GDPR Art. 35, 36",
       "file the impact assessment, review it in time, and consult the authority where risk stays high")  # fmt: skip
def _impact(facts: RunFacts, pack: Pack, at: int) -> bool:
    if facts.needs_dpia is False:
        return False
    dpia = facts.dpia
    if dpia is None or not dpia.id or (dpia.high_residual_risk is not False and not dpia.consultation_id):
        return True
    return dpia.review_by is not None and day_number(dpia.review_by) <= local_day(at, zone(pack.tz))


def _third(facts: RunFacts, pack: Pack, at: int) -> list[Destination]:
    """Return the destinations that need a tool of Art. 46; an unnamed one does."""
    day = local_day(at, zone(pack.tz))
    goes = facts.destinations if facts.destinations is not None else (Destination(),)
    return [to for to in goes if to.country not in pack.eea and not is_adequate(pack, to, day)]


@_gate("G-44", Code.TRANSFER_NO_SAFEGUARD, "gdpr", "GDPR Art. 44-46, 49",
       "keep it in the EEA or an adequate country, or file a tool of Art. 46 (never Art. 49)")  # fmt: skip
def _transfers(facts: RunFacts, pack: Pack, at: int) -> bool:
    return any(not to.safeguards & frozenset(pack.safeguards) for to in _third(facts, pack, at))


@_gate("G-44t", Code.TRANSFER_TIA_MISSING, "gdpr", "GDPR Art. 46; CJEU C-311/18",
       "file a transfer impact assessment for each such destination")  # fmt: skip
def _impact_of_transfers(facts: RunFacts, pack: Pack, at: int) -> bool:
    return any(to.safeguards & frozenset(pack.safeguards) and not to.tia for to in _third(facts, pack, at))


@_gate("C-7002", Code.PURPOSE_NOT_DISCLOSED, "ccpa", "Cal. Civ. Code 1798.100(c); 11 CCR 7002",
       "add the purpose to the notice and the pack, or file an assessment under 11 CCR 7002")  # fmt: skip
def _expected(facts: RunFacts, pack: Pack, _: int) -> bool:
    return facts.purpose not in pack.purposes and not facts.compatibility_id


@_gate("C-7050", Code.SERVICE_PROVIDER_LIMIT, "ccpa", "Cal. Civ. Code 1798.140(e)(6), (ag); 11 CCR 7050",
       "use deidentified inputs, or let each business contract; never combine clients")  # fmt: skip
def _service_provider(facts: RunFacts, _: Pack, __: int) -> bool:
    if facts.serves_several is False:
        return False
    if facts.combines_clients is not False:
        return True
    return facts.inputs_deidentified is not True and facts.every_beneficiary_contracts is not True


@_gate("C-120r", Code.MINOR_OPT_IN_REQUIRED, "ccpa", "Cal. Civ. Code 1798.120(c); 11 CCR 7070-7071",
       "check the opt-in of each minor, or leave them out")  # fmt: skip
def _minors(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.minors is not False and facts.minor_opt_ins_checked is not True


_NEW: Final = date(2026, 1, 1)
_OLD_MUST_HAVE: Final = date(2028, 1, 1)  # processing from before 2026 has until 31 December 2027


@_gate("C-RA", Code.RISK_ASSESSMENT_MISSING, "ccpa", "11 CCR 7150-7157",
       "file a risk assessment before the processing starts")  # fmt: skip
def _risk(facts: RunFacts, pack: Pack, at: int) -> bool:
    if facts.needs_risk_assessment is False or facts.risk_assessment_id:
        return False
    if pack.risk_assessment_from is None or moment_of(at) < pack.risk_assessment_from:
        return False
    older = facts.processing_since is not None and facts.processing_since < _NEW
    return not older or local_day(at, zone(pack.tz)) >= day_number(_OLD_MUST_HAVE)


@_gate("C-ADMTr", Code.NOTICE_NOT_SERVED, "ccpa", "11 CCR 7200-7222",
       "serve the pre-use notice with opt-out and access")  # fmt: skip
def _pre_use(facts: RunFacts, pack: Pack, at: int) -> bool:
    if facts.admt is False or pack.admt_applies_from is None or moment_of(at) < pack.admt_applies_from:
        return False
    return not facts.admt_notice_id


@_gate("A-50", Code.CONTENT_MARK_MISSING, "gdpr", "Regulation (EU) 2024/1689 Art. 50(2)",
       "put a machine-readable mark on generated content and read it back")  # fmt: skip
def _mark(facts: RunFacts, pack: Pack, at: int) -> bool:
    if not facts.releases or pack.content_mark_from is None or moment_of(at) < pack.content_mark_from:
        return False
    return not facts.content_mark or facts.content_mark_verified is not True


@_gate("C-140b", Code.RELEASE_ANONYMITY_FAILED, "*", "Cal. Civ. Code 1798.140(b); GDPR Recital 26",
       "release no aggregate of fewer people than the pack's cohort floor")  # fmt: skip
def _aggregate(facts: RunFacts, pack: Pack, _: int) -> bool:
    return facts.releases and facts.smallest_group is not None and facts.smallest_group < pack.cohort_floor


@_gate("G-33", Code.RELEASES_FROZEN, "*", "GDPR Art. 33; Cal. Civ. Code 1798.150",
       "close the breach: releases wait until then")  # fmt: skip
def _breach(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.releases and facts.breach_open is not False


@_gate("E-28c", Code.MODEL_UNLAWFUL, "gdpr", "EDPB Opinion 28/2024, question 3",
       "keep the model in quarantine until an assessment says under which branch it may be used")  # fmt: skip
def _unlawful(facts: RunFacts, _: Pack, __: int) -> bool:
    return facts.training_unlawful is not False and not facts.unlawful_assessment_id
