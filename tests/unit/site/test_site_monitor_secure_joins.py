"""What real sites under distributed trust take part in, and what they refuse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from support.federation import Desk, make_site, small_study
from support.secure_sites import Federation

from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.errors import Code, Refused
from fedgen.messages import Confirmed, Joined, Refusal
from fedgen.secagg import wire
from fedgen.secagg.server import Aggregate

if TYPE_CHECKING:
    from pathlib import Path


def _why(fed: Federation, name: str, **parts: Any) -> str:
    """Return what the site's own log says of an invitation that it refused."""
    fed.restart(name, **parts)
    assert fed.code(name, fed.desk.join()) is Code.STUDY_REFUSED
    assert fed.holders[name].entries("admitted") == []
    return fed.holders[name].incidents.read_text()


def test_a_site_joins_only_with_sites_that_it_knows_by_their_own_keys(tmp_path: Path) -> None:
    fed = Federation(tmp_path, join=False)
    first, second, *others = fed.names
    known = {name: key.public for name, key in fed.keys.items()}
    assert f"no key is known here for 4 of the study's 4 sites: {first}, {second}" in _why(
        fed, first, peers=None
    )
    fewer = {name: key for name, key in known.items() if name != second}
    assert f"for 1 of the study's 4 sites: {second}" in _why(fed, first, peers=lambda: fewer)
    other = {**known, first: SigningKey.generate().public}
    assert "not the one it signs with" in _why(fed, first, peers=lambda: other)
    twice = {**known, second: known[others[0]]}
    assert "two sites of the study are known here by one key" in _why(fed, first, peers=lambda: twice)
    assert "nothing keeps what this site did" in _why(fed, first, standing=None)


def test_more_strangers_than_fit_a_line_are_counted(tmp_path: Path) -> None:
    fed = Federation(tmp_path, sites=7, join=False)
    assert f"7 of the study's 7 sites: {', '.join(fed.names[:5])}, ..." in _why(fed, fed.names[0], peers=dict)


def test_keys_of_sites_that_are_not_in_the_study_do_not_matter(tmp_path: Path) -> None:
    fed = Federation(tmp_path, join=False)
    known = {name: key.public for name, key in fed.keys.items()} | {"another": b"no key"}
    fed.restart(fed.names[0], peers=lambda: known)
    fed.join()


def test_sums_without_masks_are_for_simulations(tmp_path: Path) -> None:
    fed = Federation(tmp_path, secagg={"protocol": "sum"}, join=False)
    why = _why(fed, fed.names[0], rules={"simulated": False, "delta": 1e-5, "epsilon_life": 100.0})
    assert "protocol: sum" in why
    masked = Federation(tmp_path / "full", join=False)
    masked.restart(masked.names[0], rules={"simulated": False, "delta": 1e-5, "epsilon_life": 100.0})
    masked.join()


