"""No password belongs on a command line: other users of the machine read it there, and the shell writes it down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from fedgen.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

WHERE: Final[Any] = typer.Option(
    metavar="WHERE", help="Where its password lies: env:NAME, or file:PATH of mode 0600; never the password."
)

_REFUSING: Final = {("server", "init"), ("site", "init")}


def refuse_password(option: str, address: str | None) -> None:
    """Return unless an address that was given with an option holds a password; nothing of it is quoted.

    Raises:
        UsageError: It does, or may.
    """
    from fedgen.config.password import has_password

    if address is None or not has_password(address):
        return
    raise UsageError(
        f"{option} holds a password, which everybody on this machine can read now and the shell keeps",
        hint=f"change it; then leave it out, and say {option}-password file:PATH or env:NAME, or use PGPASSFILE",
    )


def warn_of_passwords(arguments: Sequence[str]) -> None:
    """Say so where an argument of a verb looks like an address with a password; nothing of it is quoted."""
    if tuple(arguments[:2]) in _REFUSING or not any("://" in it for it in arguments):
        return
    from fedgen.config.password import has_password

    if any(has_password(it) for it in arguments):
        from fedgen.cli.output import say

        say(
            "fedgen: warning: there is a password on this command line, where everybody on this machine can read it "
            "and the shell keeps it: leave it out, and use PGPASSFILE"
        )


def hidden(text: str, arguments: Sequence[str]) -> str:
    """Return a text in which no password of the command line stands: an error may quote what it was given."""
    if not any("://" in it for it in arguments):
        return text
    from fedgen.config.password import passwords_in

    for password in sorted({it for word in arguments for it in passwords_in(word)}, key=len, reverse=True):
        text = text.replace(password, "***") if password else text
    return text
