"""The verbs of this version. Each reads its arguments, calls :mod:`fedgen.api`, and prints the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import Progress, emit, say, table
from fedgen.errors import BudgetExhausted, ConfigError, UsageError

if TYPE_CHECKING:
    from fedgen.api.allowance import Allowance
    from fedgen.api.checks import Plan
    from fedgen.api.run import Run

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", hidden=True)]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a key of the study; repeatable.")
]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line, in the order of a first visit."""
    for verb in (init, check, simulate, sample, evaluate, report, doctor):
        app.command(cls=PlainHelp)(verb)


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="CSV or Parquet file; only its header is read."),
    ] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Scaffold a study; from a file, by its header and types only, never its values."""
    from fedgen.api.scaffold import scaffold

    made = scaffold(directory, source)
    text = f"made {', '.join(str(path) for path in made.files)}\n\nto fill in:\n"
    text += "\n".join(f"  - {line}" for line in made.to_do)
    text += f"\n\nthen: fedgen check {directory / 'study.yaml'}"
    emit({"files": [str(path) for path in made.files], "to_do": made.to_do}, as_json=json_, text=text)


def check(
    study: StudyFile,
    set_: Changes = None,
    server: Annotated[
        Path | None,
        typer.Option(
            metavar="HOME", help="A coordinator's home: plan for the sites enrolled there, as train does."
        ),
    ] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Validate a study and print its plan: sites, noise, what may be spent, what still fits, rounds, bytes."""
    from fedgen.api.checks import examine

    plan = examine(study, set_ or (), server=server)
    emit(plan.to_json(), as_json=json_, text="" if json_ else _planned(plan))
    if not json_:
        for warning in plan.warnings:
            say(f"warning: {warning}")
    if plan.allowance is not None and not plan.allowance.fits:
        say(f"fedgen: {plan.allowance.refusal()}")
        raise typer.Exit(BudgetExhausted.exit_code)


def _planned(plan: Plan) -> str:
    """Return the plan of a study, in words."""
    from fedgen.report.words import UNITS

    document = plan.to_json()
    rows: list[tuple[str, ...]] = [
        ("study", f"{document['study']}  {document['study_hash'][:8]}"),
        ("model", f"{document['model']}, {plan.parameters:,} values in an update"),
        ("sites", f"{len(plan.study.roster)}, quorum {plan.study.quorum}"),
        (
            "rounds",
            f"{document['rounds']} of {document['steps_per_round']} steps, exchange {document['exchange']}",
        ),
        ("protects", UNITS[document["unit"]]),
        ("sampling rate", f"{plan.privacy.q:.4g}, expected batch {plan.privacy.expected_batch:.4g}"),
        ("noise", f"multiplier {plan.privacy.sigma:.5g}, clip {plan.privacy.clip:g}"),
        ("traffic", f"about {plan.bytes_per_round / 1e6:.2f} MB to the coordinator in a round"),
        *_shared(plan),
    ]
    people = document["unit"] == "person"
    sites: list[tuple[str, ...]] = [("site", "declared rows", *(["persons"] if people else []))]
    sites += [
        (entry.name, f"{entry.rows:,}", *([f"{entry.sampled:,}"] if people else []))
        for entry in plan.study.roster[:_SHOWN]
    ]
    more = len(plan.study.roster) - _SHOWN
    if more > 0:
        sites.append((f"and {more} more", *([""] * (len(sites[0]) - 1))))
    promises = [statement for statement in plan.statements if not statement.scope.startswith("site ")]
    text = "\n".join(
        [table(rows), "", table(sites), "", *(f"  {statement.sentence()}" for statement in promises)]
    )
    if plan.privacy.trust.value == "local":
        text += "\n  The same holds for each site by itself."
    return text if plan.allowance is None else f"{text}\n\n{_left(plan.allowance)}"


def _shared(plan: Plan) -> list[tuple[str, ...]]:
    """Return how sums are taken under distributed trust, in words; nothing under any other."""
    from fedgen.config.distributed import DistributedPlan

    if plan.traffic is None or not isinstance(plan.privacy, DistributedPlan):
        return []
    from fedgen.api.sums import settings_of

    turn = plan.traffic
    messages = f"{turn.messages} messages" if turn.messages > 1 else "1 message"
    if turn.after_dropout > turn.messages:
        messages += f" ({turn.after_dropout} after a dropout)"
    sends = f"{turn.sent / 1e6:.3f} MB sent, {turn.received / 1e6:.3f} MB received and the weights"
    return [*settings_of(plan.privacy), ("a site's round", f"{messages}, {sends}")]


