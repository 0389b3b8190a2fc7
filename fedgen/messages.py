"""The typed messages between a coordinator and a site, and their byte form.

A frame is ``magic | kind | header length | body length | header (canonical JSON) | body``. Lengths are
checked against limits before anything is parsed, so a hostile length allocates nothing. The envelope that
signs and seals a frame is :mod:`fedgen.crypto.envelope`; this module knows no keys.

Every field of a reply says what it is: ``public`` by declaration, ``noised`` and charged, or a ``verdict``
(yes, no, or a code). A contract test refuses a reply field without such a mark. Spec: docs/spec/messages.md.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from pydantic.config import JsonDict

PROTOCOL: Final = 1
MAGIC: Final = b"FDGN\x01"
MAX_HEADER: Final = 4 * 2**20  # a roster of 10,000 sites fits
MAX_BODY: Final = 2**30
_FIXED: Final = struct.Struct(">5sBIQ")

Public: Final[JsonDict] = {"reveals": "public"}
Noised: Final[JsonDict] = {"reveals": "noised"}
Verdict: Final[JsonDict] = {"reveals": "verdict"}

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Bucket = Annotated[str, Field(pattern=r"^(0|<[0-9]+|[0-9]+-[0-9]+|>=[0-9]+)$", max_length=24)]
Reason = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")]


class Kind(IntEnum):
    """The closed set of messages."""

    JOIN = 1
    JOINED = 2
    TRAIN = 3
    TRAINED = 4
    REFUSAL = 5
    SETTLE = 6
    SETTLED = 7
    CONFIRM = 8
    CONFIRMED = 9
    TURN = 10
    STEP = 11
    STEPPED = 12


class Wire(BaseModel):
    """A message: frozen, closed, versioned by its frame."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    kind: ClassVar[Kind]


class Join(Wire):
    """The coordinator shows a site the whole study and asks whether it takes part.

    Attributes:
        study_hash: SHA-256 of ``study`` in canonical form.
        study: The resolved study, canonical JSON.
        run: Identity of the run; fresh for each run folder.
        coordinator: Ed25519 public key the site shall trust for this run, hex.
        sealing_key: HPKE public key to which updates are sealed, hex.
    """

    kind: ClassVar[Kind] = Kind.JOIN
    study_hash: Hex32
    study: str = Field(max_length=MAX_HEADER)
    run: Hex32
    coordinator: Hex32
    sealing_key: str = Field(pattern=r"^[0-9a-f]+$", max_length=4096)


class Joined(Wire):
    """The site takes part. It names no count: the roster's declared sizes are what the study uses."""

    kind: ClassVar[Kind] = Kind.JOINED
    study_hash: Hex32 = Field(json_schema_extra=Public)
    site: SiteName = Field(json_schema_extra=Public)
    accepts: bool = Field(json_schema_extra=Verdict)
    last_round: int = Field(ge=0, json_schema_extra=Public)


class Train(Wire):
    """Weights of a round, sent to every site alike; the body is the flat float32 little-endian vector."""

    kind: ClassVar[Kind] = Kind.TRAIN
    study_hash: Hex32
    run: Hex32
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)
    parameters: int = Field(ge=1)
    digest: Hex32


class Trained(Wire):
    """A site's protected update; the body is its flat float32 vector, noised under local trust.

    Attributes:
        excluded: Reason to a bucketed count, such as ``{"consent-withdrawn": "<10"}``; never exact.
    """

    kind: ClassVar[Kind] = Kind.TRAINED
    study_hash: Hex32 = Field(json_schema_extra=Public)
    run: Hex32 = Field(json_schema_extra=Public)
    site: SiteName = Field(json_schema_extra=Public)
    round: int = Field(ge=1, json_schema_extra=Public)
    attempt: int = Field(ge=1, json_schema_extra=Public)
    parameters: int = Field(ge=1, json_schema_extra=Public)
    steps: int = Field(ge=1, json_schema_extra=Public)
    weights: Hex32 = Field(json_schema_extra=Public)
    excluded: dict[Reason, Bucket] = Field(max_length=64, json_schema_extra=Public)


class Refusal(Wire):
    """A site says no, or failed; only a code and an incident number for its own log leave."""

    kind: ClassVar[Kind] = Kind.REFUSAL
    site: SiteName = Field(json_schema_extra=Public)
    study_hash: Hex32 | Literal[""] = Field(json_schema_extra=Public)
    round: int = Field(ge=0, json_schema_extra=Public)
    attempt: int = Field(ge=0, json_schema_extra=Public)
    code: Code = Field(json_schema_extra=Verdict, strict=False)
    incident: str = Field(pattern=r"^[0-9a-f]{16}$", json_schema_extra=Public)


class Settle(Wire):
    """The coordinator tells a site that the study is over; the site closes its entry."""

    kind: ClassVar[Kind] = Kind.SETTLE
    study_hash: Hex32
    run: Hex32
    outcome: Literal["completed", "budget", "quorum", "interrupted"]
    rounds: int = Field(ge=0)


class Settled(Wire):
    """The site has closed its entry."""

    kind: ClassVar[Kind] = Kind.SETTLED
    study_hash: Hex32 = Field(json_schema_extra=Public)
    site: SiteName = Field(json_schema_extra=Public)


class Confirm(Wire):
    """The coordinator asks a site, right before its update is summed, whether it still may be.

    Where the answer is anything but :class:`Confirmed`, or there is none, the update is dropped.
    """

    kind: ClassVar[Kind] = Kind.CONFIRM
    study_hash: Hex32
    run: Hex32
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)


