"""How a deployed coordinator ends is written down, except where it has not ended."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from flwr.supercore.run import RunNotRunningException

from fedgen.api import coordinating
from fedgen.coordinator.transport import LinkFailed
from fedgen.errors import ConfigError, Interrupted, QuorumLost


class Held:
    """A run that is held: keeps the last word."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def finish(self, outcome: str, _error: Any = None) -> None:
        self.words.append(outcome)


def carried_out(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[str]:
    def fails(*_: object) -> None:
        raise error

    held: Any = Held()
    nothing: Any = None
    monkeypatch.setattr(coordinating, "_coordinator", lambda *_: None)
    monkeypatch.setattr(coordinating, "patiently", fails)
    try:
        coordinating._carry_out(nothing, nothing, nothing, "run", held, 1.0)
    except type(error):
        held.words.append("raised")
    return list(held.words)


@pytest.mark.parametrize("error", [LinkFailed("the SuperLink failed"), RunNotRunningException()])
def test_a_superlink_that_fails_or_has_given_it_up_ends_a_process_and_no_run(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    assert carried_out(monkeypatch, error) == ["raised"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Interrupted("stopped"), ["interrupted"]),
        (QuorumLost("too few"), ["quorum"]),
        (ConfigError("the disk is full"), ["failed", "raised"]),
        (httpx.ConnectError("not of the link"), ["failed", "raised"]),
    ],
)
def test_every_other_end_is_the_runs(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, words: list[str]
) -> None:
    assert carried_out(monkeypatch, error) == words
