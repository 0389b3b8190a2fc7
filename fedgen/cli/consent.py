"""``fedgen consent``: bring events in, write single ones down, say where somebody stands, and answer them."""

from __future__ import annotations

import csv
import sys
import time
from datetime import timedelta
from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, say, table
from fedgen.cli.policy import Store, StoreKey, read_subject
from fedgen.cli.verbs import Debug, Json  # noqa: TC001 - typer reads them at run time
from fedgen.errors import ConfigError, DataError, Refused, UsageError

if TYPE_CHECKING:
    from fedgen.api.consents import Brought, Said, Standing

Subject = Annotated[str, typer.Argument(metavar="SUBJECT")]
At = Annotated[
    str | None, typer.Option(metavar="TIME", help="From when it holds, with its offset; default now.")
]
EventId = Annotated[
    str | None,
    typer.Option(
        "--event-id", metavar="ID", help="What makes it one event however often it is sent; default made up."
    ),
]
Method = Annotated[
    str | None, typer.Option(metavar="TEXT", help="How it was said, such as web-form; no names.")
]
GivenBy = Annotated[
    Literal["subject", "parent", "agent", "controller"], typer.Option("--given-by", help="Who said it.")
]
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add ``consent`` with its verbs."""
    group = typer.Typer(
        name="consent",
        help="Keep what people said, append-only, with two clocks. SUBJECT - reads the name from stdin.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(lambda: None)
    for name, verb in (
        ("import", import_), ("record", record), ("withdraw", withdraw), ("status", status),
        ("export", export),
    ):  # fmt: skip
        group.command(name, cls=PlainHelp)(verb)
    app.add_typer(group)


class Rows:
    """Shows how many rows are behind: one line that is rewritten on a terminal, a line every few seconds in a pipe."""

    def __init__(self, *, every: float = 5.0) -> None:
        self._every, self._terminal = every, sys.stderr.isatty()
        self._started = self._last = time.monotonic()
        self._open = False

    def __call__(self, rows: int) -> None:
        """Tell how many rows are behind."""
        now = time.monotonic()
        line = f"rows  {rows:,}   {now - self._started:.0f} s"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[2K{line}")
            sys.stderr.flush()
            self._open = True
        elif now - self._last >= self._every:
            self._last = now
            say(line)

    def end(self) -> None:
        """Leave the line."""
        if self._open:
            say("")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    store: Store = None,
    kind: Annotated[Literal["events", "profiles", "records"], typer.Option(help="What a row is.")] = "events",
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OURS=THEIRS", help="Our name for a column of the file; repeatable."),
    ] = None,
    strict: Annotated[  # noqa: FBT002 - a command line flag
        bool, typer.Option("--strict", help="Refuse the whole file for one row that is not understood.")
    ] = False,
    settle: Annotated[  # noqa: FBT002 - a command line flag
        bool,
        typer.Option("--settle", help="Every row that is kept out was dealt with: the file counts as clean."),
    ] = False,
    corrects: Annotated[  # noqa: FBT002 - a command line flag
        bool,
        typer.Option("--corrects", help="Of profiles: another birth date corrects the one that is there."),
    ] = False,
    quarantine: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every row that is kept out there: row, column, reason."),
    ] = None,
    store_key: StoreKey = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Bring a file of events, profiles or records in; stopped, the same command goes on; rows kept out exit 3."""
    from fedgen.api.consents import bring_file, mapping_of

    if quarantine is not None and quarantine.exists():
        raise ConfigError("this file is there already", where=quarantine, hint="choose another name")
    shown = Rows()
    try:
        done = bring_file(
            file,
            store,
            kind=kind,
            corrects=corrects,
            key=store_key,
            mapping=mapping_of(map_ or ()),
            strict=strict,
            settle=settle,
            progress=shown,
        )
    finally:
        shown.end()
    if quarantine is not None:
        _write_faults(quarantine, done)
    emit(done.to_json(), as_json=json_, text=_brought(done, kind))
    if done.ambiguous:
        it = "1 identifier stands" if done.ambiguous == 1 else f"{done.ambiguous:,} identifiers stand"
        say(
            f"warning: {it} for two people: all of their records are quarantined (--corrects mends a birth date)"
        )
    if not done.imported.clean:
        kept = done.imported.quarantined
        risk = ", and one may be a withdrawal" if kind == "events" else ""
        say(
            f"fedgen: {file}: {kept:,} {'row is' if kept == 1 else 'rows are'} kept out{risk} "
            "(mend the file and import it again, or deal with each and give --settle)"
        )
        raise typer.Exit(DataError.exit_code)


