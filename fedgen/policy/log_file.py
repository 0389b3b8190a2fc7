"""Reading a consent log's file into columns: CSV, Parquet or JSON Lines, all or nothing."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from fedgen.errors import DataError
from fedgen.policy.fold import EVERY_PURPOSE, NEVER, Events, Status
from fedgen.policy.instants import microseconds
from fedgen.policy.subjects import subject_ids

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

REQUIRED: Final = ("subject", "purpose", "status", "recorded_at")
OPTIONAL: Final = ("effective_at", "expires_at")
_COLUMNS: Final = (*REQUIRED, *OPTIONAL)
_TEXTS: Final = (
    *_COLUMNS, "explicit", "given_by", "notice_id", "notice_version", "method", "scope", "exception",
    "after_conflict_notice", "birth_date", "residence", "timezone",
)  # fmt: skip
_STATUS: Final = {status.name.lower(): status for status in Status}


def read_bytes(path: Path) -> bytes:
    """Return the file's bytes.

    Raises:
        DataError: It is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such consent log", where=path, hint="check the path in the site's file") from None
    except OSError as error:
        raise DataError("the consent log cannot be read", where=path, hint=str(error.strerror)) from None


def parse(content: bytes, where: Path) -> Events:
    """Return the events in ``content``, whose format ``where``'s suffix names.

    Guarantees:
        - Every row is understood, or the whole file is refused.
        - A message names file, column and row (one-based, not counting a header), never a value.

    Raises:
        DataError: See :meth:`fedgen.policy.consent.ConsentLog.read`.
    """
    table = table_of(content, where)
    _check_columns(table.column_names, where)
    return _events(table, str(where))


def table_of(content: bytes, where: Path) -> pa.Table:
    """Return the columns of a CSV, Parquet or JSON Lines file, whatever they are called; texts, or Parquet's own types.

    Raises:
        DataError: The file is of another kind, or not a readable one.
    """
    name = where.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _csv(content, where)
    if name.endswith(".parquet"):
        return _parquet(content, where)
    if name.endswith(".jsonl"):
        return _json_lines(content, where)
    hint = "use .csv, .csv.gz, .parquet or .jsonl"
    raise DataError("a consent log of an unknown kind", where=where, hint=hint)


