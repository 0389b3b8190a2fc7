"""A site's budget: charged before anything is drawn, whatever happens after, and for the life of the data."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.federation import DATASET, Desk, ledger_at, small_study

from fedgen.crypto.keys import SigningKey
from fedgen.errors import BudgetExhausted, Code, IntegrityError
from fedgen.ledger.checkpoint import Checkpoint
from fedgen.privacy.units import Relation, Unit
from fedgen.site.account import Account, ceilings_of
from fedgen.site.admit import Admission, admit
from fedgen.site.rules import SiteRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fedgen.config.resolve import ResolvedStudy

DIGEST = "ab" * 32


class Books:
    """An account, its ledger, and the ways to look into it."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.rules = SiteRules(
            **{"name": "site-01", "min_cohort": 1, "consent_required": False, "simulated": True, **rules}
        )
        self.ledger: Callable[[], Any] = ledger_at(folder / "ledger.db", SigningKey.generate())
        self.account = Account(self.ledger, DATASET, self.rules)

    def admit(self, study: ResolvedStudy, run: str = "22" * 32) -> Admission:
        return admit(Desk(study, run=run).invitation(), self.rules)

    def kinds(self) -> list[str]:
        with self.ledger() as ledger:
            return [recorded.entry.kind for recorded in ledger.entries()]

    def last(self) -> Any:
        with self.ledger() as ledger:
            return [recorded.entry for recorded in ledger.entries()][-1]


def _refused(call: Callable[[], object]) -> Code:
    with pytest.raises(IntegrityError) as error:
        call()
    return error.value.code


