"""The only module that writes an ε in words.

A statement says whose it is (scope), what is protected (unit), between which neighbours (relation), against
whom (trust), at which δ, by which accountant, whether it is proved, and what it assumes. Figures are rounded
up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedgen.privacy.accountant import Figure, epsilon
from fedgen.privacy.estimate import Estimate, gaussian_estimate
from fedgen.privacy.units import Relation, Trust, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedgen.privacy.events import Counts, Event, PoissonSkellam
    from fedgen.privacy.plan import PrivacyPlan

SEALED: Final = "noise came from a cryptographic generator seeded by the operating system"
DISJOINT: Final = "sites hold disjoint people, so what one site releases says nothing of another's"
TRUSTED: Final = "the coordinator adds the noise as planned and keeps no clear sum"
UNSEEN: Final = "which records were drawn in which step is known to their site only"
UNSEEN_PERSONS: Final = (
    "which persons were drawn in which step, and which of their records, is known to their site only"
)
ONE_NAME: Final = "each person has one identifier at her site, on every record of hers"
PRESENT: Final = (
    "which sites are on the roster, with what declared size, and which answer in which round, is no secret; what is "
    "hidden is all else that a site's records say, as against a site with none"
)
SHARED: Final = (
    "every site but those named adds its share of the noise, and no sum of fewer than {least} sites is opened"
)
MASKED: Final = (
    "masks hide what one site sends: X25519 or ML-KEM-768 holds, and AES-256, and each site knows the others by their "
    "true keys"
)
REHEARSED: Final = (
    "sums were taken without masks (protocol: sum), as a rehearsal: it shows what the coordinator would see, and "
    "whoever runs it sees more"
)

_AGAINST: Final = {
    Trust.LOCAL: "everyone outside the site, the coordinator included",
    Trust.CENTRAL: "everyone but the coordinator",
}
_CHANGES: Final = {
    Relation.ADD_OR_REMOVE: "adding or removing {unit}",
    Relation.REPLACE_ONE: "replacing {unit} by another",
}
_UNITS: Final = {
    Unit.RECORD: "one record",
    Unit.PERSON: "all records of one person",
    Unit.SITE: "all records of a whole site at once",
}
_OTHERS: Final = {
    Unit.RECORD: "everyone outside the site that holds the record, the coordinator included",
    Unit.PERSON: "everyone outside the site that holds the person's records, the coordinator included",
    Unit.SITE: "everyone outside the site, the coordinator included",
}
_CLEAR: Final = {
    Unit.RECORD: "the coordinator, which sees every site's clear sum",
    Unit.PERSON: "the coordinator, which sees every site's clear sum",
    Unit.SITE: "the coordinator, which sees every site's clear update",
}
_RESTS_ON: Final = {
    Unit.RECORD: (SEALED, UNSEEN),
    Unit.PERSON: (SEALED, UNSEEN_PERSONS, ONE_NAME),
    Unit.SITE: (SEALED, PRESENT),  # every site is in every round: no secret sampling is relied on
}
_ACCOUNTANTS: Final = {"pld": "privacy loss distributions", "rdp": "Rényi differential privacy"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One privacy claim, complete.

    Guarantees:
        - ``sentence()`` names every field that a reader needs, and never understates ε.
        - A claim without a figure says that nothing is promised; it never shows a number.

    Attributes:
        unit: What is protected as a whole.
        relation: Which data sets are neighbours.
        trust: Who added the noise.
        scope: Whose data it is about: ``"site NAME"``, ``"union"`` or ``"coordinator"``.
        against: Who is kept from knowing.
        epsilon: The bound, or None where nothing is promised.
        delta: The δ at which it holds.
        accountant: ``"pld"``, ``"rdp"``, or ``"none"``.
        proved: The bound is proved and its assumptions are the ones listed.
        assumes: What must hold, in words.
        estimate: Where the bound is for integer noise, what Gaussian noise of its variance would cost: no bound.
        colluders: Where noise comes in shares, how many sites' shares the observer knows; None elsewhere.
    """

    unit: Unit
    relation: Relation
    trust: Trust
    scope: str
    against: str
    epsilon: float | None
    delta: float
    accountant: str
    proved: bool
    assumes: tuple[str, ...]
    estimate: Estimate | None = None
    colluders: int | None = None

    def sentence(self) -> str:
        """Return the claim as one English sentence."""
        change = _CHANGES[self.relation].format(unit=_UNITS[self.unit])
        if self.epsilon is None:
            return f"{_capital(self.scope)}: nothing is promised against {self.against}."
        proof = "proved with" if self.proved else "not proved; computed with"
        return (
            f"{_capital(self.scope)}: against {self.against}, {change} is hidden up to "
            f"{phrase(self.epsilon, self.delta)} ({proof} {_ACCOUNTANTS[self.accountant]}"
            f"{self._beside()})."
        )

    def _beside(self) -> str:
        """Return what stands beside the bound, and says that it is none."""
        if self.estimate is None:
            return ""
        about = phrase(self.estimate.about, self.estimate.delta)
        return f"; about {about} if it were {self.estimate.basis}: an estimate, not a bound"

    def to_json(self) -> dict[str, Any]:
        """Return the claim as JSON values; an estimate and colluders only where there are."""
        beside: dict[str, Any] = {} if self.estimate is None else {"estimate": _estimated(self.estimate)}
        if self.colluders is not None:
            beside["colluders"] = self.colluders
        return {
            **beside,
            "unit": self.unit.value,
            "relation": self.relation.value,
            "trust": self.trust.value,
            "scope": self.scope,
            "against": self.against,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "proved": self.proved,
            "assumes": list(self.assumes),
            "sentence": self.sentence(),
        }


