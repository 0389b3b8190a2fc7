"""What starts often starts quickly: heavy libraries are imported when they are used, never before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = frozenset(
    {
        "torch",
        "opacus",
        "dp_accounting",
        "flwr",
        "ray",
        "pandas",
        "pyarrow",
        "sklearn",
        "statsmodels",
        "scipy",
    }
)


def _loaded_after(statement: str, *arguments: str) -> set[str]:
    """Return the top-level packages a fresh process has loaded after ``statement``."""
    script = (
        "import sys, json, contextlib, io\n"
        "out = io.StringIO()\n"
        "with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):\n"
        f"    {statement}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not _loaded_after("import fedgen") & (HEAVY | {"numpy", "typer", "pydantic"})


@pytest.mark.parametrize("words", [("--help",), ("simulate", "--help"), ("release", "x"), ("nonsense",)])
def test_the_command_line_loads_nothing_heavy_before_it_works(words: tuple[str, ...]) -> None:
    assert not _loaded_after("from fedgen.cli import main; main()", *words) & (HEAVY | {"numpy", "pydantic"})


def test_deciding_a_case_loads_numpy_and_nothing_heavier(tmp_path: Path) -> None:
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps([{"id": "x", "law": ["gdpr", "ccpa"]}]))
    loaded = _loaded_after("from fedgen.cli import main; main()", "policy", "decide", str(cases))
    assert "numpy" in loaded  # it decided
    assert not loaded & (HEAVY | {"sqlalchemy", "cryptography", "jinja2", "rich"})


@pytest.mark.parametrize(
    "room",
    [
        "policy",
        "ledger",
        "crypto",
        "databases",
        "privacy",
        "config",
        "schema",
        "messages",
        "errors",
        "events",
    ],
)
def test_an_auditors_rooms_never_load_torch(room: str) -> None:
    walk = (
        "import importlib, pkgutil; room = importlib.import_module('fedgen.' + sys.argv[1]); "
        "[importlib.import_module(m.name) "
        "for m in pkgutil.walk_packages(getattr(room, '__path__', []), room.__name__ + '.')]"
    )
    assert not _loaded_after(walk, room) & {"torch", "opacus", "flwr", "ray"}


def test_the_check_finds_what_it_looks_for() -> None:
    assert "torch" in _loaded_after("import fedgen.models.base")
