"""A secret between two parties, from keys that are public: X25519 and ML-KEM-768 together, made for one run.

Of each pair one party *offers*, which encapsulates to the other's ML-KEM key, and one *accepts*. X25519 needs nothing.
Source: RFC 7748 (X25519), FIPS 203 (ML-KEM-768), RFC 5869 (HKDF); both shared secrets enter one HKDF with everything
that was public, so the result is secret while either exchange holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedgen.crypto.derive import hkdf
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from fedgen.crypto.stream import KeyStream

_MLKEM_SEED: Final = 64
_MLKEM_PUBLIC: Final = 1184
_X25519: Final = 32
PUBLIC_BYTES: Final = _MLKEM_PUBLIC + _X25519
CIPHERTEXT_BYTES: Final = 1088


class AgreementKey:
    """A key pair for one run, with which two parties come to one secret.

    Guarantees:
        - ``one.offer(other.public)`` and ``other.accept(one.public, ciphertext)`` give the same 32 bytes.
        - Another context, key or ciphertext gives unrelated bytes, never an error that tells something.
        - Nothing private appears in ``repr``, is pickled or is written anywhere.

    Edge cases:
        - A public key that is no key, or an X25519 point of small order, is refused.

    Attributes:
        public: The 1,216 bytes others need: the ML-KEM-768 key, then the X25519 key.
    """

    __slots__ = ("_mlkem", "_x25519", "public")

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem = mlkem
        self._x25519 = x25519
        self.public: Final = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, stream: KeyStream) -> Self:
        """Return a fresh key drawn from ``stream``."""
        return cls._from_secret(stream.bytes(_MLKEM_SEED + _X25519))

    @classmethod
    def _from_secret(cls, secret: bytes) -> Self:
        """Rebuild the key from its 96 private bytes; only tests and vectors have a reason to."""
        return cls(
            MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED]),
            X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED:]),
        )

    def offer(self, peer: bytes, *, context: bytes) -> tuple[bytes, bytes]:
        """Return a ciphertext for the peer, and the secret it leads to; answered by :meth:`accept`.

        The encapsulation draws from the operating system.

        Args:
            peer: The other's :attr:`public`.
            context: What the secret is for; both sides give the same.

        Raises:
            IntegrityError: ``peer`` is not such a key (code ``malformed``).
        """
        try:
            inner, ciphertext = MLKEM768PublicKey.from_public_bytes(peer[:_MLKEM_PUBLIC]).encapsulate()
        except ValueError:
            raise _no_key() from None
        public = self.public + peer + ciphertext
        return ciphertext, self._combined(peer, inner, context + public)

    def accept(self, peer: bytes, ciphertext: bytes, *, context: bytes) -> bytes:
        """Return the secret that the peer's :meth:`offer` leads to.

        Edge cases:
            - An altered ciphertext gives another secret, not an error (ML-KEM rejects implicitly).

        Raises:
            IntegrityError: ``peer`` is no such key or the ciphertext has another length (code ``malformed``).
        """
        try:
            inner = self._mlkem.decapsulate(ciphertext)
        except ValueError:
            raise IntegrityError(f"an offer has {CIPHERTEXT_BYTES} bytes", code=Code.MALFORMED) from None
        return self._combined(peer, inner, context + peer + self.public + ciphertext)

    def _combined(self, peer: bytes, inner: bytes, context: bytes) -> bytes:
        """Return HKDF over both shared secrets and all that was public."""
        if len(peer) != PUBLIC_BYTES:
            raise _no_key()
        try:
            outer = self._x25519.exchange(X25519PublicKey.from_public_bytes(peer[_MLKEM_PUBLIC:]))
        except ValueError:
            raise _no_key() from None
        return hkdf(inner + outer, purpose="agreement", context=context)

    def __repr__(self) -> str:
        return f"AgreementKey(public={self.public[-_X25519:].hex()[:16]}…)"

    def __reduce__(self) -> str:
        raise TypeError("an agreement key is not copied or pickled; it lives as long as its run")


def check_public(public: bytes) -> None:
    """Return if these bytes are a key with which somebody can agree on a secret.

    Args:
        public: What somebody says is an :attr:`AgreementKey.public`.

    Raises:
        IntegrityError: They are none, or the X25519 point is of small order (code ``malformed``).
    """
    try:
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC])
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]))
    except ValueError:
        raise _no_key() from None


def _no_key() -> IntegrityError:
    """Return the error for bytes that are no public key."""
    return IntegrityError("this is not a public agreement key", code=Code.MALFORMED)
