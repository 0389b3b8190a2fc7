"""Writes docs/reference/cli.md from the command line itself; ``--check`` says whether it is stale.

python docs/cli_reference.py           write it
python docs/cli_reference.py --check   exit 1 with a diff if the page does not match the code
"""

from __future__ import annotations

import argparse
import difflib
import html
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fedgen.cli.app import command
from fedgen.cli.help import described
from fedgen.cli.later import LATER
from fedgen.errors import (
    BudgetExhausted,
    ConfigError,
    FedgenError,
    IntegrityError,
    Interrupted,
    MissingExtra,
    QuorumLost,
    Refused,
    ReleaseRefused,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = Path(__file__).resolve().parent / "reference" / "cli.md"
ERRORS: Final[tuple[type[FedgenError], ...]] = (
    FedgenError,
    UsageError,
    ConfigError,
    Refused,
    BudgetExhausted,
    IntegrityError,
    ReleaseRefused,
    QuorumLost,
    MissingExtra,
    Interrupted,
)
_HEAD: Final = """\
<!-- Written by docs/cli_reference.py from the code; do not edit. -->
# Command line

The result of a verb goes to stdout, everything else to stderr. With `--json` a verb prints exactly one JSON
document on stdout, also when it fails. `--help` explains a verb; `--debug` (or `FEDGEN_DEBUG=1`) shows the
traceback of an error.
"""


def page() -> str:
    """Return the page as the code would have it."""
    whole = command()
    context = click.Context(whole, info_name="fedgen")
    verbs: dict[str, click.Command] = getattr(whole, "commands", {})
    parts = [_HEAD]
    for name, verb in verbs.items():
        if name not in LATER:
            parts += _section(name, verb, context)
    parts.append(_later())
    parts.append(_exit_codes())
    return "\n".join(parts)


def _section(name: str, verb: click.Command, parent: click.Context) -> list[str]:
    """Return the sections of a verb, or of each verb of a group."""
    group: dict[str, click.Command] = getattr(verb, "commands", {})
    if not group:
        return [_verb(name, verb, parent)]
    context = click.Context(verb, info_name=name, parent=parent)
    return [_verb(f"{name} {inner}", each, context) for inner, each in group.items()]


def _verb(name: str, verb: click.Command, parent: click.Context) -> str:
    """Return the section of one verb; ``name`` includes its group."""
    context = click.Context(verb, info_name=name.rsplit(maxsplit=1)[-1], parent=parent)
    lines = [
        f"## `fedgen {name}`",
        "",
        (verb.help or "").strip(),
        "",
        "```",
        verb.get_usage(context),
        "```",
        "",
    ]
    rows = list(_rows(verb, context))
    if rows:
        lines += ["| | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _rows(verb: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a table row for each argument and option that is not hidden."""
    for parameter in verb.get_params(context):
        if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
            continue
        if isinstance(parameter, click.Option):
            name = ", ".join(parameter.opts)
            name += "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
            text = described(parameter, parameter.help or "")
        else:
            name, text = parameter.make_metavar(context), described(parameter)
        default = "required" if parameter.required else _default(parameter)
        yield f"| `{name}` | {default} | {html.escape(text, quote=False)} |"


def _default(parameter: click.Parameter) -> str:
    value = parameter.default
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`" if isinstance(value, str | int) else ""


def _later() -> str:
    """Return the section of the verbs that are promised and not here yet."""
    rows = [f"| `fedgen {name}` | {does} |" for name, does in LATER.items()]
    return "\n".join(
        [
            "## Not in this version",
            "",
            "These verbs answer so and exit 2.",
            "",
            "| verb | will |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _exit_codes() -> str:
    """Return the table of exit codes, from the error tree."""
    rows = ["| 0 | done |"]
    for error in sorted(ERRORS, key=lambda kind: kind.exit_code):
        claim = (
            (error.__doc__ or "")
            .strip()
            .splitlines()[0]
            .rstrip(".")
            .replace(f" (exit {error.exit_code})", "")
        )
        if error is FedgenError:
            claim = "A defect in fedgen"
        rows.append(f"| {error.exit_code} | {claim} |")
    lines = [
        "## Exit codes",
        "",
        "What each means in full, and how to resolve it: [exit-codes.md](exit-codes.md).",
        "",
    ]
    return "\n".join([*lines, "| code | meaning |", "|---|---|", *rows, ""])


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 with a diff if the page is stale")
    wanted, written = page(), PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if not parser.parse_args().check:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if wanted == written:
        return 0
    diff = difflib.unified_diff(written.splitlines(), wanted.splitlines(), str(PAGE), "the code", lineterm="")
    sys.stderr.write("\n".join([*diff, f"{PAGE} is stale: run python docs/cli_reference.py", ""]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
