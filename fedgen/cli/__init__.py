"""The command line: the only place that prints. stdout is the result, stderr the conversation."""

from __future__ import annotations


def main() -> None:
    """Run the command line; imports nothing heavy before a verb needs it."""
    from fedgen.cli.app import run

    run()
