"""What an envelope says about itself in clear, and what a receiver expects of it.

The header is public: Flower and its database see it. All of it is signed, and sealed bodies are bound to it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgen.crypto.chunks import CHUNK
from fedgen.crypto.digest import same_digest
from fedgen.errors import Code, IntegrityError
from fedgen.messages import MAX_BODY, MAX_HEADER, Hex32, Kind, SiteName, canonical

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from fedgen.messages import Wire

MAGIC: Final = b"FDGE\x01"
MAX_ENVELOPE_HEADER: Final = 2048
MAX_FRAME: Final = 64 + MAX_HEADER + MAX_BODY
MUST_SEAL: Final = frozenset({Kind.TRAINED, Kind.STEPPED})
_START: Final = struct.Struct(">5sH")

Number = Annotated[int, Field(ge=0, lt=2**31)]


class Header(BaseModel):
    """The signed cover of a message.

    The last four fields are set by the envelope itself, whatever the caller gave.

    Attributes:
        kind: What the frame inside is; it must be so.
        study_hash: Identity of the study; empty only where none is known.
        run: Identity of the run; empty only where none is known.
        round: Zero for messages of no round.
        attempt: Counts repetitions of a round, or of a message of no round.
        sender: Name in the roster whose key signed.
        recipient: Name it is for; ``"*"`` is everyone, in clear only.
        schema_digest: Digest of the data schema; empty where none is known.
        sealed: Whether the body is encrypted.
        body_bytes: Length of the frame inside, in clear.
        key: First 16 hex digits of the recipient's sealing key's fingerprint; empty in clear.
        chunk: Bytes per chunk of a sealed body; fixed in this version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    kind: Kind
    study_hash: Hex32 | Literal[""]
    run: Hex32 | Literal[""]
    round: Number = 0
    attempt: Number = 0
    sender: SiteName
    recipient: SiteName | Literal["*"]
    schema_digest: Hex32 | Literal[""] = ""
    sealed: bool = False
    body_bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""
    chunk: Literal[1048576] = CHUNK

    def with_body(self, *, body_bytes: int, key: str = "") -> Header:
        """Return this header for a body in clear, or sealed for ``key``."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Header(**{**fields, "sealed": bool(key), "body_bytes": body_bytes, "key": key, "chunk": CHUNK})

    def encode(self) -> bytes:
        """Return magic, length and canonical JSON; inverse of :func:`split`."""
        text = canonical(self.model_dump(mode="json"))
        return _START.pack(MAGIC, len(text)) + text


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a receiver knows before it opens a message; ``None`` means "any".

    Attributes:
        study_hash: The study this run is about; ``None`` only before a site has joined one.
        run: The run; ``None`` only before a site has joined one.
        recipient: The receiver's own name.
        sender: The name whose key verifies the signature.
        round: The round it must belong to.
        attempt: The attempt of that round.
        kinds: The kinds that may come now.
        schema_digest: The schema both sides hold.
    """

    study_hash: str | None
    run: str | None
    recipient: str
    sender: str | None = None
    round: int | None = None
    attempt: int | None = None
    kinds: frozenset[Kind] | None = None
    schema_digest: str | None = None

    def check(self, header: Header) -> None:
        """Return if an authentic header is what is expected here and now.

        Raises:
            IntegrityError: ``unknown-sender``, ``wrong-recipient``, ``wrong-study`` (study, run or schema),
                ``stale-round`` (an earlier round or attempt) or ``out-of-order`` (a later one, or
                another kind).
        """
        if self.sender not in {None, header.sender}:
            raise IntegrityError("the sender is not the one expected", code=Code.UNKNOWN_SENDER)
        if header.recipient not in {self.recipient, "*"}:
            raise IntegrityError("the message is for another recipient", code=Code.WRONG_RECIPIENT)
        for name in ("study_hash", "run", "schema_digest"):
            wanted = getattr(self, name)
            if wanted is not None and not same_digest(getattr(header, name), wanted):
                raise IntegrityError(f"the message has another {name}", code=Code.WRONG_STUDY)
        if self.kinds is not None and header.kind not in self.kinds:
            raise IntegrityError("a message of this kind does not belong here", code=Code.OUT_OF_ORDER)
        for name in ("round", "attempt"):
            wanted, got = getattr(self, name), getattr(header, name)
            if wanted is not None and got != wanted:
                code = Code.STALE_ROUND if got < wanted else Code.OUT_OF_ORDER
                raise IntegrityError(f"the message belongs to another {name}", code=code)


def split(envelope: Buffer, *, max_frame: int = MAX_FRAME) -> tuple[Header, memoryview, memoryview]:
    """Return the header, its bytes with magic and length, and the bytes after it; nothing is trusted yet.

    Guarantees:
        - Lengths are checked against their limits before anything is parsed or allocated.
        - A header has one byte form only.

    Raises:
        IntegrityError: ``malformed`` or ``too-large``.
    """
    view = memoryview(envelope).cast("B")
    if len(view) < _START.size:
        raise IntegrityError("envelope shorter than its fixed part", code=Code.MALFORMED)
    magic, size = _START.unpack_from(view)
    if magic != MAGIC:
        raise IntegrityError("not a fedgen envelope of this version", code=Code.MALFORMED)
    if size > MAX_ENVELOPE_HEADER:
        raise IntegrityError("envelope header over the size limit", code=Code.TOO_LARGE)
    head, rest = view[: _START.size + size], view[_START.size + size :]
    try:
        header = Header.model_validate_json(bytes(head[_START.size :]))
    except ValidationError:
        # The chain is cut: pydantic's text quotes its input, and this input is hostile.
        raise IntegrityError("envelope header does not fit", code=Code.MALFORMED) from None
    if header.encode() != head:
        raise IntegrityError("envelope header is not in canonical form", code=Code.MALFORMED)
    if header.body_bytes > max_frame:
        raise IntegrityError("envelope body over the size limit", code=Code.TOO_LARGE)
    if header.sealed != bool(header.key) or (header.sealed and header.recipient == "*"):
        raise IntegrityError("envelope header contradicts itself", code=Code.MALFORMED)
    if header.kind in MUST_SEAL and not header.sealed:
        raise IntegrityError("an update must be sealed", code=Code.BAD_SEAL)
    return header, head, rest


def agree(header: Header, message: Wire) -> None:
    """Return if an opened message says of itself what its signed header says.

    Raises:
        IntegrityError: The kind, study, run, round, attempt or site differ (code ``out-of-order``).
    """
    said = {"site": header.sender}
    said |= {name: getattr(header, name) for name in ("study_hash", "run", "round", "attempt")}
    if message.kind != header.kind or any(
        getattr(message, name, value) != value for name, value in said.items()
    ):
        raise IntegrityError("the message contradicts its header", code=Code.OUT_OF_ORDER)
