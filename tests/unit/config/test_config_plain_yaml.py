"""Text stays text, whichever YAML reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from fedgen.config.plain_yaml import plain_yaml
from fedgen.schema.yamlsource import load_yaml

if TYPE_CHECKING:
    from pathlib import Path

TRICKY = [
    "1e5",
    "1",
    "no",
    "Yes",
    "null",
    "~",
    "2020-01-01",
    "12:30",
    "0x10",
    "",
    " x ",
    "a: b",
    "#",
    "é",
    "- a",
    "true",
]


@pytest.mark.parametrize("text", TRICKY)
def test_text_that_looks_like_something_else_is_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(plain_yaml({"a": [text]}), encoding="utf-8")
    assert load_yaml(path)[0] == {"a": [text]}
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"a": [text]}


def test_plain_words_stay_readable_and_keys_keep_their_order() -> None:
    text = plain_yaml({"b": "tabular-vae", "a": 1.0e-5, "c": None})
    assert text == "b: tabular-vae\na: 1.0e-05\nc: null\n"
