"""What a study's data have left: what was spent on them before, what may be spent, and how much of the study fits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fedgen.api.homes import rules_of, shared_home, stated
from fedgen.config.plan import plan_of
from fedgen.errors import BudgetExhausted
from fedgen.ledger.history import History, history_of
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.budget import Ceiling, Request, Scope, Spent, decide, noise_that_fits, rounds_left, weight
from fedgen.privacy.events import PoissonGaussian, PoissonSkellam, merge
from fedgen.privacy.statement import asking_for, at_most, ceilings_in_words, rounded_up, so_far
from fedgen.report.model import SiteBudget
from fedgen.report.site_sections import MAX_SITES
from fedgen.site.account import ceilings_of

if TYPE_CHECKING:
    from fedgen.api.homes import Home
    from fedgen.api.prepare import Prepared
    from fedgen.privacy.events import Counts, Event
    from fedgen.privacy.plan import Plan


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left at the tightest site.

    Attributes:
        site: Its name: the one where least of the study fits; where all of it does, the one that has spent most.
        sites: How many sites share the ledgers.
        studies: How many studies have spent on its data so far.
        study: ε that this very study has spent there already.
        year: ε that all studies have spent there in the last 365 days.
        life: ε that all studies have spent there.
        delta: At which the three hold.
        epsilon_per_study: Ceiling for one study, or None.
        epsilon_per_year: Ceiling for any 365 days, or None.
        epsilon_life: Ceiling for the life of the data, or None.
        rounds: Rounds of the study.
        rounds_left: How many of them fit, with the noise of the study.
        what: The ceiling that the whole study would break, in words; None if it fits.
        hint: What would fit, in words; None if the whole study does.
    """

    site: str
    sites: int
    studies: int
    study: float
    year: float
    life: float
    delta: float
    epsilon_per_study: float | None
    epsilon_per_year: float | None
    epsilon_life: float | None
    rounds: int
    rounds_left: int
    what: str | None = None
    hint: str | None = None

    @property
    def fits(self) -> bool:
        """Whether the whole study fits at every site."""
        return self.what is None

    def spent_words(self) -> str:
        """Return what was spent so far, in words."""
        return so_far(self.study, self.year, self.life, self.delta)

    def ceilings_words(self) -> str:
        """Return the ceilings, in words."""
        return ceilings_in_words(self.epsilon_per_study, self.epsilon_per_year, self.epsilon_life, self.delta)

    def refusal(self) -> BudgetExhausted:
        """Return the error of a study that does not fit.

        Raises:
            ValueError: It fits.
        """
        if self.what is None:
            raise ValueError("the study fits")
        return BudgetExhausted(self.what, where=self.site, hint=self.hint)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "site": self.site,
            "studies_before": self.studies,
            "spent": {"this_study": self.study, "year": self.year, "life": self.life},
            "ceilings": {
                "epsilon_per_study": self.epsilon_per_study,
                "epsilon_per_year": self.epsilon_per_year,
                "epsilon_life": self.epsilon_life,
            },
            "delta": self.delta,
            "rounds": self.rounds,
            "rounds_left": self.rounds_left,
            "fits": self.fits,
            "hint": self.hint,
        }


def allowance_of(prepared: Prepared) -> Allowance | None:
    """Return what is left for a study that has not begun; reads ledgers, makes and changes nothing.

    Edge cases:
        - None where nothing limits the study but itself: it names no folder of ledgers and no ceiling.

    Raises:
        ConfigError: The folder of ledgers is about other data.
        IntegrityError: A ledger cannot be read.
    """
    home = shared_home(prepared)
    limits = stated(prepared) if home is None else home.limits(prepared)
    if home is None and limits is None:
        return None
    before = {} if home is None else histories(prepared, home)
    plan = plan_of(prepared.resolved)
    ceilings = ceilings_of(plan, rules_of(prepared, limits, "any"))
    names = [entry.name for entry in prepared.resolved.roster]
    whole = _request(plan)
    name, refused = _tightest({name: before.get(name, History()) for name in names}, plan, whole, ceilings)
    history = before.get(name, History())
    left = whole.rounds if refused is None else min(rounds_left(history.spent, whole, ceilings), whole.rounds)
    if mixed := history.units - {plan.unit.value}:
        left, hint = 0, f"set privacy.unit to {min(mixed)}: another folder of ledgers gives nothing back"
    elif refused is None:
        hint = None
    else:
        hint = _hint(history.spent, plan, whole, ceilings, left)
    rules = rules_of(prepared, limits, name)
    study, year, life = (_cost(history.spent.under(scope), plan, rules.delta) for scope in _SCOPES)
    return Allowance(
        site=name,
        sites=len(names),
        studies=history.studies,
        study=study,
        year=year,
        life=life,
        delta=rules.delta or plan.delta,
        epsilon_per_study=rules.epsilon_per_study,
        epsilon_per_year=rules.epsilon_per_year,
        epsilon_life=rules.epsilon_life,
        rounds=whole.rounds,
        rounds_left=left,
        what=None if refused is None else refused.what,
        hint=hint,
    )


