"""The reference monitor: ``Site.handle(request: bytes) -> bytes`` is the whole surface of a data holder.

In order, for a round: verify who asks and for which study; refuse what is stale or repeated; read consent and
take only permitted rows; reserve the budget durably; only then draw a sample and noise; check consent again;
seal and sign; settle. Asked to confirm, right before the update is summed, it checks consent a third time.
Whatever goes wrong in between, the peer learns a code and an incident number.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from fedgen.crypto.envelope import Expectation, Header, agree, open_frame, peek
from fedgen.crypto.keys import VerifyKey
from fedgen.errors import Code, IntegrityError, Refused, code_of
from fedgen.messages import (
    Confirm,
    Join,
    Joined,
    Kind,
    Refusal,
    Settle,
    Settled,
    Step,
    Train,
    Turn,
    Wire,
    decode,
    expect,
)
from fedgen.site.admit import Admission, admit, check_policy
from fedgen.site.answering import Rounds
from fedgen.site.memory import Memory
from fedgen.site.part import part_of
from fedgen.site.permission import Permission
from fedgen.site.replies import COORDINATOR, Replies
from fedgen.site.train import LocalUpdate, Rows, compute_update

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    import torch

    from fedgen.crypto.keys import SigningKey
    from fedgen.data.encoded import EncodedTable
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.policy.consent import ConsentLog
    from fedgen.site.account import Account
    from fedgen.site.approvals import Approvals
    from fedgen.site.incidents import IncidentLog
    from fedgen.site.part import Peers, Standings
    from fedgen.site.policy import PolicyDesk
    from fedgen.site.rules import SiteRules
    from fedgen.site.secure import PlainSite, SecureSite
    from fedgen.site.uses import NotesUse
    from fedgen.training.learner import Learner

_ASKS: Final = frozenset({Kind.JOIN, Kind.TRAIN, Kind.CONFIRM, Kind.SETTLE, Kind.TURN, Kind.STEP})
_FOR_ONE: Final = frozenset({Kind.TURN, Kind.STEP})  # what differs from site to site is never for everyone


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
        - An update is sealed to the key of the accepted invitation or to none, where ``sealing`` says which that is.
        - Under distributed trust every site of the study is known here by its key before anything is begun, and no
          vector leaves without this site's share of the noise.
        - Under local trust the same round asked again after a crash gets the very same values and is not charged
          again, unless other rows are permitted by now; under any other every attempt is charged.

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
        peers: The other sites' public signing keys as this site knows them, by name; None: it knows nobody, and takes
            part in nothing under distributed trust.
        standing: Keeps what this site did in a run of secure aggregation; None: nothing does, with the same end.
        approvals: Asked before a study is joined and before each message that works on it; None where nobody's
            approval is needed.
        sealing: The key that the coordinator's updates are sealed to, as the site knows it now and not as a message
            says; None where only messages say it, as in a simulation.
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
        peers: Peers | None = None,
        standing: Standings | None = None,
        approvals: Approvals | None = None,
        sealing: Callable[[], bytes] | None = None,
    ) -> None:
        self._rules = rules
        self._identity = identity
        self._coordinator = VerifyKey(coordinator)
        self._account = account
        self._bench = bench
        self._noise = noise
        self._generator: torch.Generator | None = None
        self._clock = clock
        self._incidents = incidents
        self.last_refusal: tuple[Code, str] | None = None  # code and incident, for the operator's own metrics
        self._memory = memory or Memory()
        self._policy = policy
        self._peers, self._standing, self._approvals = peers, standing, approvals
        self._sealing = sealing
        self._replies = Replies(rules.name, identity)
        self._rounds = Rounds(
            rules.name,
            account=account,
            memory=self._memory,
            permission=Permission(
                rules, table=table, consent=consent, policy=policy, account=account, clock=clock, uses=uses
            ),
            replies=self._replies,
            noise=noise,
            still=self._check_still,
            fits=self._check_fits,
            compute=self._compute,
        )
        self._admission: Admission | None = None
        self._part: SecureSite | PlainSite | None = None
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
                self._remember(request, header)
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
        if header.kind in _FOR_ONE and header.recipient != self.name:
            raise IntegrityError("a message for one site is not for everyone", code=Code.WRONG_RECIPIENT)
        message, body = decode(frame)
        agree(header, message)
        return header, message, body

    def _remember(self, request: bytes, header: Header) -> None:
        """Take up the study that another process of this site admitted, held against every rule once more.

        Only for the coordinator's own message: whoever cannot sign one must not have a whole study planned for it.
        """
        if self._admission is not None or header.kind == Kind.JOIN:
            return
        invitation = self._memory.invitation()
        if invitation is None:
            return
        self._open(request, header)
        try:
            _header, message, _body = self._open(invitation, peek(invitation))
        except IntegrityError:
            return  # damaged, or another coordinator's: as if it were not there
        admission = self._agreed(expect(message, Join))
        self._part, self._admission = self._part_in(admission), admission

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
        admission, part = self._admission, self._part
        if admission is None:
            raise Refused("no study was admitted", code=Code.NOT_ADMITTED)
        if isinstance(message, Train):
            return self._rounds.train(message, body, admission)
        if isinstance(message, Confirm):
            return self._rounds.confirm(message, admission)
        if isinstance(message, Settle):
            return self._settle(message, admission)
        if part is None:
            raise IntegrityError("the study has no secure aggregation", code=Code.OUT_OF_ORDER)
        if isinstance(message, Turn):
            return self._rounds.turn(message, body, admission, part)
        return self._rounds.step(expect(message, Step), body, admission, part)

    # -- joining and leaving ------------------------------------------------------------------------

    def _join(self, join: Join) -> bytes:
        """Hold a study against the site's rules; agreeing is recorded in the ledger."""
        admission = self._agreed(join)
        part = self._part_in(admission)
        last = self._account.admitted(admission)
        self._admission, self._part = admission, part
        reply = Joined(study_hash=join.study_hash, site=self.name, accepts=True, last_round=last)
        return self._replies.signed(reply, admission.study.study_hash, admission.run)

    def _agreed(self, join: Join) -> Admission:
        """Return what the site's rules make of an invitation."""
        if join.coordinator != self._coordinator.public.hex():
            raise Refused("the study names another coordinator", code=Code.UNKNOWN_SENDER)
        admission = admit(join, self._rules)
        check_policy(admission, self._policy, self._clock(0))
        self._check_still(admission)
        return admission

    def _check_still(self, admission: Admission) -> None:
        """Refuse a study that is not approved now, and one whose updates would be sealed to a key that is not known.

        The key is named by a message, and a message is signed: who stole only the coordinator's signing key could
        have the site seal to a key of its own.
        """
        if self._approvals is not None:
            self._approvals.check(admission.study.study_hash, admission.study, admission.plan)
        if self._sealing is not None and self._sealing() != admission.coordinator_sealing_key:
            raise Refused(
                "updates would be sealed to another key than the invitation names",
                code=Code.NOT_ADMITTED,
                hint="accept the coordinator's newest invitation: fedgen site join",
            )

    def _part_in(self, admission: Admission) -> SecureSite | PlainSite | None:
        """Return this site's part in the turns of a study; an invitation that is repeated changes nothing in it."""
        part = part_of(admission, self.name, self._identity, peers=self._peers, standing=self._standing)
        known = self._part
        return known if known is not None and part is not None and known.terms == part.terms else part

    def _settle(self, settle: Settle, admission: Admission) -> bytes:
        """Close the study's entry in the ledger, and leave the study; only a new invitation opens it again."""
        self._account.close_study(admission, settle.outcome, settle.rounds)
        self._admission = self._part = None
        self._memory.leave(finished=settle.outcome == "completed")
        reply = Settled(study_hash=settle.study_hash, site=self.name)
        return self._replies.signed(reply, admission.study.study_hash, admission.run, settle.rounds)

    # -- the model of a round -----------------------------------------------------------------------

    def _check_fits(self, admission: Admission, weights: torch.Tensor) -> None:
        """Refuse weights of another model than the study's, and a study that is wrong about its own model."""
        gradient = admission.study.exchange == "gradient"
        with self._bench(admission) as learner:
            expected = learner.parameters if gradient else learner.all_parameters
        if admission.study.parameters not in {None, expected}:
            raise Refused("the study plans for another length of vector than its model has")
        if len(weights) != expected:
            raise IntegrityError("weights of another length", code=Code.WRONG_SHAPE)

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
        self.last_refusal = (code, incident)
        refusal = Refusal(
            site=self.name,
            study_hash=header.study_hash if header else "",
            round=header.round if header else 0,
            attempt=header.attempt if header else 0,
            code=code,
            incident=incident,
        )
        run = header.run if header else ""
        return self._replies.signed(refusal, refusal.study_hash, run, refusal.round, refusal.attempt)
