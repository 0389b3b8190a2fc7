"""Rounds of real sites under distributed trust: what they send, whose sum it is, and what they are charged for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.federation import consent_log
from support.secure_sites import Federation

from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.envelope import peek
from fedgen.dpsgd.noise import NoiseSource
from fedgen.messages import Stepped
from fedgen.secagg import wire
from fedgen.secagg.server import Aggregate
from fedgen.site.memory import Memory
from fedgen.site.monitor import Site

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.coordinator.secure_round import Void


def _sum(outcome: Aggregate | Void) -> bytes:
    assert isinstance(outcome, Aggregate), outcome
    return outcome.values.tobytes()


@pytest.mark.parametrize("protocol", ["full", "sum"])
@pytest.mark.parametrize(
    "unit", [{}, {"unit": "person", "rows_per_person": 3}, {"unit": "site"}], ids=["record", "person", "site"]
)
def test_a_round_ends_in_the_sum_of_all_and_each_is_charged_once(
    tmp_path: Path, unit: dict[str, Any], protocol: str
) -> None:
    fed = Federation(
        tmp_path, privacy={**unit, "noise_multiplier": 2.0}, secagg={"protocol": protocol}, persons=20
    )
    outcome = fed.run(fed.rounds())
    assert isinstance(outcome, Aggregate)
    assert outcome.survivors == tuple(fed.names)
    for name in fed.names:
        (entry,) = fed.holders[name].entries("reserved")
        assert (entry.event, entry.count) == fed.plan.event_per_round()
        assert fed.settled(name) == 1
        assert not fed.holders[name].incidents.exists()


def test_the_sum_is_that_of_the_sites_clipped_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of 211 numbers stays within ten deviations; without a site's sum they would be far beyond."""
    clear: list[np.ndarray] = []
    compute = Site._compute

    def seen(self: Site, *arguments: Any) -> Any:
        update = compute(self, *arguments)
        clear.append(update.vector.numpy().astype(np.float64))
        return update

    monkeypatch.setattr(Site, "_compute", seen)
    fed = Federation(tmp_path, training={"sample_rate": 1.0}, privacy={"noise_multiplier": 0.01})
    total = fed.decoded(fed.run(fed.rounds()))
    far = 10 * fed.plan.noise_std
    assert np.abs(total - sum(clear)).max() < far
    assert all(np.abs(total - sum(clear) + one).max() > far for one in clear), "the control"


def test_the_noise_in_the_sum_is_what_its_survivors_shares_make(tmp_path: Path) -> None:
    """211 numbers of one Gaussian-like variable: their variance is within 40 % but for a chance of 1e-4."""
    fed = Federation(tmp_path, privacy={"noise_multiplier": 1e3})
    fed.swap = lambda name, frame: (
        None if name == fed.names[3] and wire.kind_of(frame) is wire.Kind.START else frame
    )
    outcome = fed.run(fed.rounds())
    assert isinstance(outcome, Aggregate)
    assert len(outcome.survivors) == 3
    shares = math.sqrt(3 * fed.plan.point.noise.variance) / fed.plan.point.grid.scale
    assert float(fed.decoded(outcome).std()) == pytest.approx(shares, rel=0.2)
    assert 3 * fed.plan.point.noise.variance == pytest.approx(fed.plan.event.variance)


@pytest.mark.parametrize("drop", [None, 0, 2])
def test_masks_change_no_bit_of_any_sum(tmp_path: Path, drop: int | None) -> None:
    found = []
    for protocol in ("full", "sum"):
        fed = Federation(tmp_path / protocol, secagg={"protocol": protocol})
        for place, name in enumerate(fed.names):
            fed.restart(name, noise=NoiseSource.insecure(70 + place))
        fed.join()
        rounds, sums = fed.rounds(), []
        for number in (1, 2, 3):
            gone = None if drop is None or number == 2 else fed.names[drop]
            fed.swap = lambda name, frame, gone=gone: (
                None if name == gone and wire.kind_of(frame) is wire.Kind.START else frame
            )
            sums.append(_sum(fed.run(rounds, number)))
        found.append(sums)
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


def test_with_restarts_a_round_that_lost_a_site_is_asked_again_and_charged_again(tmp_path: Path) -> None:
    fed = Federation(tmp_path, secagg={"recovery": "restart"})
    rounds, gone = fed.rounds(), fed.names[1]
    fed.swap = lambda name, frame: None if name == gone and wire.kind_of(frame) is wire.Kind.START else frame
    assert not isinstance(fed.run(rounds), Aggregate)
    again = fed.run(rounds, attempt=2)
    assert isinstance(again, Aggregate)
    assert gone not in again.survivors
    assert fed.charged(fed.names[0]) == [(1, 1), (1, 2)]
    assert fed.charged(gone) == []


def test_answers_leave_sealed_and_only_the_vectors_says_who_was_excluded(tmp_path: Path) -> None:
    log = consent_log(tmp_path / "log.csv", granted=30, withdrawn=2)
    fed = Federation(tmp_path)
    first = fed.names[0]
    fed.restart(first, consent=lambda: log)
    fed.join()
    answers: dict[wire.Kind, bytes] = {}
    honest = fed.holders[first].site.handle

    def tapped(request: bytes) -> bytes:
        reply = honest(request)
        answers[list(fed.sent)[-1][1]] = reply
        return reply

    fed.holders[first].site.handle = tapped  # type: ignore[method-assign]
    assert isinstance(fed.run(fed.rounds()), Aggregate)
    told = {}
    for kind, reply in answers.items():
        assert peek(reply).sealed
        message, _ = fed.desk.opened(reply, fed.keys[first])
        assert isinstance(message, Stepped)
        told[kind] = message.excluded
    assert told.pop(wire.Kind.START) == {"consent-missing": "10-99", "consent-withdrawn": "<10"}
    assert set(told) == {wire.Kind.INVITE, wire.Kind.KEYS, wire.Kind.OFFERED, wire.Kind.UNMASK}
    assert set(map(str, told.values())) == {"{}"}
    (settled,) = fed.holders[first].entries("settled")
    assert settled.digest == sha256_hex(answers[wire.Kind.START])


def test_no_answer_is_kept_so_that_no_vector_leaves_twice(tmp_path: Path) -> None:
    fed = Federation(tmp_path, join=False)
    name = fed.names[0]
    fed.restart(name, memory=Memory(None, tmp_path / "answer"))
    fed.join()
    assert isinstance(fed.run(fed.rounds()), Aggregate)
    assert not (tmp_path / "answer").exists()
