"""What the server does with opened shares: puts secrets together, checks them, takes masks off.

Nothing is used before it was found to be what its owner committed to: a false box ends the turn, it spoils no sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedgen.errors import IntegrityError, QuorumLost
from fedgen.secagg import masks, shamir, wire
from fedgen.secagg.protocol import FalseDealing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedgen.secagg.protocol import Members, Transcript
    from fedgen.secagg.wire import Sites

    Ring = NDArray[np.unsignedinteger[Any]]


@dataclass(slots=True)
class Turn:
    """What the server keeps of one turn.

    Attributes:
        transcript: What the turn is about.
        sum: Of the vectors so far, still masked.
        inputs: Site to its signature under the transcript; these are in the sum.
        deals: Participant to its deal.
        survivors: Who is in the sum, once it is closed.
        agreed: Survivor to its signature under the survivor set.
        revealed: Holder to the true shares it opened, by owner.
        checks: Owner to the short commitment to each holder's shares.
    """

    transcript: Transcript
    sum: Ring
    inputs: dict[int, bytes] = field(default_factory=dict)
    deals: dict[int, wire.Deal] = field(default_factory=dict)
    survivors: Sites = ()
    agreed: dict[int, bytes] = field(default_factory=dict)
    revealed: dict[int, dict[int, int]] = field(default_factory=dict)
    checks: dict[int, dict[int, bytes]] = field(default_factory=dict)


def is_true(members: Members, turn: Turn, owner: int, holder: int, share: bytes) -> bool:
    """Say whether a share is the one that its owner committed to for this holder, and an element of the field."""
    survived = owner in turn.survivors
    check = turn.checks[owner][holder]
    mine = check[: wire.CHECK] if survived else check[wire.CHECK :]
    kind = "seed" if survived else "backup"
    if members.check(kind, turn.transcript.turn, owner, holder, share) != mine:
        return False
    return (
        int.from_bytes(share, "little") < shamir.PRIME
    )  # else a false dealer could void an honest holder's message


def unmask(members: Members, turn: Turn) -> None:
    """Take off the survivors' own masks, and the masks they share with those who dropped out.

    Raises:
        QuorumLost: Too few shares of some secret.
        FalseDealing: A secret or a box is not what its owner committed to and signed; or more holders than may lie
            opened no share of some owner's.
    """
    digest, survivors = turn.transcript.digest, set(turn.survivors)
    weights: dict[Sites, list[int]] = {}
    plus: list[bytes] = []
    minus = [masks.self_key(_secret(members, turn, site, "seed", weights), digest) for site in turn.survivors]
    for site in turn.transcript.participants:
        if site in survivors:
            continue
        for peer, turn_key in _boxed(members, turn, site, weights).items():
            if peer in survivors:
                # The survivor added it if it comes first in the roster, and subtracted it otherwise.
                (minus if peer < site else plus).append(masks.mask_key(turn_key, digest))
    masks.add_streams(turn.sum, plus, minus)


def _boxed(members: Members, turn: Turn, site: int, weights: dict[Sites, list[int]]) -> dict[int, bytes]:
    """Return the turn secrets that a site which dropped out had left in its box, each as committed to."""
    deal, number = turn.deals[site], turn.transcript.turn
    backup = _secret(members, turn, site, "backup", weights)
    try:
        opened = masks.open_once(masks.backup_key(backup, members.digest, number, site), bytes(deal.box))
    except IntegrityError:
        raise _false(members, site) from None  # the key is what it committed to, and it signed the box
    if len(opened) != shamir.BYTES * len(deal.pairs):
        raise _false(members, site)
    secrets = {}
    for place, (peer, commitment) in enumerate(deal.pairs):
        secret = opened[shamir.BYTES * place : shamir.BYTES * (place + 1)]
        if members.pair_commitment(number, site, peer, secret) != commitment:
            raise _false(members, site)
        secrets[peer] = secret
    return secrets


def _secret(members: Members, turn: Turn, owner: int, kind: str, weights: dict[Sites, list[int]]) -> bytes:
    """Return a secret put together from its holders' shares, if it is what its owner committed to."""
    needed = members.holders
    holders = tuple(holder for holder in sorted(turn.revealed) if owner in turn.revealed[holder])[:needed]
    if len(holders) < needed:
        _check_silence(members, turn, owner)
        raise QuorumLost(f"{len(holders)} shares of a secret were opened; {needed} are needed")
    if holders not in weights:
        weights[holders] = shamir.weights([holder + 1 for holder in holders])
    shares = [turn.revealed[holder][owner] for holder in holders]
    secret = shamir.to_bytes(shamir.combine(weights[holders], shares))
    if members.commitment(kind, turn.transcript.turn, owner, owner, secret) != getattr(
        turn.deals[owner], kind
    ):
        raise _false(members, owner)
    return secret


def _check_silence(members: Members, turn: Turn, owner: int) -> None:
    """Return unless more holders than may lie have no true share of this owner's: then it dealt them none.

    A holder that has none of as many owners is the one that lies, and its silence says nothing about any of them.
    """
    believed, owners = members.terms.believed, set(turn.transcript.participants)

    def lacks(holder: int) -> set[int]:
        return {*members.graph[holder], holder} & owners - set(turn.revealed[holder])

    silent = [
        holder for holder in turn.revealed if owner in (lacking := lacks(holder)) and len(lacking) <= believed
    ]
    if len(silent) > believed:
        name = members.terms.name(owner)
        raise FalseDealing(f"{len(silent)} sites have no true share of a secret of {name}", liars=(name,))


def _false(members: Members, owner: int) -> FalseDealing:
    """Return the error for a secret that is not what its owner committed to; the commitment bears its signature."""
    name = members.terms.name(owner)
    return FalseDealing(f"a secret of {name} is not what it committed to", liars=(name,))
