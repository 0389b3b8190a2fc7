"""The proxy's log: bounded, whoever asks, and opened anew by a proxy that runs."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from support import proxying

from fedgen.flower.up import roll_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.deployment, pytest.mark.process, pytest.mark.needs("nginx")]


@pytest.fixture(scope="module")
def front() -> Iterator[proxying.Front]:
    with proxying.nginx(rate=1, burst=1) as it:
        yield it


def _wait_for(path: Path, least: int = 1) -> list[dict[str, str]]:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= least:
            return [json.loads(line) for line in lines]
        time.sleep(0.02)
    raise AssertionError("nothing was written")


def test_a_flood_that_is_turned_away_is_not_written_down(front: proxying.Front) -> None:
    answers = [front.ask("GET", "/health")[0] for _ in range(40)]
    assert answers.count(429) >= 20
    front.process.send_signal(10)  # SIGUSR1: what waits in a buffer is out
    found = _wait_for(front.folder / "access.log")
    assert "429" not in {entry["status"] for entry in found}
    assert len(found) < 20


def test_a_long_log_is_put_away_and_the_proxy_goes_on_with_another(front: proxying.Front) -> None:
    log = front.folder / "access.log"
    running = SimpleNamespace(pid=front.process.pid)
    _wait_for(log)
    assert not roll_log(log, running)  # type: ignore[arg-type]
    assert roll_log(log, running, most=1)  # type: ignore[arg-type]
    assert _wait_for(log.with_name("access.log.1"))
    until = time.monotonic() + 20
    while not (log.exists() and log.read_text()) and time.monotonic() < until:
        front.ask("GET", "/health")
        time.sleep(0.2)
    assert _wait_for(log)
    assert not roll_log(log, None, most=1)
