"""Checks that read as prose: ``positive(clip=x)`` raises with the argument's own name in the message."""

from __future__ import annotations

import math


def _each(values: dict[str, float], claim: str, *, holds: bool | None = None) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, not {value}")
        if holds is False:
            raise ValueError(f"{name} must be {claim}, not {value}")


def finite(**values: float) -> None:
    """Raise ``ValueError`` unless every value is finite."""
    _each(values, "finite")


def positive(**values: float) -> None:
    """Raise ``ValueError`` unless every value is finite and greater than zero."""
    for name, value in values.items():
        _each({name: value}, "positive", holds=value > 0)


def non_negative(**values: float) -> None:
    """Raise ``ValueError`` unless every value is finite and at least zero."""
    for name, value in values.items():
        _each({name: value}, "at least zero", holds=value >= 0)


def probability(**values: float) -> None:
    """Raise ``ValueError`` unless every value lies in (0, 1]."""
    for name, value in values.items():
        _each({name: value}, "in (0, 1]", holds=0 < value <= 1)


def open_probability(**values: float) -> None:
    """Raise ``ValueError`` unless every value lies in (0, 1)."""
    for name, value in values.items():
        _each({name: value}, "strictly between 0 and 1", holds=0 < value < 1)
