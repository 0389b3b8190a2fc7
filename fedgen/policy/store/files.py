"""Files of events as blocks of rows, in bounded memory: CSV, Parquet, JSON Lines and CloudEvents.

A reader judges no value. It only says which rows it cannot take apart at all.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

Format = Literal["csv", "parquet", "jsonl", "cloudevents"]
Table = Literal["consent_event", "rights_event"]
BLOCK: Final = 20_000
_LINE: Final = 1 << 20
_DOCUMENT: Final = 64 << 20
_SUFFIXES: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".cloudevents.json": "cloudevents",
    ".cloudevents.jsonl": "cloudevents",
}
_TYPE: Final = re.compile(r"org\.fedgen\.(consent|rights)\.([a-z_]+)\.v1")
COLUMNS: Final[dict[Table, tuple[str, ...]]] = {
    "consent_event": (
        "event_id",
        "subject_id",
        "purpose",
        "action",
        "explicit",
        "given_by",
        "notice_id",
        "notice_version",
        "method",
        "valid_until",
        "effective_at",
        "evidence_sha256",
    ),
    "rights_event": (
        "event_id",
        "subject_id",
        "kind",
        "scope",
        "exception",
        "given_by",
        "after_conflict_notice",
        "method",
        "verified_at",
        "effective_at",
        "evidence_sha256",
    ),
}


@dataclass(slots=True)
class Part:
    """Rows of one table: their one-based numbers in the file, and their values by our names."""

    table: Table
    rows: list[int]
    columns: dict[str, list[Any] | pa.Array]


@dataclass(slots=True)
class Block:
    """What a reader gives at a time.

    Attributes:
        upto: Rows of the file that are behind us after this block.
        parts: Rows that could be taken apart.
        broken: Numbers of rows that could not.
    """

    upto: int
    parts: list[Part] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)


def format_of(path: Path) -> Format:
    """Return the format that the file's name says.

    Raises:
        DataError: It says none.
    """
    name = path.name.lower()
    for suffix, kind in sorted(_SUFFIXES.items(), key=lambda item: -len(item[0])):
        if name.endswith(suffix):
            return kind
    hint = f"use {', '.join(_SUFFIXES)}"
    raise DataError("events in a file of an unknown kind", where=path, hint=hint)


def blocks(path: Path, kind: Format, mapping: Mapping[str, str] | None, skip: int) -> Iterator[Block]:
    """Yield the rows after the first ``skip``.

    Args:
        path: The file.
        kind: Its format.
        mapping: Our name to the file's column; columns that it does not name are passed over. None: our names, and a
            column of any other name is refused, since misspelt, ``valid_until`` would never end a grant.
        skip: Rows that were taken in before.

    Raises:
        DataError: The file is missing, not of its format, or lacks a column that every event has.
    """
    try:
        if kind == "csv":
            yield from _csv(path, mapping, skip)
        elif kind == "parquet":
            yield from _parquet(path, mapping, skip)
        else:
            yield from _json(path, kind, mapping, skip)
    except FileNotFoundError:
        raise DataError("no such file", where=path, hint="check the path") from None
    except (gzip.BadGzipFile, EOFError):
        raise DataError("not a whole gzip file", where=path, hint="send it again") from None


def _placed(names: list[str], mapping: Mapping[str, str] | None, path: Path) -> tuple[Table, dict[str, int]]:
    """Return which table the columns belong to, and where each of ours is."""
    for name in names:
        if names.count(name) > 1:
            raise DataError("two columns of one name", where=path, key=name, hint="keep one")
    ours = {name: name for name in names} if mapping is None else dict(mapping)
    table: Table = "rights_event" if "kind" in ours else "consent_event"
    known = COLUMNS[table]
    for our, theirs in ours.items():
        if our not in known and not (mapping is None and our == "recorded_at"):
            raise DataError("unknown column", where=path, key=our, hint=f"events have {', '.join(known)}")
        if theirs not in names:
            raise DataError(
                "a column is missing", where=path, key=theirs, hint="check the mapping of columns"
            )
    own = ("kind",) if table == "rights_event" else ("action", "purpose")
    for need in ("event_id", "subject_id", "effective_at", *own):
        if need not in ours:
            raise DataError(
                "a column is missing", where=path, key=need, hint=f"events have {', '.join(known)}"
            )
    # A sender's record time is read by nobody: the store sets its own.
    return table, {our: names.index(theirs) for our, theirs in ours.items() if our in known}


def _csv(path: Path, mapping: Mapping[str, str] | None, skip: int) -> Iterator[Block]:
    """Yield a CSV's rows; a row with too many or too few values is broken."""
    gz = path.name.lower().endswith(".gz")
    how = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    opened = cast("IO[str]", gzip.open(path, "rt", **how) if gz else path.open(**how))  # type: ignore[call-overload]  # noqa: SIM115 -- closed below
    with opened as file:
        reader = csv.reader(file, strict=True)
        header = _next(reader)
        if not header or header is _END:
            raise DataError("no header", where=path, hint="name the columns in the first line")
        table, at = _placed(header, mapping, path)
        width, number = len(header), 0
        rows: list[tuple[int, list[str]]] = []
        block = Block(0)
        while (row := _next(reader)) is not _END:
            if row == []:  # an empty line is no row
                continue
            number += 1
            if number <= skip:
                continue
            if row is None or len(row) != width:
                block.broken.append(number)
            else:
                rows.append((number, row))
            if number % BLOCK == 0:
                yield _finished(block, number, table, at, rows)
                rows, block = [], Block(0)
        if number > skip and (rows or block.broken):
            yield _finished(block, number, table, at, rows)


_END: Final[list[str]] = ["end"]


