"""What happens during a run, as frozen values any listener may watch.

A listener is a callable; it cannot change the run. Nothing here holds a row or a site's exact count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedgen.errors import Code


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """A run began or was resumed at ``first_round`` (one-based)."""

    study: str
    study_hash: str
    sites: int
    first_round: int
    rounds: int


@dataclass(frozen=True, slots=True)
class SiteRefused:
    """A site answered with a code, or did not answer in time."""

    round: int
    site: str
    code: Code


@dataclass(frozen=True, slots=True)
class RoundFinished:
    """A round was summed, checked and saved.

    Attributes:
        round: One-based.
        attempt: One-based; greater than one after a restart.
        sites: How many updates went into the sum.
        roster: How many sites the study has.
        epsilon: Upper bound on what the most-charged site has spent so far, or None when not private.
        allowed: What the study may spend, or None when not private.
        seconds: Wall seconds of this round.
    """

    round: int
    attempt: int
    sites: int
    roster: int
    epsilon: float | None
    allowed: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class StudyFinished:
    """The run ended: ``completed``, ``budget``, ``quorum``, ``interrupted``."""

    outcome: str
    rounds: int


Event = StudyStarted | SiteRefused | RoundFinished | StudyFinished
Listener = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Listen to nothing."""
