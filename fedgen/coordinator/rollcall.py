"""Who takes part: a pure state machine over the untrusted answers to an invitation.

One site can only speak for itself here: whatever it sends, it joins or it is absent with a code, and what the
others said stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from fedgen.coordinator.rounds import Ask, open_reply, signer_of
from fedgen.errors import Code, IntegrityError, QuorumLost
from fedgen.messages import Joined, Kind, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.crypto.keys import SealingKey, VerifyKey
    from fedgen.messages import Wire


@dataclass(frozen=True, slots=True)
class Present:
    """A closed roll.

    Attributes:
        places: Where each of them was reached, by name, in the order they answered.
        absent: Every other site of the roster, with its code.
        ahead: Sites that took part in a later round than the run folder knows, with that round.
    """

    places: Mapping[str, int]
    absent: Mapping[str, Code]
    ahead: Mapping[str, int]

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites that take part."""
        return tuple(self.places)

    @property
    def nodes(self) -> tuple[int, ...]:
        """Where they were reached; each node once."""
        return tuple(dict.fromkeys(self.places.values()))


def refuse_too_few(present: Present, roster: int, quorum: int, done: int) -> NoReturn:
    """Say why a study cannot start; a site may lie about its past, so the quorum is what decides.

    Raises:
        IntegrityError: Sites took part in later rounds than the run folder knows (code ``stale-round``).
        QuorumLost: Otherwise.
    """
    for site, last in present.ahead.items():
        raise IntegrityError(
            f"site {site} has taken part in round {last}, this run folder ends at {done}",
            code=Code.STALE_ROUND,
            hint="the run folder was rolled back; restore its newest state",
        )
    reasons = ", ".join(sorted({str(code) for code in present.absent.values()}))
    raise QuorumLost(
        f"{len(present.sites)} of {roster} sites joined, {quorum} are needed ({reasons})",
        hint="see the sites' own logs; lower training.quorum only if the study allows it",
    )


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
            places=dict(self._joined),
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
