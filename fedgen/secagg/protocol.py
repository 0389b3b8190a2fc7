"""What both ends of secure aggregation compute, sign and check; the ends are in ``site`` and ``server``.

::

    once a run      Advertise ─> Keys ─> Offers ─> Offered ─> Deal for turn 1
    each turn       Start ─> Masked (with the deal for the next turn) ─> Unmask ─> Reveal
    if some drop    ... Masked ─> Propose ─> Agree ─> Unmask ─> Reveal
    restart         Start ─> Masked, and a new turn if somebody is missing

A turn is used once. It adds up one attempt of one round of the study. The rules a site keeps, whatever the server says:

1. Keys count only with the signature of the identity key that the roster holds for that site.
2. One transcript a turn, turns only forwards, rounds and attempts only forwards, and never fewer participants than the
   terms allow. Masks are bound to the transcript.
3. One survivor set a turn. Nothing is revealed unless the threshold, or all participants, signed the same set under the
   same transcript, and every survivor gave an input to it.
4. For one participant a share of its seed or of its backup key, never both; and once a round at most.

Source: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning" (2017), for double
masking and the consistency check. Dealing each turn's secrets one turn ahead, with the turn's pair secrets in a box of
their own, replaces its fresh keys in every round.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from fedgen.crypto.derive import domain
from fedgen.crypto.keys import SIGNATURE_BYTES
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.secagg import wire
from fedgen.secagg.graph import neighbours

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.secagg.terms import Terms
    from fedgen.secagg.wire import Rows, Sites

ADVERTISE: Final = "secagg/advertise"
OFFER: Final = "secagg/offer"
DEAL: Final = "secagg/deal"
INPUT: Final = "secagg/input"
SURVIVORS: Final = "secagg/survivors"


class FalseDealing(IntegrityError):
    """Somebody dealt falsely, and the turn is void (code ``bad-seal``).

    Args:
        what: What did not match.
        liars: Names of sites that lied, by what they signed themselves or by the word of more sites than may lie.
        suspects: Names of sites of whom at least one lied; nobody can say which.
        where: See :class:`fedgen.errors.FedgenError`.
        hint: See :class:`fedgen.errors.FedgenError`.
    """

    def __init__(
        self,
        what: str,
        *,
        liars: tuple[str, ...] = (),
        suspects: tuple[str, ...] = (),
        where: str | Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what, code=Code.BAD_SEAL, where=where, hint=hint)
        self.liars, self.suspects = liars, suspects


@dataclass(frozen=True)
class Members:
    """The sites of one setup with the keys they advertised; the same at everybody, or nothing fits.

    Args:
        terms: The run's terms.
        setup: Which key agreement of the run.
        keys: Site to its 1,216-byte agreement key.
    """

    terms: Terms
    setup: int
    keys: dict[int, bytes]

    @property
    def sites(self) -> Sites:
        """The members, increasing."""
        return tuple(sorted(self.keys))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the terms, the setup and every key."""
        rows = b"".join(struct.pack(">H", site) + self.keys[site] for site in self.sites)
        head = domain("secagg/members") + self.terms.digest + struct.pack(">I", self.setup)
        return hashlib.sha256(head + rows).digest()

    @cached_property
    def graph(self) -> dict[int, Sites]:
        """Each member's neighbours."""
        return neighbours(self.sites, self.terms.graph(len(self.keys))[0], self.digest)

    @property
    def holders(self) -> int:
        """How many holders' shares open a secret."""
        return self.terms.graph(len(self.keys))[1]

    def pair(self, one: int, other: int) -> bytes:
        """Return the context of the secret between two members."""
        low, high = sorted((one, other))
        return self.digest + struct.pack(">HH", low, high)

    def commitment(self, kind: str, turn: int, one: int, other: int, secret: bytes) -> bytes:
        """Return what binds a site to a secret of 32 random bytes without telling it."""
        head = domain(f"secagg/{kind}") + self.digest + struct.pack(">IHH", turn, one, other)
        return hashlib.sha256(head + secret).digest()

    def pair_commitment(self, turn: int, one: int, other: int, secret: bytes) -> bytes:
        """Return the commitment to a turn secret; the same from both sides."""
        return self.commitment("pair", turn, min(one, other), max(one, other), secret)

    def check(self, kind: str, turn: int, owner: int, holder: int, share: bytes) -> bytes:
        """Return the short commitment to one holder's share of a secret of this kind."""
        return self.commitment(f"{kind}-share", turn, owner, holder, share)[: wire.CHECK]