def histories(prepared: Prepared, home: Home) -> dict[str, History]:
    """Return what was spent on each site's data so far, by all studies and by this one.

    Raises:
        ConfigError: The folder of ledgers is about other data.
        IntegrityError: A ledger cannot be read.
    """
    study, now = prepared.resolved.study_hash, datetime.now(UTC)
    known = home.datasets(prepared) or {}
    return {
        name: history_of(home.ledger(name), dataset, study, now=now)
        for name, dataset in known.items()
        if home.ledger(name).is_file()
    }


def budgets_of(prepared: Prepared, home: Home) -> tuple[SiteBudget, ...]:
    """Return what each site's data have spent over all studies, and may spend, in words; the heaviest few, in order.

    Edge cases:
        - Nothing where the study's own noise came from a seed: no figure would be true of it.
    """
    if prepared.study.privacy.insecure_seed is not None:
        return ()
    plan, limits = plan_of(prepared.resolved), home.limits(prepared)
    found = histories(prepared, home)
    heaviest = sorted(found, key=lambda name: weight(found[name].spent.data, plan.relation), reverse=True)
    rows = []
    for name in sorted(heaviest[:MAX_SITES]):
        rules, spent = rules_of(prepared, limits, name), found[name].spent
        delta = rules.delta or plan.delta
        others = _less(spent.data, spent.study)
        rows.append(
            SiteBudget(
                site=name,
                studies=found[name].studies - bool(spent.study),
                others=at_most(_cost(others, plan, delta)),
                total=at_most(_cost(spent.data, plan, delta)),
                ceilings=ceilings_in_words(
                    rules.epsilon_per_study, rules.epsilon_per_year, rules.epsilon_life, delta
                ),
            )
        )
    return tuple(rows)


def _less(whole: Counts, part: Counts) -> Counts:
    """Return ``whole`` without ``part``, event by event."""
    rest = dict(merge(whole))
    for event, count in merge(part):
        rest[event] -= count
    return tuple((event, count) for event, count in rest.items() if count > 0)


def _request(plan: Plan) -> Request:
    """Return everything a study would do."""
    event, steps = plan.event_per_round()
    return Request(event=event, per_round=steps, rounds=plan.rounds)


def _tightest(
    before: dict[str, History], plan: Plan, request: Request, ceilings: tuple[Ceiling, ...]
) -> tuple[str, BudgetExhausted | None]:
    """Return the site that has spent most, and why the study does not fit there; the heaviest is asked first.

    One question about a history that holds at least as much as every site's answers for all of them.
    """
    for name, history in before.items():
        if history.units - {plan.unit.value}:
            return name, BudgetExhausted(
                f"these data were charged per {' and per '.join(sorted(history.units))} before, and a charge per "
                f"{plan.unit.value} does not add to that"
            )
    by_weight = sorted(before, key=lambda name: weight(before[name].spent.data, plan.relation), reverse=True)
    if _refusal(_envelope([it.spent for it in before.values()]), request, ceilings) is None:
        return by_weight[0], None
    for name in by_weight:
        refused = _refusal(before[name].spent, request, ceilings)
        if refused is not None:
            return name, refused
    return by_weight[0], None


def _refusal(spent: Spent, request: Request, ceilings: tuple[Ceiling, ...]) -> BudgetExhausted | None:
    """Return why a request is refused, or None if it fits."""
    try:
        decide(spent, request, ceilings)
    except BudgetExhausted as error:
        return error
    return None


def _envelope(parts: list[Spent]) -> Spent:
    """Return the smallest history that holds at least what each of ``parts`` does, event by event."""

    def most(scope: Scope) -> Counts:
        totals: dict[Event, int] = {}
        for spent in parts:
            for event, count in merge(spent.under(scope)):
                totals[event] = max(totals.get(event, 0), count)
        return tuple(totals.items())

    return Spent(data=most("data"), study=most("study"), year=most("year"))


def _hint(spent: Spent, plan: Plan, request: Request, ceilings: tuple[Ceiling, ...], left: int) -> str:
    """Return what would fit: fewer rounds with this noise, or all of them with more."""
    some = f"{left} of {request.rounds} rounds would still fit with this noise" if left else "no round fits"
    if spent.study:
        return f"{some}: this very study has spent here before; another run of it needs a name of its own"
    steps = request.per_round * request.rounds
    quieter = None
    if isinstance(request.event, PoissonGaussian | PoissonSkellam):
        quieter = noise_that_fits(spent, request.event, steps, ceilings)
    if quieter is None:
        return f"{some}, and no noise would be enough" if not left else some
    cost = epsilon(((quieter, steps),), plan.delta, relation=plan.relation).epsilon
    asked = asking_for(cost)
    if plan.epsilon_allowed is None:
        asked = f"privacy.noise_multiplier {rounded_up(quieter.sigma)}"
    return f"{some}; all {request.rounds} would with {asked}"


def _cost(counts: Counts, plan: Plan, delta: float | None) -> float:
    """Return what a history costs at the ceilings' δ."""
    return epsilon(counts, delta or plan.delta, relation=plan.relation).epsilon


_SCOPES: Final[tuple[Scope, ...]] = ("study", "year", "data")
