"""The command line in this process: exit code, stdout and stderr of one call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.cli.app import command, guarded

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Said:
    """What one call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def fedgen(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def call(*arguments: object) -> Said:
        words = [str(argument) for argument in arguments]
        capsys.readouterr()
        code = guarded(lambda: command().main(args=words, prog_name="fedgen", standalone_mode=False), words)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call
