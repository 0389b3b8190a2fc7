"""What a study would do at a site, in words for its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.config.distributed import DistributedPlan
from fedgen.enrolment.documents import shown
from fedgen.privacy.statement import at_most, ceilings_in_words, phrase
from fedgen.privacy.units import Trust, Unit

if TYPE_CHECKING:
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.config.site import SiteSpec
    from fedgen.enrolment.documents import Invitation
    from fedgen.privacy.plan import Plan

_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"
# Letters and signs that nobody sees: with enough of them a stranger's text would begin a line of its own.
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_TRUST: Final = {
    Trust.LOCAL: "each update is noised here, before it leaves; the coordinator sees single, noised updates",
    Trust.CENTRAL: "updates leave WITHOUT noise, sealed for the coordinator, which adds it: it must be trusted",
    Trust.DISTRIBUTED: "updates are masked; the coordinator sees only the noised sum over the sites",
}
_SEEDED: Final = "NOT PRIVATE: a seed that everybody knows makes it; for made-up rows only"
_UNIT: Final = {
    Unit.RECORD: "whether any one record was used",
    Unit.PERSON: "whether any one person's records were used",
    Unit.SITE: "whether this whole site took part",
}


def lines_of(
    accepted: Invitation | None,
    spec: SiteSpec,
    study: ResolvedStudy,
    plan: Plan,
    figures: tuple[float, ...],
) -> list[tuple[str, str]]:
    """Return what a study would do, title by title; what a stranger wrote is shown without what a terminal obeys.

    Nor with blanks enough to fill a terminal's line: what came after them would look like a line of ours.
    """
    return [(title, _shown(text)) for title, text in _lines_of(accepted, spec, study, plan, figures)]


def _shown(text: str) -> str:
    """Return text as it may stand on a line of ours."""
    plain = "".join(it if it.isprintable() and it not in _BLANK else _UNPRINTABLE for it in text)
    return " ".join(it for it in plain.split(" ") if it)


def _lines_of(
    accepted: Invitation | None,
    spec: SiteSpec,
    study: ResolvedStudy,
    plan: Plan,
    figures: tuple[float, ...],
) -> list[tuple[str, str]]:
    cost, before, after, delta = figures
    asked, schema = study.study, study.data_schema
    policy, ceilings = asked.policy, spec.ceilings
    columns = (
        ", ".join(schema.names) if schema.kind == "table" else f"the pixels of {len(schema.names)} columns"
    )
    subject = f"; {schema.subject} only to tell people apart, it is not trained on" if schema.subject else ""
    sites = len(study.roster)
    return [
        ("study", f"{asked.study}  {study.study_hash}"),
        ("purpose", policy.purpose),
        ("model", f"{asked.model.name}, {plan.rounds} rounds, with {sites} site{'s' if sites > 1 else ''}"),
        ("columns", columns + subject),
        ("protects", _UNIT[plan.unit]),
        ("this study", f"at most {phrase(cost, plan.delta)}"),
        ("spent so far", f"{at_most(before)} in all, at δ = {delta:g}"),
        ("after it", f"{at_most(after)} in all, at δ = {delta:g}"),
        (
            "you allow",
            ceilings_in_words(
                ceilings.epsilon_per_study, ceilings.epsilon_per_year, ceilings.epsilon_life, ceilings.delta
            ),
        ),
        ("updates go", _goes_to(accepted)),
        ("noise", _TRUST[plan.trust] if asked.privacy.insecure_seed is None else _SEEDED),
        ("ε holds", _against(plan) if asked.privacy.insecure_seed is None else "against nobody"),
        ("retention", _retention(spec)),
        ("packs", _packs(spec, study)),
        ("consent", _consent(spec)),
    ]


def _goes_to(accepted: Invitation | None) -> str:
    if accepted is None:
        return "nowhere yet: the site has joined no coordinator"
    to = f"to {accepted.name} at {accepted.address}, key {shown(accepted.coordinator)}"
    return f"{to}; sealed, so that it alone can open them"


def _against(plan: Plan) -> str:
    """Return whom the figures are about; the rest may learn more."""
    if isinstance(plan, DistributedPlan):
        helped = plan.point.noise.colluders
        with_help = f" and any {helped} other site{'s' if helped > 1 else ''} that help it" if helped else ""
        return f"against the coordinator{with_help}; NOT against it with more sites"
    if plan.trust is Trust.CENTRAL:
        return "against everyone but the coordinator; AGAINST IT NOTHING IS PROMISED"
    return "against everyone outside this site, the coordinator included"


def _retention(spec: SiteSpec) -> str:
    rule = None if spec.policy is None or spec.policy.records is None else spec.policy.records.retention_rule
    rows = (
        f"rule {rule or 'default'} of the packs"
        if spec.policy and spec.policy.packs
        else "no rule of this site"
    )
    return (
        f"rows: {rows}; here stay the ledger, and the last answer until the study is over; "
        "the coordinator keeps the model"
    )


def _packs(spec: SiteSpec, study: ResolvedStudy) -> str:
    mine = ", ".join(spec.policy.packs) if spec.policy and spec.policy.packs else "none of this site"
    asked = ", ".join(study.study.policy.packs)
    return f"{mine}; the study asks for {asked or 'none'}"


def _consent(spec: SiteSpec) -> str:
    if spec.policy and spec.policy.packs:
        return "decided by the packs over the consent store, before and after each round and before the sum"
    if spec.consent:
        return "read from the consent log before and after each round"
    return "NOT ASKED: this site has no consent log, every row may be used"
