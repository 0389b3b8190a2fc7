"""What goes into a bug report: versions and checks, no path of a person, no secret."""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

import fedgen
from fedgen.api import versions as room
from fedgen.api.doctor import doctor
from fedgen.api.versions import PACKAGES, versions

if TYPE_CHECKING:
    import pytest


def test_versions_name_the_package_python_and_what_shapes_a_result() -> None:
    found = versions()
    assert found["fedgen"] == fedgen.__version__
    assert {"python", "torch", "opacus", "flwr", "dp-accounting", "cryptography"} <= set(found)


def test_an_absent_extra_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = room.version

    def without_ray(package: str) -> str:
        if package == "ray":
            raise PackageNotFoundError
        return real(package)

    monkeypatch.setattr(room, "version", without_ray)
    assert "ray" not in versions()
    assert set(versions()) <= {"fedgen", "python", *PACKAGES}


def test_the_version_is_the_one_of_the_project_file() -> None:
    import tomllib

    root = Path(__file__).resolve().parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == fedgen.__version__


def test_doctor_checks_what_a_run_rests_on(tmp_path: Path) -> None:
    document = doctor(tmp_path)
    assert {"versions", "machine", "torch", "checks"} == set(document)
    checks = document["checks"]
    assert checks["entropy"] is True
    assert checks["hybrid_encryption"] is True
    assert checks["clock_plausible"] is True
    assert checks["folder_writable"] is True
    assert checks["disk_free_gib"] > 0


def test_doctor_names_no_path_and_no_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "zq-canary-user")
    monkeypatch.setenv("FEDGEN_SECRET", "zq-canary-secret")
    text = json.dumps(doctor(tmp_path))
    assert "zq-canary" not in text
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text or str(Path.home()) == os.sep


def test_a_broken_source_of_randomness_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgen.api.doctor._hybrid", lambda: True)
    monkeypatch.setattr("fedgen.api.doctor.os.urandom", lambda count: b"\x00" * count)
    assert doctor(tmp_path)["checks"]["entropy"] is False
