"""What a report says of sums under distributed trust: who sees what, who was missing, how it was set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedgen.config.distributed import DistributedPlan
from fedgen.privacy.statement import at_most, rounded_up
from fedgen.report.model import Observer, SumRound, Sums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.privacy.plan import Plan
    from fedgen.runs.journal import RoundLine, RunRecord

_MODEL: Final = "the weights after each round; the synthetic rows"
_SUM: Final = "which sites are in a round's sum, and that sum with its noise"
_NETWORK: Final = "the weights, signed and in clear; sizes and times of the sites' sealed answers"
_NONE: Final = "nothing is promised"


def sums_of(study: ResolvedStudy, plan: Plan, record: RunRecord, lines: tuple[RoundLine, ...]) -> Sums | None:
    """Return what a report says of a run's sums, or None where noise does not come in shares.

    Args:
        study: The resolved study.
        plan: Its plan.
        record: The run's run.json, with the statements.
        lines: One for each round that stands.
    """
    if not isinstance(plan, DistributedPlan):
        return None
    return Sums(
        masked=plan.masked,
        sites=len(study.roster),
        observers=_observers(plan, record),
        rounds=tuple(_round(line, study) for line in lines),
        settings=settings_of(plan),
    )


def settings_of(plan: DistributedPlan) -> tuple[tuple[str, str], ...]:
    """Return threshold, noise and grid of a plan, in words."""
    noise, point = plan.point.noise, plan.point
    most = max(plan.most_colluders, 0)
    extra = 100 * (plan.overprovisioning - 1)
    rows = {
        "protocol": "full" if plan.masked else "sum: without masks, a rehearsal",
        "sites in a sum": f"at least {plan.least} of {noise.sites}",
        "threshold": f"{plan.threshold} sites must agree",
        "dropouts": f"{noise.dropouts} may be missing from a sum",
        "colluders": f"{noise.colluders} assumed; {most} withstood",
        "noise of one site": f"1/{noise.sites - noise.dropouts - noise.colluders} of the variance that is charged",
        "noise if nobody is missing": f"{extra:.1f} % more than is charged, by its standard deviation",
        "recovery": plan.recovery.value,
        "grid": f"the clip is 2^{point.grid.bits} steps; rounding adds {100 * point.grid.inflation:.2f} % sensitivity",
        "ring": f"{point.ring} bits, {point.headroom_bits:.1f} of them free at the worst",
    }
    return tuple(rows.items())


def _observers(plan: DistributedPlan, record: RunRecord) -> tuple[Observer, ...]:
    """Return who sees what, with the bounds of the run's own statements."""
    by_helpers = {
        helpers: statement
        for statement in record.privacy
        if isinstance(helpers := statement.get("colluders"), int)
    }
    found = [_observer("who reads the model or the synthetic rows", _MODEL, by_helpers.get(0))]
    found.append(_observer("the coordinator, if no site helps it", _sum(plan), by_helpers.get(0)))
    if 1 in by_helpers:
        own = f"{_MODEL}; its own rows, vector and share of the noise"
        found.append(_observer("one curious site", own, by_helpers[1]))
    for helpers in sorted(set(by_helpers) - {0}):
        if helpers > plan.most_colluders:
            continue  # a curious site is spoken of above; with its help the coordinator could open two sets
        assumed = helpers <= plan.point.noise.colluders
        many = "one site" if helpers == 1 else f"{helpers} sites"
        who = f"the coordinator with the help of {many}, {'as' if assumed else 'more than'} the study assumes"
        sees = f"{_sum(plan)}, less what {'that site' if helpers == 1 else 'these sites'} put in"
        found.append(_observer(who, sees, by_helpers[helpers]))
    return (*found, _observer("the network, and whatever carries messages", _NETWORK, by_helpers.get(0)))


def _sum(plan: DistributedPlan) -> str:
    """Return what the coordinator sees."""
    return _SUM if plan.masked else f"{_SUM}; in this rehearsal each site's noised vector too"


def _observer(who: str, sees: str, statement: Mapping[str, Any] | None) -> Observer:
    """Return one observer with the figures of a statement."""
    bound = None if statement is None else statement.get("epsilon")
    estimate = None if statement is None else statement.get("estimate")
    return Observer(
        who=who,
        sees=sees,
        bound=_NONE if bound is None else at_most(float(bound)),
        estimate="" if estimate is None else f"about {rounded_up(float(estimate['about']))}",
    )


def _round(line: RoundLine, study: ResolvedStudy) -> SumRound:
    """Return one round; a sum of fewer sites than count was never opened."""
    opened = len(line.sites) >= study.quorum
    return SumRound(
        round=line.round,
        attempts=line.attempt,
        survivors=len(line.sites) if opened else 0,
        missing=tuple(entry.name for entry in study.roster if entry.name in line.missing),
    )
