"""One word is never used of a model: it would claim what nobody has shown, and no test of ours shows."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLAIM = "un" + "learned"
PLACES = ("fedgen", "docs", "policies", "server", "clients", "examples", "benchmarks", "tests")
KINDS = {".py", ".md", ".yaml", ".html", ".json", ".jinja", ".j2", ".css", ".txt"}


def _uses(text: str) -> bool:
    return CLAIM in text.lower()


def test_the_search_finds_the_word() -> None:
    assert _uses(f"The model has {CLAIM.capitalize()} them.")
    assert not _uses("The model was rolled back.")


@pytest.mark.parametrize("place", [*PLACES, "README.md", "CHANGELOG.md", "ARCHITECTURE.md"])
def test_nothing_says_it(place: str) -> None:
    path = ROOT / place
    files = (
        [path] if path.is_file() else [it for it in path.rglob("*") if it.is_file() and it.suffix in KINDS]
    )
    assert files
    assert [str(it) for it in files if _uses(it.read_text(encoding="utf-8", errors="replace"))] == []