def state(plan: PrivacyPlan, spent: Mapping[str, Counts], *, private: bool = True) -> tuple[Statement, ...]:
    """Return every claim a run can make about what each site has spent.

    Guarantees:
        - Local trust: one claim per site, and one for the union at the largest of them, which assumes
          disjoint people (parallel composition), unless the unit is the site: sites are disjoint by themselves.
        - Central trust: one claim for the union against everyone but the coordinator, and one that says what
          the coordinator sees. It assumes disjoint people where the unit is the person.
        - Unit ``site``: that a site takes part is not hidden, and each claim says so.
        - ``private=False`` (noise from a seed) promises nothing, whatever was spent.

    Args:
        plan: The plan of the run.
        spent: For each site, every event charged to its rows in this study.
        private: Whether all noise came from the operating system's randomness.

    Raises:
        ValueError: The noise comes in shares: :func:`state_distributed` knows who might have known some.
    """
    if plan.trust is Trust.DISTRIBUTED:
        raise ValueError("noise in shares is stated by state_distributed")
    figures = {
        site: epsilon(counts, plan.delta, relation=plan.relation) for site, counts in sorted(spent.items())
    }
    worst = max(figures.values(), key=lambda figure: figure.epsilon, default=Figure(0.0, plan.delta, "pld"))
    assumes = _RESTS_ON[plan.unit]
    disjoint = () if plan.unit is Unit.SITE else (DISJOINT,)
    if plan.trust is Trust.LOCAL:
        each = [_claim(plan, f"site {site}", figure, assumes, private) for site, figure in figures.items()]
        return (*each, _claim(plan, "union", worst, (*assumes, *disjoint), private))
    if plan.unit is Unit.PERSON:
        assumes = (*assumes, *disjoint)
    return (_claim(plan, "union", worst, (*assumes, TRUSTED), private), _clear(plan))


def _claim(
    plan: PrivacyPlan,
    scope: str,
    figure: Figure,
    assumes: tuple[str, ...],
    private: bool,  # noqa: FBT001 -- file-private, and always named in the signature above
) -> Statement:
    """Return one claim, empty if its noise was not private or there is no bound."""
    bounded = private and math.isfinite(figure.epsilon)
    against = _AGAINST[plan.trust]
    if scope == "union" and plan.trust is Trust.LOCAL:
        against = _OTHERS[plan.unit]
    return Statement(
        unit=plan.unit,
        relation=plan.relation,
        trust=plan.trust,
        scope=scope,
        against=against if bounded else "anyone",
        epsilon=figure.epsilon if bounded else None,
        delta=plan.delta,
        accountant=figure.accountant if bounded else "none",
        proved=bounded,
        assumes=assumes if bounded else (),
    )


