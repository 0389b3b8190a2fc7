"""``audit budget``: every ε computed again from recorded events, and held against what was claimed."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.api.homes import delta_of
from fedgen.api.ledgers import COORDINATOR, is_home, ledgers_in
from fedgen.api.shares import Shares
from fedgen.errors import Code, IntegrityError
from fedgen.ledger.address import shown
from fedgen.ledger.entries import Reserved
from fedgen.ledger.verify import read, verify
from fedgen.privacy.accountant import epsilon, epsilon_rdp
from fedgen.privacy.estimate import gaussian_estimate
from fedgen.privacy.events import PoissonSkellam, merge
from fedgen.privacy.statement import phrase
from fedgen.privacy.units import Relation
from fedgen.runs.folder import open_run
from fedgen.runs.journal import read_run

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from fedgen.ledger.address import Place
    from fedgen.privacy.events import Counts, Event
    from fedgen.runs.journal import RunRecord

TOLERANCE: Final = 1e-3
DELTA: Final = 1e-5
Totals = dict[Any, dict[str, dict["Event", int]]]  # by data set and study


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What recorded events cost, by two accountants.

    Attributes:
        ledger: Name of the ledger, see :func:`fedgen.api.ledgers.ledgers_in`.
        dataset: Identity of the data set.
        study_hash: The study, hex; None for all studies together.
        unit: What is protected as a whole: ``record``, ``person`` or ``site``; other units are other figures.
        reservations: How many rounds were charged.
        pld: The bound by privacy loss distributions, infinite if there is none, as for integer noise.
        rdp: The bound by Rényi differential privacy, infinite if there is none.
        delta: At which both hold.
        estimate: With integer noise, what Gaussian noise of its variance would cost by privacy loss distributions: no
            bound, and never compared with one; else None.
    """

    ledger: str
    dataset: str
    study_hash: str | None
    unit: str
    reservations: int
    pld: float
    rdp: float
    delta: float
    estimate: float | None = None

    @property
    def epsilon(self) -> float:
        """The bound: both are proved, so the smaller is."""
        return min(self.pld, self.rdp)

    def words(self) -> str:
        """Return the bound in words."""
        return phrase(self.epsilon, self.delta)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values; null where there is no bound."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure that a run states, beside the one its ledgers support.

    Attributes:
        scope: Whose data it is about.
        claimed: The stated ε, or None where nothing is promised.
        recomputed: What the events recorded in the ledgers cost.
        holds: Whether the claim is not below that by more than a thousandth.
        colluders: Under distributed trust, with how many sites' help the observer looks; None elsewhere.
    """

    scope: str
    claimed: float | None
    recomputed: float
    holds: bool
    colluders: int | None = None

    def words(self) -> str:
        """Return whose data it is about, and who helps the observer."""
        if self.colluders is None:
            return self.scope
        many = {0: "no site helps", 1: "one site is curious"}
        return f"{self.scope}, if {many.get(self.colluders, f'{self.colluders} sites help')}"


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit of budgets found.

    Attributes:
        figures: One for each data set and study, and one for each data set in total.
        claims: The statements of a run; empty for a ledger file, and for a run that goes on or was killed.
        problems: What contradicts the claims or an honest ledger; empty if all is well.
    """

    figures: tuple[Recomputed, ...]
    claims: tuple[Claim, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is contradicted."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "ok": self.ok,
            "figures": [figure.to_json() for figure in self.figures],
            "claims": [{**asdict(claim), "recomputed": _finite(claim.recomputed)} for claim in self.claims],
            "problems": list(self.problems),
        }


def audit_budget(
    path: str | os.PathLike[str], *, delta: float | None = None, relation: Relation | None = None
) -> Audit:
    """Return every ε computed again, if nothing contradicts what was claimed; see :func:`recompute`.

    Raises:
        IntegrityError: A claim is below the recomputed figure by more than a thousandth of it, or a ledger
            contradicts it or itself (code ``ledger``, exit 6).
        ConfigError: There is no ledger.
    """
    found = recompute(path, delta=delta, relation=relation)
    if not found.ok:
        raise contradicted(found, path)
    return found


def contradicted(found: Audit, path: str | os.PathLike[str]) -> IntegrityError:
    """Return the error that names the first thing an audit found, and counts the rest."""
    more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
    return IntegrityError(found.problems[0] + more, code=Code.LEDGER, where=shown(path))


