"""``fedgen policy``: lint, show and sign packs, decide and explain, compare two versions, and replay rounds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, say, table
from fedgen.cli.verbs import Debug, Json, RunPath  # noqa: TC001 - typer reads them at run time
from fedgen.errors import ConfigError, IntegrityError, Refused, UsageError

if TYPE_CHECKING:
    from fedgen.api.comparing import Compared
    from fedgen.api.explaining import Holder
    from fedgen.api.policies import Linted
    from fedgen.api.replay import Replayed
    from fedgen.policy.columns import Request

Packs = Annotated[
    str,
    typer.Option(metavar="A,B", help="Packs that decide: shipped ones by name, others by path."),
]
PackKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--pack-key", metavar="FILE", help="Public key whose signatures on packs count; repeatable."
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The consent store: a file, or postgresql://…; default FEDGEN_CONSENT_STORE."
    ),
]
StoreKey = Annotated[
    Path | None, typer.Option("--store-key", metavar="FILE", help="The store's key file; default STORE.key.")
]
Purpose = Annotated[str | None, typer.Option(metavar="P", help="The purpose that is asked for.")]
Operation = Annotated[
    Literal["train", "share_update", "release", "decide", "retain"], typer.Option(help="What would be done.")
]
Country = Annotated[
    str | None,
    typer.Option(metavar="CC", help="Where it goes, such as DE; unsaid is a transfer nobody described."),
]
PackName = Annotated[str, typer.Argument(metavar="PACK")]


def register(app: typer.Typer) -> None:
    """Add ``policy`` with its verbs."""
    group = typer.Typer(
        name="policy",
        help="Check rule packs, decide and explain, compare and replay. Not legal advice.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(lambda: None)
    for name, verb in (
        ("lint", lint), ("show", show), ("sign", sign), ("decide", decide), ("explain", explain), ("diff", diff),
        ("replay", replay),
    ):  # fmt: skip
        group.command(name, cls=PlainHelp)(verb)
    app.add_typer(group)


def lint(
    packs: Annotated[list[str], typer.Argument(metavar="PACK...")],
    pack_key: PackKeys = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Find what is wrong with packs: rules that never hit, missing countries, rows that are over; errors exit 3."""
    from fedgen.api.policies import lint_packs, pack_keys

    found = lint_packs(packs, pack_keys(pack_key or ()))
    errors = sum(it.errors for it in found)
    document = {"ok": not errors, "packs": [it.to_json() for it in found]}
    emit(document, as_json=json_, text="\n".join(_linted(it) for it in found))
    if errors:
        say(
            f"fedgen: {errors} {'error' if errors == 1 else 'errors'} in the packs (mend and sign them again)"
        )
        raise typer.Exit(ConfigError.exit_code)


def _linted(it: Linted) -> str:
    """Return what lint found in one pack, a line each."""
    lines = []
    for finding, line in it.findings:
        place = it.name if line is None else f"{it.name}:{line}"
        lines.append(f"{place}: {finding.level}: {finding.key}: {finding.what} ({finding.hint})")
    warnings = len(it.findings) - it.errors
    return "\n".join([*lines, f"{it.name}: {it.errors} errors, {warnings} warnings"])


def show(
    pack: PackName,
    copy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Copy the pack into this new file, to make it your own."),
    ] = None,
    pack_key: PackKeys = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Show who answers for a pack, when it holds, its rules with code and law, its purposes and retention."""
    from fedgen.api.policies import copy_pack, pack_keys, show_pack

    it = show_pack(pack, pack_keys(pack_key or ()))
    if copy is not None:
        copy_pack(pack, copy)
        emit(it | {"copy": str(copy)}, as_json=json_, text=f"{copy}: a copy of {it['id']} {it['version']}")
        return
    emit(it, as_json=json_, text=_shown(it))


def _shown(it: dict[str, Any]) -> str:
    """Return a pack in words."""
    believed = (
        f"yes, {it['signer'] or 'it comes with fedgen'}" if it["trusted"] else "NO: it denies everything"
    )
    rows: list[tuple[str, ...]] = [
        ("pack", f"{it['id']}  {it['version']}"),
        ("law", f"{it['law']}: {it['title']}"),
        ("notice", it["notice"]),
        ("signed off by", it["signed_off_by"] or "nobody"),
        ("believed", believed),
        ("sha256", it["sha256"]),
        ("in force", f"{it['in_force_from']} until {it['in_force_to'] or 'further notice'}"),
        ("purposes", ", ".join(it["purposes"])),
    ]
    rows += [
        ("retention", f"{name}: {rule['period']} from {rule['clock']}, {rule['tz']}")
        for name, rule in it["retention_rules"].items()
    ]
    rules = table([("rule", "code", "law"), *((r["rule"], r["code"], r["citation"]) for r in it["rules"])])
    return f"{table(rows)}\n\n{rules}"


def sign(
    pack: Annotated[Path, typer.Argument(metavar="PACK")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key; FILE.pub gets the public one.")],
    new_key: Annotated[  # noqa: FBT002 - a command line flag
        bool, typer.Option("--new-key", help="Make the key; only where there is none.")
    ] = False,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Sign a pack that passed lint, so that sites that know the key believe it."""
    from fedgen.api.policies import sign_pack

    done = sign_pack(pack, key, new_key=new_key)
    document = {"signature": str(done.signature), "signer": done.signer, "public_key": str(done.public)}
    text = f"{done.signature}\nsigned by {done.signer[:16]}…; a site believes it by {done.public}"
    emit(document | {"new_key": done.new_key}, as_json=json_, text=text)


