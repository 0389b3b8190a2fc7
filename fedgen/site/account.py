"""A site's budget for its data: what may still be spent, reserved durably before any noise is drawn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fedgen.errors import BudgetExhausted, Code, IntegrityError
from fedgen.ledger.entries import Admitted, Closed, Decided, Refused
from fedgen.privacy.budget import Ceiling, Request, Spent, decide
from fedgen.site.policy import entry_fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fedgen.ledger.store import Ledger, Receipt
    from fedgen.privacy.budget import Scope
    from fedgen.privacy.plan import Plan
    from fedgen.site.admit import Admission
    from fedgen.site.policy import Ruling
    from fedgen.site.rules import SiteRules


_NOTED_ATTEMPTS: Final = 64  # of one round; whoever asks more often fills no disk
_LEAST: Final = sys.float_info.min  # a ceiling is positive


class Account:
    """Charges one data set's rounds to its ledger.

    Guarantees:
        - A round is reserved before it is computed; a crash leaves it charged.
        - What earlier studies spent on the same data counts against the ceiling for its life.
        - A round and attempt is reserved once; a stale or repeated one is refused before anything is spent.
        - A message that is repeated adds no line to the ledger.
        - When a study is over, a signed checkpoint of the ledger is kept; it is never ahead of the ledger.

    Args:
        ledger: Lends the site's ledger for the length of a block.
        dataset: Identity of the data set, hex.
        rules: The site's own limits.
        checkpoint: Where checkpoints are kept; None means beside a ledger that is a file, and nowhere for a server's.
    """

    def __init__(
        self,
        ledger: Callable[[], AbstractContextManager[Ledger]],
        dataset: str,
        rules: SiteRules,
        *,
        checkpoint: Path | None = None,
    ) -> None:
        self._ledger = ledger
        self._checkpoint = checkpoint
        self._dataset = dataset
        self._rules = rules

    def admitted(self, admission: Admission) -> int:
        """Record an admission and return the last round of this study the data took part in, zero if none."""
        study = admission.study.study_hash
        with self._ledger() as ledger:
            ledger.note(Admitted(study_hash=study, run=admission.run, dataset=self._dataset))
            return ledger.last_round(study, admission.run)

    def reserve(self, admission: Admission, round_number: int, attempt: int) -> Receipt:
        """Charge one round durably, or refuse it with nothing spent.

        Raises:
            IntegrityError: ``stale-round`` or ``replayed``.
            BudgetExhausted: A ceiling of the study or of the site would be exceeded, or the data were charged per
                another unit before.
        """
        plan, study = admission.plan, admission.study.study_hash
        event, count = plan.event_per_round()
        with self._ledger() as ledger:
            self._check_fresh(ledger, admission, round_number, attempt)
            try:
                return ledger.reserve(
                    dataset=self._dataset,
                    study_hash=study,
                    run=admission.run,
                    round=round_number,
                    attempt=attempt,
                    event=event,
                    count=count,
                    check=lambda spent: self._check_budget(spent, plan),
                    unit=plan.unit.value,
                )
            except BudgetExhausted:
                _note_refusal(ledger, admission, round_number, attempt, Code.BUDGET)
                raise

    def refuse(self, admission: Admission, round_number: int, attempt: int, code: Code) -> None:
        """Record that consent, cohort or policy said no to a round; once for each attempt that is not over."""
        with self._ledger() as ledger:
            _note_refusal(ledger, admission, round_number, attempt, code)

    def decided(
        self, admission: Admission, round_number: int, attempt: int, check: str, ruling: Ruling, revoked: int
    ) -> None:
        """Record what the packs decided on the site's rows: once for each attempt and check."""
        if round_number > admission.plan.rounds + 1 or attempt > _NOTED_ATTEMPTS:
            return
        entry = Decided(
            study_hash=admission.study.study_hash,
            run=admission.run,
            round=round_number,
            attempt=attempt,
            check=check,
            revoked=revoked,
            **entry_fields(ruling),
        )
        with self._ledger() as ledger:
            ledger.decided(entry)

    def settle(self, receipt: Receipt, digest: str) -> None:
        """Record that what was reserved has left the site."""
        with self._ledger() as ledger:
            ledger.settle(receipt, digest)

    def close_study(self, admission: Admission, outcome: str, rounds: int) -> None:
        """Record that a study is over, and keep a checkpoint of the ledger; again changes nothing."""
        entry = Closed(
            study_hash=admission.study.study_hash, run=admission.run, outcome=outcome, rounds=rounds
        )
        with self._ledger() as ledger:
            ledger.note(entry)
            ledger.keep_checkpoint(self._checkpoint)

    def _check_fresh(self, ledger: Ledger, admission: Admission, round_number: int, attempt: int) -> None:
        last, last_attempt = ledger.last_attempt(admission.study.study_hash, admission.run)
        if round_number < last or (round_number == last and attempt < last_attempt):
            raise IntegrityError("a round that is already over", code=Code.STALE_ROUND)
        if (round_number, attempt) == (last, last_attempt):
            raise IntegrityError("a round that was already answered", code=Code.REPLAYED)

    def _check_budget(self, spent: Spent, plan: Plan) -> None:
        """Hold one more round against the study's own budget and the site's ceilings."""
        event, count = plan.event_per_round()
        decide(spent, Request(event=event, per_round=count), ceilings_of(plan, self._rules))


def _note_refusal(ledger: Ledger, admission: Admission, round_number: int, attempt: int, code: Code) -> None:
    """Record a refusal of a round that the study has, or of the first one too many, and of an attempt within reason."""
    if round_number <= admission.plan.rounds + 1 and attempt <= _NOTED_ATTEMPTS:
        study = admission.study.study_hash
        ledger.note(Refused(study, admission.run, round_number, attempt, str(code)))


def ceilings_of(plan: Plan, rules: SiteRules) -> tuple[Ceiling, ...]:
    """Return every limit on a study at a site: the study's own, and the site's where it has them.

    A study with a given noise multiplier may spend what its planned rounds cost, and not a round more.
    """
    own = plan.epsilon_allowed if plan.epsilon_allowed is not None else plan.epsilon_of(plan.rounds)
    own = max(own, _LEAST)  # so much noise that the bound rounds to zero is still within it
    limits = [Ceiling(epsilon=own, delta=plan.delta, scope="study", relation=plan.relation)]
    site: tuple[tuple[float | None, Scope], ...] = (
        (rules.epsilon_per_study, "study"),
        (rules.epsilon_per_year, "year"),
        (rules.epsilon_life, "data"),
    )
    delta = rules.delta or plan.delta
    limits += [Ceiling(most, delta, scope, plan.relation) for most, scope in site if most is not None]
    return tuple(limits)
