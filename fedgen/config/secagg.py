"""The ``secagg`` section of a study: how sums are taken so that nobody sees a site's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from fedgen.config.base import Frozen
from fedgen.config.fields import MAX_SITES, Number

Some = Annotated[int, Number, Field(ge=0, le=MAX_SITES)]
Half = Annotated[int, Number, Field(ge=2, le=MAX_SITES)]


def _ring(value: object) -> object:
    """Accept the digits a command line brings."""
    return int(value) if isinstance(value, str) and value in {"32", "64"} else value


class SecaggSpec(Frozen):
    """How the sites' vectors are added up under ``trust: distributed``.

    What joins these numbers to the roster is checked by :func:`fedgen.config.distributed.distributed_plan`.

    Attributes:
        protocol: ``full`` runs all cryptography; ``sum`` leaves out masks that cancel, for simulations: the same bits
            in every aggregate, and nothing is hidden from whoever runs it.
        threshold: Sites that must agree on who is in a sum, and shares that open a secret; None means two thirds of
            the roster, rounded up.
        dropouts: Sites that may be missing from a sum. The noise is sized for it: more noise if nobody is missing.
        colluders: Sites assumed to tell the coordinator all they know. The noise is sized for it too.
        recovery: ``unmask`` opens a sum from which sites dropped out; ``restart`` begins again without them.
        ring: Bits of an item: 32, 64, or ``auto`` for the smallest in which no sum can wrap.
    """

    protocol: Literal["full", "sum"] = "full"
    threshold: Half | None = None
    dropouts: Some = 0
    colluders: Some = 0
    recovery: Literal["unmask", "restart"] = "unmask"
    ring: Annotated[Literal["auto", 32, 64], BeforeValidator(_ring)] = "auto"
