"""Distributed DP-SGD end to end, outside a study: learners, the grid, both drivers, the optimizer.

Statistics: the noise in an aggregate is what is left of it after the clear sums are taken off, in units of the standard
deviation that the survivors' shares make. alpha is 1e-6 for each test, seeds are fixed; over 80,000 numbers a variance
that is 5 % off is seen with probability above 1 - 1e-6, which a test computes. The controls leave out one site's share.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.secagg import terms_for
from support.secagg_driven import Fleet, Shelf

from fedgen.config.distributed import DistributedPlan, distributed_plan
from fedgen.config.secagg import SecaggSpec
from fedgen.config.training import OptimizerSpec, PrivacySpec
from fedgen.coordinator.secure_round import Void
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.stream import KeyStream
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import IntegrityError
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.privacy.units import Unit
from fedgen.schema.layout import TableLayout
from fedgen.secagg.server import Aggregate
from fedgen.training.learner import Learner
from fedgen.training.optimizer import LearnerOptimizer

LAYOUT = TableLayout(cardinalities=(10, 3, 2), ordered=(True, False, False), label=2)
SITES, ROWS, RATE, CLIP = 6, 60, 0.25, 0.5
ALPHA, FAULT, NUMBERS = 1e-6, 0.05, 80_000


def learner(unit: Unit = Unit.RECORD, *, width: int = 8) -> Learner:
    model = build("tabular-vae", LAYOUT, ModelOptions(latent=4, hidden=(width,)), seed=1)
    return Learner(model, clip=CLIP, engine="fused", fake_batch=4, unit=unit)


def rows(site: int) -> np.ndarray:
    rng = np.random.default_rng(site)
    first = rng.integers(0, 10, ROWS)
    return np.stack([first, first % 3, first > 4], axis=1).astype(np.uint8)


def plan_for(
    dimension: int, unit: Unit = Unit.RECORD, *, protocol: str = "full", **privacy: Any
) -> DistributedPlan:
    given = {"unit": unit, "trust": "distributed", "delta": 1e-5, "clip": CLIP, **privacy}
    whole = unit is Unit.SITE
    return distributed_plan(
        PrivacySpec.model_validate(given),
        SecaggSpec.model_validate({"dropouts": 1, "colluders": 1, "protocol": protocol}),
        sites=SITES,
        dimension=dimension,
        q=1.0 if whole else RATE,
        rounds=20,
        expected_batch=float(SITES) if whole else RATE * ROWS * SITES,
        largest=1.0 if whole else RATE * ROWS,
    )


class Federation:
    """Sites with learners on their own rows, a coordinator with the weights, and the clear sums for the test to see."""

    def __init__(
        self, plan: DistributedPlan, *, width: int = 8, lr: float = 0.5, noiseless: str = ""
    ) -> None:
        self.plan, self.noiseless = plan, noiseless
        self.learner, self.worker = learner(plan.unit, width=width), learner(plan.unit, width=width)
        self.optimizer = LearnerOptimizer.of(self.learner, OptimizerSpec(name="sgd", lr=lr))
        terms = terms_for(SITES, dimension=plan.point.grid.dimension, threshold=plan.threshold,
                          dropouts=1, colluders=1, ring=plan.point.ring)  # fmt: skip
        self.fleet = Fleet(terms, self.share, masked=plan.masked)
        self.rounds = self.fleet.rounds(Shelf())
        self.clear: dict[str, np.ndarray] = {}
        self.streams = {name: KeyStream.insecure(9, label=name) for name in self.fleet.sites}

    def share(self, name: str, number: int) -> np.ndarray:
        """What a site does: sample, clip, sum, check against the plan, round, add its share of the noise."""
        vector = self.clear[name] = self.contribution(name, number)
        self.plan.check_bounded(self.worker.evidence())
        if name == self.noiseless:
            return self.plan.point.grid.encode(vector, self.streams[name]).astype("<u4")
        return self.plan.point.share(vector, self.streams[name])

    def contribution(self, name: str, number: int) -> np.ndarray:
        site = int(name[-3:])
        noise, generator = NoiseSource.insecure(1000 * number + site), torch.Generator().manual_seed(site)
        start = self.learner.all_values()
        self.worker.load_all_(start)
        out = torch.zeros(self.worker.parameters)
        if self.plan.unit is Unit.SITE:
            local = LearnerOptimizer.of(self.worker, OptimizerSpec(name="sgd", lr=0.05))
            for _ in range(3):
                step = self.worker.add_clear_sum_(
                    out.zero_(), rows(site), rate=RATE, noise=noise, generator=generator
                )
                local.step_(out.div_(max(step.rows, 1)), generator)
            return self.worker.noised_change(start, noise_std=0.0, noise=noise).numpy()
        self.worker.add_noised_sum_(
            out, rows(site), rate=RATE, noise_std=0.0, noise=noise, generator=generator
        )
        return out.numpy()

    def run(self, number: int, attempt: int = 1) -> Aggregate | Void:
        """What the coordinator does: one round, and a step if there is a sum."""
        self.clear = {}
        self.fleet.weights = sha256_hex(self.learner.all_values().numpy().tobytes())
        outcome = self.fleet.run(self.rounds, number, attempt)
        if isinstance(outcome, Aggregate):
            self.step(self.plan.point.grid.decode(outcome.values))
        return outcome

    def step(self, total: np.ndarray) -> None:
        mean = torch.from_numpy((total / self.plan.expected_batch).astype(np.float32))
        if self.plan.unit is Unit.SITE:
            self.learner.load_all_(self.learner.all_values() + mean)
        else:
            self.optimizer.step_(mean, torch.Generator().manual_seed(0))

    def residue(self, outcome: Aggregate) -> np.ndarray:
        """The noise in a sum, in standard deviations of what its survivors' shares make."""
        sum_ = sum(self.clear[name].astype(np.float64) for name in outcome.survivors)
        point = self.plan.point
        std = math.sqrt(len(outcome.survivors) * point.noise.variance) / point.grid.scale
        return (point.grid.decode(outcome.values) - sum_) / std


