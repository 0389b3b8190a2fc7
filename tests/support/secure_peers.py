"""Sites of a study under distributed trust, made of the real secure sites and a script, for a real coordinator to meet.

A site's vector is a function of its name, the round and the attempt, so that a vector which is counted twice, or for
another attempt, is seen in the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from support.federation import Desk, small_study
from support.peers import Bureau, Killed, Peer, Wires, open_bureau
from support.secagg_driven import Kept

from fedgen.api.bench import new_learner
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of
from fedgen.crypto.envelope import Expectation, Header, open_frame, seal_frame
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.messages import Confirm, Join, Refusal, Settle, Settled, Step, Stepped, Turn, Wire, decode, encode
from fedgen.secagg import wire
from fedgen.site.secure import PlainSite, SecureSite, Work
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fedgen.coordinator.coordinator import Outcome, RoundRecord
    from fedgen.coordinator.transport import Answer

SITES = 5
ALL = tuple(f"site-0{number}" for number in range(1, SITES + 1))
SPREAD = 2**20


def secure_study(
    *,
    sites: int = SITES,
    protocol: str = "full",
    recovery: str = "unmask",
    dropouts: int = 1,
    **sections: Any,
) -> Desk:
    """Return the desk of a small study under distributed trust."""
    privacy = {"trust": "distributed", **sections.pop("privacy", {})}
    secagg = {"protocol": protocol, "recovery": recovery, "dropouts": dropouts, **sections.pop("secagg", {})}
    training = {"rounds": 4, **sections.pop("training", {})}
    return Desk(small_study(sites=sites, privacy=privacy, secagg=secagg, training=training, **sections))


def plan_for(desk: Desk) -> DistributedPlan:
    plan = plan_of(desk.study)
    assert isinstance(plan, DistributedPlan)
    return plan


def vector(desk: Desk, name: str, number: int, attempt: int) -> np.ndarray:
    """Return a site's vector on the grid, in the ring."""
    point = plan_for(desk).point
    rng = np.random.default_rng([*name.encode(), number, attempt])
    values = rng.integers(-SPREAD, SPREAD, point.grid.dimension)
    return values.astype(f"<i{point.ring // 8}").view(f"<u{point.ring // 8}")


@dataclass
class Asked:
    """What a site was asked, opened: a message, the weights that came with it, and the frame."""

    message: Wire
    weights: bytes
    frame: bytes
    header: Header