def recompute(
    path: str | os.PathLike[str], *, delta: float | None = None, relation: Relation | None = None
) -> Audit:
    """Return every ε computed again from the events in a ledger, or in those of a folder; never raises for them.

    Guarantees:
        - Per data set, study and unit, and per data set and unit over all studies; every reservation counts, settled
          or not.
        - Believes nothing but the ledgers' events: neither a figure in a file nor a plan.
        - Noise in shares is charged as it stands against the colluders the study assumes. A claim against fewer or
          more is held against the same shares, counted anew; and what a ledger was charged against the study's plan.
        - Opens no network and no file outside the path.

    Args:
        path: A ledger, a run folder, or a folder of ledgers that studies share.
        delta: In (0, 1); without it that of the run's study, or of the ceilings of a folder of ledgers, or 1e-5.
        relation: Which data sets are neighbours; without it that of the run's study, or add-or-remove.

    Raises:
        ConfigError: There is no ledger, or the run's study cannot be read.
        IntegrityError: run.json does not have its form.
    """
    place = Path(path)
    record: RunRecord | None = None
    shares: Shares | None = None
    if place.is_dir() and not is_home(place):
        folder, study = open_run(place)
        delta = study.study.privacy.delta if delta is None else delta
        relation = Relation(study.study.privacy.relation) if relation is None else relation
        record = read_run(folder.record) if folder.record.is_file() else None
        shares = Shares.of(study)
    elif place.is_dir() and delta is None:
        delta = delta_of(place)
    at, between = DELTA if delta is None else delta, relation or Relation.ADD_OR_REMOVE
    figures: list[Recomputed] = []
    problems: list[str] = []
    charged: dict[str, list[Reserved]] = {}
    for name, ledger in ledgers_in(path).items():
        report = verify(ledger)
        problems += [f"the ledger of {name} does not verify: {problem}" for problem in report.problems]
        charged[name] = [] if report.problems else _reserved(ledger)
        problems += _mixed(name, charged[name])
        figures += _figures(name, charged[name], at, between)
    if shares is not None:
        problems += shares.misfits(charged)
    if record is None or record.outcome == "running":  # while it goes on, run.json lags behind the ledgers
        return Audit(tuple(figures), (), tuple(problems))
    claims, false = _claims(record, charged, between, shares)
    false += _summaries(record, charged, at, between)
    return Audit(tuple(figures), claims, (*problems, *false, *_missing(record, charged)))


def _reserved(ledger: Place) -> list[Reserved]:
    """Return everything reserved in a ledger."""
    return [it.entry for it in read(ledger) if isinstance(it.entry, Reserved)]


def _figures(name: str, charged: list[Reserved], delta: float, relation: Relation) -> list[Recomputed]:
    """Return what a ledger's events cost, per data set and study, and per data set in total; each unit apart."""
    groups: dict[tuple[str, str | None, str], list[Reserved]] = defaultdict(list)
    for entry in charged:
        groups[entry.dataset, entry.study_hash, entry.unit].append(entry)
        groups[entry.dataset, None, entry.unit].append(entry)
    figures = []
    in_order = sorted(groups.items(), key=lambda it: (it[0][0], it[0][1] or "~", it[0][2]))
    for (dataset, study, unit), entries in in_order:
        counts = _counts(entries)
        bound = epsilon(counts, delta, relation=relation)
        figures.append(
            Recomputed(
                ledger=name,
                dataset=dataset,
                study_hash=study,
                unit=unit,
                reservations=len(entries),
                pld=bound.epsilon if bound.accountant == "pld" else math.inf,
                rdp=epsilon_rdp(counts, delta, relation=relation).epsilon,
                delta=delta,
                estimate=_estimate(counts, delta, relation),
            )
        )
    return figures


def _estimate(counts: Counts, delta: float, relation: Relation) -> float | None:
    """Return what integer noise would cost if it were Gaussian; None where there is none."""
    if not any(isinstance(event, PoissonSkellam) for event, _ in merge(counts)):
        return None
    return gaussian_estimate(counts, delta, relation=relation).about


def _mixed(name: str, charged: list[Reserved]) -> list[str]:
    """Name data sets that were charged per one unit and per another: what each protects does not add up."""
    units: dict[str, set[str]] = defaultdict(set)
    for entry in charged:
        units[entry.dataset].add(entry.unit)
    return [
        f"the ledger of {name} charged data set {dataset[:8]} per {' and per '.join(sorted(of))}, "
        "and what they cost cannot be added"
        for dataset, of in sorted(units.items())
        if len(of) > 1
    ]


