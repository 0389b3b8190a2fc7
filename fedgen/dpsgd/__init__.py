"""Private steps: noise, sampling, and sums of clipped gradients over one flat vector of parameters.

::

    flat = FlatParameters(model)
    engine = make_engine("fused", flat, model, clip=1.0)
    noise = NoiseSource.secure()
    while training:
        batch = rows[poisson_indices(len(rows), q, noise)]
        noise.fill_normal_(flat.gradient, sigma * engine.clip)
        engine.clipped_sum_(flat.gradient, loss, batch)
        flat.vector.add_(flat.gradient, alpha=-rate / expected_batch)

Nothing here counts ε: what a step costs is the accountant's business (:mod:`fedgen.privacy`).
"""

from fedgen.dpsgd.engine import Clipped, Engine, make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex, bounded_rows
from fedgen.dpsgd.sampler import poisson_indices
from fedgen.dpsgd.selftest import check_noise_scale, selftest, sensitivity
from fedgen.dpsgd.stacked import StackedEngine

__all__ = [
    "Clipped",
    "Engine",
    "FlatParameters",
    "NoiseSource",
    "PersonIndex",
    "StackedEngine",
    "bounded_rows",
    "check_noise_scale",
    "make_engine",
    "poisson_indices",
    "selftest",
    "sensitivity",
]
