"""What leaves a site: a message under its signature, in clear or sealed to the coordinator of the study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.crypto.envelope import Header, seal_frame, sign_frame
from fedgen.messages import encode

if TYPE_CHECKING:
    from fedgen.crypto.keys import SigningKey
    from fedgen.messages import Stepped, Trained, Wire
    from fedgen.site.admit import Admission

COORDINATOR: Final = "coordinator"


class Replies:
    """Puts one site's name to its answers.

    Args:
        name: The site's name on the roster.
        identity: Its signing key.
    """

    def __init__(self, name: str, identity: SigningKey) -> None:
        self._name, self._identity = name, identity

    def signed(
        self, message: Wire, study_hash: str, run: str, round_number: int = 0, attempt: int = 0
    ) -> bytes:
        """Return a message that anyone may read."""
        header = self._header(message, study_hash, run, round_number, attempt)
        return sign_frame(encode(message), header, self._identity)

    def sealed(self, message: Trained | Stepped, payload: bytes, admission: Admission) -> bytes:
        """Return a message that only the coordinator of the study can read."""
        header = self._header(message, message.study_hash, message.run, message.round, message.attempt)
        return seal_frame(encode(message, payload), header, self._identity, admission.coordinator_sealing_key)

    def _header(self, message: Wire, study_hash: str, run: str, round_number: int, attempt: int) -> Header:
        return Header(
            kind=message.kind,
            study_hash=study_hash,
            run=run,
            round=round_number,
            attempt=attempt,
            sender=self._name,
            recipient=COORDINATOR,
        )
