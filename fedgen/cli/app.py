"""The verbs, their options, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
import typer
from typer.main import get_command

from fedgen.cli import later
from fedgen.cli.passwords import hidden, warn_of_passwords
from fedgen.errors import FedgenError, Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

# What click says of the second group of a fingerprint that was typed without quotes, and of those after it.
_TORN: Final = re.compile(r"unexpected extra arguments? \([0-9a-fA-F]{4}( [0-9a-fA-F]{4})*\)")

app = typer.Typer(
    name="fedgen",
    help="Federated training of generative models under differential privacy, without moving a row.",
    epilog="Exit codes: 0 done, 1 defect, 2 usage, 3 configuration, 4 refused, 5 budget, 6 integrity, "
    "7 release refused, 8 quorum lost, 9 missing extra, 130 interrupted and resumable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command() -> click.Command:
    """Return the whole command line."""
    from fedgen.cli import consent, keys, ledger, policy, rights, server, server_run, site, site_run, verbs
    from fedgen.cli.help import PlainHelp
    from fedgen.cli.selftest import selftest

    if not app.registered_commands:
        verbs.register(app)
        server_run.register_train(app)
        ledger.register_ledger(app)
        ledger.register_audit(app).command("selftest", cls=PlainHelp)(selftest)
        policy.register(app)
        consent.register(app)
        rights.register(app)
        site_run.register(site.register(app))
        server_run.register(server.register(app))
        keys.register(app)
        later.register(app)
    whole = get_command(app)
    if isinstance(whole, click.Group):  # typer puts groups last; what is not built yet comes last here
        whole.commands = dict(sorted(whole.commands.items(), key=lambda verb: verb[0] in later.LATER))
    return whole


def run() -> NoReturn:
    """Parse the arguments, run the verb, map every error to one line and its exit code."""
    sys.exit(guarded(lambda: command().main(prog_name="fedgen", standalone_mode=False), sys.argv[1:]))


def guarded(call: Callable[[], Any], arguments: list[str]) -> int:
    """Run ``call`` and return the exit code; an error is one line on stderr, or JSON with ``--json``."""
    warn_of_passwords(arguments)
    try:
        result = call()
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if not isinstance(error, click.ClickException) and _traced(arguments):
            trace = traceback.format_exc()
            if hidden(trace, arguments) == trace:
                raise
            sys.stderr.write(hidden(trace, arguments))
            return 1
        return _fail(_as_ours(error), arguments)
    if result == Interrupted.exit_code:  # typer makes this of Ctrl-C, without a word
        return _fail(_as_ours(KeyboardInterrupt()), arguments)
    return result if isinstance(result, int) else 0


def _traced(arguments: list[str]) -> bool:
    """Whether somebody wants to see the traceback."""
    return "--debug" in arguments or bool(os.environ.get("FEDGEN_DEBUG"))


def _as_ours(error: BaseException) -> FedgenError:
    """Return whatever went wrong as an error of the tree."""
    if isinstance(error, FedgenError):
        return error
    if isinstance(error, click.ClickException):
        said = error.format_message()
        torn = isinstance(error, click.UsageError) and _TORN.search(said) is not None
        hint = "put a fingerprint in quotes: it has spaces" if torn else "see --help"
        return UsageError(said, hint=hint)
    if isinstance(error, (KeyboardInterrupt, click.exceptions.Abort)):
        return Interrupted("interrupted", hint="a run goes on with --resume")
    # A fault of the machine, or a defect: say so, and where to take it.
    return _from_os(error) if isinstance(error, OSError) else _defect(error)


def _defect(error: BaseException) -> FedgenError:
    """Say that this is our fault, and what to send us."""
    hint = "run again with --debug, and add the output of `fedgen doctor` to a bug report"
    return FedgenError(f"a defect in fedgen: {type(error).__name__}", hint=hint)


def _from_os(error: OSError) -> FedgenError:
    """Say what the operating system refused, in one line."""
    from fedgen.errors import ConfigError

    what = (error.strerror or type(error).__name__).lower()
    return ConfigError(what, where=error.filename, hint="check the path, its permissions and the free space")


def _fail(error: FedgenError, arguments: list[str]) -> int:
    """Print one line (or one JSON document) and return the exit code."""
    if "--json" in arguments:
        said = {
            name: hidden(part, arguments) if isinstance(part, str) else part
            for name, part in error.diagnostics().items()
        }
        sys.stdout.write(json.dumps(said) + "\n")
    sys.stderr.write(hidden(f"fedgen: {error}\n", arguments))
    return error.exit_code
