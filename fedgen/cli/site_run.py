"""``fedgen site serve``, ``status``, ``approve``, ``revoke``, ``relay``, ``leave`` and ``wipe``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, say, table
from fedgen.cli.verbs import Debug, Json  # noqa: TC001 - typer reads them at run time
from fedgen.errors import Refused

if TYPE_CHECKING:
    from fedgen.api.owner import Looked, Standing

HOME: str = "FEDGEN_SITE"
HomeDir = Annotated[Path, typer.Argument(metavar="HOME", envvar=HOME, show_envvar=False, readable=False)]
HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", metavar="HOME", envvar=HOME, show_envvar=False, readable=False, help="The site's home."
    ),
]
Ledger = Annotated[
    bool, typer.Option("--ledger-too", help="Forget what was spent, too: only where the data go as well.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
StudyOrHash = Annotated[str, typer.Argument(metavar="HASH|STUDY")]
_HERE = Path()


def register(group: typer.Typer) -> None:
    """Add the verbs to the group ``site``."""
    for verb in (serve, status, approve, revoke, relay, leave, wipe):
        group.command(verb.__name__, cls=PlainHelp)(verb)


def serve(
    home: HomeDir = _HERE,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Serve a site until told to stop; then say what was served."""
    from fedgen.api.site_daemon import serve as run

    done = run(home, ready=lambda path: say(f"listening on {path}"))
    away = sum(done.away.values())
    text = f"{done.site} has stopped: {done.answered:,} answered, {away:,} turned away"
    document = {
        "site": done.site,
        "socket": str(done.socket),
        "answered": done.answered,
        "turned_away": done.away,
    }
    emit(document, as_json=json_, text=text)


