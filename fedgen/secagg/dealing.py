"""A site's secrets for one turn: drawn, shared out to its neighbours under seal, and committed to.

Two secrets. The *seed* makes the site's own mask and is opened if the site survives. The *backup* key opens a box with
the turn secrets it shares with each neighbour, and is opened if it drops out. The commitments let the server tell a
false share from a true one, and two neighbours' commitments to the secret between them must be equal before a turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedgen.crypto.keys import SIGNATURE_BYTES
from fedgen.secagg import masks, protocol, shamir, wire

if TYPE_CHECKING:
    from fedgen.crypto.keys import SigningKey
    from fedgen.crypto.stream import KeyStream
    from fedgen.secagg.protocol import Members


@dataclass(frozen=True, slots=True)
class Dealt:
    """What a site remembers of its deal for one turn.

    Attributes:
        turn: The turn.
        frame: What it sent.
        seed: Of its own mask.
        own: Its own share of the seed, and of the backup key.
    """

    turn: int
    frame: bytes
    seed: bytes
    own: tuple[bytes, bytes]


def deal_out(
    members: Members,
    pairs: dict[int, bytes],
    index: int,
    identity: SigningKey,
    stream: KeyStream,
    turn: int,
) -> Dealt:
    """Return fresh secrets of one site for one turn, and the deal that carries them.

    Args:
        members: The setup.
        pairs: Neighbour to the secret with it.
        index: The dealer.
        identity: The dealer's signing key.
        stream: Where the secrets come from.
        turn: Ahead of every turn dealt for.
    """
    peers = members.graph[index]
    holders = sorted((*peers, index))
    seed, backup = (shamir.to_bytes(shamir.element(stream)) for _ in range(2))
    shares = dict(
        zip(
            holders,
            zip(*(_split(members, holders, secret, stream) for secret in (seed, backup)), strict=True),
            strict=True,
        )
    )
    secrets = {peer: masks.turn_secret(pairs[peer], turn) for peer in peers}
    deal = wire.Deal(
        setup=members.setup,
        turn=turn,
        site=index,
        seed=members.commitment("seed", turn, index, index, seed),
        backup=members.commitment("backup", turn, index, index, backup),
        shares=tuple(
            (peer, masks.seal_once(masks.share_key(pairs[peer], turn, index, peer), b"".join(shares[peer])))
            for peer in peers
        ),
        checks=tuple(
            (
                holder,
                b"".join(
                    members.check(kind, turn, index, holder, share)
                    for kind, share in zip(("seed", "backup"), shares[holder], strict=True)
                ),
            )
            for holder in holders
        ),
        pairs=tuple((peer, members.pair_commitment(turn, index, peer, secrets[peer])) for peer in peers),
        box=masks.seal_once(
            masks.backup_key(backup, members.digest, turn, index), b"".join(secrets.values())
        ),
        signature=bytes(SIGNATURE_BYTES),
    )
    signed = replace(deal, signature=identity.sign(protocol.DEAL, protocol.dealt(members, deal)))
    return Dealt(turn, signed.encode(), seed, shares[index])


def _split(members: Members, holders: list[int], secret: bytes, stream: KeyStream) -> list[bytes]:
    """Return one share of a secret for each holder, whose point is its place in the roster plus one."""
    points = [holder + 1 for holder in holders]
    shares = shamir.split(shamir.from_bytes(secret), members.holders, points, stream)
    return [shamir.to_bytes(share) for share in shares]