def test_a_round_is_reserved_then_settled(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    assert books.account.admitted(admission) == 0
    receipt = books.account.reserve(admission, 1, 1)
    reserved = books.last()
    assert (reserved.dataset, reserved.round, reserved.attempt, reserved.count) == (DATASET, 1, 1, 1)
    assert reserved.event == admission.plan.event
    books.account.settle(receipt, DIGEST)
    assert (books.last().round, books.last().digest) == (1, DIGEST)
    books.account.close_study(admission, "completed", 1)
    assert books.kinds() == ["opened", "admitted", "reserved", "settled", "closed"]


def test_a_repeated_round_is_a_replay_and_costs_nothing(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    books.account.reserve(admission, 2, 3)
    assert _refused(lambda: books.account.reserve(admission, 2, 3)) is Code.REPLAYED
    assert books.kinds() == ["opened", "reserved"]


@pytest.mark.parametrize(("number", "attempt"), [(1, 1), (1, 9), (2, 2)])
def test_what_is_over_is_stale_and_costs_nothing(tmp_path: Path, number: int, attempt: int) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    books.account.reserve(admission, 2, 3)
    assert _refused(lambda: books.account.reserve(admission, number, attempt)) is Code.STALE_ROUND
    assert books.kinds() == ["opened", "reserved"]


def test_a_later_attempt_is_charged_again(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    books.account.reserve(admission, 1, 1)
    books.account.reserve(admission, 1, 2)
    with books.ledger() as ledger:
        assert ledger.spent(DATASET) == ((admission.plan.event, 2),)


def test_the_last_round_is_told_to_whoever_joins_again(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    books.account.admitted(admission)
    books.account.reserve(admission, 1, 1)
    books.account.reserve(admission, 2, 1)
    assert books.account.admitted(admission) == 2
    assert books.account.admitted(books.admit(small_study(), run="33" * 32)) == 0


def test_a_crash_between_reserve_and_settle_stays_charged(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    books.account.reserve(admission, 1, 1)
    reborn = Account(books.ledger, DATASET, books.rules)
    assert _refused(lambda: reborn.reserve(admission, 1, 1)) is Code.REPLAYED
    reborn.reserve(admission, 2, 1)
    reborn.reserve(admission, 3, 1)
    with pytest.raises(BudgetExhausted):
        reborn.reserve(admission, 3, 2)


def test_a_study_of_given_noise_may_spend_its_planned_rounds_and_no_more(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study(training={"rounds": 2}))
    for number in (1, 2):
        books.account.reserve(admission, number, 1)
    with pytest.raises(BudgetExhausted):
        books.account.reserve(admission, 3, 1)
    refused = books.last()
    assert (refused.kind, refused.round, refused.attempt, refused.code) == ("refused", 3, 1, "budget")
    with books.ledger() as ledger:
        assert ledger.spent(DATASET) == ((admission.plan.event, 2),)


def test_so_much_noise_that_the_bound_is_zero_is_still_charged(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study(privacy={"noise_multiplier": 1e6}, training={"rounds": 2}))
    assert admission.plan.epsilon_of(2) == 0.0
    for number in (1, 2):
        books.account.reserve(admission, number, 1)
    assert books.kinds().count("reserved") == 2


def test_a_calibrated_study_ends_with_its_epsilon(tmp_path: Path) -> None:
    books = Books(tmp_path)
    study = small_study(privacy={"noise_multiplier": None, "epsilon": 1.5}, training={"rounds": 4})
    admission = books.admit(study)
    for number in range(1, 5):
        books.account.reserve(admission, number, 1)
    with pytest.raises(BudgetExhausted):
        books.account.reserve(admission, 5, 1)


def test_another_run_of_the_same_study_draws_on_the_same_budget(tmp_path: Path) -> None:
    books = Books(tmp_path)
    study = small_study(training={"rounds": 2})
    first, second = books.admit(study), books.admit(study, run="33" * 32)
    books.account.reserve(first, 1, 1)
    books.account.reserve(second, 1, 1)
    with pytest.raises(BudgetExhausted):
        books.account.reserve(second, 2, 1)


def test_an_earlier_study_counts_against_the_ceiling_for_life(tmp_path: Path) -> None:
    earlier, later = small_study(), small_study(training={"rounds": 4})
    both = Books(tmp_path / "free").admit(later).plan.epsilon_of(4)
    (tmp_path / "held").mkdir()
    books = Books(tmp_path / "held", epsilon_life=both, delta=1e-5)
    first = books.admit(earlier)
    for number in (1, 2, 3):
        books.account.reserve(first, number, 1)
    second = books.admit(later)
    books.account.reserve(second, 1, 1)
    with pytest.raises(BudgetExhausted):
        books.account.reserve(second, 2, 1)
    assert books.kinds().count("reserved") == 4
    assert books.last().code == "budget"


def test_without_the_earlier_study_the_later_one_has_room(tmp_path: Path) -> None:
    later = small_study(training={"rounds": 4})
    ceiling = Books(tmp_path / "free").admit(later).plan.epsilon_of(4)
    books = Books(tmp_path, epsilon_life=ceiling, delta=1e-5)
    admission = books.admit(later)
    for number in range(1, 5):
        books.account.reserve(admission, number, 1)
    assert books.kinds().count("reserved") == 4


def test_ceilings_are_the_studys_and_the_sites(tmp_path: Path) -> None:
    books = Books(tmp_path)
    plan = books.admit(small_study()).plan
    own = plan.epsilon_of(plan.rounds)
    (only,) = ceilings_of(plan, books.rules)
    assert (only.epsilon, only.delta, only.scope, only.relation) == (
        own,
        1e-5,
        "study",
        Relation.ADD_OR_REMOVE,
    )
    strict = SiteRules(
        name="s",
        min_cohort=1,
        consent_required=False,
        epsilon_per_study=9.0,
        epsilon_per_year=12.0,
        epsilon_life=20.0,
        delta=1e-6,
    )
    limits = {(c.scope, c.epsilon, c.delta) for c in ceilings_of(plan, strict)}
    assert limits == {("study", own, 1e-5), ("study", 9.0, 1e-6), ("year", 12.0, 1e-6), ("data", 20.0, 1e-6)}


def test_a_disk_that_fails_while_reserving_leaves_nothing_spent(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    books.account.admitted(admission)
    lend = books.ledger

    @contextmanager
    def full() -> Iterator[Any]:
        with lend() as ledger:
            ledger.reserve = _no_room
            yield ledger

    broken = Account(full, DATASET, books.rules)
    with pytest.raises(OSError, match="no room"):
        broken.reserve(admission, 1, 1)
    books.account.reserve(admission, 1, 1)
    assert books.kinds() == ["opened", "admitted", "reserved"]


def _no_room(*_args: object, **_kwargs: object) -> None:
    raise OSError(28, "no room")


def test_a_round_is_charged_per_the_studys_unit_and_another_unit_is_refused(tmp_path: Path) -> None:
    books = Books(tmp_path)
    record = books.admit(small_study())
    person = replace(record, plan=replace(record.plan, unit=Unit.PERSON), run="33" * 32)
    books.account.reserve(person, 1, 1)
    assert books.last().unit == "person"
    with pytest.raises(BudgetExhausted, match="was charged per person before"):
        books.account.reserve(record, 1, 1)
    refused = books.last()
    assert (refused.kind, refused.run, refused.code) == ("refused", record.run, "budget")
    books.account.reserve(person, 2, 1)


def test_a_refusal_is_recorded_once_and_within_reason(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study(training={"rounds": 2}))
    for number, attempt in [(1, 1), (1, 1), (1, 64), (1, 65), (3, 1), (4, 1)]:
        books.account.refuse(admission, number, attempt, Code.CONSENT)
    with books.ledger() as ledger:
        written = [recorded.entry for recorded in ledger.entries()][1:]
    assert [(it.round, it.attempt, it.code) for it in written] == [
        (1, 1, "consent"), (1, 64, "consent"), (3, 1, "consent"),
    ]  # fmt: skip


def test_the_end_of_a_study_leaves_a_checkpoint_where_it_is_told(tmp_path: Path) -> None:
    books = Books(tmp_path)
    admission = books.admit(small_study())
    books.account.close_study(admission, "completed", 0)
    assert Checkpoint.read(tmp_path / "ledger.db.checkpoint").size == 2
    account = Account(books.ledger, DATASET, books.rules, checkpoint=tmp_path / "kept")
    account.close_study(admission, "completed", 0)
    assert Checkpoint.read(tmp_path / "kept").size == 2
    assert books.kinds() == ["opened", "closed"]