def _left(allowance: Allowance) -> str:
    """Return what the data have left at the tightest site, in words."""
    every = f"all {allowance.rounds} rounds fit" if allowance.fits else allowance.hint or ""
    count = allowance.studies
    others = f"{count or 'no'} {'study' if count < 2 else 'studies'} before"  # noqa: PLR2004 - grammar
    return table(
        [
            ("tightest site", f"{allowance.site}, of {allowance.sites}"),
            ("spent so far", f"{allowance.spent_words()}; {others}"),
            ("may be spent", allowance.ceilings_words()),
            ("of this study", every),
        ]
    )


_SHOWN = 12


def simulate(
    study: StudyFile,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run folder; default runs/<study>-<hash8>.")
    ] = None,
    set_: Changes = None,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="inprocess, or ray (extra sim).")
    ] = "inprocess",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run of this study.")] = False,  # noqa: FBT002
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Run a study on this machine: real sites and a real coordinator, over Flower."""
    from fedgen.api.simulation import simulate as run_study

    if backend not in {"inprocess", "ray"}:
        raise UsageError(f"no backend named {backend!r}", hint="use inprocess or ray")
    run = run_study(
        study,
        out=out,
        overrides=set_ or (),
        backend="ray" if backend == "ray" else "inprocess",
        resume=resume,
        listener=Progress(),
    )
    show_run(run, as_json=json_)


def show_run(run: Run, *, as_json: bool) -> None:
    """Print where the results are and what was spent."""
    record = run.record
    sentences = [s for s in record.privacy if not str(s["scope"]).startswith("site ")]
    files = [str(run.folder.report)]
    files += [
        str(run.folder.root / item.path) for item in record.artefacts if item.path.startswith("synthetic")
    ]
    text = "\n".join(
        [
            f"  {run.path}",
            *(f"  {statement['sentence']}" for statement in sentences),
            *(f"  {path}" for path in files),
        ]
    )
    emit(record.model_dump(mode="json") | {"path": str(run.path)}, as_json=as_json, text=text)


def sample(
    run: RunPath,
    rows: Annotated[int, typer.Option(metavar="N", min=1, max=100_000_000, help="How many rows or images.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="parquet, csv; npz or png for images.")],
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Draw synthetic rows from a run; post-processing, costs no budget."""
    from fedgen.api.run import load_run
    from fedgen.api.tables import write_rows

    opened = load_run(run)
    write_rows(opened, opened.sample_codes(rows), out)
    emit({"out": str(out), "rows": rows}, as_json=json_, text=f"{rows:,} rows in {out}")


def evaluate(
    real: Annotated[str, typer.Option(metavar="FILE", help="Rows the generator was trained on.")],
    synthetic: Annotated[str, typer.Option(metavar="FILE", help="Rows it wrote.")],
    schema: Annotated[Path, typer.Option(metavar="FILE", help="The schema both must fit.")],
    holdout: Annotated[str | None, typer.Option(metavar="FILE", help="Real rows it never saw.")] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Judge synthetic rows: fidelity, utility, distance to the closest record."""
    from fedgen.api.evaluation import evaluate as judge
    from fedgen.cli.evaluation import as_text

    judged = judge(real=real, synthetic=synthetic, schema=schema, holdout=holdout)
    emit(judged.to_json(), as_json=json_, text=as_text(judged))


def report(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where; default report.html of the run.")
    ] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Write the report of a run again: one self-contained page."""
    import json

    from fedgen.api.run import load_run
    from fedgen.report.model import ReportModel
    from fedgen.report.render import render
    from fedgen.runs.atomic import write_text

    opened = load_run(run)
    source = opened.path / "report.json"
    if not source.exists():
        raise ConfigError(
            "the run has not ended, there is nothing to report", where=run, hint="--resume the run"
        )
    model = ReportModel.from_json(json.loads(source.read_text(encoding="utf-8")))
    target = out or opened.folder.report
    write_text(target, render(model))
    emit(model.to_json() | {"out": str(target)}, as_json=json_, text=str(target))


def doctor(
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="HOME", help="Check a deployed site, a relay's folder or a coordinator instead."
        ),
    ] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Print versions, devices, entropy, clock and disk, for a bug report; or check a home, and what it needs."""
    if home is not None:
        _check_home(home, as_json=json_)
        return
    from fedgen.api.doctor import doctor as examine

    document = examine()
    rows = [
        (f"{part}.{name}", str(value)) for part, values in document.items() for name, value in values.items()
    ]
    emit(document, as_json=json_, text=table(rows, indent=""))


def _check_home(home: Path, *, as_json: bool) -> None:
    """Print what was found in a home, and end with exit 3 where something has to be mended."""
    from fedgen.api.home_doctor import examine_home

    found = examine_home(home.resolve())
    words = {True: "ok", False: "MEND", None: "-"}
    rows = [(words[it.ok], it.check, it.found) for it in found.findings]
    emit(found.to_json(), as_json=as_json, text=table(rows, indent=""))
    if not found.well:
        raise typer.Exit(ConfigError.exit_code)
