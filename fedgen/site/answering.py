"""One round at a site, whichever way it is asked: what comes before a row is touched, and what before anything leaves.

A round in clear (:class:`Train`) sends one protected update. A round of secure aggregation (:class:`Turn`) sends a
vector with the site's share of the noise, masked; its other messages (:class:`Step`) carry no row. Both pass the same
gates in the same order, and a study has one of the two: a clipped sum without noise never leaves under distributed
trust because it was asked for by another name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedgen.config.distributed import DistributedPlan
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.messages import Confirmed, Stepped, Trained
from fedgen.privacy.units import Trust
from fedgen.secagg import wire
from fedgen.site.memory import Kept, Released, rows_mark
from fedgen.site.persons import PersonBook
from fedgen.site.secure import SecureSite, Work
from fedgen.site.train import Rows
from fedgen.site.weights import read_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.ledger.store import Receipt
    from fedgen.messages import Confirm, Step, Train, Turn
    from fedgen.site.account import Account
    from fedgen.site.admit import Admission
    from fedgen.site.memory import Memory
    from fedgen.site.permission import Grant, Permission
    from fedgen.site.replies import Replies
    from fedgen.site.secure import PlainSite
    from fedgen.site.train import LocalUpdate

    Ring = NDArray[np.unsignedinteger[Any]]
    A = TypeVar("A")
    Fits = Callable[[Admission, torch.Tensor], None]
    Compute = Callable[[Admission, Rows, torch.Tensor, int], LocalUpdate]

_OF_A_TURN: Final = frozenset({wire.Kind.PROPOSE, wire.Kind.UNMASK})


class Rounds:
    """Answers the questions of a study that was admitted.

    Guarantees:
        - Rows are read, and the budget is charged, only for weights of the study's model.
        - The budget is reserved before a sample is drawn; consent is read again after, and before anything leaves.
        - Under distributed trust nothing but the answer to a :class:`Turn` is made from rows, and it carries the site's
          share of the noise.

    Args:
        name: The site's name on the roster.
        account: Budget and ledger.
        memory: What outlives this process.
        permission: Who may be used.
        replies: Signs and seals.
        noise: The site's own source.
        still: Refuses a study that its owner, or the site's invitation, does not allow now; asked at every message.
        fits: Refuses weights that are not of the study's model.
        compute: Lends a learner and returns an update.
    """

    def __init__(
        self,
        name: str,
        *,
        account: Account,
        memory: Memory,
        permission: Permission,
        replies: Replies,
        noise: NoiseSource,
        still: Callable[[Admission], None],
        fits: Fits,
        compute: Compute,
    ) -> None:
        self._name, self._account, self._memory, self._permission = name, account, memory, permission
        self._replies, self._noise, self._still = replies, noise, still
        self._fits, self._compute = fits, compute
        self._persons = PersonBook()

    def train(self, train: Train, body: memoryview, admission: Admission) -> bytes:
        """Answer one round with a protected update; where consent, cohort or policy says no, the ledger says so too.

        Raises:
            IntegrityError: ``out-of-order``: the study's noise comes in shares, so its sums leave in turns only.
        """
        if isinstance(admission.plan, DistributedPlan):
            raise IntegrityError("this study sends no sum without its noise", code=Code.OUT_OF_ORDER)
        return self._or_noted(admission, train, lambda: self._trained(train, body, admission))

    def turn(self, turn: Turn, body: memoryview, admission: Admission, part: SecureSite | PlainSite) -> bytes:
        """Answer one turn of secure aggregation with this site's vector; refusals as in :meth:`train`."""
        return self._or_noted(admission, turn, lambda: self._contributed(turn, body, admission, part))

    def step(self, step: Step, body: memoryview, admission: Admission, part: SecureSite | PlainSite) -> bytes:
        """Answer any other step of secure aggregation; no row is read.

        Raises:
            IntegrityError: The step is none, or is of another attempt than it says.
            Refused: Fewer sites than a sum must hold; or the owner has taken the approval back.
        """
        if not isinstance(part, SecureSite):
            raise IntegrityError("sums without masks have no such step", code=Code.OUT_OF_ORDER)
        if wire.kind_of(body) in _OF_A_TURN and (step.round, step.attempt) != part.begun:
            raise IntegrityError("the step is of another attempt", code=Code.STALE_ROUND)
        self._or_noted(admission, step, lambda: self._still(admission))
        frame = part.answer(body)
        return self._replies.sealed(self._stepped(step, {}), frame, admission)

    def confirm(self, confirm: Confirm, admission: Admission) -> bytes:
        """Say whether every row behind the update of an attempt may still be used, right before it is summed."""
        released = self._memory.released()
        if released is None or not released.answers(confirm):
            raise IntegrityError("no update of this attempt left this site", code=Code.STALE_ROUND)
        try:
            self._still(admission)
            self._permission.check_sum(admission, confirm, released.permitted)
        except Refused as error:
            self._account.refuse(admission, confirm.round, confirm.attempt, error.code)
            raise
        reply = Confirmed(
            study_hash=confirm.study_hash,
            run=confirm.run,
            site=self._name,
            round=confirm.round,
            attempt=confirm.attempt,
        )
        return self._replies.signed(reply, confirm.study_hash, confirm.run, confirm.round, confirm.attempt)

    # -- in clear -----------------------------------------------------------------------------------

    def _trained(self, train: Train, body: memoryview, admission: Admission) -> bytes:
        """Answer one round with a protected update."""
        weights, grant = self._granted(train, body, admission)
        rows = rows_mark(grant.rows)
        # Only a later attempt can be the same question again; a repeated first one is refused by the ledger.
        # A clear sum is another matter: the coordinator would noise it afresh, which is a second release.
        own_noise = admission.plan.trust is Trust.LOCAL
        kept = self._memory.kept() if own_noise and train.attempt > 1 else None
        if kept is not None and kept.answers(train, rows):
            again = kept.reply.model_copy(update={"attempt": train.attempt})
            self._memory.keep(Kept(again, kept.payload, rows))
            self._memory.release(Released.of(train, grant.rows))
            return self._replies.sealed(again, kept.payload, admission)
        self._permission.note_use(train, grant)
        usable = self._usable(admission, grant)
        receipt = self._account.reserve(admission, train.round, train.attempt)
        update = self._compute(admission, usable, weights, train.round)
        self._permission.check_still(admission, train, grant)
        payload = update.vector.numpy().astype("<f4", copy=False).tobytes()
        reply = Trained(
            study_hash=train.study_hash,
            run=train.run,
            site=self._name,
            round=train.round,
            attempt=train.attempt,
            parameters=len(payload) // 4,
            steps=admission.plan.steps_per_round,
            weights=train.digest,
            excluded=grant.excluded,
        )
        if own_noise:
            self._memory.keep(Kept(reply, payload, rows))
        return self._leave(train, reply, payload, admission, grant, receipt)

    # -- in shares ----------------------------------------------------------------------------------

    def _contributed(
        self, turn: Turn, body: memoryview, admission: Admission, part: SecureSite | PlainSite
    ) -> bytes:
        """Answer a turn; an attempt is answered once, and no answer is kept: masks are never used twice."""
        vector = 4 * turn.parameters
        weights, grant = self._granted(turn, body[:vector], admission)
        usable = self._usable(admission, grant)
        receipts: list[Receipt] = []

        def charge() -> None:
            self._permission.note_use(turn, grant)
            receipts.append(self._account.reserve(admission, turn.round, turn.attempt))

        frame = part.contribute(
            body[vector:],
            Work(
                round=turn.round,
                attempt=turn.attempt,
                weights=turn.digest,
                charge=charge,
                share=lambda: self._share(turn, admission, grant, usable, weights),
            ),
        )
        (receipt,) = receipts  # what was not charged has no vector to leave
        return self._leave(turn, self._stepped(turn, grant.excluded), frame, admission, grant, receipt)

    def _share(
        self, turn: Turn, admission: Admission, grant: Grant, usable: Rows, weights: torch.Tensor
    ) -> Ring:
        """Return the clipped sum on the grid with this site's share of the noise, if it still may leave."""
        plan = admission.plan
        if not isinstance(plan, DistributedPlan):
            raise IntegrityError("the study has no shares of noise", code=Code.OUT_OF_ORDER)
        update = self._compute(admission, usable, weights, turn.round)
        self._permission.check_still(admission, turn, grant)
        return plan.point.share(update.vector.numpy(), self._noise.stream)

    def _stepped(self, asked: Step | Turn, excluded: dict[str, str]) -> Stepped:
        return Stepped(
            study_hash=asked.study_hash,
            run=asked.run,
            site=self._name,
            round=asked.round,
            attempt=asked.attempt,
            excluded=excluded,
        )

    # -- both ---------------------------------------------------------------------------------------

    def _or_noted(self, admission: Admission, asked: Train | Turn | Step, answer: Callable[[], A]) -> A:
        """Return the answer; a refusal is written into the ledger first."""
        try:
            return answer()
        except Refused as error:
            self._account.refuse(admission, asked.round, asked.attempt, error.code)
            raise

    def _granted(
        self, asked: Train | Turn, body: memoryview, admission: Admission
    ) -> tuple[torch.Tensor, Grant]:
        """Return the weights of a request and the rows that may be used, if both are as they must be."""
        weights = read_weights(asked, body)
        self._fits(admission, weights)
        self._still(admission)
        return weights, self._permission.grant(admission, asked)

    def _usable(self, admission: Admission, grant: Grant) -> Rows:
        return Rows(grant.permitted.codes, self._persons.of(admission.study, grant.permitted))

    def _leave(
        self,
        asked: Train | Turn,
        reply: Trained | Stepped,
        payload: bytes,
        admission: Admission,
        grant: Grant,
        receipt: Receipt,
    ) -> bytes:
        """Seal an update, write down that it left, and return it."""
        sealed = self._replies.sealed(reply, payload, admission)
        self._memory.release(Released.of(asked, grant.rows))
        self._permission.note_left(asked, grant, sha256_hex(payload))
        self._account.settle(receipt, sha256_hex(sealed))
        return sealed
