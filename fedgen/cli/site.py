"""``fedgen site init``, ``join`` and ``peer``: how a site comes to know its coordinator and the other sites."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, say, table
from fedgen.cli.passwords import WHERE, refuse_password
from fedgen.cli.site_run import HomeOption  # noqa: TC001 - typer reads it at run time
from fedgen.cli.verbs import Debug, Json  # noqa: TC001 - typer reads them at run time
from fedgen.errors import Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.api.enrolment import Believed, Wait

Fingerprint = Annotated[
    str | None,
    typer.Option(
        metavar="F", help="The key's fingerprint as the other side read it out; then nothing is asked."
    ),
]
Unseen = Annotated[bool, typer.Option("--yes", help="Take the key as it is, though nobody compared it.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where to write it; default in the working folder.")
]
Money = Annotated[
    float | None, typer.Option(metavar="X", help="A ceiling, as `ceilings` of the site's file.")
]
_HERE = Path()


def register(app: typer.Typer) -> typer.Typer:
    """Add ``site`` with its first verbs; return it, so that others can add theirs."""
    group = typer.Typer(
        name="site",
        help="Run a data holder's site. The home is --home, $FEDGEN_SITE or the working folder.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(lambda: None)
    for verb in (init, join, peer):
        group.command(verb.__name__, cls=PlainHelp)(verb)
    app.add_typer(group)
    return group


def init(
    home: Annotated[Path, typer.Argument(metavar="HOME")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The site's name in every roster.")],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Its table: a path, csv://, parquet://, postgresql://; without a password."
        ),
    ] = None,
    source_password: Annotated[str | None, WHERE] = None,
    schema: Annotated[Path | None, typer.Option(metavar="FILE", help="The schema of the table.")] = None,
    rows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rows to declare, to two digits; default counted.")
    ] = None,
    persons: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Persons to declare; default counted with the rows, if the schema names them.",
        ),
    ] = None,
    epsilon_per_study: Money = None,
    epsilon_per_year: Money = None,
    epsilon_life: Money = None,
    delta: Money = None,
    out: Out = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Make a site's home with keys of its own, and the request to send to the coordinator; overwrites nothing."""
    from fedgen.api.enrolment import Terms, site_init

    refuse_password("--source", source)
    terms = Terms(
        source=source,
        source_password=source_password,
        schema=schema,
        rows=rows,
        persons=persons,
        epsilon_per_study=epsilon_per_study,
        epsilon_per_year=epsilon_per_year,
        epsilon_life=epsilon_life,
        delta=delta,
    )
    made = site_init(home.resolve(), name, terms, out=out)
    lines: list[tuple[str, ...]] = [
        ("home", f"{home}  {'made' if made.fresh else 'was there already'}"),
        ("request", f"{made.request.path}  send it to the coordinator"),
        ("fingerprint", f"{made.request.fingerprint}  read it to them by telephone"),
    ]
    lines += [("fill in", f"{key} in {home / 'site.yaml'}") for key in made.to_do]
    lines.append(("then", f"fedgen site join {name}.invitation.json --home {home}, once they have sent it"))
    document = {
        "home": str(home),
        "request": str(made.request.path),
        "fingerprint": made.request.fingerprint,
        "to_do": list(made.to_do),
        "made": made.fresh,
    }
    emit(document, as_json=json_, text=table(lines))


def join(
    invitation: Annotated[Path, typer.Argument(metavar="INVITATION")],
    home: HomeOption = _HERE,
    fingerprint: Fingerprint = None,
    yes: Unseen = False,  # noqa: FBT002 - a command line flag
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Accept a coordinator's invitation, after its fingerprint was compared."""
    from fedgen.api.enrolment import Believed, look_at_invitation, site_join

    believed = Believed(fingerprint, anyway=yes)
    root = home.resolve()
    believed = asked(look_at_invitation(root, invitation, believed), believed)
    joined = site_join(root, invitation, believed)
    document = {"coordinator": joined.name, "address": joined.address, "expires": joined.expires}
    text = f"joined {joined.name} at {joined.address}, until {joined.expires}"
    emit(document, as_json=json_, text=text)
    if not json_:
        again = f"fedgen site relay {home} --export DIR"
        say(f"then: start the daemon; a relay with a folder of its own needs it written anew: {again}")


def peer(
    requests: Annotated[list[Path], typer.Argument(metavar="REQUEST...")],
    home: HomeOption = _HERE,
    fingerprint: Fingerprint = None,
    yes: Unseen = False,  # noqa: FBT002 - a command line flag
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Trust other sites' keys, each from the site itself; studies with `trust: distributed` need them."""
    from fedgen.api.enrolment import Believed, look_at_peer, site_peer

    if fingerprint is not None and len(requests) > 1:
        raise UsageError("--fingerprint is that of one request", hint="give one request at a time")
    root, names = home.resolve(), []
    for request in requests:
        believed = Believed(fingerprint, anyway=yes)
        believed = asked(look_at_peer(root, request, believed), believed)
        names.append(site_peer(root, request, believed).name)
    emit({"peers": names}, as_json=json_, text="\n".join(f"trusts {name}" for name in names))


def asked(wait: Wait | None, believed: Believed, ask: Callable[[str], bool] | None = None) -> Believed:
    """Return what is believed after a person compared a fingerprint, where one must; default no.

    Raises:
        Refused: The person did not say yes.
    """
    if wait is None:
        return believed
    say(table([*wait.lines, ("because", wait.word.why), ("fingerprint", wait.word.shown)]))
    if not (ask or agrees)("Is this the fingerprint that the other side reads to you?"):
        raise Refused(
            "the key was not taken, and nothing was changed",
            where=wait.path,
            hint="compare the fingerprint over the telephone, then say yes or give it with --fingerprint",
        )
    # Bound to this very key: the file is read once more, and may be another one by then.
    return replace(believed, fingerprint=wait.word.shown)


def agrees(question: str) -> bool:
    """Return whether somebody at the terminal says yes; anything else is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline(64).strip().lower() in {"y", "yes"}
