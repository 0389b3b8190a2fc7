"""Changing an identity key: the old key vouches for the new one, and then is gone.

Killed at any point, the same command goes on where it was: a new key waits under another name until the old one has
vouched for it, and takes its place in one rename.
"""

from __future__ import annotations

import json
from datetime import datetime  # noqa: TC003 - a field of the public functions
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgen._files import flush_folder
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.enrolment.documents import MAX_ROTATIONS, Rotation, SignedRotation, moment
from fedgen.enrolment.signed import check_signature, read_bounded
from fedgen.errors import Code, IntegrityError
from fedgen.runs.atomic import replacing, storage, write_private

if TYPE_CHECKING:
    from pathlib import Path

MAX_KEPT: Final = 256
_MAX_BYTES: Final = 256 * 2**10


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
    rotations: Annotated[tuple[SignedRotation, ...], Field(max_length=MAX_KEPT)]


def read_rotations(path: Path) -> tuple[SignedRotation, ...]:
    """Return the rotations of a home so far, oldest first.

    Raises:
        ConfigError: The file cannot be read, or is a link.
        IntegrityError: It has another form, or a rotation is not signed by its old key.
    """
    if not path.exists() and not path.is_symlink():
        return ()
    data = read_bounded(path, most=_MAX_BYTES, follow=False)
    try:
        kept = _Kept.model_validate_json(data).rotations
        for it in kept:
            check_signature(it.rotation, it.signature)
    except (ValidationError, IntegrityError):
        raise IntegrityError(
            "is no list of rotations", code=Code.MALFORMED, where=path, hint="restore the file"
        ) from None
    return kept


def leading_to(path: Path, key: SigningKey) -> tuple[SignedRotation, ...]:
    """Return the rotations that travel in a document: the newest that lead to the key in use, oldest first.

    Edge cases:
        - Where the key in use was made in the place of a lost one, nothing leads to it.

    Raises:
        ConfigError: As :func:`read_rotations`.
        IntegrityError: As :func:`read_rotations`.
    """
    kept = list(read_rotations(path))
    while kept and kept[-1].rotation.new != key.public.hex():
        kept.pop()
    return tuple(kept[-MAX_ROTATIONS:])


def rotate(
    key: Path, rotations: Path, *, role: Literal["site", "coordinator"], name: str, now: datetime
) -> SignedRotation:
    """Put a new identity key in the place of the old one, which vouches for it first.

    Guarantees:
        - At every instant the key in place is the old one, or the new one with the statement on the disk.
        - A rotation that was killed is finished, not begun again.

    Edge cases:
        - The old key's bytes may still be found on the medium: a file system does not wipe what it frees.

    Args:
        key: File of the identity key.
        rotations: File of the rotations so far.
        role: Whose key it is.
        name: The party's name.
        now: The present instant.

    Raises:
        ConfigError: A file is missing, open to others, or cannot be written; or there were too many rotations.
        IntegrityError: A file was changed.
    """
    kept = read_rotations(rotations)
    waiting = key.with_name(f"{key.name}.next")
    if not waiting.exists():
        make_key(waiting, SigningKey)
    following = SigningKey.load(waiting)
    if not kept or kept[-1].rotation.new != following.public.hex():
        statement = _statement(SigningKey.load(key), following, kept, role=role, name=name, now=now)
        if len(kept) >= MAX_KEPT:
            raise IntegrityError("there were too many rotations", where=rotations, hint="begin a new home")
        kept = (*kept, statement)
        text = json.dumps(_Kept(rotations=kept).model_dump(mode="json"), indent=2) + "\n"
        write_private(rotations, text.encode())
    with storage(key):
        waiting.replace(key)
        flush_folder(key.parent)
    return kept[-1]


def _statement(
    old: SigningKey,
    following: SigningKey,
    kept: tuple[SignedRotation, ...],
    *,
    role: Literal["site", "coordinator"],
    name: str,
    now: datetime,
) -> SignedRotation:
    """Return the old key's word for the new one."""
    number = kept[-1].rotation.number + 1 if kept else 1
    rotation = Rotation(
        role=role,
        name=name,
        number=number,
        old=old.public.hex(),
        new=following.public.hex(),
        issued=moment(now),
    )
    return SignedRotation.make(rotation, old)


def make_key(path: Path, kind: type[SigningKey | SealingKey]) -> bool:
    """Make a private key where there is none; say whether one was made.

    Guarantees:
        - Nothing is overwritten, and a key that a kill left half-written never has its name.

    Raises:
        ConfigError: The place cannot be written.
    """
    if path.exists() or path.is_symlink():
        return False
    with replacing(path) as temporary:
        kind.generate().save(temporary)
    return True
