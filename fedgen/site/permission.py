"""Who may be used: asked when a round begins, again before anything leaves, and again before it is summed.

The answer is the consent log's, or the packs' over the consent store. It is read anew each time, and what packs decide
is written into the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedgen.data.gate import permit
from fedgen.errors import Code, Refused
from fedgen.messages import bucket
from fedgen.site.policy import Judgement

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from numpy.typing import NDArray

    from fedgen.data.encoded import EncodedTable
    from fedgen.data.gate import PermittedTable
    from fedgen.messages import Confirm, Train, Turn
    from fedgen.policy.consent import ConsentLog, Decision
    from fedgen.site.account import Account
    from fedgen.site.admit import Admission
    from fedgen.site.policy import PolicyDesk
    from fedgen.site.rules import SiteRules
    from fedgen.site.uses import NotesUse


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """What one attempt may use.

    Attributes:
        table: Every row of the site.
        decision: What was decided on each of them; None where consent is not the ground.
        permitted: The rows that may be used.
    """

    table: EncodedTable
    decision: Decision | None
    permitted: PermittedTable

    @property
    def rows(self) -> NDArray[np.bool_] | None:
        """Which rows may be used, shape ``(n,)``; None where consent is not the ground."""
        return None if self.decision is None else self.decision.permitted

    @property
    def excluded(self) -> dict[str, str]:
        """Reason to a bucketed count: all that leaves of it."""
        return {reason: bucket(count) for reason, count in self.permitted.excluded.items() if count}


class Permission:
    """Asks who may be used, and writes down what was decided.

    Guarantees:
        - Where the site or the study asks for consent, rows without a consent log are not used.
        - A row that was used and may no longer be takes the whole update with it.

    Args:
        rules: The site's own rules.
        table: Loads the site's encoded rows.
        consent: Reads the consent log as it is now, or None.
        policy: Decides from packs and the consent store, in place of a consent log; or None.
        account: Where decisions are written.
        clock: Time of a round.
        uses: Who was permitted in which round, or None.
    """

    def __init__(
        self,
        rules: SiteRules,
        *,
        table: Callable[[], EncodedTable],
        consent: Callable[[], ConsentLog] | None,
        policy: PolicyDesk | None,
        account: Account,
        clock: Callable[[int], datetime],
        uses: NotesUse | None,
    ) -> None:
        self._rules, self._table, self._consent, self._policy = rules, table, consent, policy
        self._account, self._clock, self._uses = account, clock, uses

    def grant(self, admission: Admission, asked: Train | Turn) -> Grant:
        """Return what this attempt may use, as of now.

        Raises:
            Refused: ``consent``: nobody says who agreed; ``cohort-too-small``: too few did.
        """
        table = self._table()
        decision = self._decide(admission, table, asked.round)
        self._decided(admission, asked, "load", decision)
        return Grant(table, decision, permit(table, decision, min_cohort=self._min_cohort(admission)))

    def note_use(self, asked: Train | Turn, grant: Grant) -> None:
        """Put on the disk who may be used in this round, before anything is computed.

        A kill leaves a use on record that never was, not the reverse.
        """
        if self._uses is None or grant.table.subjects is None:
            return
        self._uses.note(
            asked.study_hash, asked.run, asked.round, asked.attempt, grant.table.subjects, grant.rows
        )

    def check_still(self, admission: Admission, asked: Train | Turn, grant: Grant) -> None:
        """Return if every row that was used may still be, right before the update leaves.

        Raises:
            Refused: ``consent``: one may not; the update is discarded.
        """
        now = self._decide(admission, grant.table, asked.round)
        try:
            self._refuse_revoked(admission, asked, "commit", grant.rows, now)
        except Refused:
            if self._policy is not None and isinstance(now, Judgement):
                self._policy.note_round(now.ruling, asked, self._rules.name, update=None)
            raise

    def check_sum(self, admission: Admission, asked: Confirm, used: NDArray[np.bool_] | None) -> None:
        """Return if every row that was used may still be, right before the update is summed.

        Raises:
            Refused: ``consent``: one may not.
        """
        now = self._decide(admission, self._table(), asked.round)
        self._refuse_revoked(admission, asked, "sum", used, now)

    def note_left(self, asked: Train | Turn, grant: Grant, digest: str) -> None:
        """Keep, where packs decide, what the update that leaves was made from."""
        if self._policy is not None and isinstance(grant.decision, Judgement):
            self._policy.note_round(grant.decision.ruling, asked, self._rules.name, update=digest)

    def _decide(self, admission: Admission, table: EncodedTable, round_number: int) -> Decision | None:
        """Return the decision for every row as of this round; consent is read anew each time."""
        policy = admission.study.study.policy
        if self._policy is not None:
            return self._policy.decide(table, policy.purpose, self._clock(round_number), round_number)
        if self._consent is None:
            if self._rules.consent_required or policy.consent is not None:
                raise Refused("consent is required and no consent log is configured", code=Code.CONSENT)
            return None
        if table.subjects is None:
            raise Refused(
                "a consent log is configured and the rows do not say whose they are", code=Code.CONSENT
            )
        now = self._clock(round_number)
        return self._consent().decide(table.subjects, policy.purpose, now, policy.regime)

    def _min_cohort(self, admission: Admission) -> int:
        """Return the fewest persons to train on: what site, study and packs ask for, whichever is most."""
        of_packs = 0 if self._policy is None else self._policy.min_cohort
        return max(self._rules.min_cohort, admission.study.study.policy.min_cohort, of_packs)

    def _decided(
        self,
        admission: Admission,
        asked: Train | Turn | Confirm,
        check: str,
        decision: Decision | None,
        revoked: int = 0,
    ) -> None:
        """Write into the ledger what the packs decided, where packs decide."""
        if isinstance(decision, Judgement):
            self._account.decided(admission, asked.round, asked.attempt, check, decision.ruling, revoked)

    def _refuse_revoked(
        self,
        admission: Admission,
        asked: Train | Turn | Confirm,
        check: str,
        used: NDArray[np.bool_] | None,
        now: Decision | None,
    ) -> None:
        """Refuse if a row that was used may no longer be."""
        if used is None:
            return
        lost = len(used) if now is None else int(np.count_nonzero(used & ~now.permitted))
        if lost:
            self._decided(admission, asked, check, now, lost)
            raise Refused("consent was withdrawn during the round", code=Code.CONSENT)
