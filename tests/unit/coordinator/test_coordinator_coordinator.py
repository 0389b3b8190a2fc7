"""The coordinator's own arithmetic: weighing, central noise, averages, and what it writes down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.federation import Desk, small_study
from support.peers import Wires, honest, open_bureau

from fedgen.api.bench import new_learner
from fedgen.config.resolve import resolve
from fedgen.config.study import parse_study
from fedgen.coordinator.coordinator import new_run_id
from fedgen.coordinator.transport import Answer
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code, IntegrityError
from fedgen.events import RoundFinished, StudyFinished, StudyStarted

if TYPE_CHECKING:
    from pathlib import Path

    from support.peers import Ask, Peer

    from fedgen.coordinator.coordinator import Outcome


def _silent(peer: Peer, ask: Ask) -> list[bytes]:
    """Return an update of zeros: what comes out is the coordinator's own doing."""
    return [peer.trained(ask, np.zeros(len(ask.body)))]


def _run(root: Path, desk: Desk, script: Any = None, **parts: Any) -> Outcome:
    scripts = {entry.name.replace("-", "_"): script for entry in desk.study.roster} if script else {}
    peers = honest(desk, **scripts)
    return open_bureau(root, desk, peers, **parts).run(Wires(peers))


def test_in_update_exchange_the_weighted_mean_of_the_changes_is_added(tmp_path: Path) -> None:
    desk = Desk(small_study(sites=3, training={"rounds": 1, "local_steps": 2}))
    peers = honest(desk)
    bureau = open_bureau(tmp_path, desk, peers)
    bureau.coordinator._weights = {"site-01": 10.0, "site-02": 40.0, "site-03": 50.0}
    ended = bureau.run(Wires(peers))
    start = new_learner(desk.study).all_values().numpy()
    assert len(start) == len(ended.progress.weights)
    changes = [np.sin(start * 3 + np.arange(len(start)) + sum(p.name.encode()) + 7) for p in peers]
    mean = 0.1 * changes[0] + 0.4 * changes[1] + 0.5 * changes[2]
    np.testing.assert_allclose(ended.progress.weights.numpy(), start + mean, atol=1e-6)


def test_sites_are_weighed_by_their_declared_size() -> None:
    from support.peers import open_bureau as _open

    desk = Desk(small_study(sites=2, rows=70, training={"local_steps": 2}))
    coordinator = _open_in_memory(_open, desk)
    assert coordinator._weights == {"site-01": 70.0, "site-02": 70.0}
    coordinator = _open_in_memory(_open, Desk(small_study(sites=2, rows=70)))
    assert coordinator._weights == {"site-01": 1.0, "site-02": 1.0}


def _open_in_memory(opener: Any, desk: Desk) -> Any:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return opener(Path(folder), desk, honest(desk)).coordinator


# -- central noise ----------------------------------------------------------------------------------


def _central(root: Path, sigma: float, seed: int, rounds: int = 60) -> np.ndarray:
    """Return the noise of many rounds: with SGD and silent sites every step is noise over the expected batch."""
    desk = Desk(
        small_study(
            sites=2,
            privacy={"trust": "central", "noise_multiplier": sigma, "clip": 0.5},
            training={"rounds": rounds, "sample_rate": 0.5, "optimizer": {"name": "sgd", "lr": 1.0}},
        )
    )
    expected_batch = 0.5 * 80
    seen: list[np.ndarray] = []

    def script(peer: Peer, ask: Ask) -> list[bytes]:
        if peer.name == "site-01":
            seen.append(ask.body.astype(np.float64))
        return _silent(peer, ask)

    ended = _run(root, desk, script, noise=NoiseSource.insecure(seed))
    seen.append(ended.progress.weights.numpy().astype(np.float64))
    return np.diff(np.array(seen), axis=0).ravel() * expected_batch


ALPHA = 1e-6


def _p_value(noise: np.ndarray, std: float) -> float:
    """Return the two-sided chi-square p-value of the hypothesis that these are draws of this scale."""
    statistic = float((noise**2).sum()) / std**2
    return 2 * min(stats.chi2.cdf(statistic, len(noise)), stats.chi2.sf(statistic, len(noise)))


