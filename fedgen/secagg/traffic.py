"""What a turn costs a site on the wire, counted from the messages themselves before any is sent."""

from __future__ import annotations

from dataclasses import dataclass

from fedgen.crypto.keys import SIGNATURE_BYTES
from fedgen.secagg import wire
from fedgen.secagg.masks import TAG
from fedgen.secagg.shamir import BYTES
from fedgen.secagg.terms import Recovery, Terms


@dataclass(frozen=True, slots=True)
class Traffic:
    """A turn that all sites take part in and nobody drops out of, at one site; without weights and envelopes.

    Attributes:
        sent: Bytes the site sends.
        received: Bytes it receives.
        messages: Messages it sends; it is sent as many.
        after_dropout: Messages it sends in a turn from which somebody dropped out.
    """

    sent: int
    received: int
    messages: int
    after_dropout: int


def traffic(terms: Terms, *, masked: bool) -> Traffic:
    """Return what a turn costs a site.

    Guarantees:
        - The bytes are those of the frames of docs/spec/secagg.md, to the byte.

    Edge cases:
        - ``recovery: restart`` has one message a turn; after a dropout the turn is void, and another attempt begins.
        - Without masks there is one message, too.

    Args:
        terms: Of the run.
        masked: Whether sums are masked.
    """
    everyone = tuple(range(len(terms.sites)))
    vector = terms.dimension * terms.dtype.itemsize
    k, _ = terms.graph(len(everyone))
    again = terms.recovery is Recovery.UNMASK and masked
    start = wire.Start(
        setup=1,
        turn=1,
        round=1,
        attempt=1,
        weights=bytes(wire.DIGEST),
        participants=everyone,
        shares=_rows(k, wire.SHARES) if again else (),
    )
    received = len(start.encode())
    if not masked:
        return Traffic(len(wire.Clear(setup=1, values=b"").encode()) + vector, received, 1, 1)
    answer = wire.Masked(
        setup=1,
        transcript=bytes(wire.DIGEST),
        signature=bytes(SIGNATURE_BYTES),
        deal=_deal(k) if again else b"",
        values=b"",
    )
    sent = len(answer.encode()) + vector
    if not again:
        return Traffic(sent, received, 1, 1)
    opening = wire.Unmask(setup=1, survivors=everyone, signatures=_rows(len(everyone), SIGNATURE_BYTES))
    reveal = wire.Reveal(setup=1, shares=_rows(k + 1, BYTES))
    return Traffic(sent + len(reveal.encode()), received + len(opening.encode()), 2, 3)


def _deal(k: int) -> bytes:
    """Return a frame as long as a deal among ``k`` neighbours."""
    return wire.Deal(
        setup=1,
        seed=bytes(wire.DIGEST),
        backup=bytes(wire.DIGEST),
        shares=_rows(k, wire.SHARES),
        checks=_rows(k + 1, 2 * wire.CHECK),
        pairs=_rows(k, wire.DIGEST),
        box=bytes(k * BYTES + TAG),
        signature=bytes(SIGNATURE_BYTES),
    ).encode()


def _rows(count: int, size: int) -> tuple[tuple[int, bytes], ...]:
    """Return a list of so many rows."""
    return tuple((site, bytes(size)) for site in range(count))
