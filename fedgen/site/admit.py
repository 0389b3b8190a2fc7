"""Whether a site takes part in a study: its own rules against what the coordinator asks.

A study can lower what a site allows, never raise it. Whatever is missing, unknown or contradictory means no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedgen.config.plan import plan_of
from fedgen.config.resolve import ResolvedStudy
from fedgen.crypto.keys import seal
from fedgen.errors import BudgetExhausted, Code, ConfigError, IntegrityError, Refused

if TYPE_CHECKING:
    from datetime import datetime

    from fedgen.config.distributed import DistributedPlan
    from fedgen.messages import Join
    from fedgen.privacy.plan import Plan, PrivacyPlan
    from fedgen.site.policy import PolicyDesk
    from fedgen.site.rules import SiteRules


@dataclass(frozen=True, slots=True)
class Admission:
    """A study this site has agreed to.

    Attributes:
        study: The study as parsed by the site itself from the bytes whose hash it checked.
        plan: The privacy plan as computed by the site itself.
        run: Identity of the run.
        coordinator_sealing_key: Where updates are sealed to.
        sampled: How many persons (with ``unit: person``) or rows the roster declares for this site; public.
    """

    study: ResolvedStudy
    plan: PrivacyPlan | DistributedPlan
    run: str
    coordinator_sealing_key: bytes
    sampled: int

    @property
    def expected_batch(self) -> float:
        """Expected persons or rows of one step at this site, by declaration."""
        return self.study.sample_rate * self.sampled


def admit(join: Join, rules: SiteRules) -> Admission:
    """Check a study against a site's own rules and return what was agreed to.

    Guarantees:
        - The study's hash is recomputed from its text; the plan (σ, q, ε) is recomputed from the study.
        - The study's total ε stays within every ceiling of the site, or it is refused before anything is spent;
          what other studies spend on the same data is counted round by round.
        - The schema is the site's own, byte for byte.
        - Something can be sealed to the coordinator's key.

    Raises:
        Refused: ``study-refused`` or ``wrong-study``, with what to change.
        BudgetExhausted: A ceiling of the site is lower than what the study may spend.
        IntegrityError: ``malformed``: the study is not canonical, or the sealing key is no key.
    """
    study = _parse(join)
    try:
        sampled = study.sampled_of(rules.name)
    except KeyError:
        raise Refused("the study's roster does not name this site", code=Code.STUDY_REFUSED) from None
    _check_terms(study, rules)
    plan = plan_of(study)
    _check_ceilings(plan, rules)
    return Admission(
        study=study,
        plan=plan,
        run=join.run,
        coordinator_sealing_key=_sealing_key(join),
        sampled=sampled,
    )


def check_study(study: ResolvedStudy, plan: Plan, rules: SiteRules) -> None:
    """Hold a study that nobody has sent yet against a site's own rules, as :func:`admit` would.

    Raises:
        Refused: As :func:`admit`.
        BudgetExhausted: As :func:`admit`.
    """
    if all(entry.name != rules.name for entry in study.roster):
        raise Refused("the study's roster does not name this site", code=Code.STUDY_REFUSED)
    _check_terms(study, rules)
    _check_ceilings(plan, rules)


def check_policy(admission: Admission, desk: PolicyDesk | None, now: datetime) -> None:
    """Hold a study's packs and the documents behind it against the site's.

    Raises:
        Refused: ``study-refused``: packs are asked of a site without any, they are not the site's, the study does
            not ask before it sums, or a document is missing; the text, for the site alone, says what to file.
    """
    policy = admission.study.study.policy
    if desk is None:
        if policy.packs:
            what = "the study asks for packs, and this site has no consent store to decide from"
            raise Refused(what, code=Code.STUDY_REFUSED, hint="fill in `policy` in the site's file")
        return
    if not policy.confirms:
        what = "this site vouches for each update right before it is summed, and the study does not ask"
        raise Refused(what, code=Code.STUDY_REFUSED, hint="set policy.confirm: true in the study")
    if len(policy.pins or {}) != len(policy.packs):
        raise Refused("the study does not say which packs it means", code=Code.STUDY_REFUSED)
    desk.check_pins(policy.pins or {})
    desk.check_run(admission, now)


def _sealing_key(join: Join) -> bytes:
    """Return the key that updates are sealed to; one that is no key would cost every round its budget."""
    try:
        key = bytes.fromhex(join.sealing_key)
    except ValueError:
        raise IntegrityError("the sealing key is not hex", code=Code.MALFORMED) from None
    seal(key, b"", info=b"")
    return key


def _parse(join: Join) -> ResolvedStudy:
    """Return the study whose hash the message names; only its canonical text is accepted."""
    try:
        study = ResolvedStudy.from_json(join.study)
    except ConfigError as error:
        raise Refused("the study cannot be read by this version", code=Code.STUDY_REFUSED) from error
    if study.study_hash != join.study_hash:
        raise Refused("the study's text does not match its hash", code=Code.WRONG_STUDY)
    return study


def _check_terms(study: ResolvedStudy, rules: SiteRules) -> None:
    """Hold purpose, schema and cohort against the site's file."""
    if rules.schema_digest is not None and study.data_schema.digest() != rules.schema_digest:
        raise Refused("the study's schema is not this site's", code=Code.STUDY_REFUSED)
    if rules.purposes is not None and study.study.policy.purpose not in rules.purposes:
        raise Refused("this site does not allow the study's purpose", code=Code.STUDY_REFUSED)
    _check_seed(study.study.privacy.insecure_seed, rules)
    secagg = study.study.secagg
    if secagg is not None and secagg.protocol != "full" and not rules.simulated:
        what = "the study adds vectors up without masks (protocol: sum), which hides nothing"
        raise Refused(what, code=Code.STUDY_REFUSED, hint="set secagg.protocol: full in the study")


def _check_seed(seed: int | None, rules: SiteRules) -> None:
    """Refuse a seeded study at a site with real noise, and any other than the seed's own where the site rehearses."""
    if rules.simulated or seed == rules.rehearsal_seed:
        return
    if rules.rehearsal_seed is None:
        raise Refused("a study with insecure_seed is not private", code=Code.STUDY_REFUSED)
    raise Refused(
        "this site rehearses: its noise comes from a seed, so it serves no study but those with that seed",
        code=Code.STUDY_REFUSED,
        hint="take rehearsal_seed out of the site's file",
    )


def _check_ceilings(plan: Plan, rules: SiteRules) -> None:
    """Refuse a study that would spend more than a ceiling of the site ever allows, or at a larger δ."""
    if rules.delta is not None and plan.delta > rules.delta:
        raise Refused("the study's delta is larger than this site's", code=Code.STUDY_REFUSED)
    ceilings = (
        ("epsilon_per_study", rules.epsilon_per_study, "one study"),
        ("epsilon_per_year", rules.epsilon_per_year, "one year"),
        ("epsilon_life", rules.epsilon_life, "the life of its data"),
    )
    for key, most, what in ceilings:
        if most is not None and plan.epsilon_of(plan.rounds) > most:
            raise BudgetExhausted(
                f"the study may spend more than this site's ceiling for {what}",
                where=rules.name,
                key=f"ceilings.{key}",
                hint="lower privacy.epsilon or ask the site to raise its ceiling",
            )