@pytest.mark.statistical
def test_central_noise_has_the_scale_the_plan_charges(tmp_path: Path) -> None:
    """Both errors are 1e-6: 12,660 draws see a scale 6 % off (chi-square test of variance)."""
    noise = _central(tmp_path, sigma=4.0, seed=11)
    assert len(noise) == 60 * 211
    assert _p_value(noise, 4.0 * 0.5) > ALPHA
    assert abs(noise.mean()) < 5 * 2.0 / np.sqrt(len(noise)), "five sigma"
    assert _p_value(noise * 0.94, 2.0) < ALPHA, "the test sees noise that is 6 % too small"


def test_central_noise_is_drawn_once_a_round_whatever_the_number_of_sites(tmp_path: Path) -> None:
    noise = _central(tmp_path / "one", sigma=4.0, seed=3, rounds=2)
    again = _central(tmp_path / "two", sigma=4.0, seed=3, rounds=2)
    other = _central(tmp_path / "three", sigma=4.0, seed=4, rounds=2)
    np.testing.assert_array_equal(noise, again)
    assert not np.allclose(noise, other)


def test_under_local_trust_the_coordinator_adds_nothing(tmp_path: Path) -> None:
    desk = Desk(small_study(training={"rounds": 3, "optimizer": {"name": "sgd", "lr": 1.0}}))
    ended = _run(tmp_path, desk, _silent)
    assert torch.equal(ended.progress.weights, new_learner(desk.study).all_values())


def test_a_site_that_is_missing_lowers_the_expected_batch(tmp_path: Path) -> None:
    desk = Desk(
        small_study(sites=2, training={"rounds": 1, "quorum": 1, "optimizer": {"name": "sgd", "lr": 1.0}})
    )
    ones = lambda peer, ask: [peer.trained(ask, np.ones(len(ask.body)))]  # noqa: E731 - a script
    peers = honest(desk, site_01=ones, site_02=lambda _peer, _ask: [])
    ended = open_bureau(tmp_path, desk, peers).run(Wires(peers))
    moved = new_learner(desk.study).all_values() - ended.progress.weights
    torch.testing.assert_close(moved, torch.full_like(moved, 1 / 20), atol=1e-6, rtol=0)


# -- whole sites and persons ------------------------------------------------------------------------


def _whole_sites(sites: int = 3, trust: str = "local", **sections: Any) -> Desk:
    privacy = {"unit": "site", "trust": trust, "noise_multiplier": 4.0, "clip": 0.5}
    return Desk(small_study(sites=sites, privacy=privacy, **sections))


def _ones(peer: Peer, ask: Ask) -> list[bytes]:
    return [peer.trained(ask, np.full(len(ask.body), 0.01))]


@pytest.mark.parametrize("answering", [1, 2, 3])
def test_whole_sites_weigh_alike_and_the_divisor_is_the_roster(tmp_path: Path, answering: int) -> None:
    desk = _whole_sites(training={"rounds": 1, "quorum": 1, "local_steps": 3})
    scripts = {
        f"site_0{number}": _ones if number <= answering else lambda _peer, _ask: [] for number in (1, 2, 3)
    }
    peers = honest(desk, **scripts)
    bureau = open_bureau(tmp_path, desk, peers)
    assert set(bureau.coordinator._weights.values()) == {1.0}
    ended = bureau.run(Wires(peers))
    moved = ended.progress.weights - new_learner(desk.study).all_values()
    torch.testing.assert_close(moved, torch.full_like(moved, answering * 0.01 / 3), atol=1e-6, rtol=0)


def test_a_sites_size_is_not_in_the_mean_of_whole_sites() -> None:
    desk = Desk(
        resolve(
            parse_study({**small_study(sites=2).study.to_json(), "privacy": _SITE_PRIVACY, "training": _TWO}),
            schema=small_study().data_schema,
            sizes=[10, 1000],
        )
    )
    coordinator = _open_in_memory(open_bureau, desk)
    assert coordinator._weights == {"site-01": 1.0, "site-02": 1.0}
    assert len(set(coordinator._limits.values())) == 1


