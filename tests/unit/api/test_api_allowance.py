"""What a study's data have left: the tightest site is found, and what would fit is true."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.studies import write_study

from fedgen.api import allowance as room
from fedgen.api.allowance import _envelope, _less, allowance_of
from fedgen.api.homes import Home
from fedgen.api.prepare import Prepared, prepare
from fedgen.config.plan import plan_of
from fedgen.errors import ConfigError
from fedgen.ledger.history import history_of
from fedgen.ledger.store import Ledger
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.budget import Spent
from fedgen.privacy.events import Gaussian, PoissonGaussian

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.privacy.events import Event

SHARED = {"ledgers": "home", "ceiling": 3.2}
NAMES = ("site-01", "site-02", "site-03")
STEP = PoissonGaussian(0.1, 2.0)


def charged(folder: Path, counts: dict[str, int], event: Event = STEP, **sections: Any) -> Prepared:
    """Prepare a study, and charge each site's data some events of another one."""
    sections = {"simulation": SHARED, "training": {"rounds": 20}, **sections}
    prepared = prepare(write_study(folder, **sections))
    home = Home(folder / "home", shared=True)
    for name, dataset in home.begin(prepared).items():
        with Ledger.open(
            home.ledger(name), origin=f"fedgen/simulated/{name}", signing_key=home.key(name)
        ) as ledger:
            if counts.get(name):
                ledger.reserve(
                    dataset, "ab" * 32, "cd" * 32, 1, 1, event, counts[name], check=lambda _spent: None
                )
    return prepared


def test_a_study_that_nothing_else_limits_has_no_allowance(tmp_path: Path) -> None:
    assert allowance_of(prepare(write_study(tmp_path))) is None


def test_a_ceiling_alone_is_held_in_advance(tmp_path: Path) -> None:
    fitting = allowance_of(prepare(write_study(tmp_path / "a", simulation={"ceiling": 3.0})))
    assert fitting is not None
    assert fitting.fits
    assert (fitting.rounds_left, fitting.life, fitting.studies) == (3, 0.0, 0)
    with pytest.raises(ValueError, match="fits"):
        fitting.refusal()
    refused = allowance_of(prepare(write_study(tmp_path / "b", simulation={"ceiling": 2.0})))
    assert refused is not None
    assert not refused.fits
    assert refused.refusal().exit_code == 5


def test_reading_makes_nothing(tmp_path: Path) -> None:
    allowance_of(prepare(write_study(tmp_path, simulation=SHARED)))
    assert not (tmp_path / "home").exists()


def test_the_tightest_site_is_the_one_that_has_spent_most(tmp_path: Path) -> None:
    prepared = charged(tmp_path, {"site-01": 10, "site-02": 200, "site-03": 30})
    left = allowance_of(prepared)
    assert left is not None
    assert (left.site, left.studies, left.sites) == ("site-02", 1, 3)
    assert left.life == left.year == epsilon(((STEP, 200),), 1e-5).epsilon
    assert left.study == 0.0


def test_what_would_fit_is_true(tmp_path: Path) -> None:
    prepared = charged(tmp_path, dict.fromkeys(NAMES, 100))
    left = allowance_of(prepared)
    assert left is not None
    assert not left.fits
    assert 0 < left.rounds_left < 20
    plan = plan_of(prepared.resolved)
    event, _each = plan.event_per_round()

    def cost(rounds: int) -> float:
        return epsilon(((STEP, 100), (event, rounds)), 1e-5).epsilon

    assert cost(left.rounds_left) <= 3.2 < cost(left.rounds_left + 1)
    asked = str(left.hint).rsplit(" ", 1)[1]
    mended = prepare(tmp_path / "study.yaml", [f"privacy.epsilon={asked}"])
    again = allowance_of(mended)
    assert again is not None
    assert again.fits


