"""The verbs that run a coordinator: ``server up`` and ``train``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fedgen.cli.help import PlainHelp
from fedgen.cli.output import Progress, emit, say
from fedgen.cli.server import SERVER, ServerDir
from fedgen.cli.verbs import Changes, Debug, Json, StudyFile, show_run
from fedgen.errors import UsageError

if TYPE_CHECKING:
    from fedgen.api.run import Run

_HERE: Final = Path()
_WORDS: Final = {
    "stopped": "stopped",
    "ready": "ready: studies can be trained",
    "ended": "ended; it is started again (`fedgen doctor --home HOME` may say why)",
}


def register(group: typer.Typer) -> None:
    """Add ``up`` to the group ``server``."""
    group.command("up", cls=PlainHelp)(up)


def register_train(app: typer.Typer) -> None:
    """Add ``train`` to the command line."""
    app.command("train", cls=PlainHelp)(train)


def up(
    home: ServerDir = _HERE,
    no_proxy: Annotated[  # noqa: FBT002 - a command line flag
        bool,
        typer.Option(
            "--no-proxy", help="Without nginx: something else filters the routes that sites may reach."
        ),
    ] = False,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Run the coordinator's processes until told to stop: SuperLink, SuperExec, reverse proxy."""
    from fedgen.api.server_watch import watched
    from fedgen.enrolment.server_home import ServerHome
    from fedgen.flower.up import ServerUp

    place, proxy = ServerHome(home.absolute()), not no_proxy
    ended: Counter[str] = Counter()

    def said(what: str, whom: str) -> None:
        ended.update([whom] * (what == "ended"))
        say(f"{whom}  {_WORDS.get(what, what)}")

    with watched(place, said, proxy=proxy) as hear:
        ServerUp(place, hear, proxy=proxy).run()
    emit({"home": str(place.root), "ended": dict(ended)}, as_json=json_, text=str(place.root))


def train(
    study: StudyFile,
    server: Annotated[
        Path,
        typer.Option(
            metavar="HOME", envvar=SERVER, show_envvar=False, readable=False, help="The coordinator's home."
        ),
    ] = _HERE,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder; default <study>-<hash8> in the home's runs."),
    ] = None,
    set_: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier run of this study.")] = False,  # noqa: FBT002
    wait: Annotated[
        float, typer.Option(metavar="S", help="Seconds to wait until enough owners have approved.")
    ] = 86_400.0,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Run a study on deployed sites; same results folder, progress and exit codes as simulate."""
    from fedgen.api.training import train as run_study

    if not 0 <= wait < float("inf"):
        raise UsageError("--wait must be a number of seconds", hint="0 does not wait")
    run: Run = run_study(
        study,
        server=server,
        out=out,
        overrides=set_ or (),
        resume=resume,
        wait=wait,
        listener=Progress(),
    )
    show_run(run, as_json=json_)
