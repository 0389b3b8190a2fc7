"""What must become of a model or a release when a person is revoked: one class each, in order of their reach.

====================  ======================================================================================
``none_needed``       it was shown to be anonymous, or the person is not behind it
``rollback``          training goes on from the last checkpoint before the first use
``retrain``           there is no such checkpoint: training begins anew
``withdraw_release``  it left as a release: it is withdrawn, and its receivers are told
``unsupported``       nobody can say what is behind it, or nothing here can mend it: a person has to decide
====================  ======================================================================================

A class says what is done to weights and files. It is no claim about what a model remembers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Remedy(StrEnum):
    """What must become of an artefact; later ones reach further."""

    NONE_NEEDED = "none_needed"
    ROLLBACK = "rollback"
    RETRAIN = "retrain"
    WITHDRAW_RELEASE = "withdraw_release"
    UNSUPPORTED = "unsupported"

    @property
    def reach(self) -> int:
        """Its place in the order."""
        return _ORDER[self]


_ORDER: Final = {remedy: place for place, remedy in enumerate(Remedy)}


class Kind(StrEnum):
    """What an artefact is."""

    CHECKPOINT = "checkpoint"
    RELEASE = "release"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Made:
    """An artefact, as far as a remedy depends on it.

    Attributes:
        kind: What it is.
        round: The last round behind it.
        lineage_known: Whether the rounds behind it, and who was in them, are on record.
        anonymous: Whether an assessment that counts now showed it to be anonymous.
    """

    kind: Kind
    round: int
    lineage_known: bool = True
    anonymous: bool = False


def remedy_for(made: Made, first_use: int | None, kept: Collection[int]) -> Remedy:
    """Return what must become of an artefact.

    Guarantees:
        - An earlier first use, and one revocation more, never give a class that reaches less far.

    Edge cases:
        - Round 0, a model nobody's data went into, is no checkpoint to go on from: that is to begin anew.

    Args:
        made: The artefact.
        first_use: The first round behind it that may have used a revoked person; None if there is none.
        kept: Rounds of the checkpoints that are still there.

    Source: POLICY 6.4; EDPB Opinion 28/2024 on what makes a model anonymous; GDPR Art. 17(1), 7(3).
    """
    if made.anonymous:
        return Remedy.NONE_NEEDED
    if not made.lineage_known:
        return Remedy.UNSUPPORTED
    if first_use is None or made.round < first_use:
        return Remedy.NONE_NEEDED
    if made.kind is Kind.RELEASE:
        return Remedy.WITHDRAW_RELEASE
    if made.kind is Kind.OTHER:
        return Remedy.UNSUPPORTED
    return Remedy.ROLLBACK if last_before(first_use, kept) else Remedy.RETRAIN


def last_before(first_use: int, kept: Collection[int]) -> int:
    """Return the round of the last checkpoint before the first use; 0 if training has to begin anew."""
    return max((number for number in kept if 0 < number < first_use), default=0)


def furthest(remedies: Iterable[Remedy]) -> Remedy:
    """Return the class that reaches furthest; ``none_needed`` of none."""
    return max(remedies, key=lambda remedy: remedy.reach, default=Remedy.NONE_NEEDED)
