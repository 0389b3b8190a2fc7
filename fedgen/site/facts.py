"""From what a file states to what the engine and the run gate read; what nobody stated stays unknown."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.config.distributed import DistributedPlan
from fedgen.config.policy import DocumentsSpec, RecordsSpec
from fedgen.policy.calendar import microseconds_of
from fedgen.policy.columns import LONG_AGO, NEVER, NULL, Basis, Destination, Records, Request, ThreeWay, Type
from fedgen.policy.rules_gdpr import art9_letter
from fedgen.policy.run_facts import Dpia, Recipient, RunFacts

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from fedgen.config.policy import DestinationSpec, Stated
    from fedgen.site.admit import Admission

_MET: Final = ("dpf_certified", "pipeda_commercial")
_MADE_HERE: Final = frozenset({"dpia", "recipients"})  # stated, in another form
OPERATION: Final = "train"


def records_of(stated: Stated, subjects: NDArray[np.bytes_]) -> Records:
    """Return a site's rows as the engine reads them: they differ in person only.

    Args:
        stated: What holds for all of them.
        subjects: Whose each row is, shape ``(n,)``, bytes.
    """
    spec, n = stated.records or RecordsSpec(), len(subjects)
    people, place = np.unique(np.asarray(subjects), return_inverse=True)
    collected = _instant(spec.collected_at)
    active = collected if spec.last_activity_at is None else _instant(spec.last_activity_at)
    no, zero = np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int16)
    condition = spec.art9_condition
    three = ThreeWay.MISSING if spec.sensitive is None else ThreeWay(int(spec.sensitive))
    return Records(
        people=people,
        subject=place.astype(np.int32),
        type=np.full(n, Type.RECORD, dtype=np.uint8),
        collected_at=np.full(n, collected, dtype=np.int64),
        last_activity_at=np.full(n, active, dtype=np.int64),
        retention_rules=(spec.retention_rule or "default",),
        retention_rule=zero,
        basis=np.full(n, _basis(spec), dtype=np.uint8),
        purpose_sets=(_set(spec.collected_for),),
        collected_for=zero,
        category_sets=((_set(spec.categories or ()), _set(spec.special_categories)),),
        categories=zero,
        art9_conditions=() if condition is None else (condition,),
        art9_condition=np.full(n, NULL, dtype=np.int16) if condition is None else zero,
        sensitive=np.full(n, three, dtype=np.uint8),
        deidentified=no,
        inaccurate=no,
        compatible=np.full(n, bool((stated.documents or DocumentsSpec()).compatibility_id)),
        criminal_law=no,
        malformed=no,
        retain_until=np.full(n, LONG_AGO, dtype=np.int64),
        lineage_revoked=np.full(n, NULL, dtype=np.int32),
        assessment=np.zeros(n, dtype=np.uint8),
        assessed_at=np.full(n, NEVER, dtype=np.int64),
        assessment_until=np.full(n, NEVER, dtype=np.int64),
    )


def request_of(stated: Stated, purpose: str, time: int, known_at: int, round_number: int | None) -> Request:
    """Return what is asked of every row in a round.

    Args:
        stated: The documents: where the update goes, and what the run is.
        purpose: Of the study.
        time: T, microseconds since 1970.
        known_at: K, likewise.
        round_number: For the explanation.
    """
    said = stated.documents or DocumentsSpec()
    return Request(
        purpose=purpose,
        operation=OPERATION,
        time=time,
        known_at=known_at,
        destination=None if said.destination is None else _destination(said.destination),
        is_sale_or_share=said.is_sale_or_share,
        information_society_service=said.information_society_service,
        significant_decision=said.significant_decision,
        round=round_number,
    )


def run_facts(stated: Stated, admission: Admission) -> RunFacts:
    """Return what the gate of a run reads.

    Whether updates are noised or summed unseen is read off the plan, never stated.
    """
    said, rows = stated.documents or DocumentsSpec(), stated.records or RecordsSpec()
    names = {field.name for field in fields(RunFacts)} & set(DocumentsSpec.model_fields)
    plain: dict[str, Any] = {name: getattr(said, name) for name in names - _MADE_HERE}
    study = admission.study.study
    return RunFacts(
        purpose=study.policy.purpose,
        bases=None if rows.legal_basis is None else frozenset({Basis(_basis(rows))}),
        destinations=None if said.destination is None else (_destination(said.destination),),
        recipients=None if said.recipients is None else tuple(_recipient(it) for it in said.recipients),
        dpia=None if said.dpia is None else Dpia(**dict(said.dpia)),
        special_categories=None if rows.special_categories is None else bool(rows.special_categories),
        special_condition=art9_letter(rows.art9_condition),
        secure_sum=isinstance(admission.plan, DistributedPlan) and admission.plan.masked,
        differential_privacy=study.privacy.insecure_seed is None and admission.plan.sigma > 0,
        **plain,
    )


def _recipient(spec: Any) -> Recipient:
    return Recipient(**{**dict(spec), "terms": frozenset(spec.terms)})


def _destination(spec: DestinationSpec) -> Destination:
    return Destination(
        country=spec.country,
        recipient=spec.recipient,
        safeguards=frozenset(spec.safeguards),
        tia=spec.tia,
        met=frozenset(name for name in _MET if getattr(spec, name)),
    )


def _basis(spec: RecordsSpec) -> int:
    return int(Basis.NONE if spec.legal_basis is None else Basis[spec.legal_basis.upper()])


def _set(words: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if words is None else frozenset(words)


def _instant(moment: datetime | None) -> int:
    return NEVER if moment is None else microseconds_of(moment)
