"""Plain help: every argument and option once, in the same words on every version of click and typer.

click 8.4 and later take the help of an argument away from typer 0.20 (capped by flwr), list arguments a second
time, and typer escapes brackets for a renderer that is switched off here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from typer.core import TyperCommand

if TYPE_CHECKING:
    import click

ARGUMENTS: Final = {
    "DIR": "Folder to make; must not hold a study.",
    "STUDY": "The study file, YAML or TOML.",
    "RUN": "The run folder.",
    "SUBJECT": "The person's identifier in the consent store.",
    "FILE": "The file to read.",
    "CASES": "Cases as JSON: a list of them, or one.",
    "PACK": "A pack: gdpr, ccpa, baseline, or a path.",
    "PACK...": "Packs: gdpr, ccpa, baseline, or paths.",
    "OLD": "The pack in force: a name or a path.",
    "NEW": "The proposed pack, for the same law.",
    "TASK": "Number of the task.",
    "HOME": "The folder of a site or a coordinator; default the working folder where it need not be made.",
    "REQUEST": "The request that a site sent.",
    "REQUEST...": "The requests that the other sites sent.",
    "INVITATION": "The invitation that the coordinator sent.",
    "NAME": "A site's name.",
    "[NAME]...": "Names of sites; default all that are in.",
    "KEY": "Of a site: identity, ledger, node. Of a coordinator: identity, sealing, tls, ca, superexec.",
    "HASH": "The first digits of a study's hash.",
    "HASH|STUDY": "The first digits of the hash of a study that waits, or a run's study.yaml.",
    "PATH": "A ledger's file or URL, a run folder, or a folder of ledgers.",
}


class PlainHelp(TyperCommand):
    """A verb with plain help."""

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Leave the arguments to :meth:`format_options`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then the options."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            of_kind = (p for p in self.get_params(ctx) if p.param_type_name == kind)
            records = [
                (record[0], described(parameter, record[1]))
                for parameter in of_kind
                if (record := parameter.get_help_record(ctx)) is not None
            ]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def described(parameter: click.Parameter, record: str = "") -> str:
    """Return the help of an argument, or ``record``, the help of an option, without escapes."""
    if parameter.param_type_name == "argument":
        return ARGUMENTS[parameter.metavar or ""]
    return record.replace("\\[", "[")
