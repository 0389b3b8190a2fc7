"""A site of secure aggregation that fails in the middle of a turn: charged, over, and nothing leaves but a code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support import canaries
from support.secure_sites import Federation, begun, uncharged

from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code
from fedgen.messages import Refusal
from fedgen.secagg.server import Aggregate
from fedgen.secagg.wire import Kind

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fed(tmp_path: Path) -> Federation:
    """Four sites, keys agreed on, with round 1 behind them."""
    made = Federation(tmp_path)
    made.driver = made.rounds()  # type: ignore[attr-defined]
    assert isinstance(made.run(made.driver), Aggregate)  # type: ignore[attr-defined]
    return made


class _Broken(NoiseSource):
    """Fails when noise is wanted, as often as it is told to."""

    fails = 0

    def uniforms(self, n: int) -> Any:
        if self.fails:
            type(self).fails -= 1
            raise RuntimeError("Ada Lovelace, born 1815")
        return super().uniforms(n)


def test_a_crash_between_charge_and_mask_leaves_the_attempt_charged_and_over(tmp_path: Path) -> None:
    fed = Federation(tmp_path, join=False)
    name = fed.names[0]
    fed.restart(name, noise=_Broken.secure())
    fed.join()
    rounds = fed.rounds()
    _Broken.fails = 1
    outcome = fed.run(rounds)
    assert isinstance(outcome, Aggregate)
    assert name not in outcome.survivors
    assert fed.codes(name) == [Code.FAULT]
    assert (fed.charged(name), fed.settled(name)) == ([(1, 1)], 0)
    assert fed.code(name, fed.desk.confirm(1)) is Code.STALE_ROUND
    assert fed.code(name, fed.letter(name, fed.sent[name, Kind.START])) is Code.STALE_ROUND
    fed.restart(name)  # the process is gone; what it kept is not
    fed.join()
    assert fed.code(name, fed.letter(name, fed.sent[name, Kind.START])) is Code.OUT_OF_ORDER
    rounds.rejoin()
    assert isinstance(fed.run(rounds, 2), Aggregate)
    assert (fed.charged(name), fed.settled(name)) == ([(1, 1), (2, 1)], 1)


def test_a_standing_that_cannot_be_kept_stops_the_turn_before_it_is_charged(fed: Federation) -> None:
    begun(fed)
    name = fed.names[0]

    class Full:
        def load(self) -> Any:
            return fed.holders[name].site._part._standing  # type: ignore[union-attr]

        def keep(self, _standing: Any) -> None:
            raise OSError(28, "no room: Ada Lovelace")

    fed.holders[name].site._part._keeper = Full()  # type: ignore[union-attr]
    reply = fed.holders[name].site.handle(fed.letter(name, fed.sent[name, Kind.START]))
    assert canaries.traces(reply) == []
    message, _ = fed.desk.opened(reply, fed.keys[name])
    assert isinstance(message, Refusal)
    assert message.code is Code.STORAGE
    assert uncharged(fed, name)


def test_what_goes_wrong_while_a_vector_is_made_leaves_as_a_code_only(tmp_path: Path) -> None:
    errors = [error for error in canaries.named() if not isinstance(error[1], KeyboardInterrupt)]
    fed = Federation(tmp_path, training={"rounds": len(errors) + 1})
    fed.driver = fed.rounds()  # type: ignore[attr-defined]
    name = fed.names[0]
    for number, (kind, error) in enumerate(errors, start=1):

        def fail(*_arguments: Any, error: BaseException = error) -> Any:
            raise error

        fed.holders[name].site._rounds._compute = fail
        begun(fed, number)
        reply = fed.holders[name].site.handle(fed.letter(name, fed.sent[name, Kind.START]))
        assert canaries.traces(reply) == [], kind
        assert isinstance(fed.desk.opened(reply, fed.keys[name])[0], Refusal), kind
    assert len(fed.charged(name)) == len(errors) > 20, "each was charged before it went wrong"
    assert fed.settled(name) == 0
