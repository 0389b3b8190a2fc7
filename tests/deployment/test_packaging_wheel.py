"""What is installed has every file of the kit; what Flower carries has two small folders of code and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import tools
from support.kit import ROOT

FAB_LIMIT = 100_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def test_every_file_of_the_kit_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {
        path.relative_to(ROOT).as_posix()
        for folder in ("server", "clients", "policies")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(shipped) > 40
    assert {f"fedgen/_kit/{name}" for name in shipped} <= names
    inside = {name.removeprefix("fedgen/_kit/") for name in names if name.startswith("fedgen/_kit/")}
    assert inside == shipped


def test_the_proxy_is_configured_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = (
        "from pathlib import Path\n"
        "import fedgen\n"
        "from fedgen.config.proxy import Proxy, nginx_configuration\n"
        "p = Path('/srv/x')\n"
        "text = nginx_configuration(Proxy('0.0.0.0:8443', 'a.example', p, p, '127.0.0.1:1', p, p))\n"
        "print(fedgen.__file__, 'limit_conn' in text)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.stdout.split() == [str(tmp_path / "installed" / "fedgen" / "__init__.py"), "True"]


@pytest.mark.deployment
@pytest.mark.process
def test_the_bundle_that_flower_carries_is_small_and_holds_the_two_apps(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, app)
    for name in ("server", "clients", "policies"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    (app / "server" / "secrets").mkdir()
    (app / "server" / "secrets" / "pgpass").write_text("db:5432:fedgen:fedgen:hunter2")
    from fedgen.flower.environment import QUIET

    environment = {**os.environ, **QUIET, "FLWR_HOME": str(tmp_path / "flower")}
    done = subprocess.run(
        [str(tools.program("flwr")), "build", "--app", str(app)],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (bundle,) = tmp_path.rglob("*.fab")
    assert bundle.stat().st_size < FAB_LIMIT
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    code = {
        f"{folder}/{path.name}" for folder in ("server", "clients") for path in (ROOT / folder).glob("*.py")
    }
    assert names == code | {"pyproject.toml", ".info/CONTENT"}
