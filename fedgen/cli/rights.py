"""``fedgen erase``, ``fedgen retention sweep``, ``fedgen retention rollback`` and ``fedgen retention done``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, say, table
from fedgen.cli.verbs import Debug, Json, RunPath  # noqa: TC001 - typer reads them at run time
from fedgen.errors import UsageError

if TYPE_CHECKING:
    from fedgen.api.erase import Erasure
    from fedgen.api.retention import Swept

Store = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="The site's consent store: a file, or postgresql://…."),
]
Runs = Annotated[
    list[Path] | None, typer.Option("--run", metavar="RUN", help="A run folder on this machine; repeatable.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Touch nothing; tell what would be done.")]
Home = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The site's folder of used sets and certificates; default STORE.d."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--secret", metavar="FILE", help="File of the store's secret; default STORE.key."),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("erase", cls=PlainHelp)(erase)
    group = typer.Typer(
        name="retention",
        help="Remove what is past its time, and roll runs back.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(lambda: None)
    group.command("sweep", cls=PlainHelp)(sweep)
    group.command("rollback", cls=PlainHelp)(rollback)
    group.command("done", cls=PlainHelp)(done)
    app.add_typer(group)


def erase(
    subject: Annotated[str | None, typer.Argument(metavar="SUBJECT")] = None,
    store: Store = None,
    run: Runs = None,
    exception: Annotated[
        str | None, typer.Option(metavar="CITE", help="Provision that keeps the records, such as '17(3)(b)'.")
    ] = None,
    dry_run: DryRun = False,  # noqa: FBT002 - a command line flag
    verify: Annotated[
        Path | None, typer.Option(metavar="CERT", help="Check a certificate instead; erases nothing.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --verify: the public key that must have signed.")
    ] = None,
    opening: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="With --verify SUBJECT: shows that it is about this person."),
    ] = None,
    home: Home = None,
    secret: KeyFile = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Erase a person: out of every later round, of models made with them, and of the store; with a certificate."""
    if verify is not None:
        _verify(verify, key, subject, opening, as_json=json_)
        return
    if subject is None or store is None:
        raise UsageError("erase needs SUBJECT and --store", hint="or --verify CERT")
    from fedgen.api.erase import erase as erase_

    done_ = erase_(subject, store, run or (), exception=exception, dry_run=dry_run, home=home, key=secret)
    emit(done_.to_json(), as_json=json_, text=_erased(done_, store))


def _verify(path: Path, key: Path | None, subject: str | None, opening: str | None, *, as_json: bool) -> None:
    """Check a certificate and print what it states."""
    from fedgen.api.certificate import verify_certificate

    body = verify_certificate(path, key=key, subject=subject, opening=opening)
    rows = [
        ("signature", "matches" + ("" if key else "; the key is the certificate's own, see --key")),
        ("erasure", str(body["id"])),
        ("completed", str(body["completed_at"])),
        ("about", "this person" if subject else "a person who holds the opening"),
    ]
    emit({"ok": True, **body}, as_json=as_json, text=table(rows))


_STATES = {
    "done": "done",
    "already": "was done before; nothing was changed",
    "suspended": "waits for the release of a legal hold; the person is out of every round from now on",
    "dry_run": "nothing was touched; this is what would be done",
}


def _erased(it: Erasure, store: str) -> str:
    """Return how an erasure stands, in words."""
    rows = [("erasure", _STATES[it.state])]
    for run in it.runs:
        rows.append(("run", f"{run['run']}: {run['remedy']}, {_meaning(run)}"))
        rows += [("", f"{art['remedy']:<16}  {art['path']}") for art in run["artefacts"]]
        if it.state == "done" and run["remedy"] in {"rollback", "retrain", "withdraw_release"}:
            rows.append(("", f"go on with: fedgen simulate STUDY --out {run['run']} --resume"))
    rows += [
        (
            "elsewhere",
            f"run {span['run'][:16]}… used them from round {span['first_round']} on: tell its coordinator",
        )
        for span in it.elsewhere
    ]
    if it.records:
        rows.append(("records", ", ".join(it.records[:_SHOWN]) + (", …" if len(it.records) > _SHOWN else "")))
    for task, what in zip(it.tasks, it.to_do, strict=True):
        rows += [("to do", what), ("", _to_do(task, store))]
    if it.certificate is not None:
        rows.append(("certificate", str(it.certificate)))
    if it.opening is not None:
        rows.append(("opening", f"{it.opening}  (give it to the person; it is kept nowhere)"))
    return table(rows)


_SHOWN = 20


def _to_do(task: int, store: str) -> str:
    return f"task {task}; then: fedgen retention done {task} --store {store} --method TEXT"