def status(
    home: HomeDir = _HERE,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Show where a site stands: daemon, coordinator, budget, studies."""
    from fedgen.api.owner import standing
    from fedgen.enrolment.site_home import SiteHome

    found = standing(SiteHome(home.resolve()))
    emit(found.to_json(), as_json=json_, text=_standing(found))


def _standing(found: Standing) -> str:
    """Return where a site stands, in words."""
    to = found.coordinator
    rows: list[tuple[str, ...]] = [
        ("site", found.site),
        ("daemon", found.daemon + (f"  process {found.process}" if found.process else "")),
        ("socket", found.socket),
        ("coordinator", "none: not joined" if to is None else f"{to['name']} at {to['address']}"),
    ]
    if to is not None:
        rows += [("its key", to["fingerprint"]), ("until", found.expires or "")]
    if found.trouble:
        rows.append(("trouble", found.trouble))
    rows += [
        ("spent", f"{found.spent}, by {found.studies} {'study' if found.studies == 1 else 'studies'}"),
        ("you allow", found.ceilings),
    ]
    rows += [("approved", it[:8]) for it in found.approved]
    rows += [("revoked", it[:8]) for it in found.revoked]
    rows += [("waits", f"{it[:8]}  {name}") for it, name in found.waiting]
    if found.next_step is not None:
        rows.append(("then", found.next_step))
    return table(rows)


def approve(
    study: StudyOrHash,
    home: HomeOption = _HERE,
    yes: Yes = False,  # noqa: FBT002 - a command line flag
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Show what a study would do here, and say yes or no."""
    from fedgen.api.owner import approve as decide
    from fedgen.api.owner import find_study, look
    from fedgen.enrolment.site_home import SiteHome

    place = SiteHome(home.resolve())
    looked = look(place, find_study(place, study, unseen=yes))
    shown = _looked(looked)
    say(shown)
    if looked.refused is not None or not (yes or _agrees("Let this study train on your data?")):
        emit({**looked.to_json(), "approved": False}, as_json=json_, text="not approved; nothing was changed")
        if looked.refused is not None:
            say(f"fedgen: this site's own rules refuse the study: {looked.refused}")
        raise typer.Exit(Refused.exit_code)
    decide(place, looked)
    hash_ = looked.study.study_hash
    emit({**looked.to_json(), "approved": True}, as_json=json_, text=f"approved {hash_[:8]}")


def _looked(looked: Looked) -> str:
    """Return what a study would do, in words."""
    lines = [*looked.lines]
    if looked.decision is not None:
        lines.append(("before", f"{looked.decision.decision} on {looked.decision.time}"))
    return table(list(lines))


def _agrees(question: str) -> bool:
    """Return whether somebody at the terminal says yes; anything else is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def revoke(
    study: Annotated[str, typer.Argument(metavar="HASH")],
    home: HomeOption = _HERE,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Take an approval back; it holds from the next message on."""
    from fedgen.api.owner import revoke as take_back
    from fedgen.enrolment.site_home import SiteHome

    said = take_back(SiteHome(home.resolve()), study)
    emit(said.model_dump(mode="json"), as_json=json_, text=f"revoked {said.study_hash[:8]}")


def relay(
    home: HomeDir = _HERE,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write what the relay's own user needs into a folder, and end."),
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Of the SuperNode, on loopback.")
    ] = 9094,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Keep Flower's SuperNode running, which hands messages to the daemon."""
    from fedgen.api.relaying import export_relay, relay_of, run
    from fedgen.enrolment.site_home import SiteHome

    if export is not None:
        folder = export_relay(SiteHome(home.resolve()), export)
        emit({"exported": str(folder)}, as_json=json_, text=f"written: {folder}")
        return
    found = relay_of(home.resolve(), port=port)
    if found.own_user:
        say("fedgen: the relay runs as the site's own user: code in a bundle could read the site's data")
        say("fedgen: give it a user of its own: fedgen site relay HOME --export DIR")
    if json_:  # nothing comes after: this process becomes another program
        document = {"site": found.site, "own_user": found.own_user, "runs": list(found.arguments)}
        emit(document, as_json=True, text="")
        sys.stdout.flush()
    run(found, stdout_is_taken=json_)


def leave(
    home: HomeDir = _HERE,
    yes: Yes = False,  # noqa: FBT002 - a command line flag
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Take part no longer; keys, ledger and data stay."""
    from fedgen.api.leaving import leave as go
    from fedgen.enrolment.site_home import SiteHome

    place = SiteHome(home.resolve())
    name = place.spec().name
    if not (yes or _agrees(f"Take {name} out of every study, now?")):
        say("nothing was changed")
        raise typer.Exit(Refused.exit_code)
    revoked = go(place)
    text = f"{name} has left; {len(revoked)} approvals taken back. Stop the daemon and the relay."
    emit({"site": name, "revoked": list(revoked)}, as_json=json_, text=text)


def wipe(
    home: HomeDir = _HERE,
    ledger_too: Ledger = False,  # noqa: FBT002 - a command line flag
    yes: Yes = False,  # noqa: FBT002 - a command line flag
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Remove a site's home: keys, approvals, memory, consent store."""
    from fedgen.api.leaving import check_stopped, kept_by_wipe, table_in
    from fedgen.api.leaving import wipe as remove
    from fedgen.enrolment.site_home import SiteHome

    place = SiteHome(home.resolve())
    check_stopped(place)
    stays = kept_by_wipe(place, ledger_too=ledger_too)
    say(f"removes everything in {place.root}" + (" but:" if stays else ""))
    for path in stays:
        say(f"  {path.relative_to(place.root)}")
    if ledger_too:
        for path in table_in(place):
            say(f"the TABLE lies in there and goes as well: {path.relative_to(place.root)}")
    say("what lies elsewhere stays: data, a ledger or a consent store on a server")
    if not (yes or _agrees("Remove it? This cannot be undone.")):
        say("nothing was changed")
        raise typer.Exit(Refused.exit_code)
    kept = remove(place, ledger_too=ledger_too)
    emit({"kept": [str(path) for path in kept]}, as_json=json_, text=f"wiped; {len(kept)} files stay")
