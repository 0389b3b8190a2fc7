"""The coordinator's post: signs what leaves, knows which site was reached where, and counts bytes both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedgen.coordinator.rounds import COORDINATOR
from fedgen.crypto.envelope import Header, sign_frame
from fedgen.messages import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fedgen.coordinator.transport import Answer, Transport
    from fedgen.crypto.keys import SealingKey, SigningKey, VerifyKey
    from fedgen.messages import Wire


@dataclass(frozen=True, slots=True)
class Keys:
    """The coordinator's private keys for one run."""

    signing: SigningKey
    sealing: SealingKey


class Post:
    """Carries one run's messages over a transport.

    Guarantees:
        - Everything that leaves is signed, for one study and one run.
        - A frame that differs from site to site is made when it is sent, and not kept.

    Args:
        transport: What carries frames to nodes.
        keys: Private keys of the run.
        study_hash: Identity of the study.
        run: Identity of the run.
        roster: Verification key of every site of the study, by name.
        timeout: Seconds that sites have for an answer.

    Attributes:
        received: Bytes that came in so far.
        sent: Bytes that went out so far.
    """

    def __init__(
        self,
        transport: Transport,
        keys: Keys,
        *,
        study_hash: str,
        run: str,
        roster: Mapping[str, VerifyKey],
        timeout: float,
    ) -> None:
        self.transport, self.keys, self.roster = transport, keys, roster
        self.study_hash, self.run, self.timeout = study_hash, run, timeout
        self.received = self.sent = 0
        self._places: Mapping[str, int] = {}
        self._names: dict[int, list[str]] = {}

    def seat(self, places: Mapping[str, int]) -> None:
        """Learn where each site that takes part was reached."""
        self._places = places
        self._names = {}
        for name, node in places.items():
            self._names.setdefault(node, []).append(name)

    @property
    def places(self) -> Mapping[str, int]:
        """Where each site that takes part was reached, by name."""
        return self._places

    @property
    def nodes(self) -> tuple[int, ...]:
        """Where the sites that take part were reached; each node once."""
        return tuple(self._names)

    def at(self, node: int) -> Iterable[str]:
        """Return the sites that were reached at a node; it proves nothing about who answers from there."""
        return self._names.get(node, ())

    def signed(
        self, message: Wire, body: bytes = b"", *, number: int = 0, attempt: int = 0, recipient: str = "*"
    ) -> bytes:
        """Return a message under the coordinator's signature, for everyone or for one site."""
        header = Header(
            kind=message.kind,
            study_hash=self.study_hash,
            run=self.run,
            round=number,
            attempt=attempt,
            sender=COORDINATOR,
            recipient=recipient,
        )
        return sign_frame(encode(message, body), header, self.keys.signing)

    def exchange(self, frames: Iterable[tuple[int, bytes]], group: str) -> Iterator[Answer]:
        """Send each node its frame and yield what the transport hands back."""
        for answer in self.transport.exchange(self._counted(frames), self.timeout, group):
            self.received += len(answer.reply or b"")
            yield answer

    def _counted(self, frames: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for node, frame in frames:
            self.sent += len(frame)
            yield node, frame
