"""What a run is, and which documents stand behind it: what the gate of a run reads. None is "nobody said"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import date

    from fedgen.policy.columns import Basis, Destination

SERVICE_TERMS: Final = frozenset(
    {
        "limited_purpose",
        "same_protection",
        "right_to_check",
        "notify_if_unable",
        "right_to_stop",
        "no_combining",
    }
)


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who works for a controller, or receives data.

    Attributes:
        name: Who.
        kind: ``processor``, ``service_provider``, ``contractor`` or ``third_party``.
        contract_id: The agreement on file.
        instructions_sha256: Digest of the documented instructions (Art. 28(3)(a)); processors only.
        subprocessors_known: Whether every sub-processor is on the agreed list; processors only.
        terms: What the contract holds, of :data:`SERVICE_TERMS`; CCPA only.
    """

    name: str
    kind: str
    contract_id: str | None = None
    instructions_sha256: str | None = None
    subprocessors_known: bool | None = None
    terms: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Dpia:
    """A data-protection impact assessment (Art. 35).

    Attributes:
        id: Of the document.
        high_residual_risk: Whether risk stays high; then the authority is consulted first (Art. 36).
        consultation_id: Of that consultation.
        review_by: First day on which it no longer counts; None: no day is set.
    """

    id: str
    high_residual_risk: bool | None = None
    consultation_id: str | None = None
    review_by: date | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run is, and which documents stand behind it; None is "nobody said".

    Attributes:
        purpose: Of the run.
        bases: Every basis its records may rest on.
        destinations: Where updates, checkpoints, telemetry and releases go.
        joint_controllers: Whether two or more controllers decide purposes and means (typical across sites).
        arrangement_id: Their arrangement (Art. 26).
        recipients: Everybody else who handles the data.
        lia_id: The legitimate-interest assessment: interest, necessity, balancing, mitigations.
        compatibility_id: The assessment of Art. 6(4), or of 11 CCR 7002.
        dpia: The impact assessment.
        needs_dpia: Whether one is needed: large-scale special categories, new technology, evaluation or scoring.
        notice_version: The version of the notice served to every cohort of the run.
        notice_covers: Whether it names this purpose, the recipients and the retention.
        notice_exemption: Why none is owed (Art. 14(5)).
        research_derogation: Whether the run claims Art. 89.
        research_safeguards_id: Pseudonymisation, minimisation, ethics.
        solely_automated: Whether it decides about people alone, with legal or similar effect (Art. 22).
        automated_basis: ``contract``, ``law`` or ``explicit_consent``.
        review_route_id: How a person asks a human to look.
        special_categories: Whether the run reads any.
        special_condition: The letter of Art. 9(2).
        loosened: Settings less private than the default (Art. 25).
        approver: Who answers for that.
        tls: Whether transport is encrypted.
        mutual_tls: Whether both sides show certificates.
        encryption_at_rest: Whether storage is encrypted.
        secure_sum: Whether updates are summed unseen.
        differential_privacy: Whether updates are noised.
        serves_several: Whether a service provider trains one model for several businesses (11 CCR 7050).
        inputs_deidentified: Whether its inputs are deidentified or aggregate.
        every_beneficiary_contracts: Whether each business contracts for the shared model.
        combines_clients: Whether personal information is combined across clients.
        needs_risk_assessment: Sale, sensitive information, significant automated decisions, or training for these.
        risk_assessment_id: Of that assessment (11 CCR 7150-7157).
        processing_since: First day of the processing.
        admt: Whether significant decisions are automated.
        admt_notice_id: The pre-use notice.
        minors: Whether people under 16 are in the run and data are sold or shared.
        minor_opt_ins_checked: Whether their opt-ins are checked for each record.
        releases: Whether the request is a release.
        smallest_group: The fewest people behind a released aggregate; None: no aggregate leaves.
        content_mark: The machine-readable mark on generated content.
        content_mark_verified: Whether it was read back.
        breach_open: Whether a breach is being looked into (Art. 33).
        training_unlawful: Whether the training was later found unlawful (EDPB Opinion 28/2024, question 3).
        unlawful_assessment_id: The assessment that lets the model be used nevertheless.
    """

    purpose: str
    bases: frozenset[Basis] | None = None
    destinations: tuple[Destination, ...] | None = None
    joint_controllers: bool | None = None
    arrangement_id: str | None = None
    recipients: tuple[Recipient, ...] | None = None
    lia_id: str | None = None
    compatibility_id: str | None = None
    dpia: Dpia | None = None
    needs_dpia: bool | None = None
    notice_version: int | None = None
    notice_covers: bool | None = None
    notice_exemption: str | None = None
    research_derogation: bool | None = None
    research_safeguards_id: str | None = None
    solely_automated: bool | None = None
    automated_basis: str | None = None
    review_route_id: str | None = None
    special_categories: bool | None = None
    special_condition: str | None = None
    loosened: tuple[str, ...] | None = None
    approver: str | None = None
    tls: bool | None = None
    mutual_tls: bool | None = None
    encryption_at_rest: bool | None = None
    secure_sum: bool | None = None
    differential_privacy: bool | None = None
    serves_several: bool | None = None
    inputs_deidentified: bool | None = None
    every_beneficiary_contracts: bool | None = None
    combines_clients: bool | None = None
    needs_risk_assessment: bool | None = None
    risk_assessment_id: str | None = None
    processing_since: date | None = None
    admt: bool | None = None
    admt_notice_id: str | None = None
    minors: bool | None = None
    minor_opt_ins_checked: bool | None = None
    releases: bool = False
    smallest_group: int | None = None
    content_mark: str | None = None
    content_mark_verified: bool | None = None
    breach_open: bool | None = None
    training_unlawful: bool | None = None
    unlawful_assessment_id: str | None = None
