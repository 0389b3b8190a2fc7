"""The documentation is true to the code: every verb, option and exit code is in it, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fedgen import errors
from fedgen.cli.app import command
from fedgen.cli.later import LATER

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "node_modules", ".git", "runs", ".pytest_cache"} & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)[^)]*\)|!\[[^\]]*\]\(([^)\s]+)[^)]*\)")


def _verbs() -> dict[str, click.Command]:
    """Return every verb, those of a group under both names."""
    top: dict[str, click.Command] = getattr(command(), "commands", {})
    return {
        name if inner is None else f"{name} {inner}": each
        for name, verb in top.items()
        for inner, each in (getattr(verb, "commands", None) or {None: verb}).items()
    }


def test_the_command_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "cli_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_stale_reference_fails_with_a_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("cli_reference", DOCS / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    stale = tmp_path / "cli.md"
    stale.write_text(script.page().replace("fedgen sample", "fedgen simple"))
    monkeypatch.setattr(script, "PAGE", stale)
    monkeypatch.setattr(sys, "argv", ["cli_reference.py", "--check"])
    assert script.main() == 1
    monkeypatch.setattr(sys, "argv", ["cli_reference.py"])
    assert script.main() == 0
    monkeypatch.setattr(sys, "argv", ["cli_reference.py", "--check"])
    assert script.main() == 0


def test_every_verb_and_option_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert len(_verbs()) >= 20
    for name, verb in _verbs().items():
        assert f"`fedgen {name}" in page
        for parameter in verb.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert f"`{option}" in page, f"{name} {option}"


def test_every_verb_this_version_lacks_says_so_in_its_help() -> None:
    for name, verb in _verbs().items():
        assert (name in LATER) == (verb.help or "").startswith("Not in this version")


@pytest.mark.parametrize("page", ["cli.md", "exit-codes.md"])
def test_every_exit_code_is_documented(page: str) -> None:
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    kinds = [errors.FedgenError, *errors.FedgenError.__subclasses__()]
    for code in {0, *(kind.exit_code for kind in kinds)}:
        assert re.search(rf"(?m)^(## {code}:|\| {code} \|)", text), code


def test_every_exit_code_says_how_to_resolve_it() -> None:
    text = (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    sections = re.split(r"(?m)^## ", text)[1:]
    assert len(sections) == 11
    assert all("To resolve:" in section for section in sections if not section.startswith("0:"))


def test_every_decision_is_numbered_without_a_gap_and_says_what_was_given_up() -> None:
    records = sorted((DOCS / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        for heading in ("Status:", "## Context", "## Decision", "## What we gave up"):
            assert heading in text, f"{path.name}: {heading}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"))
    targets = [first or second for first, second in LINK.findall(text)]
    broken = [
        target
        for target in targets
        if not re.match(r"[a-z]+:|#", target) and not (path.parent / target.partition("#")[0]).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_names_a_place_of_the_workshop(path: Path) -> None:
    assert not re.search(r"(?<![\w./-])/(home|root|tmp|Users)/", path.read_text(encoding="utf-8"))


def test_every_file_of_a_run_folder_is_documented() -> None:
    page = (DOCS / "reference" / "run-folder.md").read_text(encoding="utf-8")
    names = ["study.yaml", "run.json", "metrics.jsonl", "attempts.jsonl", "ledger.db", "checkpoints/"]
    names += ["coordinator/", "identity.key", "answer", "invitation", "incidents.jsonl", "synthetic.parquet"]
    names += ["evaluation.json", "report.html", "report.json", ".lock"]
    assert [name for name in names if name not in page] == []