class Confirmed(Wire):
    """Every row behind the update of this attempt may still be used; a no is a refusal."""

    kind: ClassVar[Kind] = Kind.CONFIRMED
    study_hash: Hex32 = Field(json_schema_extra=Public)
    run: Hex32 = Field(json_schema_extra=Public)
    site: SiteName = Field(json_schema_extra=Public)
    round: int = Field(ge=1, json_schema_extra=Public)
    attempt: int = Field(ge=1, json_schema_extra=Public)


class Turn(Wire):
    """Weights of a round, and the frame that begins this site's turn of secure aggregation.

    The body is the flat float32 little-endian vector of ``parameters`` values, then the frame
    (docs/spec/secagg.md), which differs from site to site.
    """

    kind: ClassVar[Kind] = Kind.TURN
    study_hash: Hex32
    run: Hex32
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)
    parameters: int = Field(ge=1)
    digest: Hex32


class Step(Wire):
    """Any other step of secure aggregation, for one site; the body is the step's frame.

    Round and attempt are those it serves: agreeing on keys serves the first attempt after it.
    """

    kind: ClassVar[Kind] = Kind.STEP
    study_hash: Hex32
    run: Hex32
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)


class Stepped(Wire):
    """A site's answer to a :class:`Turn` or a :class:`Step`; the body is the frame of its answer.

    A vector in it carries the site's share of the noise and, under ``protocol: full``, is masked: what the
    coordinator learns of it is the noised sum of all.

    Attributes:
        excluded: As in :class:`Trained`, in the answer to a turn; empty in any other.
    """

    kind: ClassVar[Kind] = Kind.STEPPED
    study_hash: Hex32 = Field(json_schema_extra=Public)
    run: Hex32 = Field(json_schema_extra=Public)
    site: SiteName = Field(json_schema_extra=Public)
    round: int = Field(ge=1, json_schema_extra=Public)
    attempt: int = Field(ge=1, json_schema_extra=Public)
    excluded: dict[Reason, Bucket] = Field(max_length=64, json_schema_extra=Public)


_KINDS: Final[dict[int, type[Wire]]] = {
    message.kind: message
    for message in (
        Join,
        Joined,
        Train,
        Trained,
        Refusal,
        Settle,
        Settled,
        Confirm,
        Confirmed,
        Turn,
        Step,
        Stepped,
    )
}
W = TypeVar("W", bound=Wire)


def canonical(value: Any) -> bytes:
    """Return the one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def encode(message: Wire, body: bytes | memoryview = b"") -> bytes:
    """Return the frame of ``message``; inverse of :func:`decode`.

    Raises:
        IntegrityError: Header or body is over its limit (code ``too-large``).
    """
    header = canonical(message.model_dump(mode="json"))
    size = memoryview(body).nbytes  # a view of floats counts items by len()
    if len(header) > MAX_HEADER or size > MAX_BODY:
        raise IntegrityError("message over the size limit", code=Code.TOO_LARGE)
    return b"".join((_FIXED.pack(MAGIC, message.kind, len(header), size), header, body))


def decode(frame: bytes | memoryview, *, max_body: int = MAX_BODY) -> tuple[Wire, memoryview]:
    """Return the message and its body; inverse of :func:`encode`.

    Guarantees:
        - Lengths are checked before the header is parsed.
        - Bytes before, between or after the declared parts are refused.
        - A header in any but its canonical form is refused: one message has one frame.

    Raises:
        IntegrityError: ``malformed`` or ``too-large``.
    """
    view = memoryview(frame).cast("B")
    if len(view) < _FIXED.size:
        raise IntegrityError("message shorter than its fixed part", code=Code.MALFORMED)
    magic, kind, header_size, body_size = _FIXED.unpack_from(view)
    if magic != MAGIC or kind not in _KINDS:
        raise IntegrityError("not a fedgen message of this version", code=Code.MALFORMED)
    if header_size > MAX_HEADER or body_size > max_body:
        raise IntegrityError("message over the size limit", code=Code.TOO_LARGE)
    if len(view) != _FIXED.size + header_size + body_size:
        raise IntegrityError("message length does not match its frame", code=Code.MALFORMED)
    start = _FIXED.size + header_size
    header = bytes(view[_FIXED.size : start])
    try:
        message = _KINDS[kind].model_validate_json(header)
    except ValidationError as error:
        raise IntegrityError("message header does not fit its kind", code=Code.MALFORMED) from error
    if canonical(message.model_dump(mode="json")) != header:
        raise IntegrityError("message header is not in canonical form", code=Code.MALFORMED)
    return message, view[start:]


def expect(message: Wire, kind: type[W]) -> W:
    """Return ``message`` as ``kind``.

    Raises:
        IntegrityError: It is of another kind (code ``out-of-order``).
    """
    if not isinstance(message, kind):
        raise IntegrityError("an unexpected kind of message", code=Code.OUT_OF_ORDER)
    return message


def bucket(count: int, *, floor: int = 10) -> str:
    """Return a count as a coarse bucket, so that no exact number of people leaves a site.

    Edge cases:
        ================  ==========
        count = 0         ``"0"``
        1 .. floor - 1    ``"<floor"``
        otherwise         a decade range such as ``"10-99"``
        ================  ==========

    Raises:
        ValueError: ``count`` is negative, or ``floor`` is below three.
    """
    if count < 0:
        raise ValueError(f"count must be at least zero, not {count}")
    if floor < 3:  # noqa: PLR2004 - "<2" says exactly one person, "<3" is the least that hides
        raise ValueError(f"floor must be at least three, not {floor}")
    if count == 0:
        return "0"
    if count < floor:
        return f"<{floor}"
    low = floor
    while count >= low * 10:
        low *= 10
    return f"{low}-{low * 10 - 1}"
