"""What a site must not forget between two messages, whichever process handles the second.

Three things are kept, each in one file of the site's own: the signed invitation it accepted, the last protected
update it computed, and which rows that update was made from. The first lets another process of the site answer the
next round; it is held against every rule again when it is read. The second lets a coordinator that crashed ask the
same round again: the very same noised values go out once more, which reveals nothing new and so costs nothing. The
third lets a site say, right before its update is summed, whether every one of these rows may still be used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen import _files
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Trained, decode, encode, expect

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fedgen.messages import Confirm, Train, Turn

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


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """What left the site in an attempt: which question it answered, and which rows it was made from.

    Attributes:
        study: Hash of the study, hex.
        run: Identity of the run, hex.
        round: One-based.
        attempt: One-based.
        permitted: Rows that might be used, shape ``(n,)``; None where consent is not the ground.
    """

    study: str
    run: str
    round: int
    attempt: int
    permitted: NDArray[np.bool_] | None

    @classmethod
    def of(cls, asked: Train | Turn, permitted: NDArray[np.bool_] | None) -> Released:
        """Return what left in answer to a request."""
        return cls(asked.study_hash, asked.run, asked.round, asked.attempt, permitted)

    def answers(self, confirm: Confirm) -> bool:
        """Return whether ``confirm`` asks about this very attempt."""
        asked = (confirm.study_hash, confirm.run, confirm.round, confirm.attempt)
        return asked == (self.study, self.run, self.round, self.attempt)


class Memory:
    """A site's memory of what it accepted and answered.

    Guarantees:
        - Files are whole or absent, and can be read by their owner only.
        - A file that cannot be read back is as if it were not there; the ledger still refuses what it must.

    Args:
        invitation: File of the accepted invitation, or None to keep it in this process only.
        answer: File of the last answer, or None not to keep it.
        released: File of which rows the last update was made from, or None to keep it in this process only.
        durable: Whether a file is on the disk before the site goes on; False only in a simulation.
    """

    def __init__(
        self,
        invitation: Path | None = None,
        answer: Path | None = None,
        *,
        released: Path | None = None,
        durable: bool = True,
    ) -> None:
        self._invitation = invitation
        self._answer = answer
        self._released_file = released
        self._released: Released | None = None
        self._durable = durable

    def accept(self, envelope: bytes) -> None:
        """Keep the signed invitation that was accepted."""
        if self._invitation is not None:
            _files.write(self._invitation, envelope, private=True, durable=self._durable)

    def invitation(self) -> bytes | None:
        """Return the signed invitation that was accepted last; whoever reads it verifies it anew."""
        return None if self._invitation is None else _read(self._invitation)

    def leave(self, *, finished: bool) -> None:
        """Forget the invitation; and the answer too if the study is finished and no round can be asked again."""
        self._released = None
        for path in (self._invitation, self._released_file, self._answer if finished else None):
            if path is not None:
                path.unlink(missing_ok=True)

    def keep(self, kept: Kept) -> None:
        """Keep an answer before it leaves."""
        if self._answer is not None:
            said = kept.rows + encode(kept.reply, kept.payload)
            _files.write(self._answer, said, private=True, durable=self._durable)

    def release(self, released: Released) -> None:
        """Keep which rows an update was made from, before it leaves."""
        self._released = released
        if self._released_file is not None:
            said = [released.study, released.run, released.round, released.attempt]
            rows = released.permitted
            head = json.dumps([*said, None if rows is None else len(rows)]).encode()
            bits = b"" if rows is None else np.packbits(rows).tobytes()
            _files.write(self._released_file, head + b"\n" + bits, private=True, durable=self._durable)

    def released(self) -> Released | None:
        """Return which rows the last update was made from, or None if that is not known."""
        data = None if self._released_file is None else _read(self._released_file)
        if data is None:
            return self._released
        try:
            head, _, bits = data.partition(b"\n")
            study, run, number, attempt, rows = json.loads(head)
            permitted = None
            if rows is not None:
                permitted = np.unpackbits(np.frombuffer(bits, np.uint8), count=rows).astype(bool)
                if len(permitted) != rows:
                    return None
            return Released(study, run, number, attempt, permitted)
        except (ValueError, TypeError):
            return None

    def forget_rows(self) -> None:
        """Forget which rows the last update was made from: the table is another one, and rows have no names."""
        self._released = None
        if self._released_file is not None:
            self._released_file.unlink(missing_ok=True)

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

    if permitted is None:
        return sha256(b"all").digest()
    # The bits alone are padded to a byte: one more row that is not permitted would look like none.
    return sha256(len(permitted).to_bytes(8, "big") + np.packbits(permitted).tobytes()).digest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
