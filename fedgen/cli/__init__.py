"""The command line: the only place that prints. stdout is the result, stderr the conversation."""

from __future__ import annotations

import os

# Read by typer when it is imported: help is plain text, also in a terminal, and its brackets are not escaped.
os.environ.setdefault("TYPER_USE_RICH", "0")


def main() -> None:
    """Run the command line; imports nothing heavy before a verb needs it."""
    from fedgen.cli.app import run

    run()
