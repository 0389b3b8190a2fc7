"""What a site must not forget between two messages, whichever process handles the second.

Two things are kept, each in one file of the site's own: the signed invitation it accepted, and the last protected
update it computed. The first lets another process of the site answer the next round; it is held against every
rule again when it is read. The second lets a coordinator that crashed ask the same round again: the very same
noised values go out once more, which reveals nothing new and so costs nothing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.errors import Code, IntegrityError
from fedgen.messages import Trained, decode, encode, expect

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.messages import Train

_MARK: Final = 32  # bytes of the digest in front of a kept answer


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer this site computed and charged.

    Attributes:
        reply: Its message, as first sent.
        payload: Its values, float32 little-endian.
        rows: Digest of which rows were permitted, 32 bytes.
    """

    reply: Trained
    payload: bytes
    rows: bytes

    def answers(self, train: Train, rows: bytes) -> bool:
        """Whether ``train`` asks the very same question of the very same rows under a later attempt.

        Raises:
            IntegrityError: ``replayed``: this attempt was answered already.
        """
        mine = self.reply
        asked = (train.study_hash, train.run, train.round, train.digest, train.parameters)
        if asked != (mine.study_hash, mine.run, mine.round, mine.weights, mine.parameters):
            return False
        if train.attempt <= mine.attempt:
            raise IntegrityError("a round that was already answered", code=Code.REPLAYED)
        return rows == self.rows


class Memory:
    """A site's memory of what it accepted and answered.

    Guarantees:
        - Files are whole or absent, and can be read by their owner only.
        - A file that cannot be read back is as if it were not there; the ledger still refuses what it must.

    Args:
        invitation: File of the accepted invitation, or None to keep it in this process only.
        answer: File of the last answer, or None not to keep it.
        durable: Whether a file is on the disk before the site goes on; False only in a simulation.
    """

    def __init__(
        self, invitation: Path | None = None, answer: Path | None = None, *, durable: bool = True
    ) -> None:
        self._invitation = invitation
        self._answer = answer
        self._durable = durable

    def accept(self, envelope: bytes) -> None:
        """Keep the signed invitation that was accepted."""
        if self._invitation is not None:
            _write(self._invitation, envelope, durable=self._durable)

    def invitation(self) -> bytes | None:
        """Return the signed invitation that was accepted last; whoever reads it verifies it anew."""
        return None if self._invitation is None else _read(self._invitation)

    def leave(self, *, finished: bool) -> None:
        """Forget the invitation; and the answer too if the study is finished and no round can be asked again."""
        for path in (self._invitation, self._answer if finished else None):
            if path is not None:
                path.unlink(missing_ok=True)

    def keep(self, kept: Kept) -> None:
        """Keep an answer before it leaves."""
        if self._answer is not None:
            _write(self._answer, kept.rows + encode(kept.reply, kept.payload), durable=self._durable)

    def kept(self) -> Kept | None:
        """Return the last answer, or None if there is none that is whole."""
        data = None if self._answer is None else _read(self._answer)
        if data is None:
            return None
        try:
            message, body = decode(memoryview(data)[_MARK:])
            return Kept(reply=expect(message, Trained), payload=bytes(body), rows=data[:_MARK])
        except IntegrityError:
            return None


def rows_mark(permitted: np.ndarray | None) -> bytes:
    """Return 32 bytes that say which rows were permitted; all of them where consent is not the ground."""
    from hashlib import sha256

    return sha256(b"all" if permitted is None else np.packbits(permitted).tobytes()).digest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes, *, durable: bool) -> None:
    """Replace ``path`` whole, with mode 0600."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
