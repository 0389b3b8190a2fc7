"""Documents for somebody else: written to be sent, over nothing but an earlier one of the same party."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a field of the public class
from typing import TYPE_CHECKING, TypeVar

from fedgen.enrolment.documents import shown
from fedgen.enrolment.signed import Signed, decode, read_bounded
from fedgen.errors import ConfigError, FedgenError
from fedgen.runs.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

B = TypeVar("B", bound=Signed)


@dataclass(frozen=True, slots=True)
class Handed:
    """A document that was written for somebody else.

    Attributes:
        path: Where.
        fingerprint: Of the identity key in it, as two people compare it.
    """

    path: Path
    fingerprint: str


def handed(path: Path, identity: str) -> Handed:
    """Return a document that was written, with the fingerprint of the identity key (hex) in it."""
    return Handed(path=path, fingerprint=shown(identity))


def hand_out(path: Path, data: bytes, form: type[B], mine: Callable[[B], bool]) -> None:
    """Write a document for somebody else; only an earlier one of the same party is overwritten."""
    check_free(path, form, mine)
    write_bytes(path, data)


def check_free(path: Path, form: type[B], mine: Callable[[B], bool]) -> None:
    """Refuse to write where something else lies than an earlier document of the same party.

    Raises:
        ConfigError: It does.
    """
    if not path.exists() and not path.is_symlink():
        return
    try:
        earlier = mine(decode(read_bounded(path, follow=False), form, where=path))
    except FedgenError:
        earlier = False
    if not earlier:
        raise ConfigError(
            "something else is there, and is not overwritten",
            where=path,
            hint="choose another place with --out",
        )
