"""The messages of secure aggregation: typed, bounded before they are parsed, one byte form each.

``"FDGA" 0x01 | kind | setup | turn | site | fields``. Lists are in increasing order of site, so a message has one form;
whatever is not that form, to the last byte, is refused. Spec and vectors: docs/spec/secagg.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from fedgen.crypto.agreement import CIPHERTEXT_BYTES, PUBLIC_BYTES
from fedgen.crypto.keys import SIGNATURE_BYTES
from fedgen.errors import Code, IntegrityError
from fedgen.secagg.masks import TAG
from fedgen.secagg.shamir import BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from fedgen.secagg.terms import Terms

MAGIC: Final = b"FDGA\x01"
EVERYONE: Final = 0xFFFF  # in place of a site, from the server to all alike
DIGEST: Final = 32
SHARES: Final = 2 * BYTES + TAG  # both shares for one holder, sealed
CHECK: Final = 16  # of the commitment to a share: finding another share for it takes 2^128 trials
_HEAD: Final = struct.Struct(">5sBIIH")
_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")
_U32: Final = struct.Struct(">I")

Rows = tuple[tuple[int, bytes], ...]
Sites = tuple[int, ...]


class Kind(IntEnum):
    """The closed set of messages."""

    ADVERTISE = 1
    KEYS = 2
    OFFERS = 3
    OFFERED = 4
    DEAL = 5
    START = 6
    MASKED = 7
    PROPOSE = 8
    AGREE = 9
    UNMASK = 10
    REVEAL = 11
    INVITE = 12
    WANTED = 13
    READY = 14
    CLEAR = 15


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A field of so many bytes."""

    size: int

    def limit(self, _: Terms) -> int:
        return self.size

    def write(self, value: bytes) -> list[Buffer]:
        if len(value) != self.size:
            raise ValueError(f"the field has {self.size} bytes, not {len(value)}")
        return [value]

    def read(self, reader: _Reader) -> bytes:
        return bytes(reader.take(self.size))


@dataclass(frozen=True, slots=True)
class _Number:
    """A field of four bytes, big-endian."""

    def limit(self, _: Terms) -> int:
        return _U32.size

    def write(self, value: int) -> list[Buffer]:
        return [_U32.pack(value)]

    def read(self, reader: _Reader) -> int:
        number: int = _U32.unpack(reader.take(_U32.size))[0]
        return number


@dataclass(frozen=True, slots=True)
class _Rows:
    """A list of so many bytes for each of some sites, in increasing order of site; zero bytes: the sites alone."""

    size: int

    def limit(self, terms: Terms) -> int:
        return _COUNT.size + len(terms.sites) * (_COUNT.size + self.size)

    def write(self, value: Any) -> list[Buffer]:
        rows = value if self.size else tuple((site, b"") for site in value)
        out = [_COUNT.pack(len(rows))]
        for site, body in rows:
            if len(body) != self.size:
                raise ValueError(f"a row has {self.size} bytes, not {len(body)}")
            out += (_COUNT.pack(site), body)
        return [b"".join(out)]

    def read(self, reader: _Reader) -> Any:
        (count,) = _COUNT.unpack(reader.take(_COUNT.size))
        if count > reader.sites:
            raise IntegrityError("a list longer than the roster", code=Code.MALFORMED)
        rows: list[tuple[int, bytes]] = []
        last = -1
        for _ in range(count):
            (site,) = _COUNT.unpack(reader.take(_COUNT.size))
            if not last < site < reader.sites:
                raise IntegrityError("a list out of order or beyond the roster", code=Code.MALFORMED)
            rows.append((site, bytes(reader.take(self.size))))
            last = site
        return tuple(rows) if self.size else tuple(site for site, _ in rows)


@dataclass(frozen=True, slots=True)
class _Tail:
    """Bytes of a length that stands before them; ``most`` tells the longest from the terms."""

    most: Callable[[Terms], int]

    def limit(self, terms: Terms) -> int:
        return _LENGTH.size + self.most(terms)

    def write(self, value: Buffer) -> list[Buffer]:
        view = memoryview(value).cast("B")
        return [_LENGTH.pack(len(view)), view]

    def read(self, reader: _Reader) -> memoryview:
        (size,) = _LENGTH.unpack(reader.take(_LENGTH.size))
        return reader.take(size)


