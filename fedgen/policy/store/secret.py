"""The store's secret: it lets a tombstone recognise a person whose salt is gone, and nothing else.

A tombstone is ``HMAC-SHA256(secret, label ‖ identifier)``. Who has the database and not the secret cannot test a name
against it; who has both can, for names they already know. So it is pseudonymous data, not anonymous: what is kept
under Art. 17(3)(b) so that a restore or a re-import cannot bring the person back, and no more.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
from typing import TYPE_CHECKING, Final, Self

from fedgen import _files
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_BYTES: Final = 32
_TAG: Final = b"fedgen/v1/consent-store/suppression\0"
_CHECK: Final = b"fedgen/v1/consent-store/key-check\0"
_REF: Final = b"fedgen/v1/consent-store/subject-ref\0"
REF_BYTES: Final = 16
SALT_BYTES: Final = 32


class Secret:
    """The secret of one store, from a file that only its owner may read."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "Secret(…)"

    @classmethod
    def load(cls, path: Path, *, create: bool) -> Self:
        """Return the secret in ``path``; with ``create`` a missing file is made.

        Raises:
            ConfigError: The file is missing, not a key, or may be read by others.
        """
        if create and not path.exists():
            # A rename could take the place of a secret that another process has made and used meanwhile.
            _files.create(path, secrets.token_bytes(_BYTES))
        try:
            mode, content = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
        except FileNotFoundError:
            hint = "restore it: without it the store cannot recognise people who were erased"
            raise ConfigError("the store's key file is missing", where=path, hint=hint) from None
        if mode & 0o077:
            raise ConfigError("others may read the store's key", where=path, hint=f"chmod 600 {path.name}")
        if len(content) != _BYTES:
            raise ConfigError("not a key of a consent store", where=path, hint="restore it from a backup")
        return cls(content)

    def tag(self, subject_id: str) -> str:
        """Return what a tombstone keeps of a person, hex."""
        return hmac.digest(self._key, _TAG + subject_id.encode(), "sha256").hex()

    def check(self) -> str:
        """Return what tells this secret from another, hex; it gives nothing of the secret away."""
        return hmac.digest(self._key, _CHECK, "sha256").hex()[:32]


def subject_ref(salt: bytes, subject_id: str) -> bytes:
    """Return the pseudonym under which events are kept: an HMAC under the person's own random salt, 16 bytes.

    Without the salt nobody can compute it again, whatever else they have.
    """
    return hmac.digest(salt, _REF + subject_id.encode(), "sha256")[:REF_BYTES]


def sha256_hex(content: bytes) -> str:
    """Return a digest in hex."""
    return hashlib.sha256(content).hexdigest()
