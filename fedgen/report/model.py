"""Everything a report shows, as one frozen value with an exact JSON form.

The report is a pure function of this value. It carries no row of a person, and no ε is put into words here:
the sentences about privacy come ready-made from :mod:`fedgen.privacy.statement`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from fedgen.audit.evaluation import Evaluation  # noqa: TC001 - pydantic reads the field types at run time
from fedgen.errors import Code

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Outcome = Literal["completed", "budget", "quorum", "interrupted"]
TOOK_PART: Final = "took-part"
ABSENT: Final = "absent"
_SILENT: Final = frozenset({ABSENT, Code.LATE.value, Code.DROPPED.value})
_DRAWABLE: Final = 1e300
CELLS: Final = frozenset({TOOK_PART, ABSENT, *(code.value for code in Code)})


def said_no(cell: str) -> bool:
    """Return whether a cell is a site's own no: neither taking part nor silence, for which nobody may be at fault."""
    return cell != TOOK_PART and cell not in _SILENT


@dataclass(frozen=True, slots=True)
class About:
    """What was trained, on what, in whose interest.

    Attributes:
        model: Registered name, such as ``"tabular-vae"``.
        data: The data in a few words, such as ``"RAND Health Insurance Experiment, about 20,000 records at 8
            sites"``.
        unit: What one privacy unit is: ``record``, ``person`` or ``site``.
        trust: Who adds the noise: ``local``, ``distributed`` or ``central``.
        purpose: The declared purpose, or an empty string.
        simulated: Whether the sites were simulated on one machine.
        private: Whether the noise was drawn so that the statements hold.
        why_not: If not private, the reason in one sentence.
    """

    model: str
    data: str
    unit: str
    trust: str
    purpose: str
    simulated: bool
    private: bool
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Promise:
    """A privacy statement, ready-made.

    Attributes:
        sentence: As :mod:`fedgen.privacy.statement` wrote it.
        scope: Whose data it is about.
        proved: True for an upper bound that follows from a proof; False for a measurement.
        assumes: What it rests on, one clause each.
    """

    sentence: str
    scope: str
    proved: bool
    assumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """Figures over rounds, labelled by whose they are.

    Guarantees:
        - A value that is not a number of drawable size (NaN, infinity, 1e300 and more) is left out with its
          round: a run whose loss diverged still gets a report.

    Attributes:
        label: Short name, such as a site's.
        whose: Whose data the figures are about, in words.
        rounds: One-based, ascending.
        values: As many as ``rounds``.
    """

    label: str
    whose: str
    rounds: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless there is one value per round."""
        if len(self.rounds) != len(self.values):
            raise ValueError(
                f"series {self.label!r} has {len(self.values)} values for {len(self.rounds)} rounds"
            )
        kept = [(r, v) for r, v in zip(self.rounds, self.values, strict=True) if abs(v) < _DRAWABLE]
        if len(kept) < len(self.values):
            object.__setattr__(self, "rounds", tuple(r for r, _ in kept))
            object.__setattr__(self, "values", tuple(v for _, v in kept))


@dataclass(frozen=True, slots=True)
class SiteRounds:
    """One site over the rounds of the run.

    Attributes:
        site: Its name in the roster.
        declared_rows: The public size in the roster, or None.
        cells: One per round tried: ``"took-part"``, ``"absent"`` or a code; see :func:`said_no`.
    """

    site: str
    declared_rows: int | None
    cells: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise ``ValueError`` on a cell outside the closed set."""
        if unknown := sorted(set(self.cells) - CELLS):
            raise ValueError(f"participation of {self.site!r} has unknown cells: {', '.join(unknown)}")


@dataclass(frozen=True, slots=True)
class SiteBudget:
    """What one site's data have spent over all studies, and what they may spend; in ready-made words.

    Attributes:
        site: Its name in the roster.
        studies: How many other studies have spent on its data.
        others: What they have spent, as :mod:`fedgen.privacy.statement` wrote it.
        total: What all studies have spent, this one included.
        ceilings: What may be spent.
    """

    site: str
    studies: int
    others: str
    total: str
    ceilings: str


@dataclass(frozen=True, slots=True)
class Observer:
    """Somebody who looks on while sums are taken; in ready-made words.

    Attributes:
        who: Who it is.
        sees: What they come to see.
        bound: What hides one unit from them, as :mod:`fedgen.privacy.statement` wrote it.
        estimate: What the same noise would cost if it were Gaussian; no bound.
    """

    who: str
    sees: str
    bound: str
    estimate: str


@dataclass(frozen=True, slots=True)
class SumRound:
    """One round's sum.

    Attributes:
        round: One-based.
        attempts: How often it was tried; each try is charged.
        survivors: Sites in the sum; zero if the round was lost.
        missing: Names of the others.
    """

    round: int
    attempts: int
    survivors: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sums:
    """How sums were taken under distributed trust.

    Attributes:
        masked: Whether sums were masked; a rehearsal leaves the masks out.
        sites: Sites of the roster.
        observers: Who sees what, and what that can tell.
        rounds: One for each round tried.
        settings: Key and value, in the order to show.
    """

    masked: bool
    sites: int
    observers: tuple[Observer, ...]
    rounds: tuple[SumRound, ...]
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """How many rows a site left out in a round, as the coarse bucket that left the site.

    Attributes:
        site: Its name in the roster.
        round: One-based.
        reason: A consent reason, such as ``"consent-withdrawn"``.
        bucket: As in the site's reply, such as ``"<10"``.
    """

    site: str
    round: int
    reason: str
    bucket: str


