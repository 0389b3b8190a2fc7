"""docs/how-to/guard-the-data.md, command by command, in its order."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "guard-the-data.md"
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lines() -> list[tuple[str, int]]:
    """Return every command of the page, and the exit code it says."""
    text = PAGE.read_text(encoding="utf-8")
    found = [line.removeprefix("$ ") for block in BLOCK.findall(text) for line in block.splitlines()]
    codes = [re.search(r"# exit (\d+)$", line) for line in found]
    return [(line, int(code[1]) if code else 0) for line, code in zip(found, codes, strict=True)]


def test_the_page_has_its_nine_steps_and_says_what_it_is_not():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (\d)\.", text, re.MULTILINE) == list("123456789")
    assert "not legal advice" in text


def _a_changed_word_is_found_out(place: Path, environment: dict[str, str]) -> None:
    """Turn one grant of a site's store into a refusal, past its triggers; the replay must not come out the same."""
    with closing(sqlite3.connect(place / "run" / "sites" / "site-01" / "consent.db")) as raw, raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        last = "SELECT max(seq) FROM consent_event WHERE action = 'given' AND notice_version = 3"
        raw.execute(f"UPDATE consent_event SET action = 'refused' WHERE seq = ({last})")  # noqa: S608 - our own words
    again = subprocess.run(
        [sys.executable, "-m", "fedgen", "policy", "replay", "run", "--site", "site-01", "--json"],
        cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert again.returncode == 6, again.stderr
    document = json.loads(again.stdout)
    assert document["ok"] is False
    assert {it["why"] for it in document["decisions"]} == {"other rows come out"}
    assert len(again.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.process
def test_every_command_of_the_page_does_what_it_says(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "fedgen"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fedgen "$@"\n')
    program.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FEDGEN_")}
    environment |= {"PYTHONPATH": str(ROOT), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    place, said = tmp_path, {}
    for line, code in lines():
        if line.startswith("cd "):
            place /= line.removeprefix("cd ")
            continue
        done = subprocess.run(  # noqa: S602 - the page's own line
            line, shell=True, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
        )  # fmt: skip
        assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
        said.setdefault(line.partition("  #")[0].strip(), done.stdout + done.stderr)
    # What the page claims about what they print.
    assert "336 would no longer be allowed" in said["fedgen policy diff gdpr own.yaml --site site.yaml"]
    assert "DPIA_MISSING" in said["fedgen simulate study.yaml --out first"]
    assert "CONSENT_WITHDRAWN" in said["fedgen policy explain p0001 --run run --at-site site-01"]
    assert "decision  allow" in said["fedgen policy explain p0004 --site site.yaml --purpose train_generator"]
    assert "train_generator: withdrawn" in said["fedgen consent status p0004 --store consent.db"]
    replayed = said["fedgen policy replay run"]
    assert re.search(r"(\d+) of \1 decisions are the same", replayed)
    _a_changed_word_is_found_out(place, environment)
    shown = [
        text
        for line, text in said.items()
        if "p0004" in line and "status" not in line and "export" not in line
    ]
    assert shown
    assert all("p0004" not in text.replace("c-p0004", "") for text in shown)
