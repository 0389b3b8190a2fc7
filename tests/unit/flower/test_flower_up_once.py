"""One supervisor serves a coordinator's home; a second one says so before it starts anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fedgen.api.enrolment import server_init
from fedgen.enrolment.server_home import ServerHome
from fedgen.errors import ConfigError
from fedgen.flower.up import ServerUp
from fedgen.runs.lock import locked

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_supervisor_names_the_first_and_starts_nothing(tmp_path: Path) -> None:
    server_init(tmp_path / "office", "127.0.0.1:8443")
    home = ServerHome(tmp_path / "office")
    said: list[tuple[str, str]] = []
    second = ServerUp(home, lambda what, whom: said.append((what, whom)), proxy=False)
    with (
        locked(home.flower),
        pytest.raises(ConfigError, match=r"another `fedgen server up` serves this home.*\(stop it first\)"),
    ):
        second.run()
    assert "started" not in {what for what, _ in said}