def _write_faults(path: Path, done: Brought) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("row", "column", "reason"))
        writer.writerows(done.faults)


def _brought(it: Brought, kind: str) -> str:
    """Return what became of a file, in words; no value of it."""
    got = it.imported
    rows: list[tuple[str, ...]] = [
        ("rows", f"{got.rows:,}"),
        ("added", f"{got.added:,}"),
        ("were there", f"{got.repeated:,}"),
        ("of erased people", f"{got.suppressed:,}, nothing of them is kept"),
        ("kept out", f"{got.quarantined:,}"),
    ]
    rows += [("", f"{count:,} x {reason}") for reason, count in it.counts.items()]
    rows += [("", f"row {fault.row}: {fault.column}: {fault.reason}") for fault in it.faults[:_SHOWN]]
    if len(it.faults) > _SHOWN:
        rows.append(("", "… --quarantine FILE writes them all"))
    if kind == "events":
        sync = "yes" if got.clean else "NO: the store grows stale until these rows are dealt with"
        rows.append(("counts as a sync", sync))
    return table([*rows, ("head", f"{it.head.size} {it.head.digest.hex()}")])


def record(
    subject: Subject,
    action: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Of consent: given, renewed, refused, invalidated or expired."),
    ] = None,
    right: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="Of rights: objection, restriction, legal_hold, opt_out_sale_share, gpc, …."
        ),
    ] = None,
    purpose: Annotated[
        str | None, typer.Option(metavar="P", help="Of consent, or of an objection; '*' is every purpose.")
    ] = None,
    explicit: Annotated[bool, typer.Option("--explicit", help="It was explicit consent.")] = False,  # noqa: FBT002 - a command line flag
    given_by: GivenBy = "subject",
    notice: Annotated[
        str | None, typer.Option(metavar="ID@N", help="The notice that was shown, and its version.")
    ] = None,
    valid_until: Annotated[
        str | None,
        typer.Option("--valid-until", metavar="TIME", help="First instant at which a grant is over."),
    ] = None,
    matter: Annotated[str | None, typer.Option(metavar="ID", help="Of a legal hold.")] = None,
    exception: Annotated[
        str | None, typer.Option(metavar="CITE", help="Of an erasure request, such as '17(3)(b)'.")
    ] = None,
    after_conflict_notice: Annotated[  # noqa: FBT002 - a command line flag
        bool, typer.Option("--after-conflict-notice", help="An opt-in followed a notice of the conflict.")
    ] = False,
    at: At = None,
    method: Method = None,
    event_id: EventId = None,
    store: Store = None,
    store_key: StoreKey = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Write one event down: what a person said of consent, or a right they use; the store says when it learned it."""
    from fedgen.api import consents

    if (action is None) == (right is None):
        raise UsageError(
            "record needs --action or --right", hint="such as --action given --purpose train_generator"
        )
    who, when = read_subject(subject), consents.instant(at, "--at") or consents.now()
    more: dict[str, Any] = {} if event_id is None else {"event_id": event_id}
    common: dict[str, Any] = {
        "subject_id": who,
        "effective_at": when,
        "given_by": given_by,
        "method": method,
        **more,
    }
    if action is not None:
        if purpose is None:
            raise UsageError("consent is for a purpose", hint="--purpose train_generator")
        name, version = _notice(notice)
        event = consents.consent_said(
            action=action, purpose=purpose, explicit=explicit, notice_id=name, notice_version=version,
            valid_until=consents.instant(valid_until, "--valid-until"), **common,
        )  # fmt: skip
        _tell(consents.say_event(event, store, key=store_key), as_json=json_)
        return
    said = consents.right_said(
        kind=right, scope=matter if matter is not None else None if purpose == "*" else purpose, exception=exception,
        after_conflict_notice=after_conflict_notice, **common,
    )  # fmt: skip
    _tell(consents.say_event(said, store, key=store_key), as_json=json_)


def _notice(text: str | None) -> tuple[str | None, int | None]:
    """Return a notice and its version from ``privacy@3``."""
    if text is None:
        return None, None
    name, _, version = text.rpartition("@")
    if not name or not (version.isascii() and version.isdecimal()):
        raise UsageError("--notice takes ID@VERSION", hint="--notice privacy@3")
    return name, int(version)


def _tell(said: Said, *, as_json: bool) -> None:
    """Say what became of one event; not of whom."""
    became = "it was there already, nothing changed" if not said.added else "written down"
    if said.erased:
        became = "the person was erased: nothing is kept"
    rows: list[tuple[str, ...]] = [
        ("event", said.event_id),
        ("became", became),
        ("head", f"{said.head.size} {said.head.digest.hex()}"),
    ]
    emit(said.to_json(), as_json=as_json, text=table(rows))
    if said.stranger:
        say("warning: the store had not heard of this person before: check the identifier")


def withdraw(
    subject: Subject,
    purpose: Annotated[str, typer.Option(metavar="P", help="The purpose; '*' is every purpose.")],
    given_by: GivenBy = "subject",
    at: At = None,
    method: Method = None,
    event_id: EventId = None,
    store: Store = None,
    store_key: StoreKey = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Withdraw a person's consent for a purpose; it counts in the next round, and in one that is under way."""
    from fedgen.api import consents

    more: dict[str, Any] = {} if event_id is None else {"event_id": event_id}
    event = consents.consent_said(
        subject_id=read_subject(subject), purpose=purpose, action="withdrawn", given_by=given_by, method=method,
        effective_at=consents.instant(at, "--at") or consents.now(), **more,
    )  # fmt: skip
    _tell(consents.say_event(event, store, key=store_key), as_json=json_)


