"""A real site with persons, and as a whole: what it answers, what it is charged, and when it says no."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.federation import Desk, consent_log, make_site, small_rows, small_study

from fedgen.api.bench import new_learner
from fedgen.errors import Code
from fedgen.messages import Joined, Refusal, Trained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.federation import Holder

    from fedgen.site.admit import Admission
    from fedgen.training.learner import Learner

PERSON: dict[str, Any] = {"unit": "person", "rows_per_person": 3}


def _joined(folder: Path, study: dict[str, Any], **parts: Any) -> Holder:
    holder = make_site(folder, Desk(small_study(**study)), **parts)
    assert isinstance(holder.ask(holder.desk.join())[0], Joined)
    return holder


def test_a_site_of_persons_answers_with_a_noised_sum(tmp_path: Path) -> None:
    table = small_rows(40, each=4)
    study = {"persons": 10, "privacy": {**PERSON, "noise_multiplier": 1e3}}
    holder = _joined(tmp_path, study, table=lambda: table)
    reply, values = holder.ask(holder.desk.train())
    assert isinstance(reply, Trained)
    assert float(values.std()) == pytest.approx(1e3, rel=0.25), "211 draws: five sigma are 0.24"
    (charged,) = holder.entries("reserved")
    assert (charged.event.q, charged.event.sigma, charged.count) == (0.5, 1e3, 1)


def test_a_withdrawal_of_a_person_changes_neither_rate_nor_noise_nor_charge(tmp_path: Path) -> None:
    table = small_rows(40, each=2)
    charged = []
    for withdrawn in (0, 8):
        folder = tmp_path / str(withdrawn)
        folder.mkdir()
        log = consent_log(folder / "log.csv", granted=40, withdrawn=withdrawn)
        study = {"persons": 20, "privacy": {**PERSON, "noise_multiplier": 1e3}}
        holder = _joined(folder, study, table=lambda: table, consent=lambda log=log: log)
        reply, values = holder.ask(holder.desk.train())
        assert isinstance(reply, Trained)
        assert float(values.std()) == pytest.approx(1e3, rel=0.25)
        assert reply.excluded == ({"consent-withdrawn": "10-99"} if withdrawn else {})
        (entry,) = holder.entries("reserved")
        charged.append((entry.event, entry.count))
    assert charged[0] == charged[1]


def test_rows_that_do_not_say_whose_they_are_are_refused_unspent(tmp_path: Path) -> None:
    table = small_rows(40, people=False)
    holder = _joined(tmp_path, {"privacy": PERSON}, table=lambda: table)
    reply, _values = holder.ask(holder.desk.train())
    assert isinstance(reply, Refusal)
    assert reply.code is Code.DATA
    assert holder.entries("reserved") == []


@pytest.mark.parametrize("trust", ["local", "central"])
def test_a_whole_site_answers_with_one_update_and_is_charged_one_event(tmp_path: Path, trust: str) -> None:
    study = {
        "privacy": {"unit": "site", "trust": trust, "clip": 0.25, "noise_multiplier": 3.0},
        "training": {"local_steps": 6},
    }
    holder = _joined(tmp_path, study)
    reply, values = holder.ask(holder.desk.train())
    assert isinstance(reply, Trained)
    assert reply.steps == 1
    assert len(values) == new_learner(holder.desk.study).all_parameters
    norm = float(np.linalg.norm(values.astype(np.float64)))
    assert norm <= 0.25 if trust == "central" else norm > 1
    (charged,) = holder.entries("reserved")
    assert (charged.event.q, charged.event.sigma, charged.count) == (1.0, 3.0, 1)


def test_a_site_whose_training_diverges_says_so_and_stays_charged(tmp_path: Path) -> None:
    desk = Desk(small_study(privacy={"unit": "site"}))

    @contextmanager
    def bench(admission: Admission) -> Iterator[Learner]:
        learner = new_learner(admission.study)
        real = learner.add_clear_sum_

        def burst(out: torch.Tensor, *arguments: Any, **more: Any) -> Any:
            step = real(out, *arguments, **more)
            out[0] = torch.nan
            return step

        learner.add_clear_sum_ = burst  # type: ignore[method-assign]
        yield learner

    holder = make_site(tmp_path, desk, bench=bench)
    assert isinstance(holder.ask(desk.join())[0], Joined)
    reply, _values = holder.ask(desk.train())
    assert isinstance(reply, Refusal)
    assert reply.code is Code.NOT_FINITE
    assert len(holder.entries("reserved")) == 1
    assert holder.entries("settled") == []


def test_a_learner_that_does_less_than_charged_sends_nothing_and_stays_charged(tmp_path: Path) -> None:
    desk = Desk(small_study())

    @contextmanager
    def bench(admission: Admission) -> Iterator[Learner]:
        learner = new_learner(admission.study)
        real = learner.add_noised_sum_
        learner.add_noised_sum_ = lambda *a, noise_std, **more: real(*a, noise_std=noise_std / 2, **more)  # type: ignore[method-assign]
        yield learner

    holder = make_site(tmp_path, desk, bench=bench)
    assert isinstance(holder.ask(desk.join())[0], Joined)
    reply, _values = holder.ask(desk.train())
    assert isinstance(reply, Refusal)
    assert reply.code is Code.FAULT
    assert len(holder.entries("reserved")) == 1
