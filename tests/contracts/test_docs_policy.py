"""The pages on policy tell of every code, every rule and every key, and of nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from fedgen.policy.codes import CODES, verdict_of
from fedgen.policy.pack import Pack
from fedgen.policy.registry import RULES
from fedgen.policy.run_gate import GATE

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def test_every_code_has_its_section_with_what_it_decides_its_law_and_what_to_do():
    text = (PAGES / "reason-codes.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [str(code) for code in CODES]
    assert "not legal advice" in text.lower()
    for code in CODES:
        assert f"**{verdict_of(code).name.lower()}.**" in sections[code]
        told = sections[code].partition("*What to do:*")[2].strip()
        assert len(told.split()) >= 3, code
    for rule in [*RULES.values(), *GATE.values()]:
        if rule.law != "baseline":
            assert f"`{rule.id}`" in sections[rule.code]
            assert rule.citation in sections[rule.code]


def test_every_key_and_every_rule_of_a_pack_is_listed():
    text = (PAGES / "policy-pack.md").read_text(encoding="utf-8")
    for name, field in Pack.model_fields.items():
        assert f"| `{field.alias or name}` |" in text
    listed = set(re.findall(r"^\| `([GC]-[^`]+)` \|", text, re.MULTILINE))
    assert listed == {rule.id for rule in RULES.values() if rule.law != "baseline"}
    assert "not legal advice" in text