def _next(reader: Any) -> list[str] | None:
    """Return the next row, None for one that cannot be taken apart, :data:`_END` at the end."""
    try:
        return cast("list[str]", next(reader, _END))
    except csv.Error:
        return None


def _finished(
    block: Block, upto: int, table: Table, at: dict[str, int], rows: list[tuple[int, list[str]]]
) -> Block:
    """Return a block with its rows turned into columns; an empty value is a null."""
    block.upto = upto
    if rows:
        turned = list(zip(*(row for _, row in rows), strict=True))
        columns: dict[str, list[Any] | pa.Array] = {
            name: [value or None for value in turned[place]] for name, place in at.items()
        }
        block.parts.append(Part(table, [number for number, _ in rows], columns))
    return block


def _parquet(path: Path, mapping: Mapping[str, str] | None, skip: int) -> Iterator[Block]:
    """Yield a Parquet file's rows; instants stay as they are."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError("not a readable Parquet file", where=path, hint="write it again") from None
    with closing(file):
        table, at = _placed(list(file.schema_arrow.names), mapping, path)
        names = [file.schema_arrow.names[place] for place in at.values()]
        number = 0
        try:
            for batch in file.iter_batches(batch_size=BLOCK, columns=names):
                first, number = number, number + len(batch)
                if number <= skip:
                    continue
                batch = batch.slice(max(skip - first, 0))  # noqa: PLW2901 -- the rest of the batch
                rows = list(range(number - len(batch) + 1, number + 1))
                columns = {our: _values(batch.column(name)) for our, name in zip(at, names, strict=True)}
                yield Block(number, [Part(table, rows, columns)])
        except (pa.ArrowException, OSError):
            raise DataError("not a readable Parquet file", where=path, hint="write it again") from None


def _values(column: pa.Array) -> list[Any] | pa.Array:
    import pyarrow as pa

    return column if pa.types.is_timestamp(column.type) else column.to_pylist()


def _json(path: Path, kind: Format, mapping: Mapping[str, str] | None, skip: int) -> Iterator[Block]:
    """Yield objects: one a line, or a JSON array of CloudEvents (its batch format)."""
    with path.open("rb") as file:
        documents = _documents(file, path, whole=path.name.lower().endswith(".json"))
        block, seen = Block(0), 0
        waiting: dict[Table, list[tuple[int, dict[str, Any]]]] = {"consent_event": [], "rights_event": []}
        unpack: Callable[[dict[str, Any]], tuple[Table, dict[str, Any]] | None]
        unpack = _cloudevent if kind == "cloudevents" else (lambda row: _mapped(row, mapping))
        for seen, document in enumerate(documents, 1):
            if seen > skip:
                said = None if document is None else unpack(document)
                if said is None:
                    block.broken.append(seen)
                else:
                    waiting[said[0]].append((seen, said[1]))
                if seen % BLOCK == 0:
                    yield _gathered(block, seen, waiting)
                    block, waiting = Block(0), {"consent_event": [], "rights_event": []}
        if seen > skip and (block.broken or any(waiting.values())):
            yield _gathered(block, seen, waiting)


def _gathered(block: Block, upto: int, waiting: dict[Table, list[tuple[int, dict[str, Any]]]]) -> Block:
    """Return a block with its objects turned into columns."""
    block.upto = upto
    for table, rows in waiting.items():
        if rows:
            columns: dict[str, list[Any] | pa.Array] = {
                n: [row.get(n) for _, row in rows] for n in COLUMNS[table]
            }
            block.parts.append(Part(table, [number for number, _ in rows], columns))
    return block


def _documents(file: IO[bytes], path: Path, *, whole: bool) -> Iterator[dict[str, Any] | None]:
    """Yield objects, None for what is none."""
    if whole:
        content = file.read(_DOCUMENT + 1)
        if len(content) > _DOCUMENT:
            raise DataError("over 64 MiB in one JSON document", where=path, hint="use one event a line")
        found = _object(content)
        items = found if isinstance(found, list) else [found]
        yield from (item if isinstance(item, dict) else None for item in items)
        return
    while line := file.readline(_LINE + 1):
        if len(line) > _LINE:
            while line and not line.endswith(b"\n"):
                line = file.readline(_LINE)
            yield None
        elif line.strip():
            found = _object(line)
            yield found if isinstance(found, dict) else None


def _object(content: bytes) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("repeated key")
    return result


def _mapped(row: dict[str, Any], mapping: Mapping[str, str] | None) -> tuple[Table, dict[str, Any]] | None:
    """Return a plain object under our names, or None if it has a key that nobody knows."""
    if mapping is None:
        said = {name: value for name, value in row.items() if name != "recorded_at"}
    else:
        said = {our: row.get(theirs) for our, theirs in mapping.items()}
    table: Table = "rights_event" if "kind" in said else "consent_event"
    return (table, said) if said.keys() <= set(COLUMNS[table]) else None


def _cloudevent(event: dict[str, Any]) -> tuple[Table, dict[str, Any]] | None:
    """Return a CloudEvent of ours under our names, or None.

    Source: CNCF CloudEvents 1.0.2, sections 3.1 and JSON format 3; ``expirytime`` and ``recordedtime`` are extension
    attributes.
    """
    kind, data = event.get("type"), event.get("data", {})
    found = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    if (
        found is None
        or event.get("specversion") != "1.0"
        or not isinstance(data, dict)
        or "source" not in event
    ):
        return None
    consent = found[1] == "consent"
    said = {**data, "event_id": event.get("id"), "effective_at": event.get("time")}
    said.setdefault("subject_id", event.get("subject"))
    said["action" if consent else "kind"] = found[2]
    if consent and "expirytime" in event:
        said["valid_until"] = event["expirytime"]
    table: Table = "consent_event" if consent else "rights_event"
    return (table, said) if said.keys() <= set(COLUMNS[table]) else None
