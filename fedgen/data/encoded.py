"""A whole table as codes: what training reads, in memory that does not depend on the size of the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedgen.data.growing import SPILL_BYTES, GrowingArray, GrowingTexts
from fedgen.errors import DataError
from fedgen.policy.subjects import subject_ids

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fedgen.data.source import Source
    from fedgen.schema.codec import Codes
    from fedgen.schema.table import ImageSchema, TableSchema


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTable:
    """Rows as codes, and whose each row is.

    Attributes:
        codes: Shape ``(n, width)``, uint8 or uint16; read-only where it came from :func:`read_encoded`.
        subjects: Identifier of each row's person, shape ``(n,)``, bytes; None if the schema names no subject.
        clamped: Column to the number of values outside its declared bounds. It stays at the site.
    """

    codes: Codes
    subjects: npt.NDArray[np.bytes_] | None = None
    clamped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.subjects is not None and len(self.subjects) != len(self.codes):
            raise ValueError(f"{len(self.codes)} rows but {len(self.subjects)} subjects")

    def __len__(self) -> int:
        return len(self.codes)


def read_encoded(
    source: Source,
    schema: TableSchema | ImageSchema,
    *,
    limit: int | None = None,
    spill_bytes: int = SPILL_BYTES,
) -> EncodedTable:
    """Return a source's rows as codes.

    Guarantees:
        - Rows are read in batches. Beyond ``spill_bytes`` codes lie in an unnamed temporary file that the
          operating system pages in, so memory does not grow with the source.
        - All or nothing: a row that does not fit its schema refuses the table, by source, column and row.
        - Only the columns that the schema names are read.

    Edge cases:
        ==========================  ============================
        ``limit`` beyond the table  all rows
        no rows                     ``DataError``
        ==========================  ============================

    Args:
        source: Where the rows come from.
        schema: What is publicly known of them.
        limit: Read at most this many rows, positive.
        spill_bytes: From which size on codes go to a temporary file (``TMPDIR`` says where); identifiers do
            so from a quarter of it.

    Raises:
        DataError: A column is missing, a row does not fit, or there are no rows.
        OSError: The disk is full.
        ValueError: ``limit`` is not positive.
    """
    from fedgen.schema.codec import Codec

    if limit is not None and limit < 1:
        raise ValueError(f"limit must be positive, not {limit}")
    codec = Codec(schema)
    codes = GrowingArray(codec.dtype, (codec.width,), spill_bytes=spill_bytes)
    subjects = GrowingTexts(spill_bytes=spill_bytes // 4)
    clamped: dict[str, int] = {}
    names = [*schema.names, *([schema.subject] if schema.subject else [])]
    try:
        for batch in source.batches(names):
            first = len(codes)
            rows = batch if limit is None else batch.slice(0, limit - first)
            encoded = codec.encode(rows, first)
            if schema.subject:
                column = rows.column(schema.subject)
                subjects.append(
                    subject_ids(column, where=source.describe, name=schema.subject, first_row=first)
                )
            codes.append(encoded.codes)
            for name, count in encoded.clamped.items():
                clamped[name] = clamped.get(name, 0) + count
            if len(codes) == limit:
                break
    except DataError as error:
        error.where = error.where or source.describe
        raise
    people = subjects.finish() if schema.subject else None
    return EncodedTable(codes=codes.finish(), subjects=people, clamped=clamped)
