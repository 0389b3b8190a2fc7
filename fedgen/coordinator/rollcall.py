"""Who takes part: a pure state machine over the untrusted answers to an invitation.

One site can only speak for itself here: whatever it sends, it joins or it is absent with a code, and what the
others said stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedgen.coordinator.rounds import Ask, open_reply, signer_of
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Joined, Kind, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.crypto.keys import SealingKey, VerifyKey
    from fedgen.messages import Wire


@dataclass(frozen=True, slots=True)
class Present:
    """A closed roll.

    Attributes:
        nodes: Where the sites that take part were reached; each node once.
        sites: Their names, in the order they answered.
        absent: Every other site of the roster, with its code.
        ahead: Sites that took part in a later round than the run folder knows, with that round.
    """

    nodes: tuple[int, ...]
    sites: tuple[str, ...]
    absent: Mapping[str, Code]
    ahead: Mapping[str, int]


class RollCall:
    """Folds the answers to an invitation.

    Guarantees:
        - :meth:`accept` never raises for what a peer sent.
        - A site that joined is not unseated by anything that comes later.

    Args:
        study_hash: Identity of the study.
        run: Identity of the run.
        roster: Verification key of every site of the study, by name.
        sealing_key: Our private key.
        done: Rounds this run folder has finished.
    """

    def __init__(
        self,
        study_hash: str,
        run: str,
        roster: Mapping[str, VerifyKey],
        sealing_key: SealingKey,
        *,
        done: int,
    ) -> None:
        self._ask = Ask(study_hash, run, 0, 0, 1, 1, "")
        self._roster = roster
        self._sealing_key = sealing_key
        self._latest = done + 1  # a round that was asked and never finished counts as known
        self._joined: dict[str, int] = {}
        self._said: dict[str, Code] = {}
        self._stray: dict[str, Code] = {}
        self._ahead: dict[str, int] = {}

    def accept(self, node: int, reply: bytes) -> None:
        """Check one answer."""
        try:
            message, _body, site = open_reply(
                reply,
                roster=self._roster,
                sealing_key=self._sealing_key,
                ask=self._ask,
                answers=Kind.JOINED,
            )
        except IntegrityError as error:
            signer = signer_of(reply, self._roster, self._ask)
            if signer is not None:
                self._stray.setdefault(signer, error.code)
            return
        code = self._code(message, site)
        if code is None:
            self._joined.setdefault(site, node)
        else:
            self._said[site] = code

    def close(self) -> Present:
        """End the roll: later answers are no longer looked at."""
        codes = {**self._stray, **self._said}
        absent = {site: codes.get(site, Code.DROPPED) for site in self._roster if site not in self._joined}
        return Present(
            nodes=tuple(dict.fromkeys(self._joined.values())),
            sites=tuple(self._joined),
            absent=absent,
            ahead={site: last for site, last in self._ahead.items() if site in absent},
        )

    def _code(self, message: Wire, site: str) -> Code | None:
        """Return None if the site takes part, else why not."""
        if isinstance(message, Refusal):
            return message.code
        if not (isinstance(message, Joined) and message.accepts):
            return Code.STUDY_REFUSED
        if message.last_round > self._latest:
            self._ahead[site] = message.last_round
            return Code.STALE_ROUND
        return None
