"""From a run folder to the one frozen value a report shows."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.api.bounds import cost_of_rounds
from fedgen.api.sums import sums_of
from fedgen.api.tables import to_images
from fedgen.privacy.units import Unit
from fedgen.report.model import (
    ABSENT,
    TOOK_PART,
    About,
    Artefact,
    Command,
    Comparison,
    Exclusion,
    Measure,
    PackShown,
    Promise,
    ReasonShown,
    ReportModel,
    Rival,
    SampleImages,
    SampleRows,
    Series,
    SiteBudget,
    SiteRounds,
)
from fedgen.runs.journal import read_rounds, standing
from fedgen.runs.rollback import rollbacks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.api.run import Run
    from fedgen.audit.evaluation import Evaluation
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.config.sections import PolicySpec
    from fedgen.privacy.plan import Plan
    from fedgen.runs.journal import RoundLine, RunRecord

SHOWN_ROWS: Final = 12
SHOWN_IMAGES: Final = 40
_POINTS: Final = 24
_DROPPED: Final = "dropped"
_DEPLOYED: Final = "deployed"
_SITE_LEDGER: Final = "ledger.db"
HELDOUT_BASIS: Final = (
    "Computed on held-out rows of the simulation, which no site trained on; they are not covered by any ε."
)


def build_report(
    run: Run,
    record: RunRecord,
    plan: Plan,
    charged: Mapping[str, tuple[int, ...]],
    *,
    quality: Evaluation | None,
    rivals: tuple[Rival, ...],
    shown: np.ndarray | None,
    budgets: tuple[SiteBudget, ...] = (),
) -> ReportModel:
    """Return everything the report of a run shows.

    Args:
        run: The run.
        record: Its run.json.
        plan: Its privacy plan, for the curve of ε.
        charged: For each site, every round its ledger was charged for, attempts that crashed included.
        quality: What the synthetic rows are worth, if they were judged.
        rivals: The same model trained otherwise, if it was.
        shown: Codes of a few synthetic rows or images.
        budgets: What the sites' data have spent over all studies.
    """
    study = run.study
    lines = standing(read_rounds(run.folder.metrics), rollbacks(run.folder))
    return ReportModel(
        study=record.study,
        study_hash=record.study_hash,
        outcome=record.outcome if record.outcome not in {"running", "failed"} else "interrupted",  # type: ignore[arg-type]
        rounds_done=record.rounds_done,
        rounds_planned=record.rounds,
        started=record.started_at.isoformat(timespec="seconds"),
        wall_s=record.wall_s,
        about=_about(study, record),
        promises=_promises(record),
        epsilon=_epsilon(lines, record, plan, charged),
        epsilon_allowed=plan.epsilon_allowed,
        budgets=budgets,
        sums=sums_of(study, plan, record, lines),
        participation=_participation(study, lines),
        exclusions=_exclusions(lines),
        packs=_packs(run),
        reasons=_reasons(run, lines),
        loss=_loss(lines),
        loss_basis=HELDOUT_BASIS,
        quality=quality,
        samples=_samples(run, shown),
        comparison=_comparison(quality, rivals),
        configuration=_configuration(study, plan) + _rolled_back(record),
        versions=tuple(record.versions.items()),
        artefacts=tuple(Artefact(path=item.path, sha256=item.sha256) for item in record.artefacts),
        commands=_commands(run, deployed=record.backend == _DEPLOYED),
    )


def _about(study: ResolvedStudy, record: RunRecord) -> About:
    spec = study.study
    people = f" of {study.total_sampled:,} persons" if spec.privacy.unit is Unit.PERSON else ""
    rows = f"about {study.total_rows:,} records{people} at {len(study.roster)} sites"
    deployed = record.backend == _DEPLOYED
    return About(
        model=spec.model.name,
        # The study names what a simulation reads; deployed, each site reads its own source and tells nobody which.
        data=f"each site's own data, {rows}" if deployed else f"{spec.data.source}, {rows}",
        unit=spec.privacy.unit.value,
        trust=spec.privacy.trust.value,
        purpose=spec.policy.purpose,
        simulated=not deployed,
        private=record.seeds == "os",
        why_not=""
        if record.seeds == "os"
        else "The noise came from insecure_seed, so anybody can take it off.",
    )


def _promises(record: RunRecord) -> tuple[Promise, ...]:
    """Return the statements, the widest first; sites that spent alike share one, with their number as scope."""
    alike: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for statement in record.privacy:
        scope = str(statement["scope"])
        key = (scope if not scope.startswith("site ") else "site", statement["epsilon"], statement["against"])
        alike.setdefault(key, []).append(statement)
    promises = [
        Promise(
            sentence=str(group[0]["sentence"]),
            scope=_scope(group),
            proved=bool(group[0]["proved"]),
            assumes=tuple(str(clause) for clause in group[0]["assumes"]),
        )
        for group in alike.values()
    ]
    return tuple(sorted(promises, key=lambda promise: promise.scope.startswith("site")))


def _scope(group: list[dict[str, Any]]) -> str:
    """Return whose statement it is, and how many more sites have the very same."""
    scope = str(group[0]["scope"])
    return scope if len(group) == 1 else f"{scope}; the same holds at {len(group) - 1} more sites"


def _epsilon(
    lines: tuple[RoundLine, ...], record: RunRecord, plan: Plan, charged: Mapping[str, tuple[int, ...]]
) -> tuple[Series, ...]:
    """Return what each site's data had spent after some rounds: an upper bound, from the site's own ledger.

    A round is charged when it is reserved, whether or not its update ever reached the sum.
    """
    if record.seeds != "os" or not lines:
        return ()
    cost = cost_of_rounds(plan)
    marks = sorted({line.round for line in lines[:: max(1, len(lines) // _POINTS)]} | {lines[-1].round})
    series = []
    for site in record.sites:
        values = tuple(cost(count) for count in _charged_by(charged.get(site.name, ()), marks))
        series.append(
            Series(label=site.name, whose=f"{site.name}'s records", rounds=tuple(marks), values=values)
        )
    return tuple(series)


def _charged_by(rounds: tuple[int, ...], marks: list[int]) -> tuple[int, ...]:
    """Return how many rounds had been charged when each of ``marks`` was done, in ledger order.

    After a rollback rounds come again: whatever was charged before the last charge for a round up to the mark counts,
    and at the last mark everything does.
    """
    if not rounds:
        return (0,) * len(marks)
    lowest_from_here = np.minimum.accumulate(np.asarray(rounds)[::-1])[::-1]
    counts = np.searchsorted(lowest_from_here, marks, side="right")
    counts[-1] = len(rounds)
    return tuple(map(int, counts))


def _rolled_back(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """Return what was undone, in words."""
    return tuple(
        (
            "rolled back",
            (
                f"on {it.at:%Y-%m-%d}, from round {it.done} to {it.back_to} ({it.reason}); "
                "rounds asked again are charged again"
            ),
        )
        for it in record.rollbacks
    )


def _participation(study: ResolvedStudy, lines: tuple[RoundLine, ...]) -> tuple[SiteRounds, ...]:
    return tuple(
        SiteRounds(
            site=entry.name,
            declared_rows=entry.rows,
            cells=tuple(_cell(entry.name, line) for line in lines),
        )
        for entry in study.roster
    )


def _cell(site: str, line: RoundLine) -> str:
    if site in line.sites:
        return TOOK_PART
    code = line.missing.get(site, _DROPPED)
    return ABSENT if code == _DROPPED else code


def _exclusions(lines: tuple[RoundLine, ...]) -> tuple[Exclusion, ...]:
    return tuple(
        Exclusion(site=site, round=line.round, reason=reason, bucket=count)
        for line in lines
        for site, counts in sorted(line.excluded.items())
        for reason, count in sorted(counts.items())
    )


def _packs(run: Run) -> tuple[PackShown, ...]:
    """Return the packs of a run, as they were when it began."""
    policy = run.study.study.policy
    if not policy.packs:
        return ()
    from fedgen.api.replay import packs_of_run

    return tuple(
        PackShown(law, f"{it.pack.id} {it.pack.version}", it.sha256, it.pack.signed_off_by or "")
        for law, it in sorted(packs_of_run(run.path, policy).items())
    )


def _reasons(run: Run, lines: tuple[RoundLine, ...]) -> tuple[ReasonShown, ...]:
    """Return where the laws of the run's packs say what each reason rests on."""
    policy = run.study.study.policy
    if not policy.packs:
        return ()
    from fedgen.api.replay import packs_of_run
    from fedgen.policy.registry import RULES

    packs = packs_of_run(run.path, policy)
    seen = sorted({reason for line in lines for counts in line.excluded.values() for reason in counts})
    shown = []
    for reason in seen:
        code = reason.upper().replace("-", "_")
        on = [RULES[name] for _, it in sorted(packs.items()) for name in it.pack.rules]
        shown.append(
            ReasonShown(reason, code, tuple(dict.fromkeys(r.citation for r in on if str(r.code) == code)))
        )
    return tuple(shown)


