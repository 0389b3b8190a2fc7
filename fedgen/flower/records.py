"""Opaque bytes in and out of Flower's records. Flower and its database see nothing but these bytes."""

from __future__ import annotations

from typing import Final

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.app import Array, ArrayRecord, Message, RecordDict

from fedgen.errors import Code, IntegrityError

STYPE: Final = "x-fedgen/envelope"
_RECORD: Final = "fedgen"
_ARRAY: Final = "envelope"
MOST_BYTES: Final = 2**30 + 2**23  # body and two headers of fedgen.messages, which a relay does not load


def to_record(envelope: bytes) -> RecordDict:
    """Return ``envelope`` as a record; inverse of :func:`from_record`.

    An ``Array`` rather than config bytes, because Flower cuts arrays into chunks and config bytes not.
    """
    array = Array("uint8", (len(envelope),), STYPE, envelope)
    return RecordDict({_RECORD: ArrayRecord({_ARRAY: array})})


def from_record(record: RecordDict) -> bytes:
    """Return the envelope of a record; inverse of :func:`to_record`.

    Raises:
        IntegrityError: The record is not ours (``malformed``) or over the limit (``too-large``).
    """
    arrays = record.array_records
    if set(arrays) != {_RECORD} or set(arrays[_RECORD]) != {_ARRAY}:
        raise IntegrityError("a Flower record without an envelope", code=Code.MALFORMED)
    array = arrays[_RECORD][_ARRAY]
    if array.stype != STYPE or tuple(array.shape) != (len(array.data),):
        raise IntegrityError("a Flower array that is not an envelope", code=Code.MALFORMED)
    if len(array.data) > MOST_BYTES:
        raise IntegrityError("an envelope over the size limit", code=Code.TOO_LARGE)
    return bytes(array.data)


def copy_shell(record: RecordDict) -> RecordDict:
    """Return a record whose containers are new and whose immutable leaves are shared.

    Flower's own strategies put one record object into every message; a client that edits it would edit all.
    """
    shell = RecordDict()
    for name, part in record.items():
        shell[name] = type(part)(dict(part))  # type: ignore[arg-type]  # each kind is made from its own items
    return shell


def request(envelope: bytes, node: int, group: str) -> Message:
    """Return the Flower message that carries ``envelope`` to ``node``."""
    return Message(to_record(envelope), dst_node_id=node, message_type="train", group_id=group)