@dataclass(frozen=True, slots=True)
class PackShown:
    """A policy pack that decided.

    Attributes:
        law: The law it is for.
        name: Its identifier and version.
        sha256: Of its file, hex.
        signed_off_by: Who took responsibility for it; empty if nobody has.
    """

    law: str
    name: str
    sha256: str
    signed_off_by: str


@dataclass(frozen=True, slots=True)
class ReasonShown:
    """A reason for which rows were left out, and where the law says so.

    Attributes:
        reason: As in an :class:`Exclusion`.
        code: As the site's own evidence has it, such as ``CONSENT_WITHDRAWN``.
        citations: One for each law that knows the reason.
    """

    reason: str
    code: str
    citations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SampleRows:
    """A few synthetic rows, as text.

    Attributes:
        columns: Names.
        rows: Cells as text; an empty string is a missing value.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class SampleImages:
    """A few synthetic images.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: Values of one pixel.
        labels: One per image; empty strings without classes.
        pixels: One per image: base64 of ``height * width * channels`` bytes, 0..255, row by row.
    """

    height: int
    width: int
    channels: int
    labels: tuple[str, ...]
    pixels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the comparison.

    Attributes:
        name: What is measured.
        better: Which direction is better.
    """

    name: str
    better: Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Rival:
    """A row of the comparison: this run, or the same model trained another way.

    Attributes:
        label: Such as ``"this run"`` or ``"pooled, without privacy"``.
        note: What is different, in one clause.
        values: One per measure; None when not measured.
    """

    label: str
    note: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The cost of privacy and of federation, made visible.

    Attributes:
        measures: The columns.
        rivals: The rows.
        basis: Whose rows the figures were computed from, one sentence.
    """

    measures: tuple[Measure, ...]
    rivals: tuple[Rival, ...]
    basis: str

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless every rival has one value per measure."""
        if any(len(rival.values) != len(self.measures) for rival in self.rivals):
            raise ValueError("every row of a comparison needs one value per measure")


@dataclass(frozen=True, slots=True)
class Command:
    """A command a reader can run to check a claim.

    Attributes:
        text: The command line.
        shows: What it shows, in one sentence.
    """

    text: str
    shows: str


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file of the run.

    Attributes:
        path: Relative to the run folder.
        sha256: Hex digest.
    """

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ReportModel:
    """Everything a report shows.

    Guarantees:
        - ``from_json(model.to_json()) == model``.
        - Equal models render to equal bytes.

    Attributes:
        study: Name of the study.
        study_hash: SHA-256 of the resolved study, hex.
        outcome: How the run ended.
        rounds_done: Rounds that were summed and saved.
        rounds_planned: Rounds the study asked for.
        started: ISO time with zone, or an empty string.
        wall_s: Wall seconds of the run.
        about: What was trained, on what.
        promises: Privacy statements, ready-made.
        epsilon: Upper bounds on what was spent, over rounds, one series per data set.
        epsilon_allowed: What the study may spend, for the chart's limit line.
        budgets: What sites' data have spent over all studies, where ledgers or ceilings say so.
        sums: How sums were taken under distributed trust; None under any other.
        participation: One per site of the roster, in roster order.
        exclusions: Buckets of rows left out for want of consent.
        packs: Policy packs that decided.
        reasons: What the reasons of ``exclusions`` rest on, where packs decided.
        loss: Losses over rounds.
        loss_basis: Whose data the losses were computed on, one sentence.
        quality: Scores of the synthetic data, or None if it was not evaluated.
        samples: A few synthetic rows or images.
        comparison: This run beside others.
        configuration: Key and value, in the order to show.
        versions: Software and version.
        artefacts: Files and digests.
        commands: How to verify.
        version: Of this document's form.
    """

    study: str
    study_hash: str
    outcome: Outcome
    rounds_done: int
    rounds_planned: int
    started: str
    wall_s: float
    about: About
    promises: tuple[Promise, ...] = ()
    epsilon: tuple[Series, ...] = ()
    epsilon_allowed: float | None = None
    budgets: tuple[SiteBudget, ...] = ()
    sums: Sums | None = None
    participation: tuple[SiteRounds, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    packs: tuple[PackShown, ...] = ()
    reasons: tuple[ReasonShown, ...] = ()
    loss: tuple[Series, ...] = ()
    loss_basis: str = ""
    quality: Evaluation | None = None
    samples: SampleRows | SampleImages | None = None
    comparison: Comparison | None = None
    configuration: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    commands: tuple[Command, ...] = ()
    version: Literal[1] = field(default=1)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; inverse of ``from_json``."""
        document: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ReportModel:
        """Return the model a JSON document describes; inverse of ``to_json``.

        Raises:
            pydantic.ValidationError: The document has another form.
        """
        return _adapter().validate_python(document)


@cache
def _adapter() -> TypeAdapter[ReportModel]:
    """Return the reader and writer of the JSON form."""
    from pydantic import TypeAdapter

    return TypeAdapter(ReportModel)
