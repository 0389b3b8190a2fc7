"""What a site keeps between two messages: whole files of its own, held against every rule when read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.errors import Code, IntegrityError
from fedgen.messages import Train, Trained
from fedgen.site.memory import Kept, Memory, rows_mark

if TYPE_CHECKING:
    from pathlib import Path

STUDY, RUN, DIGEST = "11" * 32, "22" * 32, "33" * 32
ROWS = rows_mark(np.array([True, False, True]))


def _kept(attempt: int = 1) -> Kept:
    reply = Trained(
        study_hash=STUDY,
        run=RUN,
        site="site-01",
        round=4,
        attempt=attempt,
        parameters=2,
        steps=1,
        weights=DIGEST,
        excluded={},
    )
    return Kept(reply=reply, payload=np.array([1.5, -2.0], dtype="<f4").tobytes(), rows=ROWS)


def _train(**changes: object) -> Train:
    fields = {"study_hash": STUDY, "run": RUN, "round": 4, "attempt": 2, "parameters": 2, "digest": DIGEST}
    return Train.model_validate({**fields, **changes})


def test_what_is_kept_is_read_back_by_another_process(tmp_path: Path) -> None:
    Memory(tmp_path / "invitation", tmp_path / "answer").keep(_kept())
    Memory(tmp_path / "invitation", tmp_path / "answer").accept(b"signed")
    again = Memory(tmp_path / "invitation", tmp_path / "answer")
    assert again.kept() == _kept()
    assert again.invitation() == b"signed"


def test_files_are_for_their_owner_only_and_nothing_is_left_beside_them(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "invitation", tmp_path / "answer")
    memory.accept(b"one")
    memory.accept(b"two")
    memory.keep(_kept())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer", "invitation"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_memory_without_places_keeps_nothing() -> None:
    memory = Memory()
    memory.accept(b"signed")
    memory.keep(_kept())
    assert memory.invitation() is None
    assert memory.kept() is None


def test_a_file_that_is_not_whole_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    memory = Memory(None, tmp_path / "answer")
    memory.keep(_kept())
    whole = (tmp_path / "answer").read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "answer").write_bytes(whole[:size])
        assert memory.kept() is None


def test_a_failed_write_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(None, tmp_path / "answer")
    memory.keep(_kept(1))

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        memory.keep(_kept(2))
    assert memory.kept() == _kept(1)
    assert [path.name for path in tmp_path.iterdir()] == ["answer"]


def test_the_same_question_under_a_later_attempt_is_answered() -> None:
    assert _kept().answers(_train(), ROWS)


@pytest.mark.parametrize(
    "changes",
    [{"round": 5}, {"run": "44" * 32}, {"study_hash": "44" * 32}, {"digest": "44" * 32}, {"parameters": 3}],
)
def test_another_question_is_not(changes: dict[str, object]) -> None:
    assert not _kept().answers(_train(**changes), ROWS)


def test_other_permitted_rows_need_another_answer() -> None:
    assert not _kept().answers(_train(), rows_mark(np.array([True, True, True])))
    assert not _kept().answers(_train(), rows_mark(None))


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_that_was_answered_is_a_replay(attempt: int) -> None:
    with pytest.raises(IntegrityError) as refused:
        _kept(2).answers(_train(attempt=attempt), ROWS)
    assert refused.value.code is Code.REPLAYED


def test_one_more_row_that_is_not_permitted_is_another_question() -> None:
    assert rows_mark(np.array([True] * 10)) != rows_mark(np.array([True] * 10 + [False]))