def scale_p(numbers: np.ndarray) -> float:
    """Two-sided p of a variance of one; the noise is Skellam of variance above 10^8, so normal for this purpose."""
    return float(2 * stats.norm.sf(abs(np.mean(numbers**2) - 1.0) / math.sqrt(2.0 / len(numbers))))


def wide(**more: Any) -> Federation:
    width = 200
    plan = plan_for(learner(width=width).parameters, noise_multiplier=2.0)
    return Federation(plan, width=width, **more)


def noise_of(federation: Federation, *, drop: bool) -> np.ndarray:
    parts, count, number = [], 0, 0
    while count < NUMBERS:
        number += 1
        gone = f"site-{number % SITES:03d}" if drop else ""
        federation.fleet.silent = lambda name, step, gone=gone: step == "mask" and name == gone
        outcome = federation.run(number)
        assert isinstance(outcome, Aggregate)
        assert len(outcome.survivors) == (SITES - 1 if drop else SITES)
        parts.append(federation.residue(outcome))
        count += len(parts[-1])
    return np.concatenate(parts)


def test_the_size_of_these_tests_is_enough_for_what_they_must_see() -> None:
    cut = stats.norm.isf(ALPHA / 2) * math.sqrt(2.0 / NUMBERS)
    for wrong in (1 - FAULT, 1 + FAULT):
        missed = stats.norm.cdf((1 + cut - wrong) / (wrong * math.sqrt(2.0 / NUMBERS)))
        missed -= stats.norm.cdf((1 - cut - wrong) / (wrong * math.sqrt(2.0 / NUMBERS)))
        assert missed < ALPHA


@pytest.mark.parametrize("drop", [False, True])
def test_the_noise_in_an_aggregate_has_the_variance_of_its_survivors_shares(*, drop: bool) -> None:
    federation = wide()
    noise = noise_of(federation, drop=drop)
    assert scale_p(noise) > ALPHA
    assert stats.kstest(noise, "norm").pvalue > ALPHA
    shares = SITES - 1 if drop else SITES
    charged = (SITES - 2) * federation.plan.point.noise.variance
    assert math.isclose(charged, federation.plan.event.variance, rel_tol=1e-12)
    assert np.mean(noise**2) * shares * federation.plan.point.noise.variance > charged * (1 - FAULT)


