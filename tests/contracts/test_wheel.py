"""The wheel holds one package, its templates and the deployment kit, and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        return wheel.namelist()


def test_one_top_level_package(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fedgen"}


@pytest.mark.parametrize(
    "name",
    [
        "fedgen/py.typed",
        "fedgen/__main__.py",
        "fedgen/report/templates/report.html.j2",
        "fedgen/report/templates/report.css",
        "fedgen/data/randhie_persons.txt",
        "fedgen/_kit/server/app.py",
        "fedgen/_kit/server/README.md",
        "fedgen/_kit/clients/app.py",
        "fedgen/_kit/clients/README.md",
        "fedgen/_kit/policies/README.md",
    ],
)
def test_what_belongs_inside_is_inside(names: list[str], name: str) -> None:
    assert name in names


def test_every_module_of_the_package_is_inside(names: list[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fedgen").rglob("*.py")}
    assert modules <= set(names)


def test_nothing_of_the_workshop_is_inside(names: list[str]) -> None:
    foreign = ("tests/", "benchmarks/", "__pycache__", ".pyc", "examples/", ".key", ".db")
    assert [name for name in names if any(part in name for part in foreign)] == []


def test_the_command_and_the_licence_are_named(names: list[str]) -> None:
    info = next(name.partition("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
    assert f"{info}/entry_points.txt" in names
    assert f"{info}/licenses/LICENSE" in names


def test_the_flower_manifest_points_to_the_kit() -> None:
    import tomllib

    manifest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    assert manifest["components"] == {"serverapp": "server.app:app", "clientapp": "clients.app:app"}
    for pattern in manifest["fab-include"]:
        assert list(ROOT.glob(pattern)), pattern
