"""A signed head: what a ledger promises to contain, kept by somebody else.

A file can be rolled back to an earlier state that is whole in itself; only a checkpoint kept elsewhere shows it. The
Merkle tree and the C2SP note format will take this place; the label of the signature carries the version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedgen.messages import canonical

if TYPE_CHECKING:
    from fedgen.crypto.keys import VerifyKey

ENTRY_LABEL: Final = "ledger/entry"
CHECKPOINT_LABEL: Final = "ledger/checkpoint"


class Signer(Protocol):
    """Who signs a ledger: :class:`fedgen.crypto.keys.SigningKey`, or a key in hardware."""

    @property
    def public(self) -> bytes:
        """The 32 bytes of the Ed25519 public key."""
        ...

    def sign(self, label: str, data: bytes, /) -> bytes:
        """Return the signature of ``data`` for one purpose."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and head of a ledger at one moment, signed by its key.

    Attributes:
        origin: Name of the ledger.
        size: Number of entries.
        head: Hash of the last of them.
        signature: Ed25519 over the canonical JSON of the three.
    """

    origin: str
    size: int
    head: bytes
    signature: bytes

    @classmethod
    def signed(cls, origin: str, size: int, head: bytes, key: Signer) -> Checkpoint:
        """Return a fresh checkpoint; inverse of :meth:`verify`."""
        return cls(origin, size, head, key.sign(CHECKPOINT_LABEL, _promise(origin, size, head)))

    def verify(self, key: VerifyKey) -> None:
        """Return if ``key`` signed this checkpoint.

        Raises:
            IntegrityError: It did not (code ``bad-signature``).
        """
        key.verify(CHECKPOINT_LABEL, _promise(self.origin, self.size, self.head), self.signature)

    def to_json(self) -> dict[str, Any]:
        """Return the checkpoint as JSON values; inverse of :meth:`from_json`."""
        return {
            "origin": self.origin,
            "size": self.size,
            "head": self.head.hex(),
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Checkpoint:
        """Return the checkpoint in ``value``; inverse of :meth:`to_json`.

        Raises:
            ValueError: It is not exactly a checkpoint.
        """
        if set(value) != {"origin", "size", "head", "signature"} or type(value["size"]) is not int:
            raise ValueError("not a ledger checkpoint")
        head, signature = bytes.fromhex(value["head"]), bytes.fromhex(value["signature"])
        return cls(str(value["origin"]), value["size"], head, signature)


def _promise(origin: str, size: int, head: bytes) -> bytes:
    """Return the signed bytes."""
    return canonical({"origin": origin, "size": size, "head": head.hex()})
