"""Verbs that are promised and not in this version: they say so and exit 2, and pretend nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.errors import UsageError

if TYPE_CHECKING:
    import typer

LATER: Final = {
    "release": "pass the release gate",
    "verify": "verify a release",
    "serve": "serve a released model",
}


def register(app: typer.Typer) -> None:
    """Add every promised verb that is not built yet."""
    for name, does in LATER.items():
        _add(app, name, does)


def _add(app: typer.Typer, name: str, does: str) -> None:
    @app.command(
        name,
        help=f"Not in this version: {does}.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )
    def verb() -> None:
        raise UsageError(f"`fedgen {name}` is not in this version", hint="see CHANGELOG.md for what is")
