"""Real sites under distributed trust: what they join, send, are charged for, keep, and refuse."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.federation import NOW, Desk, consent_log, make_site, small_study
from support.secagg_driven import Shelf
from support.secure_sites import Federation

from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.envelope import peek
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code, Refused
from fedgen.messages import Confirmed, Joined, Refusal, Settled, Stepped
from fedgen.secagg import wire
from fedgen.secagg.server import Aggregate
from fedgen.site.memory import Memory
from fedgen.site.monitor import Site
from fedgen.site.standing import Standing, StandingFile

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.coordinator.secure_round import Void


def _sum(outcome: Aggregate | Void) -> bytes:
    assert isinstance(outcome, Aggregate), outcome
    return outcome.values.tobytes()


# -- a round ----------------------------------------------------------------------------------------


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


# -- consent ----------------------------------------------------------------------------------------


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


# -- who takes part ---------------------------------------------------------------------------------


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


# -- what outlives a process ------------------------------------------------------------------------


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
