"""Naming the audit or the report costs no classifier, no Arrow and no template engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

LATE = ("torch", "sklearn", "scipy", "pyarrow", "jinja2", "opacus", "dp_accounting", "pandas")


@pytest.mark.parametrize(
    "module", ["fedgen.audit", "fedgen.audit.evaluate", "fedgen.report.model", "fedgen.report.render"]
)
def test_heavy_libraries_come_late(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({LATE!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