def _meaning(run: dict[str, Any]) -> str:
    """Return what a run needs, from its figures."""
    if run["remedy"] == "none_needed":
        return "nothing has to be undone"
    if run["remedy"] == "unsupported":
        return "nobody can say which rounds are behind it; withdraw it by hand"
    fit = run["rounds_that_fit"]
    start = f"back to round {run['back_to']}" if run["back_to"] else "from the start"
    budget = "" if fit is None else f", the budget allows {fit} more"
    short = " and ends early (exit 5)" if fit is not None and fit < run["rounds_needed"] else ""
    return f"{start}; needs {run['rounds_needed']} rounds{budget}{short}"


def sweep(
    store: Store = None,
    run: Runs = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The instant to ask about, with its offset; default now."),
    ] = None,
    pack: Annotated[
        list[str] | None, typer.Option(metavar="PACK", help="Rule pack for records; default gdpr and ccpa.")
    ] = None,
    dry_run: DryRun = False,  # noqa: FBT002 - a command line flag
    home: Home = None,
    secret: KeyFile = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Find records, models and releases past their time; remove what is fedgen's to remove, list the rest as tasks."""
    from fedgen.api.retention import PACKS
    from fedgen.api.retention import sweep as sweep_

    if store is None and not run:
        raise UsageError("nothing to sweep", hint="give --store, --run, or both")
    swept = sweep_(
        store, run or (), at=_instant(at), dry_run=dry_run, packs=pack or PACKS, home=home, key=secret
    )
    emit(swept.to_json(), as_json=json_, text=_swept(swept, store))


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError("--at is not a time", hint="write 2026-05-04T11:00:00+02:00") from None
    if moment.tzinfo is None:
        raise UsageError("--at has no offset", hint="write 2026-05-04T11:00:00+02:00")
    return moment


def _swept(it: Swept, store: str | None) -> str:
    """Return what a sweep found, in words."""
    rows = [("at", f"{it.at.isoformat()}{'  (dry run: nothing was touched)' if it.dry_run else ''}")]
    for due in it.due:
        task = "" if due.task is None else f"  {_to_do(due.task, str(store))}"
        rows.append(("record", f"{due.record}  {due.code}{task}"))
    rows += [("undecided", f"{count} records, {code}") for code, count in it.undecided.items()]
    rows += [("erasure", f"{name} was carried out, its hold is released") for name in it.finished]
    for run in it.runs:
        rows.append(("run", f"{run.run}: {len(run.due)} past their time, {len(run.removed)} removed"))
        rows += [("", f"removed {gone.path}") for gone in run.removed]
        rows += [("", f"due {path}") for path in run.due if it.dry_run]
        rows += [("", f"kept under a legal hold: {path}") for path in run.held]
        if run.revoked is not None:
            first = run.revoked["first_use"]
            text = (
                f"people whose data may not stay are behind rounds from {first} on: {run.revoked['remedy']}"
            )
            rows.append(("", f"{text}; see fedgen retention rollback {run.run} --before {first}"))
    return table(rows)


def rollback(
    run: RunPath,
    before: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="The first round to undo, as the site that was asked says."),
    ],
    dry_run: DryRun = False,  # noqa: FBT002 - a command line flag
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Roll a run back to its last checkpoint before a round; it goes on from there under a new identity."""
    from fedgen.api.rollback import outlook, roll_back

    seen, removed = (outlook(run, before), []) if dry_run else roll_back(run, before)
    rows = [("run", f"{run}: {seen.remedy}"), ("", seen.words())]
    rows += [("removed", gone.path) for gone in removed]
    document = {**seen.to_json(), "removed": [gone.to_json() for gone in removed], "dry_run": dry_run}
    emit(document, as_json=json_, text=table(rows))
    if removed:
        say(f"go on with: fedgen simulate STUDY --out {run} --resume")


def done(
    task: Annotated[int, typer.Argument(metavar="TASK", min=1)],
    store: Annotated[str, typer.Option("--store", metavar="URL", help="The site's consent store.")],
    method: Annotated[str, typer.Option(metavar="TEXT", help="How it was deleted, and where.")],
    evidence: Annotated[
        str, typer.Option(metavar="TEXT", help="What shows it: a ticket, a log, a count of zero rows.")
    ] = "stated by the operator",
    home: Home = None,
    secret: KeyFile = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Write down that a task of an erasure or a sweep was done; it is written once and never changed."""
    from fedgen.api.rights import open_desk

    with open_desk(store, home=home, key=secret) as desk:
        desk.store.close_task(task, method=method, evidence=evidence)
        left = len(desk.store.tasks(open_only=True))
    emit({"task": task, "open_tasks": left}, as_json=json_, text=f"task {task} is done, {left} are open")
