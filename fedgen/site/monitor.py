"""The reference monitor: ``Site.handle(request: bytes) -> bytes`` is the whole surface of a data holder.

In order, for a round: verify who asks and for which study; refuse what is stale or repeated; read consent and
take only permitted rows; reserve the budget durably; only then draw a sample and noise; check consent again;
seal and sign; settle. Asked to confirm, right before the update is summed, it checks consent a third time.
Whatever goes wrong in between, the peer learns a code and an incident number.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.envelope import Expectation, Header, agree, open_frame, peek, seal_frame, sign_frame
from fedgen.crypto.keys import VerifyKey
from fedgen.data.gate import permit
from fedgen.errors import Code, IntegrityError, Refused, code_of
from fedgen.messages import (
    Confirm,
    Confirmed,
    Join,
    Joined,
    Kind,
    Refusal,
    Settle,
    Settled,
    Train,
    Trained,
    Wire,
    bucket,
    decode,
    encode,
    expect,
)
from fedgen.privacy.units import Trust
from fedgen.site.admit import Admission, admit, check_policy
from fedgen.site.memory import Kept, Memory, Released, rows_mark
from fedgen.site.persons import PersonBook
from fedgen.site.policy import Judgement
from fedgen.site.train import LocalUpdate, Rows, compute_update
from fedgen.site.weights import read_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    import torch
    from numpy.typing import NDArray

    from fedgen.crypto.keys import SigningKey
    from fedgen.data.encoded import EncodedTable
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.policy.consent import ConsentLog, Decision
    from fedgen.site.account import Account
    from fedgen.site.incidents import IncidentLog
    from fedgen.site.policy import PolicyDesk
    from fedgen.site.rules import SiteRules
    from fedgen.site.uses import NotesUse
    from fedgen.training.learner import Learner

COORDINATOR: Final = "coordinator"
_ASKS: Final = frozenset({Kind.JOIN, Kind.TRAIN, Kind.CONFIRM, Kind.SETTLE})


class Site:
    """One data holder.

    Guarantees:
        - :meth:`handle` returns bytes for any input and raises nothing but its operator's interrupt.
        - Requests are answered one at a time, whatever threads they come in on: noise is never drawn twice.
        - Only codes, bucketed counts and protected updates leave; no text of an error does.
        - The budget is reserved before noise is drawn; a crash in between leaves it charged.
        - A request that does not fit the study is refused before anything is reserved.
        - A round is answered once for each attempt; a repeated one is refused.
        - Where the site or the study asks for consent, rows without a consent log are not used.
        - The same round asked again after a crash gets the very same values and is not charged again, unless
          other rows are permitted by now.

    Args:
        rules: The site's own rules.
        identity: The site's signing key.
        coordinator: The coordinator's public signing key this site trusts.
        table: Loads the site's encoded rows.
        consent: Reads the consent log as it is now; None when the site's rules need none.
        account: Budget and ledger of the site's data.
        bench: Lends a learner for an admitted study.
        noise: The site's own source of noise and sampling.
        clock: Time of a round; the real time in a deployment.
        incidents: The site's own log.
        memory: What outlives this process; None keeps nothing.
        uses: Who was permitted in which round, so that an erasure can be traced; None keeps no such record.
        policy: Decides from packs and the consent store, in place of a consent log; None where the site has no packs.
    """

    def __init__(
        self,
        *,
        rules: SiteRules,
        identity: SigningKey,
        coordinator: bytes,
        table: Callable[[], EncodedTable],
        consent: Callable[[], ConsentLog] | None,
        account: Account,
        bench: Callable[[Admission], AbstractContextManager[Learner]],
        noise: NoiseSource,
        clock: Callable[[int], datetime],
        incidents: IncidentLog,
        memory: Memory | None = None,
        uses: NotesUse | None = None,
        policy: PolicyDesk | None = None,
    ) -> None:
        self._rules = rules
        self._identity = identity
        self._coordinator = VerifyKey(coordinator)
        self._table = table
        self._consent = consent
        self._account = account
        self._bench = bench
        self._noise = noise
        self._generator: torch.Generator | None = None
        self._clock = clock
        self._incidents = incidents
        self._memory = memory or Memory()
        self._uses = uses
        self._policy = policy
        self._persons = PersonBook()
        self._admission: Admission | None = None
        self._turn = threading.Lock()

    @property
    def name(self) -> str:
        """The site's name on the roster."""
        return self._rules.name

    def handle(self, request: bytes) -> bytes:
        """Answer one request from the coordinator; never raises.

        Edge cases:
            - No bytes at all: not even a refusal could be signed.
        """
        header: Header | None = None
        with self._turn:
            try:
                header = peek(request)
                self._remember(header)
                header, message, body = self._open(request, header)
                if isinstance(message, Join):
                    reply = self._join(message)
                    self._memory.accept(request)
                    return reply
                return self._dispatch(message, body)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - also what a Rust extension panics with
                return self._refuse(error, header)

    def _open(self, request: bytes, header: Header) -> tuple[Header, Wire, memoryview]:
        """Return the verified header, message and body of a request."""
        header, frame = open_frame(
            request, verify_key=self._coordinator, sealing_key=None, expect=self._expectation(header)
        )
        message, body = decode(frame)
        agree(header, message)
        return header, message, body

    def _remember(self, header: Header) -> None:
        """Take up the study that another process of this site admitted, held against every rule once more."""
        if self._admission is not None or header.kind == Kind.JOIN:
            return
        invitation = self._memory.invitation()
        if invitation is None:
            return
        try:
            _header, message, _body = self._open(invitation, peek(invitation))
        except IntegrityError:
            return  # damaged, or another coordinator's: as if it were not there
        self._admission = self._agreed(expect(message, Join))

    def _expectation(self, header: Header) -> Expectation:
        """Return what a request must be: a join for any study, anything else for the admitted one."""
        admitted = self._admission
        if header.kind == Kind.JOIN or admitted is None:
            return Expectation(
                study_hash=None, run=None, recipient=self.name, sender=COORDINATOR, kinds=_ASKS
            )
        return Expectation(
            study_hash=admitted.study.study_hash,
            run=admitted.run,
            recipient=self.name,
            sender=COORDINATOR,
            kinds=_ASKS,
        )

    def _dispatch(self, message: Wire, body: memoryview) -> bytes:
        if self._admission is None:
            raise Refused("no study was admitted", code=Code.NOT_ADMITTED)
        if isinstance(message, Train):
            return self._train(message, body, self._admission)
        if isinstance(message, Confirm):
            return self._confirm(message, self._admission)
        return self._settle(expect(message, Settle), self._admission)

    # -- the three requests -------------------------------------------------------------------------

    def _join(self, join: Join) -> bytes:
        """Hold a study against the site's rules; agreeing is recorded in the ledger."""
        admission = self._agreed(join)
        last = self._account.admitted(admission)
        self._admission = admission
        reply = Joined(study_hash=join.study_hash, site=self.name, accepts=True, last_round=last)
        return self._signed(reply, admission.study.study_hash, admission.run, 0, 0)

    def _agreed(self, join: Join) -> Admission:
        """Return what the site's rules make of an invitation."""
        if join.coordinator != self._coordinator.public.hex():
            raise Refused("the study names another coordinator", code=Code.UNKNOWN_SENDER)
        admission = admit(join, self._rules)
        check_policy(admission, self._policy, self._clock(0))
        return admission

    def _train(self, train: Train, body: memoryview, admission: Admission) -> bytes:
        """Answer one round; where consent, cohort or policy says no, the ledger says so too."""
        try:
            return self._answer(train, body, admission)
        except Refused as error:
            self._account.refuse(admission, train.round, train.attempt, error.code)
            raise

    def _answer(self, train: Train, body: memoryview, admission: Admission) -> bytes:
        """Answer one round with a protected update."""
        weights = read_weights(train, body)
        self._check_fits(weights, admission)
        table = self._table()
        decision = self._decide(admission, table, train.round)
        self._decided(admission, train, "load", decision)
        permitted = permit(table, decision, min_cohort=self._min_cohort(admission))
        rows = rows_mark(None if decision is None else decision.permitted)
        # Only a later attempt can be the same question again; a repeated first one is refused by the ledger.
        # A clear sum is another matter: the coordinator would noise it afresh, which is a second release.
        own_noise = admission.plan.trust is Trust.LOCAL
        kept = self._memory.kept() if own_noise and train.attempt > 1 else None
        if kept is not None and kept.answers(train, rows):
            again = kept.reply.model_copy(update={"attempt": train.attempt})
            self._memory.keep(Kept(again, kept.payload, rows))
            self._memory.release(Released.of(train, None if decision is None else decision.permitted))
            return self._sealed(again, kept.payload, admission)
        self._note_use(train, table, decision)
        usable = Rows(permitted.codes, self._persons.of(admission.study, permitted))
        receipt = self._account.reserve(admission, train.round, train.attempt)
        update = self._compute(admission, usable, weights, train.round)
        self._check_still_permitted(admission, table, train, decision)
        payload = update.vector.numpy().astype("<f4", copy=False).tobytes()
        reply = Trained(
            study_hash=train.study_hash,
            run=train.run,
            site=self.name,
            round=train.round,
            attempt=train.attempt,
            parameters=len(payload) // 4,
            steps=admission.plan.steps_per_round,
            weights=train.digest,
            excluded={reason: bucket(count) for reason, count in permitted.excluded.items() if count},
        )
        if own_noise:
            self._memory.keep(Kept(reply, payload, rows))
        sealed = self._sealed(reply, payload, admission)
        self._memory.release(Released.of(train, None if decision is None else decision.permitted))
        if self._policy is not None and isinstance(decision, Judgement):
            self._policy.note_round(decision.ruling, train, self.name, update=sha256_hex(payload))
        self._account.settle(receipt, sha256_hex(sealed))
        return sealed

    def _confirm(self, confirm: Confirm, admission: Admission) -> bytes:
        """Say whether every row behind the update of an attempt may still be used, right before it is summed."""
        released = self._memory.released()
        if released is None or not released.answers(confirm):
            raise IntegrityError("no update of this attempt left this site", code=Code.STALE_ROUND)
        now = self._decide(admission, self._table(), confirm.round)
        try:
            self._refuse_revoked(admission, confirm, "sum", released.permitted, now)
        except Refused as error:
            self._account.refuse(admission, confirm.round, confirm.attempt, error.code)
            raise
        reply = Confirmed(
            study_hash=confirm.study_hash,
            run=confirm.run,
            site=self.name,
            round=confirm.round,
            attempt=confirm.attempt,
        )
        return self._signed(reply, confirm.study_hash, confirm.run, confirm.round, confirm.attempt)

    def _settle(self, settle: Settle, admission: Admission) -> bytes:
        """Close the study's entry in the ledger, and leave the study; only a new invitation opens it again."""
        self._account.close_study(admission, settle.outcome, settle.rounds)
        self._admission = None
        self._memory.leave(finished=settle.outcome == "completed")
        reply = Settled(study_hash=settle.study_hash, site=self.name)
        return self._signed(reply, admission.study.study_hash, admission.run, settle.rounds, 0)

    # -- parts of a round ---------------------------------------------------------------------------

    def _check_fits(self, weights: torch.Tensor, admission: Admission) -> None:
        """Refuse weights of another model than the study's."""
        gradient = admission.study.exchange == "gradient"
        with self._bench(admission) as learner:
            expected = learner.parameters if gradient else learner.all_parameters
        if len(weights) != expected:
            raise IntegrityError("weights of another length", code=Code.WRONG_SHAPE)

    def _decide(self, admission: Admission, table: EncodedTable, round_number: int) -> Decision | None:
        """Return the consent decision for every row as of this round; consent is read anew each time."""
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
        asked: Train | Confirm,
        check: str,
        decision: Decision | None,
        revoked: int = 0,
    ) -> None:
        """Write into the ledger what the packs decided, where packs decide."""
        if isinstance(decision, Judgement):
            self._account.decided(admission, asked.round, asked.attempt, check, decision.ruling, revoked)

    def _check_still_permitted(
        self, admission: Admission, table: EncodedTable, train: Train, used: Decision | None
    ) -> None:
        """Discard the update if consent for a used row was withdrawn while it was computed."""
        now = self._decide(admission, table, train.round)
        try:
            self._refuse_revoked(admission, train, "commit", None if used is None else used.permitted, now)
        except Refused:
            if self._policy is not None and isinstance(now, Judgement):
                self._policy.note_round(now.ruling, train, self.name, update=None)
            raise

    def _refuse_revoked(
        self,
        admission: Admission,
        asked: Train | Confirm,
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

    def _note_use(self, train: Train, table: EncodedTable, decision: Decision | None) -> None:
        """Put on the disk who may be used in this round, before anything is computed.

        A kill leaves a use on record that never was, not the reverse.
        """
        if self._uses is None or table.subjects is None:
            return
        permitted = None if decision is None else decision.permitted
        self._uses.note(train.study_hash, train.run, train.round, train.attempt, table.subjects, permitted)

    def _compute(
        self,
        admission: Admission,
        rows: Rows,
        weights: torch.Tensor,
        round_number: int,  # noqa: ARG002 - a rehearsal needs to know
    ) -> LocalUpdate:
        """Lend a learner and compute the update."""
        if self._generator is None:
            self._generator = self._noise.generator()
        with self._bench(admission) as learner:
            return compute_update(learner, admission, rows, weights, self._noise, self._generator)

    # -- what leaves --------------------------------------------------------------------------------

    def _refuse(self, error: BaseException, header: Header | None) -> bytes:
        """Turn any error into a signed code, or into no bytes if not even that can be made."""
        try:
            return self._refusal(error, header)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a lost key or a full memory must not carry a text out either
            return b""

    def _refusal(self, error: BaseException, header: Header | None) -> bytes:
        """Return the signed code for an error."""
        code = code_of(error)
        incident = self._incidents.record(code, error, round_number=header.round if header else 0)
        refusal = Refusal(
            site=self.name,
            study_hash=header.study_hash if header else "",
            round=header.round if header else 0,
            attempt=header.attempt if header else 0,
            code=code,
            incident=incident,
        )
        run = header.run if header else ""
        return self._signed(refusal, refusal.study_hash, run, refusal.round, refusal.attempt)

    def _signed(self, message: Wire, study_hash: str, run: str, round_number: int, attempt: int) -> bytes:
        header = Header(
            kind=message.kind,
            study_hash=study_hash,
            run=run,
            round=round_number,
            attempt=attempt,
            sender=self.name,
            recipient=COORDINATOR,
        )
        return sign_frame(encode(message), header, self._identity)

    def _sealed(self, message: Trained, payload: bytes, admission: Admission) -> bytes:
        header = Header(
            kind=message.kind,
            study_hash=message.study_hash,
            run=message.run,
            round=message.round,
            attempt=message.attempt,
            sender=self.name,
            recipient=COORDINATOR,
        )
        return seal_frame(encode(message, payload), header, self._identity, admission.coordinator_sealing_key)