def test_a_standing_that_cannot_be_read_back_is_no_standing(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    name = fed.names[0]
    assert isinstance(fed.run(fed.rounds()), Aggregate)
    (kept,) = (tmp_path / name).glob("standing-*.json")
    kept.write_text("{}")
    fed.restart(name)
    assert fed.code(name, fed.desk.join()) is Code.STORAGE


def test_a_study_that_is_wrong_about_its_own_model_is_refused_unspent(tmp_path: Path) -> None:
    honest = Federation(tmp_path / "a")
    lying = Federation(tmp_path / "b", join=False)
    study = lying.desk.study.model_copy(update={"parameters": (lying.desk.study.parameters or 0) + 1})
    lying.desk = lying.desk.of(study=study)
    for name in lying.names:
        lying.restart(name)
    lying.join()
    assert not isinstance(lying.run(lying.rounds()), Aggregate)
    assert lying.codes(lying.names[0]) == [Code.STUDY_REFUSED]
    assert lying.charged(lying.names[0]) == []
    assert lying.refused(lying.names[0]) == [(1, 1, "study-refused")]
    assert isinstance(honest.run(honest.rounds()), Aggregate), "the control"


class _Approvals:
    """Says yes so many times, or until it is taken back."""

    def __init__(self, times: float) -> None:
        self.times, self.asked = times, []

    def take_back(self) -> None:
        self.times = len(self.asked)

    def check(self, study_hash: str, study: Any, plan: Any) -> None:
        self.asked.append((study_hash, study.study_hash, plan.trust.value))
        if len(self.asked) > self.times:
            raise Refused("nobody approved this study", code=Code.STUDY_REFUSED)


def test_approval_is_asked_for_when_a_study_is_joined_and_before_each_round(tmp_path: Path) -> None:
    fed = Federation(tmp_path, join=False)
    name, never, once = fed.names[0], _Approvals(0), _Approvals(math.inf)
    assert "nobody approved this study" in _why(fed, name, approvals=never)
    fed.restart(name, approvals=once)
    fed.join()
    rounds = fed.rounds()
    assert isinstance(fed.run(rounds), Aggregate)
    once.take_back()
    outcome = fed.run(rounds, 2)
    assert isinstance(outcome, Aggregate)
    assert name not in outcome.survivors
    assert set(once.asked) == {(fed.desk.study.study_hash, fed.desk.study.study_hash, "distributed")}
    assert fed.charged(name) == [(1, 1)]
    assert fed.refused(name) == [(2, 1, "study-refused")]


def test_what_was_taken_back_is_neither_confirmed_nor_opened(tmp_path: Path) -> None:
    desk = Desk(small_study())
    owner = _Approvals(math.inf)
    holder = make_site(tmp_path, desk, approvals=owner)
    holder.ask(desk.join())
    holder.ask(desk.train())
    assert isinstance(holder.ask(desk.confirm())[0], Confirmed)
    owner.take_back()
    message, _ = holder.ask(desk.confirm())
    assert isinstance(message, Refusal)
    assert message.code is Code.STUDY_REFUSED

    fed = Federation(tmp_path / "fed", join=False)
    name, owner = fed.names[0], _Approvals(math.inf)
    fed.restart(name, approvals=owner)
    fed.join()
    unmask = 0

    def swap(each: str, frame: bytes) -> bytes | None:
        nonlocal unmask
        if each == name and wire.kind_of(frame) is wire.Kind.UNMASK:
            unmask += 1
            owner.take_back()
        return frame

    fed.swap = swap
    fed.run(fed.rounds())
    assert unmask == 1
    assert fed.charged(name) == [(1, 1)]
    assert fed.refused(name) == [(1, 1, "study-refused")]


def test_updates_are_sealed_to_the_key_of_the_invitation_only(tmp_path: Path) -> None:
    desk = Desk(small_study())
    known = [desk.sealing.public]
    holder = make_site(tmp_path, desk, sealing=lambda: known[0])
    thief = desk.join(sealing_key=SealingKey.generate().public.hex())
    refused, _ = holder.ask(thief)
    assert isinstance(refused, Refusal)
    assert refused.code is Code.NOT_ADMITTED
    assert isinstance(holder.ask(desk.join())[0], Joined)
    known[0] = SealingKey.generate().public  # a newer invitation was accepted meanwhile
    refused, _ = holder.ask(desk.train())
    assert isinstance(refused, Refusal)
    assert refused.code is Code.NOT_ADMITTED
    assert holder.entries("reserved") == []


def test_approval_is_asked_for_in_studies_without_secure_aggregation_too(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk, approvals=_Approvals(1))
    assert isinstance(holder.ask(desk.join())[0], Joined)
    message, _ = holder.ask(desk.train())
    assert isinstance(message, Refusal)
    assert message.code is Code.STUDY_REFUSED
    assert holder.entries("reserved") == []


def test_a_site_without_budget_sits_out_and_the_others_go_on(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    rounds, name = fed.rounds(), fed.names[3]
    fed.swap = lambda each, frame: None if each != name and wire.kind_of(frame) is wire.Kind.START else frame
    assert not isinstance(fed.run(rounds), Aggregate), "a sum of one is none, and its attempt was charged"
    fed.swap = lambda _each, frame: frame
    for number, attempt in ((1, 2), (2, 1)):
        assert isinstance(fed.run(rounds, number, attempt), Aggregate)
    last = fed.run(rounds, 3)
    assert isinstance(last, Aggregate)
    assert last.survivors == tuple(fed.names[:3])
    assert fed.codes(name) == [Code.BUDGET]
    assert fed.charged(name) == [(1, 1), (1, 2), (2, 1)]
    assert fed.refused(name) == [(3, 1, "budget")]