_SITE_PRIVACY = {"unit": "site", "trust": "local", "noise_multiplier": 4.0, "delta": 1e-5, "clip": 0.5}
_TWO = {"rounds": 2, "sample_rate": 0.5, "local_steps": 2}


@pytest.mark.parametrize(("trust", "reach"), [("local", 0.5 * (1 + 10 * 4.0)), ("central", 0.5)])
def test_no_value_of_a_whole_site_exceeds_its_bound_and_noise(
    tmp_path: Path, trust: str, reach: float
) -> None:
    desk = _whole_sites(trust=trust, training={"rounds": 1, "quorum": 1})
    inside = lambda peer, ask: [peer.trained(ask, np.full(len(ask.body), reach))]  # noqa: E731 - a script
    beyond = lambda peer, ask: [peer.trained(ask, np.full(len(ask.body), reach * 1.001))]  # noqa: E731
    peers = honest(desk, site_01=inside, site_02=beyond, site_03=inside)
    bureau = open_bureau(tmp_path, desk, peers)
    bureau.run(Wires(peers))
    assert bureau.records[0].missing == {"site-02": str(Code.NOT_FINITE)}


@pytest.mark.statistical
def test_central_noise_on_whole_sites_has_the_scale_the_plan_charges(tmp_path: Path) -> None:
    """Both errors are 1e-6, as for gradients: 12,660 draws see a scale 6 % off."""
    desk = _whole_sites(sites=2, trust="central", training={"rounds": 60, "local_steps": 3})
    seen: list[np.ndarray] = []

    def script(peer: Peer, ask: Ask) -> list[bytes]:
        if peer.name == "site-01":
            seen.append(ask.body.astype(np.float64))
        return _silent(peer, ask)

    ended = _run(tmp_path, desk, script, noise=NoiseSource.insecure(11))
    seen.append(ended.progress.weights.numpy().astype(np.float64))
    noise = np.diff(np.array(seen), axis=0).ravel() * 2  # the sum was divided by two sites
    assert len(noise) == 60 * 211
    assert _p_value(noise, 4.0 * 0.5) > ALPHA
    assert _p_value(noise * 0.94, 2.0) < ALPHA, "the test sees noise that is 6 % too small"


def test_under_local_trust_nothing_is_added_to_whole_sites(tmp_path: Path) -> None:
    desk = _whole_sites(training={"rounds": 3, "local_steps": 2})
    ended = _run(tmp_path, desk, _silent)
    assert torch.equal(ended.progress.weights, new_learner(desk.study).all_values())


def test_persons_are_what_sites_weigh_by_and_what_a_sum_is_divided_by(tmp_path: Path) -> None:
    privacy = {"unit": "person"}
    weigh = Desk(small_study(sites=2, rows=70, persons=30, privacy=privacy, training={"local_steps": 2}))
    assert _open_in_memory(open_bureau, weigh)._weights == {"site-01": 30.0, "site-02": 30.0}
    desk = Desk(
        small_study(
            sites=2,
            rows=70,
            persons=30,
            privacy=privacy,
            training={"rounds": 1, "optimizer": {"name": "sgd", "lr": 1.0}},
        )
    )
    ended = _run(tmp_path, desk, lambda peer, ask: [peer.trained(ask, np.ones(len(ask.body)))])
    moved = new_learner(desk.study).all_values() - ended.progress.weights
    torch.testing.assert_close(moved, torch.full_like(moved, 2 / 30), atol=1e-6, rtol=0)


# -- averages, GANs, records ------------------------------------------------------------------------


def test_the_average_warms_up_and_is_what_is_released(tmp_path: Path) -> None:
    desk = Desk(small_study(training={"rounds": 3, "ema": 0.5}))
    seen: list[torch.Tensor] = []
    peers = honest(desk)
    bureau = open_bureau(tmp_path, desk, peers)
    save = bureau.store.save
    bureau.store.save = lambda progress: (seen.append(progress.weights.clone()), save(progress))[1]  # type: ignore[method-assign]
    ended = bureau.run(Wires(peers)).progress
    first, second, third = seen
    average = first
    for done, weights in ((1, second), (2, third)):
        warm = min(0.5, (1 + done) / (10 + done))
        average = average * warm + weights * (1 - warm)
    assert ended.average is not None
    torch.testing.assert_close(ended.average, average)
    assert ended.released is ended.average