class _Reader:
    """Takes bytes from the front; ``malformed`` when there are not enough."""

    __slots__ = ("_at", "_view", "sites")

    def __init__(self, view: memoryview, sites: int) -> None:
        self._view, self._at, self.sites = view, 0, sites

    def take(self, size: int) -> memoryview:
        piece = self._view[self._at : self._at + size]
        if len(piece) != size:
            raise IntegrityError("message shorter than its parts", code=Code.MALFORMED)
        self._at += size
        return piece

    def end(self) -> None:
        if self._at != len(self._view):
            raise IntegrityError("bytes after the message", code=Code.MALFORMED)


_SITES: Final = _Rows(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What every message says: which setup, which turn of it, and whose or for whom it is.

    Attributes:
        setup: Which key agreement of the run, from 1.
        turn: Which turn of it, from 1; zero where there is none.
        site: The sender's place in the roster, or the recipient's in what the server sends to one site.
    """

    KIND: ClassVar[Kind]
    LAYOUT: ClassVar[tuple[tuple[str, Any], ...]]

    setup: int
    turn: int = 0
    site: int = EVERYONE

    def encode(self) -> bytes:
        """Return the bytes of this message; inverse of :meth:`decode`."""
        parts: list[Buffer] = [_HEAD.pack(MAGIC, self.KIND, self.setup, self.turn, self.site)]
        for name, field in self.LAYOUT:
            parts += field.write(getattr(self, name))
        return b"".join(parts)

    @classmethod
    def decode(cls, frame: Buffer, terms: Terms) -> Self:
        """Return the message in a frame; inverse of :meth:`encode`.

        Guarantees:
            - A frame longer than any message of this kind under these terms is refused unread.
            - ``decode(frame).encode() == frame`` for every frame that is accepted.

        Raises:
            IntegrityError: ``too-large``, ``malformed``, or ``out-of-order`` for another kind.
        """
        view = memoryview(frame).cast("B").toreadonly()
        if len(view) > cls.limit(terms):
            raise IntegrityError("message over the size limit", code=Code.TOO_LARGE)
        reader = _Reader(view, len(terms.sites))
        magic, kind, setup, turn, site = _HEAD.unpack(reader.take(_HEAD.size))
        if magic != MAGIC:
            raise IntegrityError("not a secagg message of this version", code=Code.MALFORMED)
        if kind != cls.KIND:
            raise IntegrityError("an unexpected kind of message", code=Code.OUT_OF_ORDER)
        if site != EVERYONE and site >= len(terms.sites):
            raise IntegrityError("a site beyond the roster", code=Code.MALFORMED)
        fields = {name: field.read(reader) for name, field in cls.LAYOUT}
        reader.end()
        return cls(setup=setup, turn=turn, site=site, **fields)

    @classmethod
    def limit(cls, terms: Terms) -> int:
        """Return the most bytes a message of this kind can have."""
        sizes: list[int] = [field.limit(terms) for _, field in cls.LAYOUT]
        return _HEAD.size + sum(sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertise(Message):
    """A site's agreement key for this setup, signed with its identity key."""

    KIND = Kind.ADVERTISE
    LAYOUT = (("public", _Fixed(PUBLIC_BYTES)), ("signature", _Fixed(SIGNATURE_BYTES)))
    public: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys(Message):
    """All advertised keys with their signatures, from the server to everyone."""

    KIND = Kind.KEYS
    LAYOUT = (("keys", _Rows(PUBLIC_BYTES + SIGNATURE_BYTES)),)
    keys: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers(Message):
    """A site's ML-KEM ciphertexts for its neighbours later in the roster, each signed."""

    KIND = Kind.OFFERS
    LAYOUT = (("offers", _Rows(CIPHERTEXT_BYTES + SIGNATURE_BYTES)),)
    offers: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered(Message):
    """The ciphertexts for one site, from its neighbours earlier in the roster."""

    KIND = Kind.OFFERED
    LAYOUT = (("offers", _Rows(CIPHERTEXT_BYTES + SIGNATURE_BYTES)),)
    offers: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal(Message):
    """A site's secrets for one turn, in sealed shares, with commitments the server can check openings against.

    Attributes:
        seed: Commitment to the seed of the site's own mask.
        backup: Commitment to the key of ``box``.
        shares: Both shares, sealed, for each neighbour.
        checks: Commitments to both shares of each holder, the dealer included.
        pairs: Commitment to the turn secret with each neighbour.
        box: The turn secrets themselves, in order of neighbour, under the backup key.
        signature: By the site's identity key.
    """

    KIND = Kind.DEAL
    LAYOUT = (
        ("seed", _Fixed(DIGEST)),
        ("backup", _Fixed(DIGEST)),
        ("shares", _Rows(SHARES)),
        ("checks", _Rows(2 * CHECK)),
        ("pairs", _Rows(DIGEST)),
        ("box", _Tail(lambda terms: len(terms.sites) * BYTES + TAG)),
        ("signature", _Fixed(SIGNATURE_BYTES)),
    )
    seed: bytes
    backup: bytes
    shares: Rows
    checks: Rows
    pairs: Rows
    box: Buffer
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Message):
    """A turn begins: for which round, from which weights, with whom; and what the others dealt to this site."""

    KIND = Kind.START
    LAYOUT = (
        ("round", _Number()),
        ("attempt", _Number()),
        ("weights", _Fixed(DIGEST)),
        ("participants", _SITES),
        ("shares", _Rows(SHARES)),
    )
    round: int
    attempt: int
    weights: bytes
    participants: Sites
    shares: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked(Message):
    """A site's masked vector, its signature under the transcript, and its deal for the next turn.

    The signature says two things: this site gave an input to this transcript, and if all participants did, then they
    all are the survivors.
    """

    KIND = Kind.MASKED
    LAYOUT = (
        ("transcript", _Fixed(DIGEST)),
        ("signature", _Fixed(SIGNATURE_BYTES)),
        ("deal", _Tail(Deal.limit)),
        ("values", _Tail(lambda terms: terms.dimension * terms.dtype.itemsize)),
    )
    transcript: bytes
    signature: bytes
    deal: Buffer
    values: Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose(Message):
    """Who survived, with each survivor's signature under the transcript; only when somebody dropped out."""

    KIND = Kind.PROPOSE
    LAYOUT = (("signatures", _Rows(SIGNATURE_BYTES)),)
    signatures: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Agree(Message):
    """A site's signature under one survivor set; it gives one in a turn."""

    KIND = Kind.AGREE
    LAYOUT = (("signature", _Fixed(SIGNATURE_BYTES)),)
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmask(Message):
    """The survivor set and the proof that enough sites hold it for the same.

    Attributes:
        survivors: Who is in the sum.
        signatures: All participants' under the transcript if all survived, else those of the agreed set.
    """

    KIND = Kind.UNMASK
    LAYOUT = (("survivors", _SITES), ("signatures", _Rows(SIGNATURE_BYTES)))
    survivors: Sites
    signatures: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal(Message):
    """One share for each participant it holds one of: of the seed for a survivor, of the backup key for the others."""

    KIND = Kind.REVEAL
    LAYOUT = (("shares", _Rows(BYTES)),)
    shares: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite(Message):
    """A setup begins: every site is asked for a fresh key."""

    KIND = Kind.INVITE
    LAYOUT = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Message):
    """A site's deal for this turn is missing: it sat out the last one, or its answer was lost."""

    KIND = Kind.WANTED
    LAYOUT = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Message):
    """A site's agreement is complete, and there is nothing to deal."""

    KIND = Kind.READY
    LAYOUT = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear(Message):
    """A site's vector with its share of the noise and without masks; only where a study says ``protocol: sum``."""

    KIND = Kind.CLEAR
    LAYOUT = (("values", _Tail(lambda terms: terms.dimension * terms.dtype.itemsize)),)
    values: Buffer


def kind_of(frame: Buffer) -> Kind:
    """Return which message a frame says it is; nothing else is looked at.

    Raises:
        IntegrityError: It is none (code ``malformed``).
    """
    head = bytes(memoryview(frame).cast("B")[: len(MAGIC) + 1])
    if len(head) != len(MAGIC) + 1 or head[:-1] != MAGIC or head[-1] not in set(Kind):
        raise IntegrityError("not a secagg message of this version", code=Code.MALFORMED)
    return Kind(head[-1])
