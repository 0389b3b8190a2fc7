"""The reference configurations: every key is in them, commented, and each can be switched on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from fedgen.config.reference_file import fill, switch_off, switch_on
from fedgen.config.server import ServerSpec, parse_server
from fedgen.config.site import SiteSpec, parse_site

ROOT = Path(__file__).parents[3]
SITE = (ROOT / "clients" / "site.yaml").read_text(encoding="utf-8")
SERVER = (ROOT / "server" / "server.yaml").read_text(encoding="utf-8")


def keys_of(spec: BaseModel) -> set[str]:
    """Return every key below a value, dotted; a section that is None has none."""
    found = set()
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        key = field.alias or name
        found.add(key)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, BaseModel):
                found |= {f"{key}.{below}" for below in keys_of(inner)}
    return found


def written(value: Any, prefix: str = "") -> set[str]:
    """Return every key of a mapping as it was written, dotted."""
    if isinstance(value, list):
        return set().union(*(written(item, prefix) for item in value)) if value else set()
    if not isinstance(value, dict):
        return set()
    keys = {f"{prefix}{key}" for key in value}
    return keys.union(*(written(inner, f"{prefix}{key}.") for key, inner in value.items()))


@pytest.mark.parametrize(
    ("text", "parse", "kind"), [(SITE, parse_site, SiteSpec), (SERVER, parse_server, ServerSpec)]
)
def test_every_key_stands_in_it_and_can_be_switched_on(text: str, parse, kind: type) -> None:
    assert isinstance(parse(yaml.safe_load(text)), kind)
    whole = yaml.safe_load(switch_on(text))
    assert written(whole) == keys_of(parse(whole))


@pytest.mark.parametrize(("text", "parse"), [(SITE, parse_site), (SERVER, parse_server)])
def test_what_is_off_by_default_changes_nothing(text: str, parse) -> None:
    """A key that is on and optional says what would hold without it."""
    data = yaml.safe_load(text)
    spec = parse(data)
    for key, value in data.items():
        field = next(f for n, f in type(spec).model_fields.items() if key in {n, f.alias})
        if not field.is_required() and key not in {"schema", "declared"}:
            assert value == field.default, key


@pytest.mark.parametrize("text", [SITE, SERVER])
def test_every_key_has_a_comment_above_it_or_above_its_neighbour(text: str) -> None:
    for block in text.split("\n\n"):
        assert block.lstrip().startswith("# "), block


def test_fill_puts_values_in_and_leaves_all_else() -> None:
    done = fill(SITE, {("name",): "x: #y", ("declared", "persons"): 7, ("ceilings", "delta"): 1e-06})
    spec = yaml.safe_load(done)
    assert spec["name"] == "x: #y"
    assert spec["declared"]["persons"] == 7
    assert spec["ceilings"]["delta"] == 1e-06
    pairs = list(zip(SITE.splitlines(), done.splitlines(), strict=True))
    assert sum(old != new for old, new in pairs) == 3


@pytest.mark.parametrize("number", [1e-6, 1e-10, 1.5e-7, 0.1, 3.0, 1e22])
def test_every_number_is_read_back_as_a_number(number: float) -> None:
    assert yaml.safe_load(fill("delta: 1\n", {("delta",): number})) == {"delta": number}


def test_what_is_not_said_is_refused_until_it_is_filled_in() -> None:
    from fedgen.errors import ConfigError

    done = fill(SITE, {("ceilings", "epsilon_life"): None})
    assert "epsilon_life:  # FILL IN" in done
    with pytest.raises(ConfigError, match="epsilon_life"):
        parse_site(yaml.safe_load(done))


@pytest.mark.parametrize("key", [("nme",), ("observe", "logs"), ("ceilings", "name"), ("name", "x")])
def test_a_key_that_is_not_there_or_whose_section_is_off_is_a_defect(key: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="no key"):
        fill(SITE, {key: "x"})


def test_a_key_switched_off_is_as_left_out() -> None:
    assert "schema" not in yaml.safe_load(switch_off(SITE, "schema"))
    assert switch_on(switch_off(SERVER, "runs")) == switch_on(SERVER)
