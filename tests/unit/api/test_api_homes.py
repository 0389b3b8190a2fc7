"""Where simulated sites keep keys and ledgers: one cut of one table, one set of keys, ceilings that only sink."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.studies import SCHEMA, people, write_rows, write_study

from fedgen.api.allowance import allowance_of
from fedgen.api.homes import Home, Limits, delta_of, home_of, rules_of
from fedgen.api.prepare import Prepared, prepare
from fedgen.errors import ConfigError, IntegrityError
from fedgen.runs.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

SHARED: dict[str, Any] = {"ledgers": "shared"}


def prepared_in(folder: Path, **sections: Any) -> Prepared:
    return prepare(write_study(folder, **sections))


def test_without_a_folder_of_their_own_the_sites_live_in_the_run_folder(tmp_path: Path) -> None:
    home = home_of(prepared_in(tmp_path), RunFolder(tmp_path / "run"))
    assert (home.root, home.shared) == (tmp_path / "run" / "sites", False)


def test_a_named_folder_is_relative_to_the_study(tmp_path: Path) -> None:
    home = home_of(prepared_in(tmp_path, simulation=SHARED), RunFolder(tmp_path / "run"))
    assert (home.root, home.shared) == (tmp_path / "shared", True)


def test_nothing_is_made_before_it_is_begun(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path, simulation={**SHARED, "ceiling": 5.0})
    home = Home(tmp_path / "shared", shared=True)
    assert home.datasets(prepared) is None
    assert not home.root.exists()
    begun = home.begin(prepared)
    assert home.datasets(prepared) == begun == home.begin(prepared)
    assert len(set(begun.values())) == 3
    for path in (
        home.root / "dataset.json",
        home.root / "ceilings.json",
        home.site("site-01") / "identity.key",
    ):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_a_folder_of_ledgers_is_named_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").write_text("a file")
    for named in ("shared", "shared/deeper", "locked/deeper"):
        if named.startswith("locked"):  # root may write everywhere, so the system's answer is played
            monkeypatch.setattr("fedgen.api.homes.os.access", lambda *_: False)
        prepared = prepared_in(tmp_path, simulation={"ledgers": named})
        with pytest.raises(ConfigError, match="no ledgers can be kept in it") as caught:
            allowance_of(prepared)
        assert caught.value.key == "simulation.ledgers"
        assert caught.value.hint == "name another folder"


def test_what_cannot_be_planned_or_opened_names_the_line_of_the_study(tmp_path: Path) -> None:
    for section, change, key in (
        ("privacy", {"epsilon": 1e9}, "privacy.epsilon"),
        ("data", {"source": "csv:rows.csv"}, "data.source"),
    ):
        with pytest.raises(ConfigError) as caught:
            prepared_in(tmp_path, **{section: change})
        assert caught.value.key == key
        assert re.search(r"study\.yaml:[0-9]+: ", str(caught.value))


def test_a_folder_is_audited_at_the_delta_of_its_ceilings(tmp_path: Path) -> None:
    ceiling = {"epsilon_per_study": 3.0, "epsilon_life": 8.0, "delta": 1e-4}
    prepared = prepared_in(tmp_path, simulation={**SHARED, "ceiling": ceiling})
    home = Home(tmp_path / "shared", shared=True)
    assert delta_of(home.root) is None
    home.begin(prepared)
    assert delta_of(home.root) == 1e-4


def test_an_identity_says_nothing_without_its_salt(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path, simulation=SHARED)
    one = Home(tmp_path / "a", shared=True).begin(prepared)
    other = Home(tmp_path / "b", shared=True).begin(prepared)
    assert not set(one.values()) & set(other.values())


def test_the_same_people_in_another_order_and_with_another_row_are_the_same_data(tmp_path: Path) -> None:
    rows = people()
    home = Home(tmp_path / "home", shared=True)
    begun = home.begin(prepared_in(tmp_path / "a", rows=rows))
    again = prepared_in(tmp_path / "b", rows=[*reversed(rows)])
    assert home.datasets(again) == begun


def test_other_people_are_other_data(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", shared=True)
    home.begin(prepared_in(tmp_path / "a"))
    renamed = [("x" + row[0], *row[1:]) for row in people()]
    with pytest.raises(ConfigError, match="other data at 3 of 3 sites") as caught:
        home.datasets(prepared_in(tmp_path / "b", rows=renamed))
    assert caught.value.key == "simulation.ledgers"
    with pytest.raises(ConfigError, match="begun with 3 sites"):
        home.begin(prepared_in(tmp_path / "c", data={"sites": {"count": 2}}))


def test_where_nobody_is_named_the_rows_themselves_are_the_data(tmp_path: Path) -> None:
    nobody = {key: value for key, value in SCHEMA.items() if key != "subject"}
    home = Home(tmp_path / "home", shared=True)
    begun = home.begin(prepared_in(tmp_path / "a", schema=nobody))
    assert home.datasets(prepared_in(tmp_path / "b", schema=nobody)) == begun
    changed = people()
    changed[0] = (changed[0][0], str((int(changed[0][1]) + 1) % 10), *changed[0][2:])
    with pytest.raises(ConfigError, match="other data at"):
        home.datasets(prepared_in(tmp_path / "c", schema=nobody, rows=changed))


def test_a_run_that_goes_on_with_other_rows_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    prepared = prepared_in(tmp_path)
    home_of(prepared, folder).begin(prepared)
    write_rows(tmp_path / "rows.csv", [("y" + row[0], *row[1:]) for row in people()])
    again = prepare(tmp_path / "study.yaml")
    with pytest.raises(ConfigError, match="other rows") as caught:
        home_of(again, folder).begin(again)
    assert "restore the rows" in str(caught.value.hint)


def test_many_that_begin_at_once_find_one_set_of_keys(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path, simulation=SHARED)
    home, found = Home(tmp_path / "shared", shared=True), []

    def begin() -> None:
        known = home.begin(prepared)
        found.append((tuple(known.values()), tuple(home.key(name).public for name in known)))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"salt": "00", "sites": {}}', "[" * 5000])
def test_a_memory_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    prepared = prepared_in(tmp_path, simulation=SHARED)
    home = Home(tmp_path / "shared", shared=True)
    home.begin(prepared)
    (home.root / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(IntegrityError, match="does not have the form"):
        home.datasets(prepared)


def test_ledgers_without_a_memory_are_not_taken_up(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path, simulation=SHARED)
    home = Home(tmp_path / "shared", shared=True)
    home.site("site-01").mkdir(parents=True)
    home.ledger("site-01").write_bytes(b"")
    with pytest.raises(IntegrityError, match="nothing says of which data"):
        home.begin(prepared)


def test_the_first_ceilings_stay_and_a_later_study_can_only_lower_them(tmp_path: Path) -> None:
    first = {"epsilon_per_study": 2.0, "epsilon_per_year": 3.0, "epsilon_life": 4.0, "delta": 1e-5}
    home = Home(tmp_path / "shared", shared=True)
    home.begin(prepared_in(tmp_path / "a", simulation={**SHARED, "ceiling": first}))
    higher = prepared_in(tmp_path / "b", simulation={**SHARED, "ceiling": 100.0})
    lower = prepared_in(tmp_path / "c", simulation={**SHARED, "ceiling": 2.5}, privacy={"delta": 1e-6})
    silent = prepared_in(tmp_path / "d", simulation=SHARED)
    home.begin(higher)
    home.begin(lower)
    assert home.limits(higher) == home.limits(silent) == Limits.model_validate(first)
    assert home.limits(lower) == Limits(
        epsilon_per_study=2.0, epsilon_per_year=3.0, epsilon_life=2.5, delta=1e-6
    )
    rules = rules_of(lower, home.limits(lower), "site-01")
    assert (rules.epsilon_per_study, rules.epsilon_per_year, rules.epsilon_life) == (2.0, 3.0, 2.5)
    assert rules.delta == 1e-6


def test_a_run_folder_keeps_no_ceilings(tmp_path: Path) -> None:
    prepared = prepared_in(tmp_path, simulation={"ceiling": 3.0})
    home = home_of(prepared, RunFolder(tmp_path / "run"))
    home.begin(prepared)
    assert not (home.root / "ceilings.json").exists()
    assert home.limits(prepared) == Limits(epsilon_life=3.0, delta=1e-5)


@pytest.mark.parametrize(
    ("ceiling", "key"),
    [
        (
            {"epsilon_per_study": 2.0, "epsilon_life": 1.0, "delta": 1e-5},
            "simulation.ceiling.epsilon_per_study",
        ),
        ({"epsilon_per_study": 2.0, "epsilon_life": 3.0}, "simulation.ceiling.delta"),
        ({"epsilon_per_study": 2.0, "epsilon_life": 3.0, "delta": 1e-5, "epsilon_per_yaer": 1}, None),
        (-1.0, "simulation.ceiling"),
        ("much", "simulation.ceiling"),
        (True, "simulation.ceiling"),
    ],
)
def test_a_ceiling_that_is_none_is_named_with_its_key(tmp_path: Path, ceiling: Any, key: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared_in(tmp_path, simulation={"ceiling": ceiling})
    if key is None:
        assert "epsilon_per_year" in str(caught.value.hint)
    else:
        assert caught.value.key == key