def decide(
    cases: Annotated[Path, typer.Argument(metavar="CASES")],
    packs: Packs = "gdpr,ccpa",
    pack_key: PackKeys = None,
    json_: Json = False,  # noqa: FBT002, ARG001 - the result is always one JSON document
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Decide cases, and print a JSON list of id, decision, reason_code, also and citation."""
    from fedgen.api.policies import decide_file, pack_keys, stopped

    answers = decide_file(cases, _split(packs), pack_keys(pack_key or ()))
    sys.stdout.write(json.dumps(answers, indent=2, ensure_ascii=False) + "\n")
    _refuse_if(stopped(answers), packs)


def _split(packs: str) -> list[str]:
    return [name for name in (part.strip() for part in packs.split(",")) if name]


def _refuse_if(code: str | None, packs: str) -> None:
    """Say on stderr that a pack may not decide at all, and end with 4; the result stands on stdout."""
    if code is not None:
        hint = (
            "sign it, and name the key with --pack-key"
            if code == "PACK_SIGNATURE_INVALID"
            else "bring a newer one"
        )
        say(f"fedgen: {packs}: {code}: a pack denies everything ({hint})")
        raise typer.Exit(Refused.exit_code)


def explain(
    subject: Annotated[str | None, typer.Argument(metavar="SUBJECT")] = None,
    cases: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Explain a case of this file instead of a person.")
    ] = None,
    case: Annotated[str | None, typer.Option(metavar="ID", help="With --cases: which one.")] = None,
    site: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The site's file: its packs, its store and what it states."),
    ] = None,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="A simulated run; with --at-site.")] = None,
    at_site: Annotated[
        str | None, typer.Option("--at-site", metavar="NAME", help="With --run: which site of it.")
    ] = None,
    record: Annotated[
        str | None, typer.Option(metavar="ID", help="One record that the store itself knows.")
    ] = None,
    packs: Packs = "gdpr,ccpa",
    pack_key: PackKeys = None,
    store: Store = None,
    store_key: StoreKey = None,
    purpose: Purpose = None,
    operation: Operation = "train",
    country: Country = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The instant asked about, with its offset; default now."),
    ] = None,
    known_at: Annotated[
        str | None, typer.Option("--known-at", metavar="TIME", help="What was known then; default as --at.")
    ] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Explain one record: every rule that hit, the one that decides, the events used, and what would have to change."""
    from fedgen.api.policies import pack_keys

    keys = pack_keys(pack_key or ())
    if cases is not None:
        from fedgen.api.explaining import explain_case

        found = [explain_case(cases, case, _split(packs), keys)]
    else:
        from fedgen.api.consents import instant
        from fedgen.api.explaining import Holder, explain_person, run_holder, site_holder
        from fedgen.api.policies import load_laws

        if subject is None:
            raise UsageError("explain needs SUBJECT, or --cases FILE", hint="see --help")
        holder: Holder
        if site is not None:
            holder = site_holder(site)
        elif run is not None:
            if at_site is None:
                raise UsageError("--run needs --at-site", hint="such as --at-site site-01")
            holder = run_holder(run, at_site)
        else:
            holder = Holder(load_laws(_split(packs), keys), store, store_key)
        found = explain_person(
            read_subject(subject), holder, purpose=purpose, operation=operation, record=record,
            request=None if country is None else _request(purpose or "", operation, country),
            at=instant(at, "--at"), known_at=instant(known_at, "--known-at"),
        )  # fmt: skip
    emit({"explained": found}, as_json=json_, text="\n\n".join(_explained(it) for it in found))


def read_subject(text: str) -> str:
    """Return the person named; ``-`` reads the name from stdin, so that it stands in no shell history."""
    if text != "-":
        return text
    name = sys.stdin.readline(1024).rstrip("\r\n")
    if not name:
        raise UsageError("no subject on stdin", hint="echo it into the command")
    return name


def _request(purpose: str, operation: str, country: str | None) -> Request:
    from fedgen.policy.columns import Destination, Request

    goes_to = None if country is None else Destination(country, recipient="controller")
    return Request(purpose=purpose, operation=operation, time=0, destination=goes_to)


def _explained(it: dict[str, Any]) -> str:
    """Return an explanation in words."""
    name = it.get("record_id") or it.get("id")
    rows: list[tuple[str, ...]] = [] if name is None else [("record", str(name))]
    rows += [
        ("decision", f"{it['decision']}  {it['reason_code']}"),
        ("because", f"{it['rule'] or 'no rule hit'}  {it['citation']}".strip()),
    ]
    rows += [("also hit", f"{hit['code']}  {hit['rule']}  {hit['citation']}") for hit in it["hits"][1:]]
    for event in it["events"]:
        about = f" {event['purpose']}" if event["purpose"] else ""
        used = "" if event["matters"] else "   (changes nothing)"
        said = f"{event['kind']}{about}, from {event['effective_at']}, known {event['recorded_at']}"
        rows.append(("event", f"{event['event_id'] or ''}  {said}{used}".strip()))
    if not it["events"]:
        rows.append(("events", "none is known of this person"))
    rows += [("would allow", "; and ".join(ways)) for ways in it["remedies"]]
    if it["decision"] != "allow" and not it["remedies"]:
        rows.append(("would allow", "no single change, and no three together"))
    if it["valid_until"] is not None:
        rows.append(("until", it["valid_until"]))
    return table(rows)


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    cases: Annotated[Path | None, typer.Option(metavar="FILE", help="Cases to try both packs on.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="A consent store whose records to try both packs on.")
    ] = None,
    store_key: StoreKey = None,
    site: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The site's file: try both packs on everybody in its store."),
    ] = None,
    purpose: Annotated[
        str, typer.Option(metavar="P", help="The purpose that is asked for.")
    ] = "train_generator",
    operation: Operation = "train",
    country: Country = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Compare two versions of a pack: keys that differ, and how many records would move from code to code."""
    from fedgen.api.comparing import compare

    request = _request(purpose, operation, country)
    found = compare(old, new, cases=cases, store=store, store_key=store_key, site=site, request=request)
    emit(found.to_json(), as_json=json_, text=_compared(found))


def _compared(it: Compared) -> str:
    """Return a comparison in words."""
    moved = it.diff
    rows: list[tuple[str, ...]] = [
        ("from", f"{it.old.pack.id} {it.old.pack.version}  {it.old.sha256[:16]}"),
        ("to", f"{it.new.pack.id} {it.new.pack.version}  {it.new.sha256[:16]}"),
        ("keys", ", ".join(moved.keys) or "no key differs"),
    ]
    if it.over != "keys":
        rows += [
            (it.over, f"{moved.rows:,} asked about, {moved.changed:,} decided otherwise"),
            ("", f"{moved.denied_more:,} would no longer be allowed, {moved.allowed_more:,} would be"),
        ]
        rows += [("", f"{n:>9,}  {before} -> {after}") for (before, after), n in moved.moves.items()]
        if it.unread:
            rows.append(("not understood", f"{it.unread:,} cases, quarantined under both"))
    return table(rows)


def replay(
    run: RunPath,
    round_: Annotated[
        int | None, typer.Option("--round", metavar="N", min=1, help="One round; default all.")
    ] = None,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="One site; default all.")] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Decide past rounds again, as known then, and compare with what the ledger says; exit 6 where rows differ."""
    from fedgen.api.replay import replay as replay_

    found = replay_(run, round_, site=site)
    if not found:
        raise ConfigError("no decision was recorded there", where=run, key="round", hint="see run.json")
    differ = [it for it in found if not it.same]
    document = {"ok": not differ, "decisions": [it.to_json() for it in found]}
    emit(document, as_json=json_, text=_replayed(found))
    if differ:
        it = differ[0]
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        say(f"fedgen: {run}: {it.site}: round {it.round}: {it.why}{more} (of {len(found)} decisions)")
        raise typer.Exit(IntegrityError.exit_code)


def _replayed(found: list[Replayed]) -> str:
    """Return what came of a replay, one decision a line."""
    rows: list[tuple[str, ...]] = [("site", "round", "check", "allowed", "rows by digest", "replayed")]
    rows += [
        (it.site, f"{it.round}.{it.attempt}", it.check, f"{it.allowed:,}", it.recorded[:16], it.why)
        for it in found
    ]
    return f"{table(rows)}\n\n  {sum(it.same for it in found)} of {len(found)} decisions are the same"