def status(
    subject: Annotated[str | None, typer.Argument(metavar="SUBJECT")] = None,
    store: Store = None,
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What this verb printed before, kept elsewhere: was it rolled back?"
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the whole chain of events.")] = False,  # noqa: FBT002 - a command line flag
    stale_after: Annotated[
        int,
        typer.Option("--stale-after", metavar="S", min=1, help="How old the last sync may be, in seconds."),
    ] = 900,
    store_key: StoreKey = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Say where a person stands; or, without one, where the store stands, with exit 4 while nobody may be used."""
    from fedgen.api import consents

    if subject is not None:
        from fedgen.api.answers import status_of

        document = status_of(read_subject(subject), store, key=store_key)
        emit(document, as_json=json_, text=_person(document))
        return
    seen = None if head is None else consents.read_head(head)
    found = consents.standing_of(
        store, key=store_key, seen=seen, verify=verify, stale_after=timedelta(seconds=stale_after)
    )
    emit(found.to_json(), as_json=json_, text=_store(found))
    if found.trouble is not None:
        say(
            f"fedgen: {found.trouble}: nobody may be used now (docs/reference/reason-codes.md says what to do)"
        )
        raise typer.Exit(Refused.exit_code)


def _person(it: dict[str, Any]) -> str:
    """Return where a person stands, in words."""
    rows: list[tuple[str, ...]] = [("known at", it["known_at"])]
    rows += [("purpose", f"{purpose}: {stands}") for purpose, stands in it["purposes"].items()]
    rows += [("confirm again", purpose) for purpose in it["needs_reconfirmation"]]
    rows += [("right", name) for name in it["rights"]]
    if it["opt_out_signal_honoured"]:
        rows.append(("signal", "the opt-out of sale and sharing is honoured"))
    return table(rows)


def _store(it: Standing) -> str:
    """Return where a store stands, in words."""
    head = it.head
    return table(
        [
            ("events", f"{head.consent:,} of consent, {head.rights:,} of rights, in {head.size:,} batches"),
            ("people", f"{it.people:,}, of which {it.ambiguous:,} identifiers stand for two"),
            ("last sync", "never" if it.last_sync is None else it.last_sync.isoformat()),
            ("head", f"{head.size} {head.digest.hex()}"),
            ("chain", "recomputed, it fits" if it.verified else "not recomputed (--verify)"),
            ("trouble", it.trouble or "none"),
        ]
    )


def export(
    subject: Subject,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new file; readable by its owner only.")],
    format_: Annotated[
        Literal["access", "portability", "receipt"],
        typer.Option("--format", help="Everything held on them, what they provided, or a consent receipt."),
    ] = "access",
    purpose: Annotated[str | None, typer.Option(metavar="P", help="Of a receipt.")] = None,
    issuer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a receipt: who is responsible, and how to withdraw."),
    ] = None,
    store: Store = None,
    store_key: StoreKey = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Write what a person is answered: access, portability, or a receipt (GDPR Art. 15, Art. 20; ISO/IEC TS 27560)."""
    from fedgen.api.answers import export_person, write_answer

    document = export_person(
        read_subject(subject), format_, store, key=store_key, purpose=purpose, issuer=issuer
    )
    digest = write_answer(out, document)
    text = f"{out}: {format_}, sha256 {digest}"
    emit({"out": str(out), "format": format_, "sha256": digest}, as_json=json_, text=text)
