"""The Python face: what the command line does, for a notebook or a program."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fedgen.api.checks import Plan, check
    from fedgen.api.evaluation import evaluate
    from fedgen.api.run import Run, load_run
    from fedgen.api.simulation import simulate
    from fedgen.api.synthesizer import Privacy, Synthesizer

__all__ = ["Plan", "Privacy", "Run", "Synthesizer", "check", "evaluate", "load_run", "simulate"]

_HOMES: Final = {
    "Plan": "checks",
    "check": "checks",
    "evaluate": "evaluation",
    "Run": "run",
    "load_run": "run",
    "simulate": "simulation",
    "Privacy": "synthesizer",
    "Synthesizer": "synthesizer",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its own file when it is first used: torch costs seconds."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"fedgen.api.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fedgen.api' has no attribute {name!r}")
