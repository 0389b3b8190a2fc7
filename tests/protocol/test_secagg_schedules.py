"""Random schedules of drops, lies, repeats and restarts, and a server that asks whatever it likes.

A schedule is one turn. Whatever happens in it: the exact sum of the survivors or a clean refusal, never another sum;
and of no participant could both secrets be put together from all that was opened.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.secagg import Opened, Recovery, World, terms_for, total

from fedgen.errors import FedgenError, IntegrityError, QuorumLost, Refused
from fedgen.secagg import wire
from fedgen.secagg.site import SiteEnd, _Phase

if TYPE_CHECKING:
    from fedgen.secagg.terms import Terms

CLEAN = (IntegrityError, QuorumLost, Refused)


def world_of(rng: np.random.Generator) -> World:
    """Return a world of 3 to 8 sites under random terms that are allowed."""
    while True:
        n = int(rng.integers(3, 9))
        threshold = int(rng.integers(n // 2 + 1, n + 1))
        try:
            terms = terms_for(
                n,
                dimension=int(rng.integers(1, 40)),
                threshold=threshold,
                dropouts=int(rng.integers(0, 3)),
                colluders=int(rng.integers(0, 3)),
                ring=int(rng.choice([32, 64])),
                recovery=Recovery.RESTART if rng.random() < 0.15 else Recovery.UNMASK,
            )
        except FedgenError:
            continue
        return World(terms)


def mangled(frame: bytes, rng: np.random.Generator, spare: int = 0) -> bytes:
    """Return a frame cut, lengthened or with one bit changed, but for its last bytes.

    A bit of the vector itself may be anything, as the vector may: that it is what the site sent, the envelope sees to.
    """
    kind = rng.integers(0, 3)
    if kind == 0:
        return frame[: int(rng.integers(0, len(frame)))]
    if kind == 1:
        return frame + b"\0"
    place = int(rng.integers(0, len(frame) - spare))
    return frame[:place] + bytes([frame[place] ^ 1 << int(rng.integers(0, 8))]) + frame[place + 1 :]


def offer(call, *arguments) -> bool:
    """Call one end; say whether it accepted. Nothing but a clean refusal may come out."""
    try:
        call(*arguments)
    except CLEAN:
        return False
    return True


class Schedule:
    """One random turn of a world."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.vectors: dict[str, np.ndarray] = {}
        self.opened = Opened()
        self.rate = float(rng.choice([0.0, 0.03, 0.1, 0.25]))

    @property
    def vector_bytes(self) -> int:
        return self.world.terms.dimension * self.world.terms.dtype.itemsize

    def strikes(self) -> bool:
        return self.rng.random() < self.rate

    def send(self, take, name: str, frame: bytes) -> bool:
        """Bring a frame to the server: sometimes never, sometimes damaged first, sometimes twice."""
        if self.strikes():
            return False
        if self.strikes():
            bad = mangled(frame, self.rng, spare=self.vector_bytes if take == self.world.server.add else 0)
            assert not offer(take, name, bad)
        accepted = offer(take, name, frame)
        if self.strikes():
            assert not offer(take, name, frame) or take == self.world.server.agreed
        return accepted

    def run(self):
        """Return the aggregate, or None after a clean refusal."""
        world = self.world
        try:
            starts = world.begin(absent=[name for name in world.sites if self.strikes()])
            self.collect(starts)
            return self.open()
        except CLEAN:
            return None

    def collect(self, starts: dict[str, bytes]) -> None:
        self.given = set()
        order = list(starts)
        self.rng.shuffle(order)
        for name in order:
            if self.strikes():  # gone before it began
                continue
            values = self.world.vector(self.rng)
            frame = self.world.answer(name, starts[name], values)
            self.vectors[name] = values
            if self.send(self.world.server.add, name, frame):
                self.given.add(name)

    def open(self):
        world, server = self.world, self.world.server
        question = server.close()
        if question is not None:
            for name in sorted(self.given):
                if not self.strikes():
                    self.send(server.agreed, name, world.sites[name].agree(question))
        final = server.unmask()
        for name in sorted(self.given) if final is not None else ():
            if self.strikes():
                continue
            try:
                frame = world.sites[name].reveal(final)
            except CLEAN:  # its agreement was lost on the way: it did not sign, or did
                continue
            survivors = wire.Unmask.decode(final, world.terms).survivors
            self.opened.take(frame, survivors, world.terms)
            if self.strikes():
                message = wire.Reveal.decode(frame, world.terms)
                frame = replace(
                    message, shares=tuple((owner, self.rng.bytes(32)) for owner, _ in message.shares)
                ).encode()
            self.send_reveal(name, frame)
        return server.finish()

    def send_reveal(self, name: str, frame: bytes) -> None:
        if not self.strikes():
            offer(self.world.server.revealed, name, mangled(frame, self.rng) if self.strikes() else frame)


