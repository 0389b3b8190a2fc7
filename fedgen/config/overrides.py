"""The changes a command line makes to a study: ``--set a.b=c``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import ConfigError
from fedgen.schema.lines import Key, dotted
from fedgen.schema.yamlsource import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORM: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*)=(.*)", re.DOTALL)


OVERRIDE: Final = "--set"  # where an error says it is; the value stays out, it may hold a password


@dataclass(frozen=True, slots=True)
class Override:
    """One change.

    Attributes:
        key: Path of the key.
        value: What it becomes: plain values only.
    """

    key: Key
    value: Any


def parse_override(text: str) -> Override:
    """Return the change that ``a.b=c`` asks for; ``c`` is read as YAML, an empty one is null.

    Raises:
        ConfigError: It has another form, or the value is not YAML.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError("is not of the form a.b=c", where=OVERRIDE, hint="such as training.rounds=20")
    try:
        value, _lines = parse_yaml(match[2], OVERRIDE)
    except ConfigError as error:
        raise ConfigError(
            error.what, where=OVERRIDE, key=match[1], hint="quote a value that holds YAML signs"
        ) from None
    return Override(key=tuple(match[1].split(".")), value=value)


def apply(data: dict[str, Any], changes: Sequence[Override]) -> None:
    """Make ``changes`` in ``data``, in order; sections that are missing are made.

    Raises:
        ConfigError: A change goes below something that is not a mapping.
    """
    for change in changes:
        section = data
        for depth, part in enumerate(change.key[:-1], start=1):
            below = section.setdefault(str(part), {})
            if below is None:
                below = section[str(part)] = {}
            if not isinstance(below, dict):
                raise ConfigError("has no keys below it", where=OVERRIDE, key=dotted(change.key[:depth]))
            section = below
        section[str(change.key[-1])] = change.value