def _loss(lines: tuple[RoundLine, ...]) -> tuple[Series, ...]:
    points = [(line.round, line.heldout_loss) for line in lines if line.heldout_loss is not None]
    if not points:
        return ()
    rounds, values = zip(*points, strict=True)
    return (
        Series(label="held-out loss", whose="held-out rows of the simulation", rounds=rounds, values=values),
    )


def _samples(run: Run, shown: np.ndarray | None) -> SampleRows | SampleImages | None:
    if shown is None or not len(shown):
        return None
    schema = run.study.data_schema
    if schema.kind == "image":
        images = to_images(shown[:SHOWN_IMAGES], schema)
        grey = (images.astype(np.uint32) * 255 // max(1, schema.max_value)).astype(np.uint8)
        labels = [""] * len(images)
        if schema.classes:
            labels = [str(schema.classes[int(code)]) for code in shown[:SHOWN_IMAGES, -1]]
        return SampleImages(
            height=schema.height,
            width=schema.width,
            channels=schema.channels,
            labels=tuple(labels),
            pixels=tuple(base64.b64encode(image.tobytes()).decode() for image in grey),
        )
    table = run.decode(shown[:SHOWN_ROWS])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    cells = tuple(tuple(_text(value) for value in row) for row in rows)
    return SampleRows(columns=tuple(table.column_names), rows=cells)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measures_of(quality: Evaluation) -> tuple[tuple[Measure, ...], tuple[float | None, ...]]:
    """Return the figures by which two ways of training are compared."""
    best = None if quality.tstr is None else quality.tstr.best("synthetic")
    real = None if quality.tstr is None else quality.tstr.best("real")
    measures = (
        Measure(name="mean 2-way distance", better="lower"),
        Measure(name="mean 1-way distance", better="lower"),
        Measure(name="train on synthetic, test on real (AUC)", better="higher"),
        Measure(name="train on real, test on real (AUC)", better="higher"),
    )
    return measures, (
        quality.tvd_2way,
        quality.tvd_1way,
        None if best is None else best.macro_auc,
        None if real is None else real.macro_auc,
    )


def _comparison(quality: Evaluation | None, rivals: tuple[Rival, ...]) -> Comparison | None:
    if quality is None or not rivals:
        return None
    measures, values = measures_of(quality)
    this = Rival(label="this run", note="federated and differentially private", values=values)
    return Comparison(measures=measures, rivals=(this, *rivals), basis=HELDOUT_BASIS)


def _configuration(study: ResolvedStudy, plan: Plan) -> tuple[tuple[str, str], ...]:
    spec = study.study
    rows: Mapping[str, object] = {
        "study hash": study.study_hash,
        "model": spec.model.name,
        "sites": len(study.roster),
        "rounds": spec.training.rounds,
        "steps in a round": spec.training.local_steps,
        "exchange": study.exchange,
        "sampling rate q": f"{study.sample_rate:.4g}",
        "noise multiplier σ": f"{plan.sigma:.5g}",
        "clip C": f"{plan.clip:g}",
        "optimizer": f"{spec.training.optimizer.name}, lr {spec.training.optimizer.lr:g}",
        "engine": spec.training.engine,
        "unit": spec.privacy.unit.value,
        "neighbouring relation": spec.privacy.relation.value,
        "trust": spec.privacy.trust.value,
        "purpose": spec.policy.purpose,
        "consent": _ground(spec.policy),
    }
    return tuple((name, str(value)) for name, value in rows.items())


def _ground(policy: PolicySpec) -> str:
    """Return what decides who may be used."""
    if policy.packs:
        return "packs: " + ", ".join(policy.packs)
    return policy.regime if policy.consent else "no consent log"


def _commands(run: Run, *, deployed: bool) -> tuple[Command, ...]:
    """Return what recomputes the page; a deployed site alone holds its ledger, so that it alone can read it."""
    folder = run.path
    ledgers, where = (_SITE_LEDGER, "at a site, in its home: ") if deployed else (str(folder), "")
    policy = run.study.study.policy
    replayed = Command(
        text=f"fedgen policy replay {folder}", shows="every decision on a record again, as it was known then"
    )
    return (
        *((replayed,) if policy.packs else ()),
        Command(
            text=f"fedgen report {folder} --json", shows="every figure of this page as one JSON document"
        ),
        Command(
            text=f"fedgen audit budget {ledgers}",
            shows=f"{where}every ε again, from the ledgers, by two accountants",
        ),
        Command(
            text=f"fedgen ledger verify {ledgers}",
            shows=f"{where}hashes, chain and signatures of every ledger",
        ),
        Command(
            text=f"fedgen check {folder / 'study.yaml'}", shows="the plan, computed again from the study"
        ),
        Command(text=f"fedgen sample {folder} --rows 1000 --out more.parquet", shows="more rows, at no cost"),
    )
