"""A site's driver: charged before masked, nothing a second time, and a restart waits for the next setup."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.secagg import Recovery, identities, terms_for
from support.secagg_driven import Fleet, Kept, Shelf

from fedgen.errors import BudgetExhausted, Code, IntegrityError
from fedgen.secagg import wire
from fedgen.secagg.server import Aggregate
from fedgen.site.secure import PlainSite, SecureSite, Work
from fedgen.site.standing import Standing, StandingFile

TERMS = terms_for(4, dropouts=1)
WEIGHTS = "33" * 32


def zeros(_name: str, _number: int) -> np.ndarray:
    return np.zeros(32, np.uint32)


class Tapped(Fleet):
    """Keeps what was sent to one site, and what it would have answered."""

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.sent: dict[wire.Kind, bytes] = {}

    def deliver(self, name: str, frame: bytes) -> bytes:
        if name == "site-000":
            self.sent[wire.kind_of(frame)] = frame
        return super().deliver(name, frame)


def begun(**more) -> Tapped:
    fleet = Tapped(TERMS, zeros, **more)
    assert isinstance(fleet.run(fleet.rounds(), 1), Aggregate)
    return fleet


def code(call, *arguments) -> Code:
    with pytest.raises(IntegrityError) as error:
        call(*arguments)
    return error.value.code


def test_a_site_remembers_setup_round_attempt_and_reveal() -> None:
    assert begun().kept["site-000"].standing == Standing(setup=1, round=1, attempt=1, revealed=1)


@pytest.mark.parametrize("masked", [True, False])
def test_an_attempt_is_charged_before_its_vector_is_made(*, masked: bool) -> None:
    order: list[str] = []
    fleet = Fleet(TERMS, zeros, masked=masked)
    honest = fleet.work
    fleet.work = lambda name: replace(  # type: ignore[method-assign]
        honest(name),
        charge=lambda: order.append(f"charge {name} {fleet.kept[name].standing.round}"),
        share=lambda: (order.append(f"share {name}"), zeros(name, 1))[1],
    )
    assert isinstance(fleet.run(fleet.rounds(), 1), Aggregate)
    assert order == [f"{what}" for name in fleet.sites for what in (f"charge {name} 1", f"share {name}")]


@pytest.mark.parametrize("masked", [True, False])
def test_without_budget_nothing_is_made_and_the_others_go_on(*, masked: bool) -> None:
    fleet, made = Fleet(TERMS, zeros, masked=masked), []
    honest_ask, honest_work = fleet.ask, fleet.work

    def broke() -> None:
        raise BudgetExhausted("spent")

    def work(name: str) -> Work:
        if name != "site-002":
            return honest_work(name)
        return replace(honest_work(name), charge=broke, share=lambda: made.append(name))

    def ask(frames, step):
        for name, frame in frames.items():
            try:
                yield from honest_ask({name: frame}, step)
            except BudgetExhausted:
                continue

    fleet.work, fleet.ask = work, ask  # type: ignore[method-assign]
    outcome = fleet.run(fleet.rounds(), 1)
    assert isinstance(outcome, Aggregate)
    assert "site-002" not in outcome.survivors
    assert made == []


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("change", [{"round": 2}, {"attempt": 2}, {"weights": "44" * 32}])
def test_a_question_about_something_else_is_refused_uncharged(change: dict, *, masked: bool) -> None:
    fleet = Fleet(TERMS, zeros, masked=masked)
    honest = fleet.work
    fleet.work = lambda name: replace(honest(name), **change)  # type: ignore[method-assign]
    fleet.run(fleet.rounds(), 1)
    assert fleet.charged == []
    assert {found for _, found in fleet.noted} == {Code.STALE_ROUND}


def test_nothing_is_joined_begun_or_revealed_a_second_time() -> None:
    fleet = begun()
    site, sent = fleet.sites["site-000"], fleet.sent
    assert isinstance(site, SecureSite)
    assert code(site.answer, sent[wire.Kind.INVITE]) is Code.STALE_ROUND
    assert code(site.contribute, sent[wire.Kind.START], fleet.work("site-000")) is Code.STALE_ROUND
    assert code(site.answer, sent[wire.Kind.UNMASK]) is Code.REPLAYED
    assert len(fleet.charged) == 4


def test_a_restarted_site_answers_nothing_until_the_next_setup() -> None:
    fleet = begun()
    fleet.restart("site-000")
    site = fleet.sites["site-000"]
    assert isinstance(site, SecureSite)
    for kind in (wire.Kind.KEYS, wire.Kind.OFFERED, wire.Kind.UNMASK):
        assert code(site.answer, fleet.sent[kind]) is Code.OUT_OF_ORDER
    assert code(site.contribute, fleet.sent[wire.Kind.START], fleet.work("site-000")) is Code.OUT_OF_ORDER
    assert code(site.answer, wire.Invite(setup=1).encode()) is Code.STALE_ROUND
    assert wire.Advertise.decode(site.answer(wire.Invite(setup=2).encode()), TERMS).setup == 2


@pytest.mark.parametrize("restarted", [True, False])
def test_a_revealed_round_stays_over_in_the_next_setup(*, restarted: bool) -> None:
    fleet = begun()
    for name in list(fleet.sites):
        if restarted:
            fleet.restart(name)
    before = len(fleet.charged)
    outcome = fleet.run(
        fleet.rounds(Shelf(setup=1)), 1, attempt=2
    )  # a coordinator that forgot what it opened
    assert not isinstance(outcome, Aggregate)
    assert len(fleet.charged) == before
    assert {found for _, found in fleet.noted} == {Code.STALE_ROUND}


def test_the_control_with_a_forgotten_standing_would_open_the_round_again() -> None:
    fleet = begun()
    for name, kept in fleet.kept.items():
        kept.standing = Standing()
        fleet.restart(name)
    assert isinstance(fleet.run(fleet.rounds(Shelf(setup=1)), 1, attempt=2), Aggregate)


def test_what_is_kept_is_kept_before_it_leaves() -> None:
    fleet = begun()

    class Full(Kept):
        def keep(self, standing: Standing) -> None:
            raise OSError("disk full")

    site = SecureSite(TERMS, "site-000", identities(4)["site-000"], Full())
    with pytest.raises(OSError, match="full"):
        site.answer(wire.Invite(setup=1).encode())
    assert code(site.answer, fleet.sent[wire.Kind.KEYS]) is Code.OUT_OF_ORDER, "it did not join"


def test_other_steps_and_other_sites_are_refused() -> None:
    fleet = begun()
    site = fleet.sites["site-000"]
    assert isinstance(site, SecureSite)
    assert code(site.answer, fleet.sent[wire.Kind.START]) is Code.OUT_OF_ORDER
    assert code(site.answer, b"FDGA\x01\x63" + bytes(10)) is Code.MALFORMED
    assert code(site.answer, wire.Wanted(setup=1, turn=3, site=1).encode()) is Code.OUT_OF_ORDER
    plain = PlainSite(TERMS, "site-001", Kept())
    assert code(plain.contribute, fleet.sent[wire.Kind.START], fleet.work("site-001")) is Code.WRONG_RECIPIENT


def test_a_setup_with_restarts_ends_in_ready() -> None:
    terms = terms_for(4, dropouts=1, recovery=Recovery.RESTART)
    fleet = Tapped(terms, zeros)
    assert isinstance(fleet.run(fleet.rounds(), 1), Aggregate)
    assert fleet.steps["deal"] == 1


@pytest.mark.parametrize("durable", [True, False])
def test_a_standing_in_a_file_outlives_the_process_and_belongs_to_one_run(tmp_path, *, durable: bool) -> None:
    path = tmp_path / "standing.json"
    first = StandingFile(path, "ab", durable=durable)
    assert first.load() == Standing()
    first.keep(Standing(2, 5, 3, 4))
    assert StandingFile(path, "ab").load() == Standing(2, 5, 3, 4)
    assert [left.name for left in tmp_path.iterdir()] == ["standing.json"]
    assert code(StandingFile(path, "cd").load) is Code.STORAGE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": "ab", "setup": 1}', "\x00" * 9000])
def test_a_damaged_standing_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "standing.json"
    path.write_text(text)
    assert code(StandingFile(path, "ab").load) is Code.STORAGE
