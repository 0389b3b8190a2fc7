"""What must be nowhere in clear, made from what really was sent: updates, metrics and people; and a search for it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from support.by_hand import person_of

from fedgen.crypto.envelope import open_frame, peek
from fedgen.crypto.header import MAGIC, Expectation
from fedgen.errors import IntegrityError
from fedgen.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from support.by_hand import ByHand


def envelopes(texts: Iterable[bytes]) -> Iterator[bytes]:
    for text in texts:
        at = text.find(MAGIC)
        if at >= 0:
            yield text[at:]


def updates(world: ByHand, texts: Iterable[bytes], of: str = "") -> list[bytes]:
    """Return the updates among some bytes, opened with the coordinator's own key; of one study, where it is named."""
    keys = {name: world.site(name).identity().verify_key for name in world.names}
    found = []
    for envelope in envelopes(texts):
        try:
            header = peek(envelope)
            if header.kind is not Kind.TRAINED or not header.study_hash.startswith(of):
                continue
            expect = Expectation(study_hash=None, run=None, recipient=header.recipient)
            opening = {"verify_key": keys[header.sender], "sealing_key": world.home.sealing()}
            found.append(bytes(open_frame(envelope, expect=expect, **opening)[1]))
        except IntegrityError:
            continue
    return found


def kinds(texts: Iterable[bytes], of: str) -> set[Kind]:
    """Return which messages of a study are among some bytes."""
    found = set()
    for envelope in envelopes(texts):
        with suppress(IntegrityError):
            header = peek(envelope)
            if header.study_hash.startswith(of):
                found.add(Kind(header.kind))
    return found


def secrets(clear: list[bytes]) -> list[bytes]:
    """Return pieces of updates, metrics and people that must be nowhere: eight numbers from every part of each."""
    people = [person_of(f"p{number:04d}").encode() for number in range(360)]
    pieces = [frame[at : at + 32] for frame in clear for at in range(len(frame) // 4, len(frame) - 32, 331)]
    return people + pieces


def leaked(sought: Iterable[bytes], texts: Iterable[bytes]) -> set[bytes]:
    held = list(texts)
    return {it for it in sought if any(it in text for text in held)}
