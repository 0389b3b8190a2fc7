"""For random rosters and dropouts, ``protocol: sum`` and ``protocol: full`` end in the same bits, or both in none."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.secagg import Recovery, terms_for
from support.secagg_driven import Fleet

from fedgen.config.distributed import distributed_plan
from fedgen.config.secagg import SecaggSpec
from fedgen.config.training import PrivacySpec
from fedgen.crypto.stream import KeyStream
from fedgen.secagg.server import Aggregate

if TYPE_CHECKING:
    from fedgen.secagg.fixed_point import FixedPoint

DIMENSION = 40


@cache
def point(n: int, dropouts: int, ring: int) -> FixedPoint:
    privacy = PrivacySpec.model_validate(
        {"unit": "record", "trust": "distributed", "noise_multiplier": 1.0, "delta": 1e-5}
    )
    secagg = SecaggSpec(dropouts=dropouts, ring=ring)
    return distributed_plan(
        privacy, secagg, sites=n, dimension=DIMENSION, q=0.1, rounds=3, expected_batch=9.0 * n, largest=9.0
    ).point


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_both_protocols_have_the_same_bits(data: st.DataObject) -> None:
    n = data.draw(st.integers(3, 9), "sites")
    dropouts = data.draw(st.integers(0, n - max(3, -(-2 * n // 3))), "dropouts")
    recovery = data.draw(st.sampled_from(Recovery), "recovery")
    ring = data.draw(st.sampled_from([32, 64]), "ring")
    fixed = point(n, dropouts, ring)
    terms = terms_for(n, dimension=DIMENSION, dropouts=dropouts, recovery=recovery, ring=fixed.ring)
    names = [name for name, _ in terms.sites]
    silent = [
        data.draw(st.sets(st.sampled_from(names), max_size=dropouts + 1), f"silent in round {number}")
        for number in (1, 2)
    ]

    def share(name: str, number: int) -> np.ndarray:
        update = np.random.default_rng([*name.encode(), number]).normal(0, 1, DIMENSION).astype(np.float32)
        return fixed.share(update, KeyStream.insecure(number, label=name))

    found = {}
    for masked in (True, False):
        fleet = Fleet(terms, share, masked=masked)
        rounds = fleet.rounds()
        outcomes = []
        for number in (1, 2):
            fleet.silent = lambda name, step, gone=silent[number - 1]: step == "mask" and name in gone
            outcomes.append(fleet.run(rounds, number))
        found[masked] = outcomes
    for full, plain in zip(found[True], found[False], strict=True):
        assert type(full) is type(plain)
        if not isinstance(full, Aggregate):
            assert full.again == plain.again
            event("void")
            continue
        event("aggregate")
        assert (full.survivors, full.round, full.attempt) == (plain.survivors, plain.round, plain.attempt)
        assert full.values.dtype == plain.values.dtype == terms.dtype
        assert full.values.tobytes() == plain.values.tobytes()
        assert full.values.any()
