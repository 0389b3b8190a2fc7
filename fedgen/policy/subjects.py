"""Identifiers of persons, in the one form that a table and a consent log share.

Two spellings of one person would let a withdrawal miss its rows. An identifier is therefore compared byte
for byte, and what could hide a difference (space around it, no value at all, a number with a fraction) is
refused, not mended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SUBJECT_BYTES: Final = 128


def subject_ids(column: object, *, where: str, name: str, first_row: int = 0) -> NDArray[np.bytes_]:
    """Return identifiers as a fixed-width array of UTF-8 bytes.

    Guarantees:
        - Two results are equal in a place only if the identifiers were equal, byte for byte.
        - A whole number and its decimal text give the same identifier.
        - No null, empty or padded identifier passes.

    Edge cases:
        ==================  ==========================
        no rows             empty array of width one
        dictionary-encoded  as its values
        ==================  ==========================

    Args:
        column: A ``pyarrow`` Array or ChunkedArray of text or whole numbers, shape ``(n,)``.
        where: What is being read, for the message.
        name: The column's name, for the message.
        first_row: Zero-based row of ``column[0]`` in ``where``.

    Raises:
        DataError: An identifier is missing, padded, over 128 bytes, holds a NUL, or is of another type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not isinstance(array, pa.Array):
        raise TypeError("column must be a pyarrow Array or ChunkedArray")
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    textual = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if not (textual or pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        hint = "store identifiers as text or whole numbers"
        raise DataError(f"identifiers cannot be of type {array.type}", where=where, key=name, hint=hint)
    text = array.cast(pa.string())
    size = pc.binary_length(text)

    def refuse(bad: pa.Array, what: str, hint: str) -> None:
        row = pc.index(bad.fill_null(True), True).as_py()
        if row >= 0:
            raise DataError(f"row {first_row + row + 1} {what}", where=where, key=name, hint=hint)

    refuse(pc.equal(size, 0), "names no person", "give every row its identifier")
    refuse(
        pc.not_equal(pc.utf8_trim_whitespace(text), text),
        "has space around the identifier",
        "remove the space",
    )
    refuse(
        pc.greater(size, MAX_SUBJECT_BYTES),
        f"has an identifier over {MAX_SUBJECT_BYTES} bytes",
        "use shorter identifiers",
    )
    refuse(pc.match_substring(text, "\0"), "has a NUL in the identifier", "remove it")
    width = max(pc.max(size).as_py() or 1, 1)
    return np.asarray(text.cast(pa.binary()).to_numpy(zero_copy_only=False), dtype=f"S{width}")
