"""Ledgers as the tests of the ledger's room open and fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedgen.crypto.keys import SigningKey
from fedgen.ledger.store import Ledger, Receipt
from fedgen.privacy.events import PoissonGaussian

if TYPE_CHECKING:
    from pathlib import Path

KEY = SigningKey.generate()
H, H2, R, R2, D = "a" * 64, "d" * 64, "b" * 64, "e" * 64, "c" * 64
STEP = PoissonGaussian(0.05, 1.25)


def opened(place: str | Path, **changed: Any) -> Ledger:
    """Open the ledger at a path or URL; one that does not wait for the disk, unless a test asks for it."""
    given: dict[str, Any] = {"origin": "hospital", "signing_key": KEY, "durable": False}
    return Ledger.open(place, **{**given, **changed})


def reserve(ledger: Ledger, round_: int = 1, attempt: int = 1, **changed: Any) -> Receipt:
    """Charge four steps of one round to the data set ``claims``."""
    given: dict[str, Any] = {
        "dataset": "claims", "study_hash": H, "run": R, "round": round_, "attempt": attempt,
        "event": STEP, "count": 4, "check": lambda _: None,
    }  # fmt: skip
    return ledger.reserve(**{**given, **changed})
