"""What is said of the bytes of a turn is what the two ends really send."""

from __future__ import annotations

import numpy as np
import pytest
from support.secagg import terms_for
from support.secagg_driven import Fleet, Shelf

from fedgen.secagg.server import Aggregate
from fedgen.secagg.terms import Recovery, Terms
from fedgen.secagg.traffic import traffic

WATCHED = "site-001"
SENT_AT_A_HUNDRED = 2_633_760  # docs/spec/secagg.md


class Metered(Fleet):
    """Counts what one site is sent and sends."""

    def __init__(self, terms: Terms, *, masked: bool) -> None:
        self.sent, self.received, self.messages = 0, 0, 0
        super().__init__(terms, lambda _name, _round: np.zeros(terms.dimension, terms.dtype), masked=masked)

    def deliver(self, name: str, frame: bytes) -> bytes:
        reply = super().deliver(name, frame)
        if name == WATCHED:
            self.received += len(frame)
            self.sent += len(reply)
            self.messages += 1
        return reply


def metered(terms: Terms, *, masked: bool, silent: str = "") -> Metered:
    fleet = Metered(terms, masked=masked)
    rounds = fleet.rounds(Shelf())
    assert isinstance(fleet.run(rounds, 1), Aggregate)
    fleet.sent = fleet.received = fleet.messages = 0
    fleet.silent = lambda name, step: name == silent and step == "mask"
    assert isinstance(fleet.run(rounds, 2), Aggregate)
    return fleet


@pytest.mark.parametrize("sites", [3, 7])
@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("recovery", list(Recovery))
@pytest.mark.parametrize("masked", [True, False])
def test_a_turn_costs_what_is_said(sites: int, ring: int, recovery: Recovery, *, masked: bool) -> None:
    terms = terms_for(sites, dimension=50, ring=ring, recovery=recovery)
    fleet, said = metered(terms, masked=masked), traffic(terms, masked=masked)
    assert (fleet.sent, fleet.received, fleet.messages) == (said.sent, said.received, said.messages)


def test_a_dropout_costs_one_more_message() -> None:
    terms = terms_for(6, dimension=50, dropouts=1)
    fleet = metered(terms, masked=True, silent="site-004")
    assert fleet.messages == traffic(terms, masked=True).after_dropout == 3


def test_beyond_a_hundred_sites_a_deal_is_for_the_neighbours_only() -> None:
    terms = terms_for(104, dimension=50)
    fleet, said = metered(terms, masked=True), traffic(terms, masked=True)
    assert (fleet.sent, fleet.received, fleet.messages) == (said.sent, said.received, said.messages)


def test_the_figure_of_the_specification() -> None:
    said = traffic(terms_for(100, dimension=653_000), masked=True)
    assert said.sent == SENT_AT_A_HUNDRED
    assert said.sent < 1.05 * 4 * 653_000
