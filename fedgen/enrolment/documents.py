"""The three documents of enrolment: a site's request, a coordinator's invitation, a rotation of either's key.

A site sends a :class:`Request` with its public halves; the coordinator answers with an :class:`Invitation` made for
this one key. Who changes an identity key lets the old one vouch for the new one in a :class:`Rotation`, which travels
inside the next request or invitation. No document holds a secret. Spec and vectors: docs/spec/enrolment.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from fedgen.config.server import Address
from fedgen.crypto.certificates import MAX_PEM
from fedgen.crypto.keys import SigningKey, fingerprint
from fedgen.data.partition import declared_size
from fedgen.enrolment.signed import Signature, Signed, check_signature, signature_of
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.messages import Hex32, SiteName

COORDINATOR: Final = "coordinator"  # who sends what a site is asked; see fedgen.crypto.header
MAX_ROTATIONS: Final = 16
_MOMENT: Final = "%Y-%m-%dT%H:%M:%SZ"
_SHORT: Final = 32
_SKEW: Final = timedelta(hours=1)


def _is_moment(text: str) -> str:
    try:
        exact = datetime.strptime(text, _MOMENT).strftime(_MOMENT) == text  # noqa: DTZ007 - the Z is in the format
    except ValueError:
        exact = False
    if not exact:
        raise ValueError("must be an instant such as 2026-01-31T00:00:00Z")
    return text


def _two_digits(count: int) -> int:
    if count != declared_size(count):
        raise ValueError("must be a count to two digits")
    return count


Moment = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9-]{5}T[0-9:]{8}Z$"), AfterValidator(_is_moment)]
Rounded = Annotated[int, Field(ge=1, le=2**53 - 1), AfterValidator(_two_digits)]
Sequence = Annotated[int, Field(ge=1, le=2**31)]
NodeKey = Annotated[str, Field(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/]{182}==$")]
SealingPublic = Annotated[str, Field(pattern=r"^[0-9a-f]{2432}$")]
Pem = Annotated[
    str,
    Field(
        pattern=r"^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+\n-----END CERTIFICATE-----\n$",
        max_length=MAX_PEM,
    ),
]


class Rotation(Signed):
    """The old identity key of one party names the new one; signed by the old key.

    Attributes:
        role: Whose key it is.
        name: The site's name, or the coordinator's.
        number: 1 for the first rotation of this party, then one more each time.
        old: The key that signs, hex.
        new: The key that follows, hex.
        issued: When.
    """

    kind: ClassVar[str] = "rotation"
    role: Literal["site", "coordinator"]
    name: SiteName
    number: Sequence
    old: Hex32
    new: Hex32
    issued: Moment

    @property
    def signer(self) -> Hex32:
        """The old key."""
        return self.old


class SignedRotation(Signed):
    """A rotation with its signature, as it stands inside another document.

    Attributes:
        rotation: What is said.
        signature: The old key's signature over it.
    """

    kind: ClassVar[str] = "signed-rotation"
    rotation: Rotation
    signature: Signature

    @classmethod
    def make(cls, rotation: Rotation, old: SigningKey) -> SignedRotation:
        """Return the rotation, signed by the old key."""
        return cls(rotation=rotation, signature=signature_of(rotation, old))


Rotations = Annotated[tuple[SignedRotation, ...], Field(max_length=MAX_ROTATIONS)]


class Request(Signed):
    """What a site asks to be enrolled with: its public halves; signed by its identity key.

    Attributes:
        name: The site's name in every roster.
        identity: Ed25519 key that signs what it sends, hex.
        ledger: Ed25519 key that signs its ledger, hex; it stays when the identity changes.
        node: Flower's node key, as a line of OpenSSH: ``ecdsa-sha2-nistp384 <base64>``.
        rows: Its declared size, a public figure to two digits.
        persons: Its declared number of persons, to two digits, or None.
        number: 1 for a site's first request, then one more each time.
        issued: When.
        rotations: The latest rotations of its identity, oldest first.
    """

    kind: ClassVar[str] = "request"
    name: SiteName
    identity: Hex32
    ledger: Hex32
    node: NodeKey
    rows: Rounded
    persons: Rounded | None = None
    number: Sequence
    issued: Moment
    rotations: Rotations = ()

    @property
    def signer(self) -> Hex32:
        """The identity key."""
        return self.identity

    @model_validator(mode="after")
    def _names_one_site(self) -> Request:
        if self.name == COORDINATOR:
            raise ValueError("a site cannot have the coordinator's name")
        if self.ledger == self.identity:
            raise ValueError("the ledger's key must not be the identity key")
        _check_chain(self.rotations, "site", self.name, self.identity)
        return self


class Invitation(Signed):
    """What a coordinator answers to one site: how to reach it, and what to trust; signed by its identity key.

    Attributes:
        coordinator: Ed25519 key that signs what the coordinator sends, hex.
        sealing: HPKE key to which updates are sealed, hex.
        name: What the coordinator calls itself.
        address: ``host:port`` that the site connects to.
        ca: Certificate that TLS of that address is checked against, PEM.
        site: The site it is for.
        site_key: Fingerprint of that site's identity key.
        number: 1 for a site's first invitation, then one more each time.
        issued: When.
        expires: When it ends: it cannot be joined then, and who joined takes part no longer.
        rotations: The latest rotations of the coordinator's identity, oldest first.
    """

    kind: ClassVar[str] = "invitation"
    coordinator: Hex32
    sealing: SealingPublic
    name: SiteName
    address: Address
    ca: Pem
    site: SiteName
    site_key: Hex32
    number: Sequence
    issued: Moment
    expires: Moment
    rotations: Rotations = ()

    @property
    def signer(self) -> Hex32:
        """The coordinator's identity key."""
        return self.coordinator

    @property
    def coordinator_key(self) -> bytes:
        """The coordinator's identity key, as bytes."""
        return bytes.fromhex(self.coordinator)

    @property
    def sealing_key(self) -> bytes:
        """The key that updates are sealed to, as bytes."""
        return bytes.fromhex(self.sealing)

    def check_for(self, site: str, identity: bytes, now: datetime) -> None:
        """Return if this invitation is for this site and this key, and holds now.

        Raises:
            Refused: It is for another site or another key, from the future, or expired.
        """
        if self.site != site:
            what = f"the invitation is for another site ({self.site})"
            raise Refused(what, code=Code.NOT_ADMITTED, hint=f"give it to {self.site}, or name its home")
        if self.site_key != fingerprint("signing", identity):
            raise Refused(
                "the invitation is for another key of this site",
                code=Code.NOT_ADMITTED,
                hint="send the newest request to the coordinator and ask for a new invitation",
            )
        if now + _SKEW < instant(self.issued):
            raise Refused(
                f"the invitation was issued on {self.issued}, and it is earlier here",
                code=Code.NOT_ADMITTED,
                hint="set this machine's clock",
            )
        if now >= instant(self.expires):
            raise Refused(
                f"the invitation expired on {self.expires}",
                code=Code.NOT_ADMITTED,
                hint="ask the coordinator for a new one",
            )

    @model_validator(mode="after")
    def _consistent(self) -> Invitation:
        if self.expires <= self.issued:
            raise ValueError("expires before it was issued")
        _check_chain(self.rotations, "coordinator", self.name, self.coordinator)
        return self