def test_control_one_site_without_its_share_is_seen() -> None:
    assert scale_p(noise_of(wide(noiseless="site-002"), drop=False)) < ALPHA


def test_the_noise_is_that_of_central_trust_with_the_same_deviation() -> None:
    federation = wide()
    noise = noise_of(federation, drop=False) * federation.plan.noise_std
    central = torch.zeros(len(noise))
    NoiseSource.insecure(4).add_normal_(central, federation.plan.noise_std)
    assert stats.ks_2samp(noise, central.numpy()).pvalue > ALPHA
    assert stats.ks_2samp(noise * 1.05, central.numpy()).pvalue < ALPHA, "the control"


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_with_next_to_no_noise_training_goes_where_clear_sums_lead(protocol: str) -> None:
    plan = plan_for(learner().parameters, protocol=protocol, noise_multiplier=0.01)
    shared, clear = Federation(plan), Federation(plan)
    start = shared.learner.all_values()
    for number in range(1, 6):
        assert isinstance(shared.run(number), Aggregate)
        clear.step(sum(clear.contribution(name, number).astype(np.float64) for name in clear.fleet.sites))
    moved = float((clear.learner.all_values() - start).norm())
    apart = float((shared.learner.all_values() - clear.learner.all_values()).norm())
    assert moved > 0.05
    assert apart < 0.05 * moved
    assert len(shared.fleet.charged) == 5 * SITES


def test_both_protocols_train_to_the_same_bits() -> None:
    found = []
    for protocol in ("full", "sum"):
        federation = Federation(plan_for(learner().parameters, protocol=protocol, epsilon=8.0))
        federation.fleet.silent = lambda name, step: step == "mask" and name == "site-003"
        for number in (1, 2, 3):
            assert isinstance(federation.run(number), Aggregate)
        found.append(federation.learner.all_values().numpy().tobytes())
    assert found[0] == found[1]


def test_too_few_sites_make_no_step_and_another_attempt_is_charged_again() -> None:
    federation = Federation(plan_for(learner().parameters, epsilon=8.0))
    before = federation.learner.all_values()
    federation.fleet.silent = lambda name, step: step == "mask" and name in {"site-000", "site-001"}
    outcome = federation.run(1)
    assert isinstance(outcome, Void)
    assert outcome.again
    assert torch.equal(federation.learner.all_values(), before)
    federation.fleet.silent = lambda _name, _step: False
    assert isinstance(federation.run(1, attempt=2), Aggregate)
    assert not torch.equal(federation.learner.all_values(), before)
    assert sum(name == "site-005" for name, _, _ in federation.fleet.charged) == 2


def test_whole_sites_average_their_bounded_changes() -> None:
    plan = plan_for(learner().all_parameters, Unit.SITE, noise_multiplier=0.01)
    federation = Federation(plan)
    for number in (1, 2):
        before = federation.learner.all_values()
        outcome = federation.run(number)
        assert isinstance(outcome, Aggregate)
        mean = sum(federation.clear.values()) / SITES
        assert all(np.linalg.norm(change.astype(np.float64)) <= CLIP for change in federation.clear.values())
        moved = (federation.learner.all_values() - before).numpy()
        noise = plan.noise_std / SITES * math.sqrt(len(mean))
        assert np.linalg.norm(moved - mean) < 2 * noise + 1e-4 * np.linalg.norm(mean)
        assert np.linalg.norm(mean) > 5 * noise, "the change is seen through the noise"


def test_a_learner_that_did_something_else_gives_nothing() -> None:
    federation = Federation(plan_for(learner().parameters, epsilon=8.0))
    honest = federation.contribution

    def twice(name: str, number: int) -> np.ndarray:
        vector = honest(name, number)
        federation.worker.add_noised_sum_(
            torch.zeros(federation.worker.parameters), rows(0), rate=RATE, noise_std=0.0,
            noise=NoiseSource.insecure(1), generator=torch.Generator(),
        )  # fmt: skip
        return vector

    federation.contribution = twice  # type: ignore[method-assign]
    assert isinstance(federation.run(1), Void)
    assert len(federation.fleet.charged) == SITES, "charged first, then computed"
    with pytest.raises(IntegrityError, match="did not do what the plan charges"):
        federation.share("site-000", 1)