def _counts(entries: Iterable[Reserved]) -> tuple[tuple[Event, int], ...]:
    """Return the events of reservations with their total counts."""
    totals: dict[Event, int] = {}
    for entry in entries:
        totals[entry.event] = totals.get(entry.event, 0) + entry.count
    return tuple(totals.items())


def _claims(
    record: RunRecord, charged: dict[str, list[Reserved]], relation: Relation, shares: Shares | None
) -> tuple[tuple[Claim, ...], list[str]]:
    """Hold each statement of a run against what its sites' ledgers say was done."""
    claims, false = [], []
    for statement in record.privacy:
        scope, claimed = str(statement.get("scope")), statement.get("epsilon")
        delta = statement.get("delta")
        helpers = statement.get("colluders")
        if claimed is None:
            claims.append(Claim(scope, None, 0.0, holds=True))
            continue
        if not (isinstance(claimed, int | float) and isinstance(delta, int | float) and 0 < delta < 1):
            false.append(f"the statement about {scope} has no figures")
            continue
        if helpers is not None and not (shares is not None and shares.counts(helpers)):
            false.append(f"the statement about {scope} names helpers that the study does not have")
            continue
        named = statement.get("relation")
        between = Relation(named) if named in set(Relation) and isinstance(named, str) else relation
        seen = charged if shares is None or not isinstance(helpers, int) else shares.against(helpers, charged)
        cost = _cost(record, seen, scope, float(delta), between)
        private = record.seeds == "os"
        holds = private and claimed >= cost * (1 - TOLERANCE)
        known = helpers if isinstance(helpers, int) else None
        claims.append(Claim(scope, float(claimed), cost, holds=holds, colluders=known))
        if not private:
            false.append(f"the statement about {scope} promises something, but its noise came from a seed")
        elif not holds:
            false.append(
                f"the statement about {scope} claims {phrase(claimed, delta)}, "
                f"the ledger says {phrase(cost, delta)}"
            )
    return tuple(claims), false


def _cost(
    record: RunRecord, charged: dict[str, list[Reserved]], scope: str, delta: float, relation: Relation
) -> float:
    """Return what a study cost the data in a scope: one site's, or the most any site's did.

    Sites hold different records, so the union's figure is the largest of theirs, not their sum.
    """
    costs = [0.0]
    for name, entries in charged.items():
        if name == COORDINATOR or (scope.startswith("site ") and name != scope):
            continue
        per_dataset: dict[str, list[Reserved]] = defaultdict(list)
        for entry in entries:
            if entry.study_hash == record.study_hash:
                per_dataset[entry.dataset].append(entry)
        costs += [epsilon(_counts(it), delta, relation=relation).epsilon for it in per_dataset.values()]
    return max(costs)


def _summaries(
    record: RunRecord, charged: dict[str, list[Reserved]], delta: float, relation: Relation
) -> list[str]:
    """Name sites that spent more than run.json says of them."""
    problems = []
    for site in record.sites:
        cost = _cost(record, charged, f"site {site.name}", delta, relation)
        if site.epsilon is not None and site.epsilon < cost * (1 - TOLERANCE):
            problems.append(
                f"run.json says that site {site.name} spent {phrase(site.epsilon, delta)}, "
                f"the ledger says {phrase(cost, delta)}"
            )
    return problems


def _missing(record: RunRecord, charged: dict[str, list[Reserved]]) -> list[str]:
    """Name rounds that run.json counts and no ledger was charged for."""
    problems = []
    done = {f"site {site.name}": site.rounds for site in record.sites}
    for name, rounds in {COORDINATOR: record.rounds_done, **done}.items():
        if not rounds:
            continue
        if name not in charged:
            problems.append(f"the ledger of {name} is missing, which took part in {rounds} rounds")
            continue
        known = {entry.round for entry in charged[name] if entry.study_hash == record.study_hash}
        if len(known) < rounds:
            problems.append(f"the ledger of {name} was charged for {len(known)} rounds, not for {rounds}")
    return problems


def _finite(value: float) -> float | None:
    """Return a figure as JSON holds it."""
    return value if math.isfinite(value) else None
