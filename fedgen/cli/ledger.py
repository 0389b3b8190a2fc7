"""``fedgen ledger verify``, ``show`` and ``export``, and ``fedgen audit budget``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import TYPE_CHECKING, Annotated

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, say, table
from fedgen.cli.verbs import Debug, Json  # noqa: TC001 - typer reads them at run time
from fedgen.errors import IntegrityError

if TYPE_CHECKING:
    from fedgen.api.budgets import Audit
    from fedgen.api.ledgers import Checked, Line

LedgerPath = Annotated[str, typer.Argument(metavar="PATH")]  # or a URL


def register_ledger(app: typer.Typer) -> typer.Typer:
    """Add ``ledger`` with its verbs; return it."""
    group = _group("ledger", "Check and read a ledger, offline.")
    group.command("verify", cls=PlainHelp)(ledger_verify)
    group.command("show", cls=PlainHelp)(ledger_show)
    group.command("export", cls=PlainHelp)(ledger_export)
    app.add_typer(group)
    return group


def register_audit(app: typer.Typer) -> typer.Typer:
    """Add ``audit`` with its verbs; return it, so that others can add theirs."""
    group = _group("audit", "Compute budgets again and test what they rest on.")
    group.command("budget", cls=PlainHelp)(audit_budget)
    app.add_typer(group)
    return group


def _group(name: str, does: str) -> typer.Typer:
    """Return an empty group of verbs."""
    group = typer.Typer(name=name, help=does, no_args_is_help=True, rich_markup_mode=None)
    group.callback()(lambda: None)  # so that a group of one verb stays a group
    return group


def ledger_verify(
    path: LedgerPath,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Public key it must be signed with, 64 hex digits.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Checkpoint kept elsewhere, which it must still contain."),
    ] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Check hashes, chain, signatures and checkpoint of a ledger; offline, changes nothing."""
    from fedgen.api.ledgers import verify_ledger
    from fedgen.ledger.address import shown

    checked = verify_ledger(path, key, checkpoint=checkpoint)
    document = {"ok": all(it.ok for it in checked), "ledgers": [it.to_json() for it in checked]}
    emit(document, as_json=json_, text="\n\n".join(_checked(it) for it in checked))
    problems = sum(len(it.report.problems) for it in checked)
    if problems:
        say(f"fedgen: {shown(path)}: {problems} problems")
        raise typer.Exit(IntegrityError.exit_code)


def _checked(it: Checked) -> str:
    """Return what was found in one ledger, in words."""
    report = it.report
    durable = {True: "yes", False: "no, a simulation", None: "unknown"}[report.durable]
    rows = [
        ("ledger", f"{it.name}  {'ok' if it.ok else 'DOES NOT VERIFY'}"),
        ("origin", report.origin or "unknown"),
        ("entries", f"{report.entries:,}, {report.unsettled} reservations not settled"),
        ("durable", durable),
        ("key", f"{report.public_key or 'unknown'}{'' if it.pinned else '  (from the ledger itself)'}"),
        ("root", report.root or "none"),
        ("checkpoint", "none" if it.checkpoint is None else str(it.checkpoint)),
    ]
    rows += [("problem", problem) for problem in report.problems]
    rows += [("warning", warning) for warning in report.warnings]
    return table(rows)


def ledger_show(
    path: LedgerPath,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Show who spent what, when, and for which study."""
    from fedgen.api.ledgers import show_ledger

    lines = show_ledger(path)
    rows: list[tuple[str, ...]] = [
        ("ledger", "entry", "time", "what", "study", "round", "data set", "charged")
    ]
    rows += [_shown(line) for line in lines]
    emit({"entries": [line.to_json() for line in lines]}, as_json=json_, text=table(rows))


def _shown(line: Line) -> tuple[str, ...]:
    """Return one entry as a row."""
    charged = line.note or ""
    if line.event is not None:
        numbers = ", ".join(f"{name} {value:.5g}" for name, value in line.event.items() if name not in _PARTS)
        charged = f"{line.count} x {line.event['kind']} {numbers} per {line.unit}"
        charged += "" if line.settled else ", not settled"
    return (
        line.ledger,
        str(line.index),
        line.time[:19],
        line.entry,
        (line.study_hash or "")[:8],
        "" if not line.round else f"{line.round}.{line.attempt}",
        (line.dataset or "")[:20],
        charged,
    )


_PARTS = {"kind", "parts"}


def ledger_export(
    path: LedgerPath,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new file.")],
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Copy a ledger into a new file, entry for entry, to hand to an auditor."""
    from fedgen.api.ledgers import export_ledger

    entries = export_ledger(path, out)
    emit({"out": str(out), "entries": entries}, as_json=json_, text=f"{out}: {entries:,} entries")


def audit_budget(
    path: LedgerPath,
    delta: Annotated[
        float | None,
        typer.Option(metavar="X", help="Default: that of the study or the ceilings, or 1e-5."),
    ] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Compute every ε again from recorded events, with two accountants, and hold claims against it."""
    from fedgen.api.budgets import contradicted, recompute

    found = recompute(path, delta=delta)
    emit(found.to_json(), as_json=json_, text=_audited(found))
    if not found.ok:
        say(f"fedgen: {contradicted(found, path)}")
        raise typer.Exit(IntegrityError.exit_code)


def _audited(found: Audit) -> str:
    """Return what an audit found, in words."""
    from fedgen.privacy.estimate import BASIS
    from fedgen.privacy.statement import rounded_up

    rows: list[tuple[str, ...]] = [
        ("ledger", "data set", "study", "unit", "rounds", "bound", "by PLD", "by RDP")
    ]
    rows += [
        (
            figure.ledger,
            figure.dataset[:20],
            "all together" if figure.study_hash is None else figure.study_hash[:8],
            figure.unit,
            str(figure.reservations),
            figure.words(),
            rounded_up(figure.pld) if figure.estimate is None else f"({rounded_up(figure.estimate)})",
            rounded_up(figure.rdp),
        )
        for figure in found.figures
    ]
    claims = [
        (
            claim.words(),
            "nothing promised" if claim.claimed is None else "holds" if claim.holds else "CONTRADICTED",
        )
        for claim in found.claims
    ]
    parts = [table(rows)]
    if any(figure.estimate is not None for figure in found.figures):
        parts.append(f"in brackets: what {BASIS} would cost; an estimate, not a bound")
    if claims:
        parts.append(table([("claim about", "verdict"), *claims]))
    parts += [f"  problem: {problem}" for problem in found.problems]
    return "\n\n".join(parts)
