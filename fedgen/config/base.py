"""The base of everything a person writes in a file: frozen, closed, strict about unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A frozen value read from a file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, populate_by_name=True)
