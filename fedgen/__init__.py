"""fedgen: federated training of generative models under differential privacy, without moving a row.

The public face is small and imports nothing heavy until it is used::

    import fedgen

    run = fedgen.simulate("study.yaml")
    run.sample(1000)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Privacy", "Run", "Synthesizer", "__version__", "check", "evaluate", "load_run", "simulate"]

if TYPE_CHECKING:
    from fedgen.api import Privacy, Run, Synthesizer, check, evaluate, load_run, simulate


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used (PEP 562)."""
    if name in __all__:
        import fedgen.api

        return getattr(fedgen.api, name)
    raise AttributeError(f"module 'fedgen' has no attribute {name!r}")
