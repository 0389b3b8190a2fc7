"""The package's face: every public name is there, and a schema costs no Arrow and no torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import fedgen.schema


@pytest.mark.parametrize("name", fedgen.schema.__all__)
def test_every_public_name_is_there(name: Any) -> None:
    assert getattr(fedgen.schema, name) is not None


def test_every_public_name_has_one_home() -> None:
    homes = [name for names in fedgen.schema._HOMES.values() for name in names]
    assert sorted(homes) == sorted(fedgen.schema.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fedgen.schema.Nothing


@pytest.mark.process
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import fedgen.schema", {"pydantic", "yaml", "numpy", "pyarrow", "torch", "pandas"}),
        (
            "from fedgen.schema import load_schema, layout_of, draft_schema, to_sdv",
            {"numpy", "pyarrow", "torch", "pandas"},
        ),
        ("from fedgen.schema import Codec", {"torch", "pandas", "scipy"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: Any, absent: Any) -> None:
    script = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not absent & set(ran.stdout.split())
