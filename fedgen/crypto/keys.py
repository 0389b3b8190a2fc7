"""Who speaks and who may read: Ed25519 keys that sign, hybrid HPKE keys that seal.

A private key never appears in ``repr``, is not pickled and leaves memory only by :meth:`save`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final, Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from fedgen.crypto import keyfile
from fedgen.crypto.derive import domain, hkdf
from fedgen.crypto.digest import same_digest, sha256_hex
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    import os

    from typing_extensions import Buffer

SIGNATURE_BYTES: Final = 64
SEAL_OVERHEAD: Final = 1088 + 32 + 16  # ML-KEM-768 ciphertext, X25519 share, GCM tag
_MLKEM_SEED: Final = 64
_MLKEM_PUBLIC: Final = 1184
_PUBLIC_BYTES: Final = _MLKEM_PUBLIC + 32
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def fingerprint(tag: str, public: bytes) -> str:
    """Return the SHA-256 that names a public key of one type, as 64 hex digits.

    Args:
        tag: ``"signing"`` or ``"sealing"``: equal bytes under two types have two names.
        public: The raw public key.
    """
    return sha256_hex(domain(f"key/{tag}") + public)


class VerifyKey:
    """The public half of a :class:`SigningKey`; equal and hashable by its bytes.

    Args:
        public: The 32 bytes of an Ed25519 public key.

    Raises:
        IntegrityError: These are not 32 bytes (code ``malformed``).
    """

    __slots__ = ("_key", "public")

    def __init__(self, public: bytes) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(public)
        except ValueError:
            raise IntegrityError("an Ed25519 public key has 32 bytes", code=Code.MALFORMED) from None
        self.public: Final = bytes(public)

    @property
    def fingerprint(self) -> str:
        """The name of this key, 64 hex digits."""
        return fingerprint("signing", self.public)

    def verify(self, label: str, data: Buffer, signature: Buffer) -> None:
        """Return if ``signature`` was made by :meth:`SigningKey.sign` over this label and data.

        Raises:
            IntegrityError: It was not (code ``bad-signature``).

        Source: RFC 8032, Ed25519 over the domain prefix followed by the data.
        """
        try:
            self._key.verify(bytes(memoryview(signature)), domain(label) + bytes(memoryview(data)))
        except InvalidSignature:
            raise IntegrityError("the signature does not match", code=Code.BAD_SIGNATURE) from None

    def verify_text(self, text: str, signature: Buffer) -> None:
        """Return if ``signature`` was made by :meth:`SigningKey.sign_text` over this text.

        Raises:
            IntegrityError: It was not (code ``bad-signature``).
        """
        try:
            self._key.verify(bytes(memoryview(signature)), _note(text))
        except (InvalidSignature, ValueError):
            raise IntegrityError("the signature does not match", code=Code.BAD_SIGNATURE) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"VerifyKey({self.public.hex()})"


class _Private:
    """What both kinds of private key share: a public half, a name, a file, and silence."""

    __slots__ = ("_secret", "public")
    tag: ClassVar[str]

    def __init__(self, secret: bytes, public: bytes) -> None:
        self._secret: Final = secret
        self.public: Final = public

    @classmethod
    def _from_secret(cls, secret: bytes) -> Self:
        """Rebuild the key from its private bytes; ``ValueError`` if they are not such a key."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """The name of the public half, 64 hex digits."""
        return fingerprint(self.tag.lower(), self.public)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new file of mode 0600; inverse of :meth:`load`.

        Raises:
            ConfigError: The file exists, or its folder cannot be written.
        """
        keyfile.write(
            path, tag=self.tag, secret=self._secret, check=_check(self.tag, self._secret, self.public)
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the key from its file; inverse of :meth:`save`.

        Raises:
            ConfigError: The file is missing, open to group or others, or not a key of this type.
            IntegrityError: The key does not fit the check written beside it.
        """
        secret, expected = keyfile.read(path, tag=cls.tag)
        try:
            key = cls._from_secret(secret)
        except ValueError:
            key = None
        if key is None or not same_digest(_check(cls.tag, secret, key.public), expected):
            raise IntegrityError(
                "the key does not fit its check: the file is damaged",
                code=Code.MALFORMED,
                where=str(path),
            )
        return key

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fingerprint={self.fingerprint[:16]}…)"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not copied or pickled; use save and load")


class SigningKey(_Private):
    """An Ed25519 private key: who holds it can speak in its name.

    Attributes:
        public: The 32 bytes others verify with.
    """

    __slots__ = ("_key",)
    tag = "SIGNING"

    def __init__(self, key: Ed25519PrivateKey) -> None:
        super().__init__(key.private_bytes_raw(), key.public_key().public_bytes_raw())
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def _from_secret(cls, secret: bytes) -> Self:
        return cls(Ed25519PrivateKey.from_private_bytes(secret))

    @property
    def verify_key(self) -> VerifyKey:
        """The public half, as others hold it."""
        return VerifyKey(self.public)

    def sign(self, label: str, data: Buffer) -> bytes:
        """Sign data for one purpose; verified by :meth:`VerifyKey.verify`.

        Guarantees:
            - A signature under one label is never valid under another.

        Args:
            label: The purpose, such as ``"envelope/signature"``.
            data: Short: it is copied. Sign the digest of what is long.

        Raises:
            ValueError: The label is malformed.
        """
        return self._key.sign(domain(label) + bytes(memoryview(data)))

    def sign_text(self, text: str) -> bytes:
        """Sign the text of a note, as others outside this package do; verified by :meth:`VerifyKey.verify_text`.

        Guarantees:
            - Never valid under a label of :meth:`sign`: a label's prefix holds a NUL byte, a text cannot.

        Raises:
            ValueError: The text holds control characters other than line breaks, or does not end with one.

        Source: C2SP signed-note: plain Ed25519 over the text.
        """
        return self._key.sign(_note(text))


class SealingKey(_Private):
    """A hybrid ML-KEM-768 and X25519 private key: who holds it can open what was sealed for it.

    Attributes:
        public: The 1,216 bytes others seal to: the ML-KEM-768 key, then the X25519 key.
    """

    __slots__ = ("_key",)
    tag = "SEALING"

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        super().__init__(
            mlkem.private_bytes_raw() + x25519.private_bytes_raw(),
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
        )
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key from the operating system's generator."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def _from_secret(cls, secret: bytes) -> Self:
        return cls(
            MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED]),
            X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED:]),
        )

    def unseal(self, sealed: Buffer, *, info: bytes) -> bytes:
        """Return the secret in ``sealed``; inverse of :func:`seal`.

        Raises:
            IntegrityError: It was sealed for another key or other info, or was altered (code ``bad-seal``).
        """
        try:
            return _SUITE.decrypt(bytes(memoryview(sealed)), self._key, info)
        except (InvalidTag, ValueError):
            raise IntegrityError("the seal does not open with this key", code=Code.BAD_SEAL) from None


def seal(public: bytes, secret: bytes, *, info: bytes) -> bytes:
    """Seal a short secret for the holder of one key; inverse of :meth:`SealingKey.unseal`.

    Guarantees:
        - Safe as long as either ML-KEM-768 or X25519 holds.
        - It opens only with the same ``info``.
        - The result is 1,136 bytes longer than the secret.

    Args:
        public: The recipient's :attr:`SealingKey.public`.
        secret: A few bytes, such as a data key.
        info: Public context the seal is bound to.

    Raises:
        IntegrityError: ``public`` is not a sealing key (code ``malformed``).

    Source: RFC 9180 base mode, HPKE(MLKEM768-X25519, HKDF-SHA256, AES-256-GCM).
    """
    try:
        return _SUITE.encrypt(secret, _parse(public), info)
    except ValueError:
        raise IntegrityError("this is not a public sealing key", code=Code.MALFORMED) from None


def _note(text: str) -> bytes:
    """Return the bytes of a note's text; ``ValueError`` if they could be taken for something else."""
    if not text.endswith("\n") or any(character < " " and character != "\n" for character in text):
        raise ValueError("a note is lines of text, without control characters")
    return text.encode()


def _check(tag: str, secret: bytes, public: bytes) -> str:
    """Return what tells a damaged key file: it depends on every private bit and gives none away."""
    return hkdf(secret, purpose=f"keyfile/{tag.lower()}", context=public, length=16).hex()


@lru_cache(maxsize=16)
def _parse(public: bytes) -> MLKEM768X25519PublicKey:
    """Return the parsed public key; a site seals to one key all its life, so it is kept."""
    if len(public) != _PUBLIC_BYTES:
        raise ValueError("wrong length")
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
    )
