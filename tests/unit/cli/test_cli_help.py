"""Help is plain, complete, and the same words the reference is made from."""

from __future__ import annotations

import re

import click
import pytest

from fedgen.cli.app import command
from fedgen.cli.help import ARGUMENTS
from fedgen.cli.later import LATER

TOP: dict[str, click.Command] = dict(getattr(command(), "commands", {}))
VERBS: dict[str, click.Command] = {
    name if inner is None else f"{name} {inner}": each
    for name, verb in TOP.items()
    for inner, each in (getattr(verb, "commands", None) or {None: verb}).items()
}


def _help(name: str) -> str:
    verb = VERBS[name]
    return verb.get_help(click.Context(verb, info_name=f"fedgen {name}"))


@pytest.mark.parametrize("name", sorted(set(VERBS) - set(LATER)))
def test_every_argument_and_option_is_shown_once_with_words(name: str) -> None:
    text = _help(name)
    assert "\\[" not in text
    for parameter in VERBS[name].params:
        if getattr(parameter, "hidden", False):
            assert "--debug" not in text
        elif isinstance(parameter, click.Option):
            assert parameter.help
            assert len(re.findall(rf"\n  {parameter.opts[0]}(?![\w-])", text)) == 1
        else:
            assert ARGUMENTS[str(parameter.metavar)] in " ".join(text.split())


@pytest.mark.parametrize("name", sorted(set(VERBS) - set(LATER)))
def test_every_verb_takes_json_and_debug(name: str) -> None:
    options = {option for parameter in VERBS[name].params for option in parameter.opts}
    assert {"--json", "--debug"} <= options


def test_the_verbs_of_this_version_come_first_and_in_the_order_of_a_first_visit() -> None:
    first = ["init", "check", "simulate", "sample", "evaluate", "report", "doctor", "train", "erase"]
    groups = ["ledger", "audit", "policy", "consent", "retention", "site", "server", "keys"]
    assert list(TOP) == [*first, *groups, *LATER]


def test_building_the_command_line_twice_adds_no_verb_twice() -> None:
    assert list(getattr(command(), "commands", {})) == list(TOP)


def test_the_exit_codes_are_in_the_help() -> None:
    whole = command()
    text = whole.get_help(click.Context(whole, info_name="fedgen"))
    for code in ("0 done", "3 configuration", "5 budget", "8 quorum lost", "130"):
        assert code in " ".join(text.split())
