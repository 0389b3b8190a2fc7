"""Scripted peers and a transport in memory, for a real coordinator to meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedgen.api.bench import new_learner
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of
from fedgen.coordinator.coordinator import Coordinator, Outcome, RoundRecord
from fedgen.coordinator.post import Keys
from fedgen.coordinator.progress import ProgressStore
from fedgen.coordinator.secure_store import SetupFile
from fedgen.coordinator.transport import Answer
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.envelope import Expectation, Header, open_frame, seal_frame, sign_frame
from fedgen.crypto.keys import SigningKey
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code
from fedgen.messages import (
    Confirm,
    Confirmed,
    Join,
    Joined,
    Refusal,
    Settle,
    Settled,
    Train,
    Trained,
    Wire,
    decode,
    encode,
)
from fedgen.runs.folder import RunFolder
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from support.federation import Desk

    from fedgen.events import Event

Values = np.ndarray


@dataclass
class Ask:
    """What a peer was asked, opened."""

    message: Wire
    body: Values

    @property
    def train(self) -> Train:
        assert isinstance(self.message, Train)
        return self.message


@dataclass
class Peer:
    """A site made of a script: honest unless ``script`` says otherwise.

    Attributes:
        name: On the roster.
        desk: The coordinator it answers; its sealing key and identity of study and run.
        script: Returns the replies to a round, or None for an honest one.
        on_join: Returns the replies to an invitation, or None for an honest one.
        on_confirm: Returns the replies to the question before the sum, or None for an honest one.
    """

    name: str
    desk: Desk
    script: Callable[[Peer, Ask], list[bytes] | None] | None = None
    on_join: Callable[[Peer, Ask], list[bytes] | None] | None = None
    on_confirm: Callable[[Peer, Ask], list[bytes] | None] | None = None
    key: SigningKey = field(default_factory=SigningKey.generate)
    last_round: int = 0
    sent: list[bytes] = field(default_factory=list)
    answered: list[tuple[int, int]] = field(default_factory=list)

    def handle(self, frame: bytes) -> list[bytes]:
        ask = self.opened(frame)
        replies = None
        if isinstance(ask.message, Join):
            replies = self.on_join(self, ask) if self.on_join else None
            replies = [self.joined()] if replies is None else replies
        elif isinstance(ask.message, Train):
            replies = self.script(self, ask) if self.script else None
            if replies is None:
                replies = [self.trained(ask)]
            self.answered.append((ask.message.round, ask.message.attempt))
        elif isinstance(ask.message, Confirm):
            replies = self.on_confirm(self, ask) if self.on_confirm else None
            replies = [self.confirmed(ask)] if replies is None else replies
        elif isinstance(ask.message, Settle):
            replies = [self.signed(Settled(study_hash=self.desk.study.study_hash, site=self.name))]
        assert replies is not None
        self.sent += replies
        return replies

    def opened(self, frame: bytes) -> Ask:
        expect = Expectation(study_hash=None, run=None, recipient=self.name, sender="coordinator")
        _header, inner = open_frame(
            frame, verify_key=self.desk.signing.verify_key, sealing_key=None, expect=expect
        )
        message, body = decode(inner)
        return Ask(message, np.frombuffer(body, dtype="<f4").copy())

    def values(self, ask: Ask) -> Values:
        """Return an honest update: a function of the weights, the round and the site's name alone."""
        phase = float(sum(self.name.encode()) + 7 * ask.train.round)
        update: Values = np.sin(ask.body * 3 + np.arange(len(ask.body)) + phase).astype("<f4")
        return update

    def joined(self, **changes: Any) -> bytes:
        fields = {
            "study_hash": self.desk.study.study_hash,
            "site": self.name,
            "accepts": True,
            "last_round": self.last_round,
        }
        return self.signed(Joined(**{**fields, **changes}))

    def trained(self, ask: Ask, values: Values | bytes | None = None, **changes: Any) -> bytes:
        """Return a sealed update; ``changes`` alter the message, ``cover_*`` its header, ``key`` who signs."""
        values = self.values(ask) if values is None else values
        body = values if isinstance(values, bytes) else values.astype("<f4").tobytes()
        key, seal_to = changes.pop("key", self.key), changes.pop("seal_to", self.desk.sealing.public)
        cover = {name[6:]: changes.pop(name) for name in list(changes) if name.startswith("cover_")}
        message = self._update(ask, len(body) // 4, changes)
        header = self._header(message, {"round": message.round, "attempt": message.attempt, **cover})
        return seal_frame(encode(message, body), header, key, seal_to)

    def _update(self, ask: Ask, parameters: int, changes: dict[str, Any]) -> Trained:
        fields: dict[str, Any] = {
            "study_hash": ask.train.study_hash,
            "run": ask.train.run,
            "site": self.name,
            "round": ask.train.round,
            "attempt": ask.train.attempt,
            "parameters": parameters,
            "steps": plan_of(self.desk.study).steps_per_round,
            "weights": ask.train.digest,
            "excluded": {},
        }
        return Trained(**{**fields, **changes})

    def confirmed(self, ask: Ask, **changes: Any) -> bytes:
        """Return a signed word that the update may be summed."""
        assert isinstance(ask.message, Confirm)
        fields = {**ask.message.model_dump(), "site": self.name, **changes}
        return self.signed(
            Confirmed(**fields), **{k: v for k, v in changes.items() if k in {"round", "attempt"}}
        )

    def refusal(self, ask: Ask, code: Code, **changes: Any) -> bytes:
        """Return a signed no."""
        fields = {
            "site": self.name,
            "study_hash": self.desk.study.study_hash,
            "round": getattr(ask.message, "round", 0),
            "attempt": getattr(ask.message, "attempt", 0),
            "code": code,
            "incident": "0" * 16,
        }
        return self.signed(Refusal(**{**fields, **changes}))

    def signed(self, message: Wire, **cover: Any) -> bytes:
        """Return a message in clear."""
        numbers = {name: getattr(message, name, 0) for name in ("round", "attempt")}
        return sign_frame(encode(message), self._header(message, {**numbers, **cover}), self.key)

    def _header(self, message: Wire, cover: dict[str, Any]) -> Header:
        fields: dict[str, Any] = {
            "kind": message.kind,
            "study_hash": self.desk.study.study_hash,
            "run": self.desk.run,
            "sender": self.name,
            "recipient": "coordinator",
        }
        return Header(**{**fields, **cover})


class Wires:
    """A transport in memory: node ``i`` is peer ``i``; what it carries and who it carries it to is remembered.

    Args:
        peers: One for each node.
        late: Returns whether this frame's group is too late at this node.
    """

    def __init__(
        self, peers: Sequence[Peer], *, late: Callable[[str, int], bool] = lambda _group, _node: False
    ) -> None:
        self.peers = list(peers)
        self.late = late
        self.log: list[tuple[str, list[int]]] = []
        self.waited_for: list[int] = []
        self.stop_before: str | None = None
        self.stop_after: str | None = None

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        self.waited_for.append(expected)
        return range(len(self.peers))

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        if group == self.stop_before:
            raise Killed(group)
        asked: list[int] = []
        self.log.append((group, asked))
        late = []
        for node, frame in frames:
            asked.append(node)
            replies = self.peers[node].handle(frame)
            if self.late(group, node):
                late.append(node)
            else:
                yield from (Answer(node=node, reply=reply) for reply in replies)
        yield from (Answer(node=node, reply=None, code=Code.LATE) for node in late)
        if group == self.stop_after:
            raise Killed(group)


class Killed(BaseException):
    """The coordinator's process ends here."""


@dataclass
class Bureau:
    """A real coordinator with everything it did written down."""

    coordinator: Coordinator
    store: ProgressStore
    folder: RunFolder
    records: list[RoundRecord]
    events: list[Event]

    def run(self, wires: Wires) -> Outcome:
        return self.coordinator.run(wires)


def open_bureau(
    root: Path,
    desk: Desk,
    peers: Sequence[Peer],
    *,
    store: type[ProgressStore] = ProgressStore,
    noise: NoiseSource | None = None,
) -> Bureau:
    """Return a coordinator over a run folder, as a new process would make it."""
    folder = RunFolder(root)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    study = desk.study
    learner = new_learner(study)
    kept = store(folder, {"study_hash": study.study_hash, "model": study.study.model.name})
    records: list[RoundRecord] = []
    events: list[Event] = []
    plan = plan_of(study)
    masked = isinstance(plan, DistributedPlan) and plan.masked
    coordinator = Coordinator(
        study=study,
        plan=plan,
        learner=learner,
        optimizer=LearnerOptimizer.of(
            learner, study.study.training.optimizer, public_steps=study.study.model.public_steps
        ),
        keys=Keys(signing=desk.signing, sealing=desk.sealing),
        roster={peer.name: peer.key.verify_key for peer in peers},
        run=desk.run,
        store=kept,
        noise=noise or NoiseSource.secure(),
        listener=events.append,
        record=records.append,
        heldout_loss=lambda _number: None,
        epsilon=lambda _number: None,
        setups=SetupFile(root / "secagg.json", desk.run) if masked else None,
    )
    return Bureau(coordinator, kept, folder, records, events)


def honest(desk: Desk, **scripts: Any) -> list[Peer]:
    """Return one peer for each site of the roster; ``site_01=script`` gives that one a script."""
    named = {name.replace("_", "-"): script for name, script in scripts.items()}
    return [Peer(entry.name, desk, named.get(entry.name)) for entry in desk.study.roster]


def digest_of(values: Values) -> str:
    """Return the digest of weights as a round names it."""
    return sha256_hex(values.astype("<f4").tobytes())
