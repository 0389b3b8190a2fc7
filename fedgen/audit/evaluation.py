"""The result of an evaluation: one frozen value, with an exact JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

# Pydantic reads the field types below at run time, so they are imported for good.
from fedgen.audit.basis import Basis, Reference  # noqa: TC001
from fedgen.audit.copies import Copies  # noqa: TC001
from fedgen.audit.fidelity import ColumnFit, PairFit  # noqa: TC001
from fedgen.audit.images import ImageFit  # noqa: TC001
from fedgen.audit.utility import Utility  # noqa: TC001

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_DERIVED: Final = ("column_shapes", "pair_trends")


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows went in; exact counts of real rows, so for the holder of the data only."""

    training: int
    synthetic: int
    holdout: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What synthetic data is worth, each part with whose rows it was computed from.

    Attributes:
        version: Of this document's form.
        kind: ``"table"`` or ``"image"``.
        reference: The real rows of ``columns``, ``pairs`` and ``images``.
        rows: How many rows went in.
        columns: One per column (for images: the class, if declared).
        tvd_1way: Mean over ``columns`` of the total variation distance; None for images.
        tvd_1way_floor: The same between training and held-out rows.
        pairs: Two columns at a time; None for images or a single column.
        tvd_2way: Mean over pairs; None where ``pairs`` is.
        tstr: Train on synthetic, test on real; None without a label or held-out rows.
        dcr: Distance to the closest record.
        images: Pixels; None for tables.
        basis: Whose rows ``columns`` and ``pairs`` compare.
        notes: What was left out or capped, one sentence each.
    """

    version: Literal[1]
    kind: Literal["table", "image"]
    reference: Reference
    rows: Rows
    columns: tuple[ColumnFit, ...]
    tvd_1way: float | None
    tvd_1way_floor: float | None
    pairs: PairFit | None
    tvd_2way: float | None
    tstr: Utility | None
    dcr: Copies
    images: ImageFit | None
    basis: Basis
    notes: tuple[str, ...]

    @property
    def column_shapes(self) -> dict[str, float]:
        """Return 1 - total variation distance by column."""
        return {fit.name: fit.shape for fit in self.columns}

    @property
    def pair_trends(self) -> float | None:
        """Return 1 - the mean two-way total variation distance."""
        return None if self.tvd_2way is None else 1 - self.tvd_2way

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, with the derived scores spelled out; inverse of ``from_json``."""
        document: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return document | {name: getattr(self, name) for name in _DERIVED}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Evaluation:
        """Return the evaluation a JSON document describes; inverse of ``to_json``.

        Raises:
            pydantic.ValidationError: The document has another form.
        """
        return _adapter().validate_python({k: v for k, v in document.items() if k not in _DERIVED})


@cache
def _adapter() -> TypeAdapter[Evaluation]:
    """Return the reader and writer of the JSON form."""
    from pydantic import TypeAdapter

    return TypeAdapter(Evaluation)