def _check_chain(rotations: tuple[SignedRotation, ...], role: str, name: str, last: str) -> None:
    """Return if each rotation is signed, is this party's, and follows the one before it up to the key in use."""
    for position, it in enumerate(rotations):
        try:
            check_signature(it.rotation, it.signature)
        except IntegrityError:
            raise ValueError("a rotation is not signed by the old key") from None
        if (it.rotation.role, it.rotation.name) != (role, name):
            raise ValueError("a rotation is somebody else's")
        following = rotations[position + 1].rotation if position + 1 < len(rotations) else None
        if it.rotation.new != (last if following is None else following.old):
            raise ValueError("the rotations do not lead to the key in use")
        if following is not None and following.number != it.rotation.number + 1:
            raise ValueError("a rotation is missing")


def leads_from(known: str, rotations: tuple[SignedRotation, ...]) -> bool:
    """Say whether the holder of a known key vouched, step by step, for the key that the rotations end with."""
    return any(it.rotation.old == known for it in rotations)


def instant(text: str) -> datetime:
    """Return a moment of a document as an instant."""
    return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)


def moment(when: datetime) -> str:
    """Return an instant as a document writes it, to the second, in UTC; inverse of :func:`instant`."""
    return when.astimezone(UTC).strftime(_MOMENT)


def shown(key: str) -> str:
    """Return the fingerprint of an identity key (hex) as two people compare it: 8 groups of 4 digits, 128 bits."""
    digits = fingerprint("signing", bytes.fromhex(key))[:_SHORT]
    return " ".join(digits[start : start + 4] for start in range(0, _SHORT, 4))


def is_fingerprint(written: str) -> bool:
    """Say whether what a person wrote could be a fingerprint: 32 to 64 digits, and what separates them."""
    digits = _plain_digits(written)
    return _SHORT <= len(digits) <= 2 * _SHORT and all(it in "0123456789abcdef" for it in digits)


def _plain_digits(written: str) -> str:
    return "".join(character for character in written.lower() if character not in " -:\t")


def same_fingerprint(written: str, key: str) -> bool:
    """Say whether what a person wrote is the fingerprint of an identity key (hex).

    Edge cases:
        - Spaces, dashes, colons and capitals make no difference; more than 32 digits must all agree.
        - Fewer than 32 digits never do: somebody could look for a key with the same beginning.
    """
    digits = _plain_digits(written)
    whole = fingerprint("signing", bytes.fromhex(key))
    return len(digits) >= _SHORT and whole.startswith(digits)