@dataclass(frozen=True, slots=True)
class Facing:
    """What is left to hide one unit from somebody who knows some sites' shares of the noise.

    Attributes:
        colluders: How many sites' shares.
        event: What one aggregate then costs.
    """

    colluders: int
    event: PoissonSkellam


class Shared(Protocol):
    """A plan whose noise comes in shares, whatever class holds it."""

    @property
    def unit(self) -> Unit: ...  # noqa: D102 -- see Unit
    @property
    def trust(self) -> Trust: ...  # noqa: D102 -- see Trust
    @property
    def relation(self) -> Relation: ...  # noqa: D102 -- see Relation
    @property
    def delta(self) -> float: ...  # noqa: D102 -- in (0, 1)
    @property
    def event(self) -> PoissonSkellam: ...  # noqa: D102 -- what one aggregate was charged as


def state_distributed(
    plan: Shared,
    spent: Mapping[str, Counts],
    facing: Sequence[Facing],
    *,
    assumed: int,
    withstood: int,
    least: int,
    private: bool = True,
    masked: bool = True,
) -> tuple[Statement, ...]:
    """Return what a run with noise in shares can claim: against the coordinator alone, and with sites that help it.

    Guarantees:
        - Each figure is for the site that was charged most, at the fewest survivors; the bound is Rényi's, an estimate
          stands beside it.
        - One curious site is faced with what is left when its own share is known: the same as one site that helps the
          coordinator. The claim names both, where the protocol withstands a coordinator with the help of one site; a
          site by itself signs and opens nothing twice, so of it alone the claim always holds.
        - More colluders than the study assumes are named as such.
        - ``private=False`` promises nothing, whatever was spent; a sum without masks says so.

    Args:
        plan: The plan of the run.
        spent: For each site, every event charged to its rows in this study.
        facing: Whom it is about.
        assumed: Colluders the study assumes, which is what was charged for.
        withstood: Colluders with whose help the coordinator still cannot open two sets, or less than a sum.
        least: The fewest sites in a sum that is opened.
        private: Whether all noise came from the operating system's randomness.
        masked: Whether sums were masked.

    Raises:
        ValueError: Something was charged that the plan does not do: then nobody knows what others can see of it.
    """
    if any(event != plan.event for counts in spent.values() for event, _ in counts):
        raise ValueError("something was charged that the plan does not do")
    most = max((sum(count for _, count in counts) for counts in spent.values()), default=0)
    disjoint = (DISJOINT,) if plan.unit is Unit.PERSON else ()
    hidden = MASKED if masked else REHEARSED
    assumes = (*_RESTS_ON[plan.unit], *disjoint, SHARED.format(least=least), hidden)
    helped = withstood >= 1
    return tuple(_faced(plan, one, most, assumes, assumed, private, helped) for one in facing)


def _faced(
    plan: Shared,
    facing: Facing,
    aggregates: int,
    assumes: tuple[str, ...],
    assumed: int,
    private: bool,  # noqa: FBT001 -- file-private, and always named in the signature above
    helped: bool,  # noqa: FBT001 -- likewise: whether the protocol withstands a coordinator with one site's help
) -> Statement:
    """Return the claim against one observer, empty if its noise was not private or there is no bound."""
    work: tuple[tuple[Event, int], ...] = ((facing.event, aggregates),) if aggregates else ()
    figure = epsilon(work, plan.delta, relation=plan.relation)
    bounded = private and math.isfinite(figure.epsilon)
    return Statement(
        unit=plan.unit,
        relation=plan.relation,
        trust=plan.trust,
        scope="union",
        against=_observer(facing.colluders, assumed, plan.unit, helped=helped) if bounded else "anyone",
        epsilon=figure.epsilon if bounded else None,
        delta=plan.delta,
        accountant=figure.accountant if bounded else "none",
        proved=bounded,
        assumes=assumes if bounded else (),
        estimate=gaussian_estimate(work, plan.delta, relation=plan.relation) if bounded and work else None,
        colluders=facing.colluders,
    )