def test_a_study_of_given_noise_is_told_more_noise(tmp_path: Path) -> None:
    prepared = charged(
        tmp_path, dict.fromkeys(NAMES, 100), privacy={"epsilon": None, "noise_multiplier": 1.4}
    )
    left = allowance_of(prepared)
    assert left is not None
    assert "privacy.noise_multiplier" in str(left.hint)
    asked = str(left.hint).rsplit(" ", 1)[1]
    again = allowance_of(prepare(tmp_path / "study.yaml", [f"privacy.noise_multiplier={asked}"]))
    assert again is not None
    assert again.fits


def test_where_nothing_is_left_no_round_fits_and_no_noise_helps(tmp_path: Path) -> None:
    left = allowance_of(charged(tmp_path, {"site-03": 1}, Gaussian(0.9)))
    assert left is not None
    assert (left.site, left.rounds_left) == ("site-03", 0)
    assert left.hint == "no round fits, and no noise would be enough"


def test_a_seed_has_no_place_in_shared_ledgers(tmp_path: Path) -> None:
    prepared = prepare(write_study(tmp_path, simulation=SHARED, privacy={"insecure_seed": 3}))
    with pytest.raises(ConfigError, match="insecure_seed"):
        allowance_of(prepared)


def test_an_envelope_holds_at_least_what_each_history_does() -> None:
    other = Gaussian(9.0)
    whole = _envelope([Spent(data=((STEP, 3), (other, 1))), Spent(data=((STEP, 5),), year=((STEP, 2),))])
    assert dict(whole.data) == {STEP: 5, other: 1}
    assert dict(whole.year) == {STEP: 2}
    assert whole.study == ()


def test_a_part_is_taken_from_the_whole() -> None:
    assert _less(((STEP, 5), (Gaussian(9.0), 1)), ((STEP, 5),)) == ((Gaussian(9.0), 1),)


def test_a_report_shows_the_few_heaviest_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = charged(tmp_path, {"site-01": 10, "site-02": 200, "site-03": 30})
    monkeypatch.setattr(room, "MAX_SITES", 2)
    rows = room.budgets_of(prepared, Home(tmp_path / "home", shared=True))
    assert [(row.site, row.studies) for row in rows] == [("site-02", 1), ("site-03", 1)]
    assert all(row.others == row.total for row in rows)


def test_a_history_is_read_without_a_key(tmp_path: Path) -> None:
    prepared = charged(tmp_path, {"site-01": 7})
    home = Home(tmp_path / "home", shared=True)
    dataset = (home.datasets(prepared) or {})["site-01"]
    now = datetime.now(UTC)
    found = history_of(home.ledger("site-01"), dataset, "ab" * 32, now=now)
    assert found.spent == Spent(data=((STEP, 7),), study=((STEP, 7),), year=((STEP, 7),))
    assert (found.studies, found.units) == (1, frozenset({"record"}))
    later = history_of(home.ledger("site-01"), dataset, "ab" * 32, now=now + timedelta(days=400))
    assert (later.spent.year, later.spent.data) == ((), ((STEP, 7),))
    assert history_of(home.ledger("site-01"), "another", "ab" * 32, now=now).spent == Spent()


def test_what_would_fit_is_true_where_noise_comes_in_shares(tmp_path: Path) -> None:
    prepared = charged(tmp_path, dict.fromkeys(NAMES, 100), privacy={"trust": "distributed"})
    left = allowance_of(prepared)
    assert left is not None
    assert not left.fits
    plan = plan_of(prepared.resolved)

    def cost(rounds: int) -> float:
        return epsilon(((STEP, 100), (plan.event, rounds)), 1e-5).epsilon

    assert cost(left.rounds_left) <= 3.2 < cost(left.rounds_left + 1)
    asked = str(left.hint).rsplit(" ", 1)[1]
    again = allowance_of(prepare(tmp_path / "study.yaml", [f"privacy.epsilon={asked}"]))
    assert again is not None
    assert again.fits
