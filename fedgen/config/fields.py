"""The number and name types that files are made of; each refuses what would decide a matter by accident."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

MAX_SITES: Final = 10_000
_LARGEST: Final = 2**53 - 1  # every integer up to here survives any JSON reader


def not_boolean(value: object) -> object:
    """Refuse ``true`` where a number is meant: it would silently become 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _printable(value: str) -> str:
    """Refuse control characters: they would forge lines in a log or a report."""
    if not value.isprintable():
        raise ValueError("must not hold control characters")
    return value


Number = BeforeValidator(not_boolean)

Count = Annotated[int, Number, Field(ge=1, le=_LARGEST)]
Whole = Annotated[int, Number, Field(ge=0, le=_LARGEST)]
Positive = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Number, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Number, Field(gt=0, le=1, allow_inf_nan=False)]
OpenUnit = Annotated[float, Number, Field(gt=0, lt=1, allow_inf_nan=False)]
Decay = Annotated[float, Number, Field(ge=0, lt=1, allow_inf_nan=False)]

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_printable)]
