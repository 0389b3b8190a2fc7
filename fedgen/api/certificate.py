"""The certificate of an erasure: what was done, when and how it was checked; signed, and without the person in it.

The person stands in it as a commitment: SHA-256 over a random opening and the identifier. Who holds the opening,
which is given to the person and kept nowhere else, can show that the certificate is about them; without it nobody
can test a guess.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.api.rights import read_json
from fedgen.crypto.digest import same_digest
from fedgen.crypto.keys import SIGNATURE_BYTES, VerifyKey
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.messages import canonical

if TYPE_CHECKING:
    import os

    from fedgen.crypto.keys import SigningKey

FORMAT: Final = "fedgen/erasure-certificate/1"
LABEL: Final = "erasure/certificate"
OPENING_BYTES: Final = 32
_COMMIT: Final = b"fedgen/v1/erasure-certificate/subject\0"
_ENVELOPE: Final = {"certificate", "public_key", "signature"}


def new_opening() -> str:
    """Return a fresh opening, hex."""
    return secrets.token_hex(OPENING_BYTES)


def commitment(opening: str, subject: str) -> str:
    """Return what stands for a person in a certificate, hex."""
    return sha256(_COMMIT + bytes.fromhex(opening) + subject.encode()).hexdigest()


def sign_certificate(body: dict[str, Any], key: SigningKey) -> dict[str, Any]:
    """Return a certificate with its signature over the one byte form of its body."""
    stated = {"format": FORMAT, **body}
    return {
        "certificate": stated,
        "public_key": key.public.hex(),
        "signature": key.sign(LABEL, canonical(stated)).hex(),
    }


def verify_certificate(
    path: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | None = None,
    subject: str | None = None,
    opening: str | None = None,
) -> dict[str, Any]:
    """Return what a certificate states, if its signature matches.

    Args:
        path: The certificate.
        key: File with the public key it must be signed with, 64 hex digits. Without it the key in the certificate
            counts: that shows that nothing was changed since, and not who signed.
        subject: The person it must be about.
        opening: The opening that came with the certificate; needed with ``subject``.

    Raises:
        IntegrityError: It was changed, or signed by somebody else, or is about somebody else.
        ConfigError: A file cannot be read, or only one of ``subject`` and ``opening`` is given.
    """
    value = read_json(Path(path))
    if not isinstance(value, dict) or value.keys() != _ENVELOPE or not isinstance(value["certificate"], dict):
        raise _not_one(path)
    body = value["certificate"]
    signature, public = _hex(value["signature"], SIGNATURE_BYTES), _hex(value["public_key"], 32)
    if body.get("format") != FORMAT or signature is None or public is None:
        raise _not_one(path)
    if key is not None and _pinned(Path(key)) != public:
        raise IntegrityError(
            "was signed with another key", where=str(path), hint="name the site's own public key"
        )
    try:
        VerifyKey(public).verify(LABEL, canonical(body), signature)
    except IntegrityError:
        raise IntegrityError(
            "the signature does not match: it was changed", where=str(path), hint="ask the site for its copy"
        ) from None
    if (subject is None) != (opening is None):
        raise ConfigError(
            "a person and an opening go together", hint="give SUBJECT and --opening, or neither"
        )
    if subject is not None and opening is not None:
        _check_opening(body, subject, opening, path)
    return dict(body)


def _check_opening(body: dict[str, Any], subject: str, opening: str, path: str | os.PathLike[str]) -> None:
    if _hex(opening, OPENING_BYTES) is None:
        raise ConfigError("not an opening", key="opening", hint=f"{2 * OPENING_BYTES} hex digits")
    if not same_digest(commitment(opening, subject), str(body.get("commitment", ""))):
        raise IntegrityError("is about somebody else, or the opening is another's", where=str(path))


def _not_one(path: str | os.PathLike[str]) -> IntegrityError:
    hint = "name a file of the site's certificates"
    return IntegrityError(
        "is not a certificate of an erasure", code=Code.MALFORMED, where=str(path), hint=hint
    )


def _pinned(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(256).decode("ascii", "replace").strip()
    except OSError as error:
        raise ConfigError(f"the key cannot be read: {error.strerror}", where=path) from None
    public = _hex(text, 32)
    if public is None:
        raise ConfigError("not a public key", where=path, hint="64 hex digits")
    return public


def _hex(text: object, size: int) -> bytes | None:
    """Return bytes from exactly so many lower-case hex digits, or None."""
    if not isinstance(text, str) or len(text) != 2 * size or not set(text) <= set("0123456789abcdef"):
        return None
    return bytes.fromhex(text)
