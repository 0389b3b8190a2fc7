"""A site's own record of who may have been in which round."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.errors import IntegrityError
from fedgen.policy.lineage import Span, pack
from fedgen.policy.store import ConsentSaid, ConsentStore
from fedgen.policy.store.numbers import find, find_by_ref, numbers, version
from fedgen.site.uses import UseBook, read_uses, record_use, rounds_used

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUDY, RUN, NEXT = "5" * 64, "a" * 64, "b" * 64


def _note(
    folder: Path, round_number: int, used: list[int], *, run: str = RUN, upto: int = 50, site: str = "here"
) -> None:
    record_use(
        folder,
        site,
        study=STUDY,
        run=run,
        round_number=round_number,
        attempt=1,
        used=np.array(used),
        upto=upto,
    )


def test_equal_sets_are_kept_once_and_only_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "used"
    for number in (1, 2, 3):
        _note(folder, number, [4, 2, 9])
    _note(folder, 4, [2, 9])
    assert len(list(folder.glob("*.bits"))) == 2
    assert len(read_uses(folder).lines) == 4
    for path in [folder, *folder.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_rounds_of_a_person_over_runs_and_sites(tmp_path: Path) -> None:
    _note(tmp_path, 1, [1])
    _note(tmp_path, 2, [1, 7])
    _note(tmp_path, 4, [7], site="there")
    _note(tmp_path, 3, [7], run=NEXT)
    assert rounds_used(tmp_path, 7) == (Span(STUDY, RUN, 2, 4), Span(STUDY, NEXT, 3, 3))
    assert rounds_used(tmp_path, 1) == (Span(STUDY, RUN, 1, 2),)
    assert rounds_used(tmp_path, 2) == ()
    uses = read_uses(tmp_path)
    assert uses.touches([7, 2], RUN, 3, 17)
    assert not uses.touches([1, 2], RUN, 3, 17)
    assert not uses.touches([], RUN, 1, 17)
    assert uses.on_record == {(RUN, 1), (RUN, 2), (RUN, 4), (NEXT, 3)}


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_a_set_that_is_lost_or_changed_may_hold_anybody(tmp_path: Path, harm: str) -> None:
    _note(tmp_path, 1, [1])
    (bits,) = tmp_path.glob("*.bits")
    if harm == "lost":
        bits.unlink()
    else:
        bits.write_bytes(pack([2]))
    assert rounds_used(tmp_path, 3) == (Span(STUDY, RUN, 1, 1),)


def test_nothing_is_on_record_where_nothing_was_written(tmp_path: Path) -> None:
    assert rounds_used(tmp_path / "none", 1) == ()


def test_a_torn_last_line_is_left_out_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    _note(tmp_path, 1, [1])
    journal = tmp_path / "rounds-here.jsonl"
    whole = journal.read_text()
    journal.write_text(whole + whole[:-9])
    assert len(read_uses(tmp_path).lines) == 1
    for wrong in (
        {"study": STUDY},
        {**json.loads(whole), "round": True},
        {**json.loads(whole), "more": 1},
        [1],
    ):
        journal.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(IntegrityError, match="form"):
            read_uses(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConsentStore]:
    with ConsentStore.open(tmp_path / "consent.db") as opened:
        for name in ("anna", "bert", "cleo"):
            _agree(opened, name)
        yield opened


def _agree(store: ConsentStore, name: str) -> None:
    store.record(ConsentSaid(subject_id=name, purpose="p", action="given", effective_at=datetime.now(UTC)))


def _number(store: ConsentStore, name: str) -> int:
    known = find(store, name)
    assert known is not None
    return known.number


def test_people_are_found_by_their_numbers_and_other_names(tmp_path: Path, store: ConsentStore) -> None:
    store.put_alias("annie", "anna")
    assert find(store, "annie") == find(store, "anna")
    book = UseBook(store, tmp_path / "used", "here")
    use = book.note(STUDY, RUN, 1, 1, np.array([b"cleo", b"annie", b"annie"]))
    assert not use.strangers
    assert use.upto == 3
    assert rounds_used(tmp_path / "used", _number(store, "anna"))
    assert rounds_used(tmp_path / "used", _number(store, "cleo"))
    assert not rounds_used(tmp_path / "used", _number(store, "bert"))


def test_a_stranger_who_was_in_counts_once_they_are_known(tmp_path: Path, store: ConsentStore) -> None:
    book = UseBook(store, tmp_path / "used", "here")
    assert book.note(STUDY, RUN, 1, 1, np.array([b"anna", b"dora"])).strangers
    assert not book.note(STUDY, RUN, 2, 1, np.array([b"anna"])).strangers
    _agree(store, "dora")
    assert book.note(STUDY, RUN, 3, 1, np.array([b"anna"])).upto == 4  # the book sees who came
    assert rounds_used(tmp_path / "used", _number(store, "dora")) == (Span(STUDY, RUN, 1, 1),)


def test_only_permitted_rows_count_and_a_new_mask_is_seen(tmp_path: Path, store: ConsentStore) -> None:
    book = UseBook(store, tmp_path / "used", "here")
    table = np.array([b"anna", b"bert", b"anna", b"dora"])
    first = book.note(STUDY, RUN, 1, 1, table, np.array([True, False, False, False]))
    second = book.note(STUDY, RUN, 2, 1, table, np.array([False, True, True, True]))
    assert (first.strangers, second.strangers) == (False, True)
    assert rounds_used(tmp_path / "used", _number(store, "anna")) == (Span(STUDY, RUN, 1, 2),)
    assert rounds_used(tmp_path / "used", _number(store, "bert")) == (Span(STUDY, RUN, 2, 2),)


def test_an_empty_store_and_an_empty_round(tmp_path: Path) -> None:
    with ConsentStore.open(tmp_path / "empty.db") as store:
        book = UseBook(store, tmp_path / "used", "here")
        assert not book.note(STUDY, RUN, 1, 1, np.array([], dtype="S4")).strangers
        assert book.note(STUDY, RUN, 2, 1, np.array([b"anna"])).strangers


def test_a_number_leaves_with_the_person(store: ConsentStore) -> None:
    known = find(store, "bert")
    assert known is not None
    before = version(store)
    store.erase("bert")
    assert version(store) != before
    assert find(store, "bert") is None
    assert find_by_ref(store, known.ref) is None
    assert b"bert" not in numbers(store).names
