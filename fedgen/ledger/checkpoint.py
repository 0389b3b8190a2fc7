"""A signed tree head: what a ledger promises to contain, kept by somebody else.

A file can be rolled back to an earlier state that is whole in itself; only a checkpoint kept elsewhere shows it. It is
text that any tool of the transparency-log world reads: a C2SP signed note with a tlog-checkpoint inside.

Source: C2SP signed-note and tlog-checkpoint; Ed25519 is signature type 0x01.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fedgen import _files
from fedgen.errors import Code, ConfigError, IntegrityError

if TYPE_CHECKING:
    import os

    from fedgen.crypto.keys import VerifyKey

BESIDE: Final = ".checkpoint"  # how a checkpoint beside a ledger is named
ENTRY_LABEL: Final = "ledger/entry"
MAX_TEXT: Final = 2**16
MAX_SIGNATURES: Final = 64
_ED25519: Final = b"\x01"
_ID: Final = 4
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_LINE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")


class Signer(Protocol):
    """Who signs a ledger: :class:`fedgen.crypto.keys.SigningKey`, or a key in hardware."""

    @property
    def public(self) -> bytes:
        """The 32 bytes of the Ed25519 public key."""
        ...

    def sign(self, label: str, data: bytes, /) -> bytes:
        """Return the signature of ``data`` for one purpose."""
        ...

    def sign_text(self, text: str, /) -> bytes:
        """Return the signature of the text of a note."""
        ...


def key_name(origin: str) -> str:
    """Return the name of a ledger's key in a note: its origin, with what a name must not hold percent-encoded."""
    return "".join(
        "".join(f"%{byte:02X}" for byte in character.encode())
        if character.isspace() or character in "+%"
        else character
        for character in origin
    )


def key_id(name: str, public: bytes) -> bytes:
    """Return the four bytes that tell keys of one name apart.

    Source: C2SP signed-note, "Ed25519 signatures".
    """
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_ID]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and root of a ledger at one moment, signed by its key.

    Guarantees:
        - ``from_text(to_text())`` is the same checkpoint, and ``to_text(from_text(text))`` the same text.
        - Signatures of others, such as witnesses, are kept and not believed.

    Attributes:
        origin: Name of the ledger.
        size: Number of entries.
        root: Root of the Merkle tree over their hashes, 32 bytes.
        signatures: Pairs of key name and what it brings: four bytes of key id, then the signature.
    """

    origin: str
    size: int
    root: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @classmethod
    def signed(cls, origin: str, size: int, root: bytes, key: Signer) -> Checkpoint:
        """Return a fresh checkpoint; inverse of :meth:`verify`."""
        name = key_name(origin)
        signature = key_id(name, key.public) + key.sign_text(_body(origin, size, root))
        return cls(origin, size, root, ((name, signature),))

    def verify(self, key: VerifyKey) -> None:
        """Return if ``key`` signed this checkpoint.

        Raises:
            IntegrityError: It did not (code ``bad-signature``).
        """
        name = key_name(self.origin)
        own = key_id(name, key.public)
        found = [blob[_ID:] for who, blob in self.signatures if who == name and blob[:_ID] == own]
        if not found:
            raise IntegrityError("the checkpoint is not signed by the ledger's key", code=Code.BAD_SIGNATURE)
        for signature in found:
            key.verify_text(_body(self.origin, self.size, self.root), signature)

    def to_text(self) -> str:
        """Return the checkpoint as a signed note; inverse of :meth:`from_text`."""
        lines = "".join(f"— {name} {b64encode(blob).decode()}\n" for name, blob in self.signatures)
        return f"{_body(self.origin, self.size, self.root)}\n{lines}"

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Return the checkpoint in a signed note; inverse of :meth:`to_text`. Nothing is believed yet.

        Raises:
            IntegrityError: It is not exactly a checkpoint (code ``malformed``).
        """
        try:
            made = cls._parse(text)
        except ValueError:
            raise IntegrityError("this is not a ledger checkpoint", code=Code.MALFORMED) from None
        if made.to_text() != text:
            raise IntegrityError("the checkpoint is not in its canonical form", code=Code.MALFORMED)
        return made

    @classmethod
    def _parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint in ``text``, or raise what the parts raise."""
        if len(text) > MAX_TEXT:
            raise ValueError("over the size limit")
        body, _, rest = text.partition("\n\n")
        origin, size, root = body.split("\n")
        lines = [_LINE.fullmatch(line) for line in rest.removesuffix("\n").split("\n")]
        signatures = tuple((line[1], b64decode(line[2], validate=True)) for line in lines if line)
        if not origin.isprintable() or not origin or not _SIZE.fullmatch(size):
            raise ValueError("no origin or no size")
        if not 0 < len(lines) == len(signatures) <= MAX_SIGNATURES:
            raise ValueError("a line that is no signature")
        digest = b64decode(root, validate=True)
        if len(digest) != sha256().digest_size:
            raise ValueError("a root of another length")
        return cls(origin, int(size), digest, signatures)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Return the checkpoint in a file.

        Raises:
            ConfigError: There is no such file, or it cannot be read.
            IntegrityError: It holds something else (code ``malformed``).
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_TEXT + 1)
            return cls.from_text(data.decode())
        except OSError as error:
            raise ConfigError(f"cannot read the checkpoint: {error.strerror}", where=str(path)) from None
        except UnicodeDecodeError:
            raise IntegrityError(
                "this is not a ledger checkpoint", code=Code.MALFORMED, where=str(path)
            ) from None

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Put the checkpoint at ``path``, readable by its owner only: the old file stays whole until the new one is.

        Args:
            path: The file; its folder must exist.
            durable: Whether the disk has it before this returns; False only in a simulation.

        Raises:
            OSError: It cannot be written; the old file stays.
        """
        _files.write(path, self.to_text().encode(), private=True, durable=durable)


def beside(ledger: Path) -> Path:
    """Return where the checkpoint beside a ledger's file lies."""
    return ledger.with_name(ledger.name + BESIDE)


def _body(origin: str, size: int, root: bytes) -> str:
    """Return the signed text."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n"
