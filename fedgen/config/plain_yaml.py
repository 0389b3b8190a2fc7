"""Write YAML that every reader takes alike, whichever version of the language it follows."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class _Writer(yaml.SafeDumper):
    """Safe, and explicit about text: what another reader might take for something else is quoted."""


def _text(writer: yaml.SafeDumper, value: str) -> yaml.Node:
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS
    return writer.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Writer.add_representer(str, _text)


def plain_yaml(values: dict[str, Any]) -> str:
    """Return ``values`` as YAML, keys in their order; ``load_yaml`` of the schema package reads it back.

    Args:
        values: Nested dicts, lists, texts, finite numbers, booleans and None.
    """
    text: str = yaml.dump(values, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110)
    return text
