"""Rooms know only the floors below them; import-linter says so about the whole package."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
    "contracts"
]


def test_every_import_contract_is_kept() -> None:
    script = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_every_room_of_the_package_has_a_floor() -> None:
    layers = " | ".join(next(c for c in CONTRACTS if c["type"] == "layers")["layers"])
    named = {name.strip() for name in layers.split("|")}
    package = ROOT / "fedgen"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    rooms |= {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    assert named == {f"fedgen.{room}" for room in rooms}


def test_every_fence_holds_for_every_room_but_its_own() -> None:
    layers = " | ".join(next(c for c in CONTRACTS if c["type"] == "layers")["layers"])
    rooms = {name.strip() for name in layers.split("|")}
    small = {
        "fedgen.errors",
        "fedgen.events",
        "fedgen._files",
        "fedgen._resources",
        "fedgen._signals",
        "fedgen._validate",
    }
    fences = [c for c in CONTRACTS if c["name"].startswith("fence: only fedgen.")]
    assert len(fences) == 4
    for fence in fences:
        owner = fence["name"].split()[2]
        assert set(fence["source_modules"]) == rooms - small - {owner}, fence["name"]
