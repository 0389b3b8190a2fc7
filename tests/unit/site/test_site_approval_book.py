"""The owner's yes: only the owner's, only for this study and site, read anew each time; everything else is no."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest
from support.federation import small_study

from fedgen.config.plan import plan_of
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, FedgenError, IntegrityError, Refused
from fedgen.site.approval_book import MAX_PENDING, ApprovalBook

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.config.resolve import ResolvedStudy

STUDY = small_study()
COST = plan_of(STUDY).epsilon_of(3)


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def book(tmp_path: Path, key: SigningKey) -> ApprovalBook:
    return ApprovalBook(tmp_path / "approvals", tmp_path / "pending", "site-01", key.verify_key)


def _check(book: ApprovalBook, study: ResolvedStudy = STUDY) -> None:
    book.check(study.study_hash, study, plan_of(study))


def _no(book: ApprovalBook, study: ResolvedStudy = STUDY) -> str:
    with pytest.raises(Refused) as refused:
        _check(book, study)
    assert refused.value.code is Code.NOT_APPROVED
    return refused.value.what


def _yes(book: ApprovalBook, key: SigningKey, study: ResolvedStudy = STUDY, *, epsilon: float = COST) -> None:
    book.decide(study.study_hash, "approved", key, epsilon=epsilon, delta=1e-5)


def test_the_default_is_no_and_the_study_is_filed(book: ApprovalBook) -> None:
    assert "nobody has approved" in _no(book)
    assert book.waiting() == (STUDY.study_hash,)
    assert book.filed(STUDY.study_hash) == STUDY
    assert stat.S_IMODE((book.pending / f"{STUDY.study_hash}.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(book.pending.stat().st_mode) == 0o700


def test_yes_lets_it_in_until_it_is_taken_back(book: ApprovalBook, key: SigningKey) -> None:
    _no(book)
    _yes(book, key)
    _check(book)
    assert book.waiting() == ()
    book.decide(STUDY.study_hash, "revoked", key, epsilon=COST, delta=1e-5)
    assert "taken back" in _no(book)
    assert book.waiting() == ()
    assert [it.decision for it in book.decisions()] == ["revoked"]


def test_an_approval_is_for_one_study(book: ApprovalBook, key: SigningKey) -> None:
    other = small_study(training={"rounds": 4})
    _yes(book, key)
    _no(book, other)
    # the file of one study under the name of another
    (book.approvals / f"{other.study_hash}.json").write_bytes(
        (book.approvals / f"{STUDY.study_hash}.json").read_bytes()
    )
    assert "cannot be read" in _no(book, other)


def test_an_approval_is_of_one_site(book: ApprovalBook, key: SigningKey) -> None:
    ApprovalBook(book.approvals, book.pending, "site-02", key.verify_key).decide(
        STUDY.study_hash, "approved", key, epsilon=COST, delta=1e-5
    )
    assert "cannot be read" in _no(book)


def test_another_key_decides_nothing(book: ApprovalBook, key: SigningKey) -> None:
    other = SigningKey.generate()
    with pytest.raises(IntegrityError, match="not the site's identity key"):
        _yes(book, other)
    ApprovalBook(book.approvals, book.pending, "site-01", other.verify_key).decide(
        STUDY.study_hash, "approved", other, epsilon=COST, delta=1e-5
    )
    assert "cannot be read" in _no(book)
    assert book.decisions() == ()


@pytest.mark.parametrize("field", ["study_hash", "site", "decision", "time", "epsilon", "delta"])
def test_no_field_can_be_changed(book: ApprovalBook, key: SigningKey, field: str) -> None:
    book.decide(STUDY.study_hash, "revoked", key, epsilon=COST, delta=1e-5)
    path = book.approvals / f"{STUDY.study_hash}.json"
    file = json.loads(path.read_text())
    other = {
        "study_hash": "00" * 32,
        "site": "site-02",
        "decision": "approved",
        "time": "2020-01-01T00:00:00+00:00",
        "epsilon": 1e6,
        "delta": 0.5,
    }
    file["said"][field] = other[field]
    path.write_text(json.dumps(file))
    assert "cannot be read" in _no(book)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\xff\xfe", b"[" * 4000, b"x" * 5000, b'{"said":1,"signature":2}']
)
def test_a_damaged_file_is_no(book: ApprovalBook, key: SigningKey, data: bytes) -> None:
    _yes(book, key)
    (book.approvals / f"{STUDY.study_hash}.json").write_bytes(data)
    assert "cannot be read" in _no(book)


def test_a_link_and_a_pipe_are_no(book: ApprovalBook, key: SigningKey, tmp_path: Path) -> None:
    _yes(book, key)
    path = book.approvals / f"{STUDY.study_hash}.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert "cannot be read" in _no(book)
    path.unlink()
    os.mkfifo(path)
    assert "cannot be read" in _no(book)


def test_a_version_that_finds_a_higher_cost_asks_again(book: ApprovalBook, key: SigningKey) -> None:
    _yes(book, key, epsilon=COST * 0.99)
    assert "costs more" in _no(book)
    _yes(book, key, epsilon=COST)
    _check(book)


def test_at_most_sixteen_wait_and_the_oldest_goes(book: ApprovalBook) -> None:
    studies = [small_study(training={"rounds": number + 1}) for number in range(MAX_PENDING + 3)]
    for number, study in enumerate(studies):
        book.file(study.study_hash, study)
        path = book.pending / f"{study.study_hash}.json"
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    book.file(studies[-1].study_hash, studies[-1])
    assert len(book.waiting()) <= MAX_PENDING
    assert studies[-1].study_hash in book.waiting()
    assert studies[0].study_hash not in book.waiting()


def test_what_cannot_be_filed_is_refused_all_the_same(tmp_path: Path, key: SigningKey) -> None:
    (tmp_path / "pending").write_text("in the way")
    book = ApprovalBook(tmp_path / "approvals", tmp_path / "pending", "site-01", key.verify_key)
    assert "nobody has approved" in _no(book)


def test_a_filed_study_is_the_one_its_name_says(book: ApprovalBook) -> None:
    other = small_study(training={"rounds": 4})
    book.file(STUDY.study_hash, other)
    with pytest.raises(IntegrityError, match="name says"):
        book.filed(STUDY.study_hash)
    assert book.filed("00" * 32) is None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_no_hash_names_another_file(book: ApprovalBook, name: str) -> None:
    with pytest.raises(FedgenError, match="not a study's hash"):
        book.decision(name)