def _observer(colluders: int, assumed: int, unit: Unit, *, helped: bool) -> str:
    """Return who knows so many shares of the noise."""
    if colluders == 0:
        return f"{_OTHERS[unit]} if no site helps it"
    if colluders == 1 and not helped:
        return "one curious site that does not help the coordinator"
    if colluders == 1:
        beyond = "" if assumed >= 1 else ", which the study does not assume"
        return f"one curious site, and the coordinator with the help of one site{beyond}"
    beyond = "" if colluders <= assumed else ", more than the study assumes"
    return f"the coordinator with the help of {colluders} sites{beyond}"


def _estimated(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON values."""
    return {"about": estimate.about, "delta": estimate.delta, "basis": estimate.basis, "bound": False}


def _clear(plan: PrivacyPlan) -> Statement:
    """Return the claim about a coordinator that sees clear sums."""
    return Statement(
        unit=plan.unit,
        relation=plan.relation,
        trust=plan.trust,
        scope="coordinator",
        against=_CLEAR[plan.unit],
        epsilon=None,
        delta=plan.delta,
        accountant="none",
        proved=False,
        assumes=(),
    )


def rounded_up(value: float, digits: int = 3) -> str:
    """Return ``value`` with three significant digits, rounded up so that no figure is understated."""
    if not math.isfinite(value):
        return "unbounded"
    return f"{float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(value))):.{digits}g}"


def phrase(epsilon: float, delta: float) -> str:
    """Return a pair of figures in words: ``ε = 2.99 at δ = 1e-05``."""
    return f"ε = {rounded_up(epsilon)} at δ = {delta:g}"


def short_spent(epsilon: float | None, allowed: float | None) -> str:
    """Return a progress line's words: what the most-charged data set has spent at most, of what is allowed."""
    if epsilon is None:
        return "not private"
    spent = f"ε at most {rounded_up(epsilon)}"
    return spent if allowed is None else f"{spent} of {rounded_up(allowed)}"


def exceeded(scope: str, epsilon: float, delta: float) -> str:
    """Return the words for a ceiling that a request would break."""
    return f"this would exceed what the {scope} may spend, {phrase(epsilon, delta)}"


def so_far(study: float, year: float, life: float, delta: float) -> str:
    """Return the words for what a data set has spent: by one study, in 365 days, and in all."""
    parts = (
        f"{rounded_up(study)} by this study",
        f"{rounded_up(year)} in 365 days",
        f"{rounded_up(life)} in all",
    )
    return f"ε at most {', '.join(parts)}, at δ = {delta:g}"


def at_most(epsilon: float) -> str:
    """Return the words for a bound that stands in a table: ``ε at most 2.99``."""
    return f"ε at most {rounded_up(epsilon)}"


def ceilings_in_words(study: float | None, year: float | None, life: float | None, delta: float) -> str:
    """Return the words for what a site lets be spent on its data."""
    limits = ((study, "for one study"), (year, "in 365 days"), (life, "for the life of the data"))
    parts = [f"{limit:g} {what}" for limit, what in limits if limit is not None]
    return f"ε at most {', '.join(parts)}, at δ = {delta:g}" if parts else "no ceiling"


def asking_for(epsilon: float) -> str:
    """Return the key and the figure, rounded down, that a study may still ask for."""
    return f"privacy.epsilon {rounded_down(epsilon)}"


def rounded_down(value: float, digits: int = 2) -> str:
    """Return ``value`` with two significant digits, rounded down: what may still be asked for."""
    return f"{float(Context(prec=digits, rounding=ROUND_FLOOR).create_decimal(repr(value))):.{digits}g}"


def _capital(text: str) -> str:
    """Return ``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]
