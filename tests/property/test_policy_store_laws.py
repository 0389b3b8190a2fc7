"""The laws of the store: order in a batch, repetition and the database never matter to where people stand."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.stores import NOON, Clock, Place, consent, right, schema_of

from fedgen.policy.columns import Request
from fedgen.policy.standing import stand
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.events import ACTIONS, RIGHTS
from fedgen.policy.store.reading import order_of

PEOPLE = np.array([b"a", b"b", b"c"])
PURPOSES = ("t", "u")
when = st.integers(-3, 3).map(lambda hours: NOON + timedelta(hours=hours) - timedelta(hours=4))
consents = st.builds(
    lambda who, action, purpose, at, days: consent(
        who, action, at, purpose=purpose, valid_until=None if days is None else at + timedelta(days=days)
    ),
    st.sampled_from("abc"),
    st.sampled_from(sorted(ACTIONS)),
    st.sampled_from(PURPOSES),
    when,
    st.none() | st.integers(0, 2),
)
rights = st.builds(right, st.sampled_from("abc"), st.sampled_from(sorted(RIGHTS)), when)
batches = st.lists(st.lists(consents | rights, min_size=1, max_size=6), max_size=4)
relaxed = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Blank:
    """Empty stores, as many as are asked for, without making a schema for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ConsentStore.open(folder / "s.db").close()
        self._content = [(file.name, file.read_bytes()) for file in folder.iterdir()]
        self._made = 0

    def open(self, clock: Clock) -> ConsentStore:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        for name, content in self._content:
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)
        return ConsentStore.open(folder / "s.db", clock=clock)


@pytest.fixture(scope="module")
def blank() -> Iterator[Blank]:
    with tempfile.TemporaryDirectory() as folder:
        yield Blank(Path(folder))


def filled(store: ConsentStore, clock: Clock, told: Any) -> None:
    for batch in told:
        clock.go(hours=1)
        store.record(*batch)


def standings(store: ConsentStore) -> Any:
    """Return where everybody stands for each purpose, as plain values."""
    view = store.columns()
    result = []
    for purpose in PURPOSES:
        request = Request(purpose=purpose, operation="train", time=view.known_at, known_at=view.known_at)
        s = stand(PEOPLE, view.consent, view.rights, view.subjects, request)
        result += [s.flags.tolist(), s.consent.tolist(), s.acting.tolist(), s.valid_until.tolist()]
    return result


@relaxed
@given(batches, st.randoms())
def test_order_in_a_batch_and_repetition_never_matter(blank: Blank, told: Any, rng: Any) -> None:
    shuffled = [rng.sample(batch, len(batch)) for batch in told]
    repeated = [[*batch, *rng.sample(batch, 1)] for batch in shuffled]
    first, second = Clock(), Clock()
    with blank.open(first) as store, blank.open(second) as other:
        filled(store, first, told)
        filled(other, second, repeated)
        other.record(*(event for batch in told for event in batch))
        assert standings(store) == standings(other)
        assert other.verify().consent == store.verify().consent


@relaxed
@given(batches, st.integers(0, 4))
def test_reading_bit_by_bit_is_reading_at_once(blank: Blank, told: Any, pause: int) -> None:
    clock = Clock()
    with blank.open(clock) as store:
        for i, batch in enumerate(told):
            clock.go(hours=1)
            store.record(*batch)
            if i % 4 == pause:
                store.columns()
        bit = store.columns()
        with ConsentStore.open(store.name, clock=clock) as anew:
            whole = anew.columns()
            for one, two in ((bit.consent, whole.consent), (bit.rights, whole.rights)):
                assert one.people[one.subject].tolist() == two.people[two.subject].tolist()
                assert one.recorded.tolist() == two.recorded.tolist()
            assert standings(store) == standings(anew)


@relaxed
@given(batches, batches)
def test_what_comes_later_never_changes_an_older_answer(blank: Blank, told: Any, later: Any) -> None:
    clock = Clock()
    with blank.open(clock) as store:
        filled(store, clock, told)
        then = store.columns()
        filled(store, clock, later)
        again = store.columns(then.known_at)
        assert again.consent.seq.tolist() == then.consent.seq.tolist()
        assert again.rights.seq.tolist() == then.rights.seq.tolist()
        by_head = store.columns(2**62, upto=then.head)
        assert by_head.consent.seq.tolist() == then.consent.seq.tolist()


@given(st.lists(st.binary(max_size=40).map(lambda name: name.rstrip(b"\0")), max_size=60))
def test_names_are_sorted_as_bytes(names: list[bytes]) -> None:
    table = np.array(names, dtype=np.bytes_) if names else np.empty(0, dtype="S1")
    assert order_of(table).tolist() == sorted(range(len(names)), key=names.__getitem__)


@pytest.mark.postgres
def test_both_databases_agree(blank: Blank, postgres_url: str, tmp_path: Path) -> None:
    @settings(max_examples=8, deadline=None, database=None)
    @given(batches)
    def agree(told: Any) -> None:
        with ExitStack() as stack:
            place: Place = stack.enter_context(schema_of(postgres_url, tmp_path))
            place.key.unlink(missing_ok=True)
            one, two = Clock(), Clock()
            sqlite, postgresql = stack.enter_context(blank.open(one)), stack.enter_context(place.open(two))
            filled(sqlite, one, told)
            filled(postgresql, two, told)
            assert standings(sqlite) == standings(postgresql)
            heads = sqlite.verify(), postgresql.verify()
            assert heads[0].consent == heads[1].consent
            views = sqlite.columns(), postgresql.columns()
            for name in ("effective", "recorded", "action", "valid_until", "seq"):
                assert np.array_equal(getattr(views[0].consent, name), getattr(views[1].consent, name))

    agree()


def test_the_tests_can_tell_two_stores_apart(blank: Blank) -> None:
    """A control: a withdrawal that one store lacks shows in the comparison above."""
    first, second = Clock(), Clock()
    event = consent("a", at=NOON - timedelta(days=1), purpose="t")
    with blank.open(first) as store, blank.open(second) as other:
        filled(store, first, [[event]])
        filled(other, second, [[event], [consent("a", "withdrawn", NOON - timedelta(days=1), purpose="t")]])
        assert standings(store) != standings(other)
