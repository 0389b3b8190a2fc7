"""``fedgen keys show``, ``new`` and ``rotate``: the keys of a site's or a coordinator's home."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import emit, table
from fedgen.cli.site import Out  # noqa: TC001 - typer reads it at run time
from fedgen.cli.verbs import Debug, Json  # noqa: TC001 - typer reads them at run time

if TYPE_CHECKING:
    from fedgen.api.handing import Handed

KeyName = Annotated[str, typer.Argument(metavar="KEY")]
AnyHome = Annotated[
    Path, typer.Option("--home", metavar="HOME", readable=False, help="A site's or a coordinator's home.")
]
_HERE = Path()


def register(app: typer.Typer) -> typer.Typer:
    """Add ``keys`` with its verbs; return it."""
    group = typer.Typer(
        name="keys",
        help="Look at, replace and change the keys of a home.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(lambda: None)
    for verb in (show, new, rotate):
        group.command(verb.__name__, cls=PlainHelp)(verb)
    app.add_typer(group)
    return group


def show(
    home: Annotated[Path, typer.Argument(metavar="HOME", readable=False)] = _HERE,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Show whose home it is, the fingerprint to read out, and the names of all its keys; no secret."""
    from fedgen.api.keys import keys_show

    found = keys_show(home.resolve())
    rows = [(found["role"], found["name"]), ("fingerprint", found["fingerprint"])]
    rows += [(f"{kind} key", name) for kind, name in found["keys"].items()]
    rows += [("trusts", f"{it['fingerprint']}  {it['site']}") for it in found["peers"]]
    emit(found, as_json=json_, text=table(rows))


def new(
    key: KeyName,
    home: AnyHome = _HERE,
    out: Out = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Make a key in the place of a lost one; everybody must then compare the fingerprint again."""
    from fedgen.api.keys import keys_new

    made = keys_new(home.resolve(), key, out=out)
    _tell([] if made is None else [made], as_json=json_, nothing="made; now invite every site again")


def rotate(
    key: KeyName,
    home: AnyHome = _HERE,
    out: Out = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Change a key; an old identity key vouches for the new one, so that nobody has to compare anything."""
    from fedgen.api.keys import keys_rotate

    _tell(
        keys_rotate(home.resolve(), key, out=out), as_json=json_, nothing="changed; nobody needs to be told"
    )


def _tell(handed: list[Handed], *, as_json: bool, nothing: str) -> None:
    """Print which documents must be sent now."""
    rows = [("send", str(it.path)) for it in handed]
    rows += [("fingerprint", handed[0].fingerprint)] if handed else []
    document = {
        "send": [str(it.path) for it in handed],
        "fingerprint": handed[0].fingerprint if handed else None,
    }
    emit(document, as_json=as_json, text=table(rows) if rows else nothing)