def _csv(content: bytes, where: Path) -> pa.Table:
    """Return a CSV's columns as text."""
    import pyarrow as pa
    from pyarrow import csv

    ragged: list[int] = []

    def refuse(row: csv.InvalidRow) -> str:
        ragged.append((row.number or 1) - 1)
        return "error"

    kind = "gzip" if where.name.lower().endswith(".gz") else None
    try:
        return csv.read_csv(
            pa.input_stream(pa.BufferReader(content), compression=kind),
            read_options=csv.ReadOptions(use_threads=False, block_size=1 << 24),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(_TEXTS, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except (pa.ArrowInvalid, OSError):  # their text quotes the row
        place = f"row {ragged[0]} has too many or too few values" if ragged else "not a readable CSV file"
        raise DataError(place, where=where, hint="UTF-8, one header, the same columns in each row") from None


def _parquet(content: bytes, where: Path) -> pa.Table:
    """Return a Parquet file's columns as they are."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError):
        raise DataError("not a readable Parquet file", where=where, hint="write it again") from None


def _json_lines(content: bytes, where: Path) -> pa.Table:
    """Return the columns of one JSON object a line; every value is text or null."""
    import pyarrow as pa

    rows: list[dict[str, str | None]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        row = _row(line)
        if row is None:
            hint = "one flat object a line, each key once, values as text"
            raise DataError("not a JSON object of texts", where=where, line=number, hint=hint)
        rows.append(row)
    names = dict.fromkeys(key for row in rows for key in row) if rows else REQUIRED
    return pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})


def _row(line: bytes) -> dict[str, str | None] | None:
    """Return a line's flat object of texts and nulls, or None if it is anything else."""
    try:
        row = json.loads(line, object_pairs_hook=_distinct)
        if not isinstance(row, dict) or not all(v is None or isinstance(v, str) for v in row.values()):
            return None
        "".join((*row, *(v or "" for v in row.values()))).encode()  # a lone surrogate has no bytes
    except (ValueError, RecursionError):
        return None
    return row


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dict, refusing a repeated key (the last would win in silence)."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("repeated key")
    return result


def _check_columns(names: list[str], where: Path) -> None:
    """Refuse a repeated, missing or unknown column: misspelt, ``expires_at`` would never end a grant."""
    for name in names:
        if names.count(name) > 1:
            raise DataError("two columns of one name", where=where, key=name, hint="keep one")
        if name not in _COLUMNS:
            near = difflib.get_close_matches(name, _COLUMNS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"a consent log has {', '.join(_COLUMNS)}"
            raise DataError("unknown column", where=where, key=name, hint=hint)
    for name in REQUIRED:
        if name not in names:
            hint = f"a consent log needs {', '.join(REQUIRED)}"
            raise DataError("a column is missing", where=where, key=name, hint=hint)


def _events(table: pa.Table, where: str) -> Events:
    """Return checked columns."""
    import pyarrow.compute as pc

    subject = subject_ids(table["subject"], where=where, name="subject")
    people, subject_index = np.unique(subject, return_inverse=True)
    status = _status(table["status"], where)
    named = _text(table["purpose"], where, "purpose").dictionary_encode()
    purposes = tuple(named.dictionary.to_pylist())
    purpose = named.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    _check_purposes(purposes, purpose, status, where)
    recorded = microseconds(table["recorded_at"], where=where, name="recorded_at")
    effective, expires = recorded, np.full(len(recorded), NEVER, dtype=np.int64)
    if "effective_at" in table.column_names:
        given = pc.is_valid(table["effective_at"]).to_numpy()
        effective = np.where(
            given, microseconds(table["effective_at"], where=where, name="effective_at", missing=0), recorded
        )
    if "expires_at" in table.column_names:
        ends = microseconds(table["expires_at"], where=where, name="expires_at", missing=NEVER)
        expires = np.where(status == Status.GRANTED, ends, NEVER)
    return Events(people, purposes, subject_index, purpose, status, recorded, effective, expires)


def _text(column: pa.ChunkedArray, where: str, name: str) -> pa.Array:
    """Return a column of text without nulls, empty or padded values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise DataError(f"{array.type} where text belongs", where=where, key=name, hint="store it as text")
    bad = pc.or_(pc.not_equal(pc.utf8_trim_whitespace(array), array), pc.equal(pc.binary_length(array), 0))
    row = pc.index(bad.fill_null(True), True).as_py()
    if row >= 0:
        _refuse(row, "is empty or has space around it", where, name, "write the bare word")
    return array


def _status(column: pa.ChunkedArray, where: str) -> NDArray[np.uint8]:
    """Return statuses; an unknown one refuses the file, since it may be a restriction."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = _text(column, where, "status")
    place = pc.index_in(text, value_set=pa.array(list(_STATUS), text.type))
    row = pc.index(pc.is_null(place), True).as_py()
    if row >= 0:
        _refuse(row, "is not a known status", where, "status", f"one of {', '.join(_STATUS)}")
    values = np.array([status.value for status in _STATUS.values()], dtype=np.uint8)
    return np.asarray(values[place.to_numpy(zero_copy_only=False)], dtype=np.uint8)


def _check_purposes(
    purposes: tuple[str, ...], purpose: NDArray[np.int64], status: NDArray[np.uint8], where: str
) -> None:
    """Refuse a grant for every purpose: consent is specific (GDPR Art. 6(1)(a), recital 32)."""
    if EVERY_PURPOSE in purposes:
        wide = (purpose == purposes.index(EVERY_PURPOSE)) & (status == Status.GRANTED)
        if wide.any():
            _refuse(int(wide.argmax()), "grants every purpose", where, "purpose", "name the purpose granted")


def _refuse(row: int, what: str, where: str, name: str, hint: str) -> NoReturn:
    raise DataError(f"row {row + 1} {what}", where=where, key=name, hint=hint)
