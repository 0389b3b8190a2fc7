"""The public names are there, come from one place, and nothing else is."""

from __future__ import annotations

import pytest

import fedgen
import fedgen.api


def test_every_public_name_is_importable() -> None:
    for name in fedgen.__all__:
        assert getattr(fedgen, name) is not None
    for name in fedgen.api.__all__:
        assert getattr(fedgen.api, name) is not None


def test_both_faces_are_one() -> None:
    for name in set(fedgen.__all__) - {"__version__"}:
        assert getattr(fedgen, name) is getattr(fedgen.api, name)


@pytest.mark.parametrize("module", [fedgen, fedgen.api])
def test_an_unknown_name_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = module.nonsense  # type: ignore[attr-defined]
