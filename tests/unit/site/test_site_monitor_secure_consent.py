"""Who may be used, at real sites under distributed trust: asked before, while and after a vector is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.federation import consent_log
from support.secure_sites import Federation

from fedgen.errors import Code
from fedgen.messages import Confirmed
from fedgen.secagg.server import Aggregate

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.coordinator.secure_round import Void


def _sum(outcome: Aggregate | Void) -> bytes:
    assert isinstance(outcome, Aggregate), outcome
    return outcome.values.tobytes()


def test_a_withdrawal_while_the_vector_is_made_discards_it_and_the_others_go_on(tmp_path: Path) -> None:
    logs = [consent_log(tmp_path / f"{i}.csv", granted=40, withdrawn=i) for i in (0, 1)]
    fed = Federation(tmp_path, join=False)
    name = fed.names[0]
    fed.restart(name, consent=lambda: logs.pop(0) if len(logs) > 1 else logs[0])
    fed.join()
    rounds = fed.rounds()
    outcome = fed.run(rounds)
    assert isinstance(outcome, Aggregate)
    assert outcome.survivors == tuple(fed.names[1:])
    assert fed.codes(name) == [Code.CONSENT]
    assert (fed.charged(name), fed.settled(name)) == ([(1, 1)], 0)
    assert fed.refused(name) == [(1, 1, "consent")]
    assert fed.code(name, fed.desk.confirm(1)) is Code.STALE_ROUND, "nothing left that could be confirmed"
    assert isinstance(fed.run(rounds, 2), Aggregate)
    assert fed.charged(name) == [(1, 1), (2, 1)]


def test_who_withdraws_before_the_sum_is_in_no_sum(tmp_path: Path) -> None:
    logs = [consent_log(tmp_path / f"{i}.csv", granted=40, withdrawn=i) for i in (0, 1)]
    asked: list[int] = []

    def consent() -> Any:
        asked.append(1)
        return logs[0] if len(asked) <= 2 else logs[1]

    fed = Federation(tmp_path, join=False)
    name = fed.names[2]
    fed.restart(name, consent=consent)
    fed.join()
    outcome = fed.run(fed.rounds(confirm=fed.confirm))
    assert isinstance(outcome, Aggregate)
    assert name not in outcome.survivors
    assert fed.refused(name) == [(1, 1, "consent")]
    assert isinstance(fed.answer(fed.names[0], fed.desk.confirm(1))[0], Confirmed)


def test_who_may_be_used_is_put_on_record_when_the_attempt_is_charged_and_not_before(tmp_path: Path) -> None:
    noted: list[tuple[int, int]] = []

    class Uses:
        def note(self, _study: str, _run: str, number: int, attempt: int, *_: Any) -> None:
            noted.append((number, attempt))

    fed = Federation(tmp_path, join=False)
    name = fed.names[0]
    fed.restart(name, uses=Uses())
    fed.join()
    rounds = fed.rounds()
    assert isinstance(fed.run(rounds), Aggregate)
    assert noted == [(1, 1)]
    assert fed.code(name, fed.desk.turn(name, fed.start(name), 2)) is Code.STALE_ROUND
    assert noted == fed.charged(name) == [(1, 1)]
