"""Simulated sites: each with its own rows, keys and ledger, all of them in few open files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.ledgers import entries
from support.studies import write_consent, write_study

from fedgen.api import sites as room
from fedgen.api.desk import open_desk
from fedgen.api.prepare import Prepared, prepare
from fedgen.api.sites import SharedConsent, SimulatedSites
from fedgen.errors import DataError
from fedgen.runs.folder import RunFolder
from fedgen.site.standing import Standing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare(write_study(tmp_path))


@pytest.fixture
def sites(prepared: Prepared, tmp_path: Path) -> SimulatedSites:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    return SimulatedSites(prepared, folder, open_desk(folder).keys.signing.public)


def test_rows_are_cut_without_overlap_and_held_out_rows_are_nobodys(prepared: Prepared) -> None:
    rows = np.concatenate([*prepared.parts, prepared.holdout])
    assert sorted(rows.tolist()) == list(range(120))
    assert [len(prepared.site_table(number)) for number in range(3)] == [len(part) for part in prepared.parts]


def test_the_same_file_gives_the_same_hash_and_the_same_cut(prepared: Prepared, tmp_path: Path) -> None:
    again = prepare(tmp_path / "study.yaml")
    assert again.resolved.study_hash == prepared.resolved.study_hash
    for one, other in zip(prepared.parts, again.parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_site_has_an_identity_of_its_own_that_lasts(sites: SimulatedSites) -> None:
    keys = sites.roster_keys()
    assert len(set(keys.values())) == 3
    assert sites.roster_keys() == keys


def test_a_site_knows_the_others_by_their_keys_and_keeps_what_it_did_in_each_run(
    sites: SimulatedSites,
) -> None:
    first, again, other = (sites._site(number) for number in (0, 0, 1))
    assert first._peers is not None
    assert first._peers() == sites.roster_keys()
    for site in (first, again, other):
        assert site._standing is not None
    first._standing("ab" * 32).keep(Standing(setup=1, round=2, attempt=3))
    assert again._standing("ab" * 32).load() == Standing(setup=1, round=2, attempt=3)
    assert other._standing("ab" * 32).load() == again._standing("cd" * 32).load() == Standing()


def test_a_site_is_made_once(sites: SimulatedSites) -> None:
    assert sites.door(1) is sites.door(1)
    assert sites.door(1) is not sites.door(2)


def test_nothing_is_spent_before_anything_was_asked(sites: SimulatedSites) -> None:
    assert sites.spent() == {"site-01": (), "site-02": (), "site-03": ()}
    assert sites.charged_rounds() == {"site-01": (), "site-02": (), "site-03": ()}


def test_few_ledgers_are_open_at_once_and_all_are_closed(
    sites: SimulatedSites, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "_OPEN_LEDGERS", 1)
    sites.roster_keys()
    for name in ("site-01", "site-02", "site-03"):
        with sites._ledger_of(name)() as ledger:
            assert ledger.head.index == 0
    assert list(sites._ledgers) == ["site-03"]
    sites.close()
    assert list(sites._ledgers) == []
    assert len(entries(tmp_path / "run" / "sites" / "site-01" / "ledger.db")) == 1


def test_a_fault_while_a_ledger_is_lent_gives_it_back(sites: SimulatedSites, tmp_path: Path) -> None:
    sites.roster_keys()
    lend = sites._ledger_of("site-01")
    with pytest.raises(RuntimeError), lend() as first:
        raise RuntimeError
    with lend() as again:
        assert again is first
    sites.close()


def test_two_at_once_on_one_ledger_leave_one_open(sites: SimulatedSites, tmp_path: Path) -> None:
    sites.roster_keys()
    lend = sites._ledger_of("site-01")
    with lend() as first, lend() as second:
        assert first is not second
    with pytest.raises(ValueError, match="closed"):
        _ = first.head
    with lend() as kept:
        assert kept is second
    sites.close()


def test_consent_is_read_again_only_when_its_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "consent.csv"
    write_consent(path, granted=3)
    shared = SharedConsent(path)
    first = shared()
    assert shared() is first
    write_consent(path, granted=2)
    assert shared() is not first
    path.unlink()
    with pytest.raises(DataError):
        shared()
