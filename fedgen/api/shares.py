"""Noise in shares, as ledgers recorded it: what was charged against the assumed colluders, counted anew for others.

A ledger holds one event for an aggregate: the noise that is left when as many sites are missing as the study tolerates
and as many tell their share as it assumes. Every share is alike, so the noise against more or fewer helpers follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of
from fedgen.privacy.events import PoissonSkellam
from fedgen.privacy.units import Trust

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.ledger.entries import Reserved
    from fedgen.privacy.events import Event

_SAME: Final = 1e-9  # relative: a plan may have been calibrated on another machine


@dataclass(frozen=True, slots=True)
class Shares:
    """What a study says about its noise.

    Attributes:
        study_hash: Identity of the study, hex.
        least: The fewest sites in a sum that is opened.
        assumed: Colluders the study assumes.
        event: What its own plan charges for one aggregate.
        most: With the help of more sites than this, its plan says nothing.
    """

    study_hash: str
    least: int
    assumed: int
    event: PoissonSkellam
    most: int

    @classmethod
    def of(cls, study: ResolvedStudy) -> Self | None:
        """Return what a study says, or None where its noise does not come in shares.

        Raises:
            ConfigError: The study cannot be planned.
        """
        if study.study.privacy.trust is not Trust.DISTRIBUTED:
            return None
        plan = plan_of(study)
        if not isinstance(plan, DistributedPlan):
            raise TypeError("distributed trust without a distributed plan")
        most = max(facing.colluders for facing in plan.facing())
        return cls(study.study_hash, plan.least, plan.point.noise.colluders, plan.event, most)

    def counts(self, helpers: object) -> bool:
        """Return whether something can be said of somebody with so many sites' help."""
        return isinstance(helpers, int) and not isinstance(helpers, bool) and 0 <= helpers <= self.most

    def against(self, helpers: int, charged: Mapping[str, list[Reserved]]) -> dict[str, list[Reserved]]:
        """Return ``charged`` with this study's events as somebody sees them who knows so many sites' shares.

        Raises:
            ValueError: So many cannot help.
        """
        if not self.counts(helpers):
            raise ValueError(f"nothing can be said of the help of {helpers} sites, at most of {self.most}")
        part = (self.least - helpers) / (self.least - self.assumed)

        def seen(entry: Reserved) -> Reserved:
            if entry.study_hash != self.study_hash or not isinstance(entry.event, PoissonSkellam):
                return entry
            return replace(entry, event=replace(entry.event, variance=entry.event.variance * part))

        return {name: [seen(entry) for entry in entries] for name, entries in charged.items()}

    def misfits(self, charged: Mapping[str, list[Reserved]]) -> list[str]:
        """Name ledgers in which this study was charged as something else than its plan does."""
        return [
            f"the ledger of {name} charged this study as something else than its plan does"
            for name, entries in charged.items()
            if not all(self._ours(it.event) for it in entries if it.study_hash == self.study_hash)
        ]

    def _ours(self, event: Event) -> bool:
        """Return whether an event is the plan's, up to rounding."""
        return isinstance(event, PoissonSkellam) and all(
            math.isclose(getattr(event, name), getattr(self.event, name), rel_tol=_SAME)
            for name in ("q", "variance", "l2", "l1")
        )