@dataclass(frozen=True)
class Transcript:
    """What one turn is about; its digest is under every signature and in every mask of the turn."""

    members: bytes
    turn: int
    round: int
    attempt: int
    weights: bytes
    participants: Sites

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        head = struct.pack(">III", self.turn, self.round, self.attempt)
        return hashlib.sha256(
            domain("secagg/transcript") + self.members + head + self.weights + _sites(self.participants)
        ).digest()

    def survivors(self, sites: Sites) -> bytes:
        """Return what is signed to hold ``sites`` for the survivors."""
        return self.digest + _sites(sites)


def _sites(sites: Sites) -> bytes:
    """Return a list of sites with its length."""
    return struct.pack(f">H{len(sites)}H", len(sites), *sites)


def advertised(terms: Terms, setup: int, site: int, public: bytes) -> bytes:
    """Return what a site signs to make an agreement key its own for one setup."""
    return terms.digest + struct.pack(">IH", setup, site) + public


def offered(members: Members, sender: int, recipient: int, ciphertext: bytes) -> bytes:
    """Return what a site signs to make a ciphertext its own."""
    return members.digest + struct.pack(">HH", sender, recipient) + ciphertext


def dealt(members: Members, deal: wire.Deal) -> bytes:
    """Return what a site signs to make a deal its own: all of it but the signature."""
    return members.digest + hashlib.sha256(deal.encode()[:-SIGNATURE_BYTES]).digest()


def read_keys(terms: Terms, message: wire.Keys) -> Members:
    """Return the members that a list of advertised keys makes, if every key is its site's own.

    Raises:
        IntegrityError: A signature is not by the roster's key for that site (code ``bad-signature``).
        Refused: There are fewer than the terms allow (code ``cohort-too-small``).
    """
    if message.setup < 1:
        raise IntegrityError("setups count from one", code=Code.MALFORMED)
    enough(terms, len(message.keys))
    keys = {}
    for site, row in message.keys:
        public, signature = row[:-SIGNATURE_BYTES], row[-SIGNATURE_BYTES:]
        terms.verify_key(site).verify(ADVERTISE, advertised(terms, message.setup, site, public), signature)
        keys[site] = public
    return Members(terms, message.setup, keys)


def enough(terms: Terms, count: int) -> None:
    """Return if a sum of so many sites hides each of them and carries enough noise.

    Raises:
        Refused: It does not (code ``cohort-too-small``).
    """
    if count < terms.least:
        raise Refused(
            f"{count} sites are fewer than the {terms.least} a sum must hold",
            code=Code.COHORT_TOO_SMALL,
            key="secagg.dropouts",
        )


def check_inputs(terms: Terms, transcript: Transcript, signatures: Rows) -> None:
    """Return if every one of these signatures says "I gave an input to this transcript".

    Raises:
        IntegrityError: One does not: the site was told something else, or gave none (code ``bad-signature``).
    """
    for site, signature in signatures:
        terms.verify_key(site).verify(INPUT, transcript.digest, signature)


def check_agreement(terms: Terms, transcript: Transcript, survivors: Sites, signatures: Rows) -> None:
    """Return if at least the threshold of survivors signed this survivor set.

    Raises:
        IntegrityError: Too few, a signature by somebody else, or one that does not hold (code ``bad-signature``).
    """
    if len(signatures) < terms.threshold or not {site for site, _ in signatures} <= set(survivors):
        raise IntegrityError("too few sites agreed on the survivors", code=Code.BAD_SIGNATURE)
    statement = transcript.survivors(survivors)
    for site, signature in signatures:
        terms.verify_key(site).verify(SURVIVORS, statement, signature)
