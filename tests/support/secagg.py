"""A whole secure aggregation in memory: sites, a server, and a record of every share that was ever opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from fedgen.crypto.keys import SigningKey
from fedgen.secagg import wire
from fedgen.secagg.server import Aggregate, ServerEnd
from fedgen.secagg.site import SiteEnd
from fedgen.secagg.terms import Recovery, Terms, default_threshold

if TYPE_CHECKING:
    from collections.abc import Collection

STUDY, RUN, WEIGHTS = "11" * 32, "22" * 32, "33" * 32


@cache
def identities(n: int) -> dict[str, SigningKey]:
    """Return the identity keys of ``n`` sites, the same in every test."""
    return {f"site-{i:03d}": SigningKey._from_secret(bytes([i // 256, i % 256]) * 16) for i in range(n)}


def terms_for(n: int, *, dimension: int = 32, threshold: int | None = None, **more) -> Terms:
    roster = tuple((name, key.public) for name, key in sorted(identities(n).items()))
    chosen = default_threshold(n) if threshold is None else threshold
    return Terms(study=STUDY, run=RUN, sites=roster, dimension=dimension, threshold=chosen, **more)


@dataclass
class Opened:
    """Which holders opened which share of whom in one turn: what a server could have collected."""

    seeds: dict[int, set[int]] = field(default_factory=dict)
    backups: dict[int, set[int]] = field(default_factory=dict)

    def take(self, frame: bytes, survivors: Collection[int], terms: Terms) -> None:
        message = wire.Reveal.decode(frame, terms)
        for owner, _ in message.shares:
            kind = self.seeds if owner in survivors else self.backups
            kind.setdefault(owner, set()).add(message.site)

    def exposed(self, holders: int, colluders: Collection[int] = ()) -> list[int]:
        """Return whose both secrets could be put together, the shares of the colluders added to what was opened."""
        owners = set(self.seeds) | set(self.backups)
        return sorted(
            owner
            for owner in owners
            if all(
                len(kind.get(owner, set()) | set(colluders)) >= holders for kind in (self.seeds, self.backups)
            )
        )


class World:
    """Sites and a server under one set of terms, through setup."""

    def __init__(self, terms: Terms, *, setup: int = 1, absent: Collection[str] = ()) -> None:
        self.terms, keys = terms, identities(len(terms.sites))
        self.sites = {
            name: SiteEnd(terms, name, key, setup=setup) for name, key in keys.items() if name not in absent
        }
        self.server = ServerEnd(terms, setup=setup)
        self.round = 0
        for name, site in self.sites.items():
            self.server.admit(name, site.advertise())
        self.keys = self.server.keys()
        for name, site in self.sites.items():
            self.server.relay(name, site.offer(self.keys))
        for name, site in self.sites.items():
            site.accept(self.server.offered(name))

    def deal(self, absent: Collection[str] = ()) -> None:
        turn, lacking = self.server.missing()
        for name in lacking:
            if name not in absent:
                self.server.collect(name, self.sites[name].deal(turn))

    def begin(
        self, names: Collection[str] | None = None, *, absent: Collection[str] = ()
    ) -> dict[str, bytes]:
        self.deal(absent)
        self.round += 1
        return self.server.begin(self.round, 1, WEIGHTS, names)

    def vector(self, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 2**self.terms.ring, self.terms.dimension, self.terms.dtype, endpoint=False)

    def answer(self, name: str, start: bytes, values: np.ndarray) -> bytes:
        self.sites[name].start(start)
        return self.sites[name].mask(values.copy())

    def turn(
        self,
        rng: np.random.Generator,
        *,
        drop: Collection[str] = (),
        drop_agree: Collection[str] = (),
        drop_reveal: Collection[str] = (),
    ) -> tuple[Aggregate, np.ndarray]:
        """Run one honest turn, with sites that fall silent at a step; return the aggregate and the sum it should be."""
        expected = np.zeros(self.terms.dimension, self.terms.dtype)
        starts = self.begin()
        for name, start in starts.items():
            if name not in drop:
                values = self.vector(rng)
                expected += values
                self.server.add(name, self.answer(name, start, values))
        alive = [name for name in starts if name not in drop]
        if (propose := self.server.close()) is not None:
            alive = [name for name in alive if name not in drop_agree]
            for name in alive:
                self.server.agreed(name, self.sites[name].agree(propose))
        if (unmask := self.server.unmask()) is not None:
            for name in alive:
                if name not in drop_reveal:
                    self.server.revealed(name, self.sites[name].reveal(unmask))
        return self.server.finish(), expected


def total(vectors: dict[str, np.ndarray], names: Collection[str]) -> np.ndarray:
    return sum((vectors[name] for name in names), np.zeros_like(next(iter(vectors.values()))))


__all__ = ["RUN", "STUDY", "WEIGHTS", "Opened", "Recovery", "World", "identities", "terms_for", "total"]
