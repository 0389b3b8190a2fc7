"""The envelope around every message: signed by its sender, and sealed for its recipient where it must be.

``magic | header length | header | [sealed data key | nonce prefix] | body | signature``

A broadcast is signed in clear, an update is sealed and signed; both have this one form and are opened by one
function. The signature is checked before anything is decrypted. Spec and vectors: docs/spec/envelope.md.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Final

from fedgen import messages
from fedgen.crypto import chunks, keys
from fedgen.crypto.derive import domain
from fedgen.crypto.header import MAX_FRAME, MUST_SEAL, Expectation, Header, agree, split
from fedgen.crypto.replay import ReplayGuard
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from fedgen.crypto.keys import SealingKey, SigningKey, VerifyKey

__all__ = [
    "Expectation",
    "Header",
    "ReplayGuard",
    "agree",
    "open_frame",
    "peek",
    "seal_frame",
    "sign_frame",
]

SEAL_BYTES: Final = chunks.KEY_BYTES + keys.SEAL_OVERHEAD + chunks.PREFIX_BYTES
_SIGN: Final = "envelope/signature"
_SEAL: Final = domain("envelope/seal")
_KEPT: Final = 2**24
_scratch = threading.local()


def sign_frame(frame: Buffer, header: Header, signer: SigningKey) -> bytes:
    """Return an envelope that anyone can read and nobody can alter; opened by :func:`open_frame`.

    Args:
        frame: The output of :func:`fedgen.messages.encode`.
        header: From whom, to whom, about what.
        signer: The key of ``header.sender``.

    Raises:
        ValueError: The frame is not of the header's kind, or that kind must be sealed.
        IntegrityError: The frame is over its limit (code ``too-large``).
    """
    body = _checked(frame, header)
    if header.kind in MUST_SEAL:
        raise ValueError("an update is never sent in clear; use seal_frame")
    head = header.with_body(body_bytes=len(body)).encode()
    return b"".join((head, body, signer.sign(_SIGN, _digests(head, b"", body))))


def seal_frame(frame: Buffer, header: Header, signer: SigningKey, recipient_public: bytes) -> bytes:
    """Return an envelope that only its recipient can read and nobody can alter; opened by :func:`open_frame`.

    Guarantees:
        - Every envelope has a data key of its own, sealed to the recipient and bound to the header.
        - The signature covers the header, the sealed key and the whole ciphertext.

    Args:
        frame: The output of :func:`fedgen.messages.encode`.
        header: From whom, to whom, about what.
        signer: The key of ``header.sender``.
        recipient_public: The recipient's :attr:`SealingKey.public`.

    Raises:
        ValueError: The frame is not of the header's kind, or the recipient is everyone.
        IntegrityError: The frame is over its limit (``too-large``), or the key is no key (``malformed``).
    """
    body = _checked(frame, header)
    if header.recipient == "*":
        raise ValueError("a sealed message is for one recipient; use sign_frame for a broadcast")
    key_id = keys.fingerprint("sealing", recipient_public)[:16]
    head = header.with_body(body_bytes=len(body), key=key_id).encode()
    data_key, prefix = os.urandom(chunks.KEY_BYTES), os.urandom(chunks.PREFIX_BYTES)
    seal = keys.seal(recipient_public, data_key, info=_SEAL + head) + prefix
    start = len(head) + SEAL_BYTES
    end = start + chunks.sealed_size(len(body))
    out = _buffer(end + keys.SIGNATURE_BYTES)
    out[:start] = head + seal
    chunks.encrypt_into(data_key, prefix, body, out[start:end])
    out[end:] = signer.sign(_SIGN, _digests(head, seal, out[start:end]))
    return bytes(out)


def peek(envelope: Buffer, *, max_frame: int = MAX_FRAME) -> Header:
    """Return what an envelope says about itself: well-formed, bounded, and not yet trusted.

    Use it to find the key that :func:`open_frame` needs, and for nothing else.

    Raises:
        IntegrityError: ``malformed``, ``too-large``, or ``bad-seal`` for an update in clear.
    """
    return split(envelope, max_frame=max_frame)[0]


def open_frame(
    envelope: Buffer,
    *,
    verify_key: VerifyKey | None,
    sealing_key: SealingKey | None,
    expect: Expectation,
    max_frame: int = MAX_FRAME,
) -> tuple[Header, memoryview]:
    """Return the header and frame of an authentic, expected envelope.

    Guarantees:
        - In this order: lengths, signature, expectations, decryption. No step runs if one before it fails.
        - Every bit of the envelope is covered: no altered envelope opens.
        - A hostile envelope raises ``IntegrityError`` and nothing else.

    Edge cases:
        - A clear frame is a view into ``envelope``; a sealed one has memory of its own.
        - The same envelope opens twice: :class:`ReplayGuard` refuses the second.

    Args:
        envelope: What came in.
        verify_key: The roster's key for ``peek(envelope).sender``; ``None`` if it has none.
        sealing_key: The receiver's own key; ``None`` if nothing is sealed for it.
        expect: What the receiver knows already.
        max_frame: The longest frame that makes sense here.

    Raises:
        IntegrityError: With the code of the first thing that was wrong.
    """
    header, head, rest = split(envelope, max_frame=max_frame)
    seal_bytes = SEAL_BYTES if header.sealed else 0
    body_bytes = chunks.sealed_size(header.body_bytes) if header.sealed else header.body_bytes
    if len(rest) != seal_bytes + body_bytes + keys.SIGNATURE_BYTES:
        raise IntegrityError("envelope length does not match its header", code=Code.MALFORMED)
    seal, body = rest[:seal_bytes], rest[seal_bytes : seal_bytes + body_bytes]
    if verify_key is None:
        raise IntegrityError("the sender is not in the roster", code=Code.UNKNOWN_SENDER)
    verify_key.verify(_SIGN, _digests(head, seal, body), rest[-keys.SIGNATURE_BYTES :])
    expect.check(header)
    frame = _decrypted(header, head, seal, body, sealing_key) if header.sealed else body.toreadonly()
    if not _is_kind(frame, header):
        raise IntegrityError("the frame inside is of another kind", code=Code.OUT_OF_ORDER)
    return header, frame


def _decrypted(
    header: Header, head: memoryview, seal: memoryview, body: memoryview, sealing_key: SealingKey | None
) -> memoryview:
    """Return the clear frame of a sealed envelope whose signature is good."""
    if sealing_key is None or sealing_key.fingerprint[:16] != header.key:
        raise IntegrityError("the message is sealed for another key", code=Code.WRONG_RECIPIENT)
    # The seal has one length, so what it opens to has 32 bytes or does not open.
    split_at = SEAL_BYTES - chunks.PREFIX_BYTES
    data_key = sealing_key.unseal(seal[:split_at], info=_SEAL + bytes(head))
    frame = memoryview(bytearray(header.body_bytes))
    chunks.decrypt_into(data_key, bytes(seal[split_at:]), body, frame)
    return frame.toreadonly()


def _checked(frame: Buffer, header: Header) -> memoryview:
    """Return the frame as bytes to be wrapped, if it is of the header's kind and within its limit."""
    body = memoryview(frame).cast("B")
    if not _is_kind(body, header):
        raise ValueError(f"the frame is not of kind {header.kind.name}")
    if len(body) > MAX_FRAME:
        raise IntegrityError("message over the size limit", code=Code.TOO_LARGE)
    return body


def _is_kind(frame: memoryview, header: Header) -> bool:
    """Say whether a frame begins as one of the header's kind does."""
    return frame[: len(messages.MAGIC) + 1] == messages.MAGIC + bytes((header.kind,))


def _digests(head: Buffer, seal: Buffer, body: Buffer) -> bytes:
    """Return what is signed: the digests of the three parts, each over its whole."""
    return b"".join(hashlib.sha256(part).digest() for part in (head, seal, body))


def _buffer(size: int) -> memoryview:
    """Return memory to build an envelope in; reused, since fresh pages cost more than the cipher.

    It only ever holds what is about to be sent, so nothing secret stays behind in it.
    """
    if size > _KEPT:
        return memoryview(bytearray(size))
    kept: bytearray | None = getattr(_scratch, "buffer", None)
    if kept is None or len(kept) < size:
        kept = _scratch.buffer = bytearray(1 << (size - 1).bit_length())
    return memoryview(kept)[:size]
