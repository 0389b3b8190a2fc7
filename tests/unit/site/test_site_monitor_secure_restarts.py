"""Real sites under distributed trust that restart, leave and come back: nothing of a run is done twice."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from support.federation import NOW, consent_log
from support.secagg_driven import Shelf
from support.secure_sites import Federation

from fedgen.errors import Code
from fedgen.messages import Joined, Settled
from fedgen.secagg import wire
from fedgen.secagg.server import Aggregate
from fedgen.site.memory import Memory
from fedgen.site.standing import Standing, StandingFile

if TYPE_CHECKING:
    from pathlib import Path


def test_a_site_that_restarts_waits_for_the_next_setup_and_comes_back(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    rounds, name = fed.rounds(), fed.names[1]
    assert isinstance(fed.run(rounds), Aggregate)
    fed.restart(name)
    assert isinstance(fed.answer(name, fed.desk.join())[0], Joined)
    without = fed.run(rounds, 2)
    assert isinstance(without, Aggregate)
    assert name not in without.survivors
    assert fed.codes(name) == [Code.OUT_OF_ORDER]
    assert fed.charged(name) == [(1, 1)], "waiting costs nothing"
    rounds.rejoin()
    back = fed.run(rounds, 3)
    assert isinstance(back, Aggregate)
    assert name in back.survivors
    (kept,) = (tmp_path / name).glob("standing-*.json")
    assert StandingFile(kept, fed.desk.run).load() == Standing(setup=2, round=3, attempt=1, revealed=3)


def test_another_process_of_a_site_takes_up_the_study_and_not_the_setup(tmp_path: Path) -> None:
    fed = Federation(tmp_path, join=False)
    name = fed.names[0]
    kept = tmp_path / "invitation"
    fed.restart(name, memory=Memory(kept))
    fed.join()
    rounds = fed.rounds()
    first = fed.holders[name]
    assert isinstance(fed.run(rounds), Aggregate)
    opening = fed.desk.step(name, fed.sent[name, wire.Kind.UNMASK], 1)
    fed.restart(name, memory=Memory(kept))
    assert isinstance(fed.run(rounds, 2), Aggregate)
    assert fed.codes(name) == [Code.OUT_OF_ORDER]
    rounds.rejoin()
    assert isinstance(fed.run(rounds, 3), Aggregate), "no invitation was needed"
    fed.holders[name] = first
    assert fed.code(name, opening) is Code.OUT_OF_ORDER, "the first process has been overtaken"


def test_an_invitation_that_is_repeated_leaves_a_setup_standing(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    rounds = fed.rounds()
    assert isinstance(fed.run(rounds), Aggregate)
    fed.join()
    outcome = fed.run(rounds, 2)
    assert isinstance(outcome, Aggregate)
    assert outcome.survivors == tuple(fed.names)


def test_a_study_that_was_left_is_not_gone_on_with_and_nothing_of_it_is_done_twice(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    name = fed.names[0]
    assert isinstance(fed.run(fed.rounds()), Aggregate)
    assert isinstance(fed.answer(name, fed.desk.settle(rounds=1))[0], Settled)
    assert fed.code(name, fed.desk.step(name, wire.Invite(setup=2).encode())) is Code.NOT_ADMITTED
    fed.join()
    opening = fed.sent[name, wire.Kind.UNMASK]
    assert fed.code(name, fed.desk.step(name, opening)) is Code.OUT_OF_ORDER, "what it agreed on is forgotten"
    again = fed.run(fed.rounds(store=Shelf(setup=1)), 1, attempt=2)
    assert not isinstance(again, Aggregate)
    assert set(fed.codes(name)) == {Code.STALE_ROUND}
    assert fed.charged(name) == [(1, 1)]


def test_time_goes_on_between_rounds(tmp_path: Path) -> None:
    """Consent is read at the round's own time, in turns as in any other round."""
    asked: list[int] = []
    fed = Federation(tmp_path, join=False)
    log = consent_log(tmp_path / "log.csv", granted=40)

    def clock(number: int) -> Any:
        asked.append(number)
        return NOW + timedelta(days=number)

    fed.restart(fed.names[0], consent=lambda: log, clock=clock)
    fed.join()
    rounds = fed.rounds()
    for number in (1, 2):
        assert isinstance(fed.run(rounds, number), Aggregate)
    assert set(asked) == {0, 1, 2}