@dataclass
class SecurePeer(Peer):
    """A site of secure aggregation: honest unless ``twist`` makes something else of its answers.

    Attributes:
        roster: The sites' keys, filled when all peers are there.
        twist: Given the step, what was asked and the honest frame, returns the replies, or None for the honest one.
        kept: What outlives a restart.
        charged: Attempts that were charged.
        asked: Every question, opened.
    """

    roster: Mapping[str, bytes] = field(default_factory=dict)
    twist: Callable[[SecurePeer, wire.Kind, Asked, bytes], list[bytes] | None] | None = None
    kept: Kept = field(default_factory=Kept)
    charged: list[tuple[int, int]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    part: SecureSite | PlainSite | None = None

    def restart(self) -> None:
        """Forget everything but what is kept."""
        self.part = None

    def handle(self, frame: bytes) -> list[bytes]:
        asked = self._asked(frame)
        message = asked.message
        if isinstance(message, Turn | Step):
            self.asked.append(asked)
            replies = self._stepped(asked)
        elif isinstance(message, Join):
            replies = [self.joined()]
        elif isinstance(message, Confirm):
            replies = self.on_confirm(self, asked) if self.on_confirm else None  # type: ignore[arg-type]  # opened alike
            replies = [self.confirmed(asked)] if replies is None else replies  # type: ignore[arg-type]
        else:
            assert isinstance(message, Settle)
            replies = [self.signed(Settled(study_hash=self.desk.study.study_hash, site=self.name))]
        self.sent += replies
        return replies

    def _asked(self, frame: bytes) -> Asked:
        expect = Expectation(study_hash=None, run=None, recipient=self.name, sender="coordinator")
        header, inner = open_frame(
            frame, verify_key=self.desk.signing.verify_key, sealing_key=None, expect=expect
        )
        message, body = decode(inner)
        at = 4 * message.parameters if isinstance(message, Turn) else 0
        if isinstance(message, Turn | Step):
            assert header.recipient == self.name, "each frame is for one site"
        return Asked(message, bytes(body[:at]), bytes(body[at:]), header)

    def _stepped(self, asked: Asked) -> list[bytes]:
        kind = wire.kind_of(asked.frame)
        try:
            honest = self.answer(asked)
        except (IntegrityError, Refused) as error:
            return [self.refused(asked, error.code)]
        replies = self.twist(self, kind, asked, honest) if self.twist else None
        return [self.stepped(asked, honest)] if replies is None else replies

    def answer(self, asked: Asked) -> bytes:
        """Return the honest frame."""
        if self.part is None:
            plan = plan_for(self.desk)
            terms = plan.terms(self.desk.study.study_hash, self.desk.run, self.roster)
            made = SecureSite(terms, self.name, self.key, self.kept) if plan.masked else None
            self.part = made or PlainSite(terms, self.name, self.kept)
        message = asked.message
        if isinstance(message, Turn):
            number, attempt = message.round, message.attempt
            return self.part.contribute(
                asked.frame,
                Work(
                    round=number,
                    attempt=attempt,
                    weights=message.digest,
                    charge=lambda: self.charged.append((number, attempt)),
                    share=lambda: vector(self.desk, self.name, number, attempt).copy(),
                ),
            )
        assert isinstance(self.part, SecureSite)
        return self.part.answer(asked.frame)

    def stepped(self, asked: Asked, frame: bytes, **changes: Any) -> bytes:
        """Return a sealed answer; ``changes`` alter the message, ``cover_*`` its header, ``key`` who signs."""
        key, seal_to = changes.pop("key", self.key), changes.pop("seal_to", self.desk.sealing.public)
        cover = {name[6:]: changes.pop(name) for name in list(changes) if name.startswith("cover_")}
        fields = {name: getattr(asked.message, name) for name in ("study_hash", "run", "round", "attempt")}
        message = Stepped(**{**fields, "site": self.name, "excluded": {}, **changes})
        header = self._header(message, {"round": message.round, "attempt": message.attempt, **cover})
        return seal_frame(encode(message, frame), header, key, seal_to)

    def refused(self, asked: Asked, code: Code) -> bytes:
        """Return a signed no."""
        numbers = {name: getattr(asked.message, name) for name in ("round", "attempt")}
        return self.signed(
            Refusal(
                site=self.name,
                study_hash=self.desk.study.study_hash,
                code=code,
                incident="0" * 16,
                **numbers,
            )
        )


def secure_peers(desk: Desk, **twists: Any) -> list[SecurePeer]:
    """Return one peer for each site of the roster; ``site_01=twist`` gives that one a twist."""
    named = {name.replace("_", "-"): twist for name, twist in twists.items()}
    peers = [
        SecurePeer(entry.name, desk, twist=named.get(entry.name), last_round=0) for entry in desk.study.roster
    ]
    roster = {peer.name: peer.key.public for peer in peers}
    for peer in peers:
        peer.roster = roster
    return peers


def standing(records: Iterable[RoundRecord]) -> list[RoundRecord]:
    """Return the last record of each round, in order."""
    return [record for _, record in sorted({record.round: record for record in records}.items())]


def oracle(desk: Desk, records: Iterable[RoundRecord]) -> torch.Tensor:
    """Return the weights that exactly the vectors of these records' sites make, each counted once."""
    learner, plan = new_learner(desk.study), plan_for(desk)
    optimizer = LearnerOptimizer.of(learner, desk.study.study.training.optimizer)
    dtype = f"<u{plan.point.ring // 8}"
    for record in standing(records):
        if not record.sites:
            continue
        total = np.zeros(plan.point.grid.dimension, dtype)
        for name in record.sites:
            total += vector(desk, name, record.round, record.attempt)
        mean = torch.from_numpy(plan.point.grid.decode(total).astype(np.float32)).div_(plan.expected_batch)
        optimizer.step_(mean, torch.Generator())
    return learner.all_values()


def run(root: Path, desk: Desk, peers: list[SecurePeer], **wires: Any) -> tuple[Bureau, Outcome, Wires]:
    bureau, line = open_bureau(root, desk, peers), Wires(peers, **wires)
    return bureau, bureau.run(line), line


def silent_in(*rounds: int) -> Any:
    """A twist: no vector in these rounds."""
    return lambda _peer, kind, asked, _frame: (
        [] if kind is wire.Kind.START and asked.message.round in rounds else None
    )


def never(*kinds: wire.Kind, rounds: tuple[int, ...] = (1, 2, 3, 4)) -> Any:
    """A twist: no answer to these steps."""
    return lambda _peer, kind, asked, _frame: [] if kind in kinds and asked.message.round in rounds else None


class KillingWires(Wires):
    """Wires on which the coordinator's process ends after so many answers of one group."""

    def __init__(self, peers: Sequence[Peer], group: str, answers: int) -> None:
        super().__init__(peers)
        self._group, self._answers = group, answers

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        for count, answer in enumerate(super().exchange(frames, timeout, group)):
            if group == self._group and count == self._answers:
                raise Killed(group)
            yield answer
        if group == self._group:
            raise Killed(group)