def play(worlds: int, turns: int, seed: int) -> tuple[int, int]:
    """Run so many schedules and return how many ended with a sum, and how many with a refusal."""
    sums = refusals = 0
    for number in range(worlds):
        rng = np.random.default_rng([seed, number])
        world = world_of(rng)
        for _ in range(turns):
            schedule = Schedule(world, rng)
            aggregate = schedule.run()
            assert schedule.opened.exposed(world.terms.threshold) == []
            if aggregate is None:
                refusals += 1
                continue
            sums += 1
            assert len(aggregate.survivors) >= world.terms.least
            assert np.array_equal(aggregate.values, total(schedule.vectors, aggregate.survivors))
    return sums, refusals


def test_some_schedules_end_in_the_exact_sum_or_in_a_refusal() -> None:
    sums, refusals = play(worlds=8, turns=8, seed=1)
    assert sums > 15
    assert refusals > 8


@pytest.mark.slow
def test_twelve_hundred_schedules_end_in_the_exact_sum_or_in_a_refusal() -> None:
    sums, refusals = play(worlds=100, turns=12, seed=2)
    assert sums + refusals == 1200
    assert sums > 300
    assert refusals > 200


# ---- a server that asks whatever it likes --------------------------------------------------------------------------


def besiege(world: World, rng: np.random.Generator, questions: int) -> Opened:
    """Let a turn come to where all gave vectors, then ask random sites about random survivors with any signatures."""
    signed: dict[int, bytes] = {}
    for name, start in world.begin().items():
        frame = world.answer(name, start, world.vector(rng))
        signed[world.terms.index(name)] = wire.Masked.decode(frame, world.terms).signature
        world.server.add(name, frame)
    n, turn, opened = len(world.sites), world.server._turn, Opened()
    agreed: dict[tuple[int, ...], dict[int, bytes]] = {}
    sets = [
        tuple(sorted(rng.choice(n, n - int(rng.integers(0, 3)), replace=False).tolist())) for _ in range(3)
    ]
    sets.append(tuple(range(n)))
    for _ in range(questions):
        site = world.sites[sorted(world.sites)[int(rng.integers(0, n))]]
        survivors = sets[int(rng.integers(0, len(sets)))]
        rows = tuple((each, signed[each]) for each in survivors)
        try:
            if rng.random() < 0.5:
                frame = site.agree(wire.Propose(setup=1, turn=turn, signatures=rows).encode())
                mine = wire.Agree.decode(frame, world.terms).signature
                agreed.setdefault(survivors, {})[site.index] = mine
            else:
                proof = rows if rng.random() < 0.5 else tuple(sorted(agreed.get(survivors, {}).items()))
                question = wire.Unmask(setup=1, turn=turn, survivors=survivors, signatures=proof)
                opened.take(site.reveal(question.encode()), survivors, world.terms)
        except CLEAN:
            continue
    return opened


def siege_terms(n: int, colluders: int) -> Terms:
    return terms_for(n, threshold=(n + colluders) // 2 + 1, dropouts=min(2, n - (n + colluders) // 2 - 1),
                     colluders=colluders)  # fmt: skip


@pytest.mark.parametrize("colluders", [0, 1])
def test_no_order_of_questions_opens_both_secrets_of_anybody(colluders: int) -> None:
    some = 0
    for number in range(25):
        rng = np.random.default_rng([3, colluders, number])
        world = World(siege_terms(int(rng.integers(5, 8)), colluders))
        opened = besiege(world, rng, 120)
        some += bool(opened.seeds)
        for helpers in itertools.combinations(range(len(world.sites)), colluders):
            exposed = opened.exposed(world.terms.threshold, helpers)
            assert [owner for owner in exposed if owner not in helpers] == []
    assert some > 8  # the server did get answers


class Forgetful(SiteEnd):
    """A site without the rules about survivors: it agrees to every set and opens for every set, as often as asked."""

    def agree(self, frame: bytes) -> bytes:
        self._phase = _Phase.MASKED
        return super().agree(frame)

    def reveal(self, frame: bytes) -> bytes:
        survivors = wire.Unmask.decode(frame, self.terms).survivors
        assert self._transcript is not None
        shares = self._opened(set(survivors), self._transcript)
        return wire.Reveal(setup=1, turn=self._turn, site=self.index, shares=shares).encode()


def test_control_sites_without_the_rules_are_taken_apart_by_the_same_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("support.secagg.SiteEnd", Forgetful)
    for number in range(5):
        world = World(siege_terms(6, 0))
        opened = besiege(world, np.random.default_rng([4, number]), 120)
        assert len(opened.exposed(world.terms.threshold)) >= 1
