"""``fedgen server init``, ``enroll``, ``invite``, ``revoke`` and ``status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, say, table
from fedgen.cli.passwords import WHERE, refuse_password
from fedgen.cli.site import Fingerprint, Out, Unseen, asked
from fedgen.cli.verbs import Debug, Json  # noqa: TC001 - typer reads them at run time

SERVER: str = "FEDGEN_SERVER"
ServerDir = Annotated[Path, typer.Argument(metavar="HOME", envvar=SERVER, show_envvar=False, readable=False)]
ServerOption = Annotated[
    Path,
    typer.Option(
        "--home",
        metavar="HOME",
        envvar=SERVER,
        show_envvar=False,
        readable=False,
        help="The coordinator's home.",
    ),
]
Days = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=3650, help="How long the invitation lasts; default in server.yaml."),
]
_HERE = Path()


def register(app: typer.Typer) -> typer.Typer:
    """Add ``server`` with its first verbs; return it, so that others can add theirs."""
    group = typer.Typer(
        name="server",
        help="Run a coordinator. The home is --home, $FEDGEN_SERVER or the working folder.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(lambda: None)
    for verb in (init, enroll, invite, revoke, status):
        group.command(verb.__name__, cls=PlainHelp)(verb)
    app.add_typer(group)
    return group


def init(
    home: Annotated[Path, typer.Argument(metavar="HOME")],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the sites connect.")],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What it calls itself in invitations.")
    ] = "coordinator",
    state: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Durable state: a path or postgresql://, without a password; default state.db.",
        ),
    ] = None,
    state_password: Annotated[str | None, WHERE] = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Make a coordinator's home: file, keys, an authority of its own and a certificate; overwrites nothing."""
    from fedgen.api.enrolment import server_init, server_status

    refuse_password("--state", state)
    root = home.resolve()
    server_init(root, address, name=name, state=state, state_password=state_password)
    found = server_status(root)
    lines = [
        ("home", str(home)),
        ("address", found["address"]),
        ("fingerprint", f"{found['fingerprint']}  read it to the sites by telephone"),
        ("then", f"fedgen server enroll SITE.request.json --home {home}"),
    ]
    emit(found, as_json=json_, text=table(lines))


def enroll(
    request: Annotated[Path, typer.Argument(metavar="REQUEST")],
    home: ServerOption = _HERE,
    fingerprint: Fingerprint = None,
    yes: Unseen = False,  # noqa: FBT002 - a command line flag
    days: Days = None,
    out: Out = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Let a site in, or take its newer keys, after its fingerprint was compared; write its invitation."""
    from fedgen.api.enrolment import Believed, look_at_request, server_enroll

    root, believed = home.resolve(), Believed(fingerprint, anyway=yes)
    believed = asked(look_at_request(root, request, believed), believed)
    record, handed = server_enroll(root, request, believed, out=out, days=days)
    document = {
        "site": record.name,
        "invitation": str(handed.path),
        "expires": record.expires,
        "fingerprint": handed.fingerprint,
    }
    lines = [
        ("enrolled", record.name),
        ("invitation", f"{handed.path}  send it to the site; it lasts until {record.expires}"),
        ("fingerprint", f"{handed.fingerprint}  of this coordinator: read it to them by telephone"),
    ]
    emit(document, as_json=json_, text=table(lines))


def invite(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    home: ServerOption = _HERE,
    days: Days = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Write the next invitation of some sites, or of all: the last one ends soon, or address or keys changed."""
    from fedgen.api.enrolment import server_invite

    handed = server_invite(home.resolve(), names or [], days=days)
    text = "\n".join(f"wrote {it.path}" for it in handed) or "no site is enrolled"
    emit({"invitations": [str(it.path) for it in handed]}, as_json=json_, text=text)


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    home: ServerOption = _HERE,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Put a site out, from now on; its keys never come back, and its name only with new ones."""
    from fedgen.api.enrolment import server_revoke

    record = server_revoke(home.resolve(), name)
    text = f"revoked {record.name} on {record.revoked}"
    emit({"site": record.name, "revoked": record.revoked}, as_json=json_, text=text)


def status(
    home: ServerDir = _HERE,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Show where a coordinator stands: key, certificates, and every site with its invitation."""
    from fedgen.api.enrolment import server_status

    found = server_status(home.resolve())
    emit(found, as_json=json_, text=_standing(found))
    if not json_:
        for warning in found["warnings"]:
            say(f"warning: {warning}")


def _standing(found: dict[str, Any]) -> str:
    """Return where a coordinator stands, in words."""
    rows: list[tuple[str, ...]] = [
        ("coordinator", f"{found['name']} at {found['address']}"),
        ("fingerprint", found["fingerprint"]),
    ]
    rows += [
        (f"{it['certificate']} certificate", f"until {it['expires'][:10]}, {it['days']} days")
        for it in found["certificates"]
    ]
    if not found["sites"]:
        return f"{table(rows)}\n\n  no site is enrolled"
    sites: list[tuple[str, ...]] = [("site", "rows", "persons", "in since", "until", "fingerprint")]
    sites += [
        (
            it["site"],
            f"{it['rows']:,}",
            "" if it["persons"] is None else f"{it['persons']:,}",
            it["enrolled"][:10],
            it["expires"][:10] if it["revoked"] is None else f"REVOKED {it['revoked'][:10]}",
            it["fingerprint"],
        )
        for it in found["sites"]
    ]
    return f"{table(rows)}\n\n{table(sites)}"
