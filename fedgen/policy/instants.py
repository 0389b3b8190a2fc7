"""Instants from a file, as microseconds: RFC 3339 text with an offset, or Arrow instants with a zone."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_LOCAL: Final = r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_NAIVE: Final = rf"^{_LOCAL}$"
_ZONED: Final = rf"^{_LOCAL}([Zz]|[+-]\d{{2}}:\d{{2}})$"
_HINT: Final = "write 2026-05-04T11:00:00+02:00"


def microseconds(
    column: pa.ChunkedArray, *, where: str, name: str, missing: int | None = None
) -> NDArray[np.int64]:
    """Return instants as microseconds since 1970 in UTC.

    Guarantees:
        - No zone is ever assumed: a naive time is refused.
        - The instant is exact; a time finer than a microsecond is refused, not rounded.

    Args:
        column: Text or instants, shape ``(n,)``.
        where: What is being read, for the message.
        name: The column's name, for the message.
        missing: What a null becomes; None refuses nulls.

    Raises:
        DataError: A value is not such an instant, or is missing where it must not be.

    Source: RFC 3339, section 5.6 (``date-time``).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column.combine_chunks()
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    gap = pc.index(pc.is_null(array), True).as_py()
    if gap >= 0 and missing is None:
        raise DataError(f"row {gap + 1} has no time", where=where, key=name, hint=_HINT)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        instants = _from_text(array, where, name)
    elif pa.types.is_timestamp(array.type):
        instants = _from_timestamps(array, where, name)
    else:
        raise DataError(f"{array.type} where an instant belongs", where=where, key=name, hint=_HINT)
    # The fill is only reached where nulls are allowed.
    return np.asarray(instants.cast(pa.int64()).fill_null(missing or 0).to_numpy(zero_copy_only=False))


def _from_text(array: pa.Array, where: str, name: str) -> pa.Array:
    """Parse RFC 3339; on failure find the first bad row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    bad = pc.index(pc.match_substring_regex(array, _ZONED), False).as_py()
    if bad >= 0:
        naive = pc.match_substring_regex(array[bad : bad + 1], _NAIVE)[0].as_py()
        what = "has a time without an offset" if naive else "is not an RFC 3339 time of at most microseconds"
        raise DataError(f"row {bad + 1} {what}", where=where, key=name, hint=_HINT)
    try:
        return pc.utf8_upper(array).cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        row = next((i for i, text in enumerate(array.to_pylist()) if not _exists(text)), 0)
        what = f"row {row + 1} is not a time that exists"
        raise DataError(what, where=where, key=name, hint="check day, hour and offset") from None


def _exists(text: str | None) -> bool:
    """Say whether a well-formed time is on the calendar."""
    try:
        return text is None or datetime.fromisoformat(text.upper()) is not None
    except ValueError:
        return False


def _from_timestamps(array: pa.Array, where: str, name: str) -> pa.Array:
    """Take instants with a zone; refuse naive ones and finer ones."""
    import pyarrow as pa

    if array.type.tz is None:
        what = "row 1 and all others are times without a zone"
        raise DataError(what, where=where, key=name, hint="store instants with a time zone")
    try:
        return array.cast(pa.timestamp("us", array.type.tz))
    except pa.ArrowInvalid:
        what = "times finer than a microsecond, or out of range"
        raise DataError(what, where=where, key=name, hint="store microseconds") from None