def test_without_an_average_the_weights_are_released(tmp_path: Path) -> None:
    ended = _run(tmp_path, Desk(small_study(training={"rounds": 1})))
    assert ended.progress.average is None


def test_of_a_gan_only_the_critic_travels_and_the_generator_learns_here(tmp_path: Path) -> None:
    desk = Desk(small_study(model={"name": "tabular-gan", "generator": [4]}, training={"rounds": 2}))
    learner = new_learner(desk.study)
    sizes = set()

    def script(peer: Peer, ask: Ask) -> list[bytes]:
        sizes.add(len(ask.body))
        return _silent(peer, ask)

    ended = _run(tmp_path, desk, script)
    assert sizes == {learner.parameters}
    assert learner.parameters < learner.all_parameters == len(ended.progress.weights)
    generator = slice(learner.parameters, None)
    assert not torch.equal(ended.progress.weights[generator], learner.all_values()[generator])


def test_every_round_is_written_down_and_announced(tmp_path: Path) -> None:
    desk = Desk(small_study(training={"rounds": 2}, privacy={"noise_multiplier": None, "epsilon": 3.0}))
    peers = honest(desk)
    bureau = open_bureau(tmp_path, desk, peers)
    bureau.run(Wires(peers))
    started, *rounds, finished = bureau.events
    assert started == StudyStarted(
        study="small", study_hash=desk.study.study_hash, sites=2, first_round=1, rounds=2
    )
    assert finished == StudyFinished(outcome="completed", rounds=2)
    assert [(type(event), event.round, event.sites, event.allowed) for event in rounds] == [
        (RoundFinished, 1, 2, 3.0),
        (RoundFinished, 2, 2, 3.0),
    ]
    for record, number in zip(bureau.records, (1, 2), strict=True):
        sent = [len(reply) for peer in peers for reply in peer.sent if len(reply) > 1000]
        assert (record.round, record.attempt, record.sites) == (number, 1, ("site-01", "site-02"))
        assert record.bytes_in == sum(sent) / 2
        assert record.bytes_out > 2 * 4 * 211
        assert record.seconds >= 0


def test_a_step_that_leaves_the_finite_keeps_the_model_before_it(tmp_path: Path) -> None:
    desk = Desk(
        small_study(training={"rounds": 3, "optimizer": {"name": "sgd", "lr": 1e38}}, privacy={"clip": 1e9})
    )
    push = lambda peer, ask: [peer.trained(ask, np.full(len(ask.body), 1e9 * ask.train.round))]  # noqa: E731 - a script
    bureau = open_bureau(tmp_path, desk, peers := honest(desk, site_01=push, site_02=push))
    with pytest.raises(IntegrityError, match="the new weights are not finite") as error:
        bureau.run(Wires(peers))
    assert error.value.code is Code.NOT_FINITE
    assert bureau.store.latest() is None
    assert bureau.records == []


def test_a_transport_that_has_no_answer_is_heard_and_passed_over(tmp_path: Path) -> None:
    class Patchy(Wires):
        def exchange(self, frames: Any, timeout: float, group: str) -> Any:
            for answer in super().exchange(frames, timeout, group):
                lost = answer.node == 1 and group != "join"
                yield Answer(answer.node, None, Code.DROPPED) if lost else answer

    desk = Desk(small_study(sites=3, training={"rounds": 2}))
    bureau = open_bureau(tmp_path, desk, peers := honest(desk))
    assert bureau.run(Patchy(peers)).outcome == "completed"
    assert [record.missing for record in bureau.records] == [{"site-02": "dropped"}] * 2


def test_a_run_has_a_name_nobody_can_guess() -> None:
    names = {new_run_id() for _ in range(50)}
    assert len(names) == 50
    assert all(len(bytes.fromhex(name)) == 32 for name in names)
