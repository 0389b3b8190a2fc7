"""Files of events, profiles and records as blocks of rows, in bounded memory: CSV, Parquet, JSON Lines, CloudEvents.

A reader judges no value. It only says which rows it cannot take apart at all.
"""

from __future__ import annotations

import csv
import gzip
from contextlib import closing
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, cast

from fedgen.errors import DataError
from fedgen.policy.store.documents import json_blocks
from fedgen.policy.store.layout import COLUMNS, NEEDED, PASSED_OVER, SAME, Block, Part, tables_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from fedgen.policy.store.layout import About, Format, Table

BLOCK: Final = 50_000  # rows in memory, and in one transaction, at a time
_SUFFIXES: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".cloudevents.json": "cloudevents",
    ".cloudevents.jsonl": "cloudevents",
}


def format_of(path: Path, about: About = "events") -> Format:
    """Return the format that the file's name says.

    Raises:
        DataError: It says none.
    """
    name = path.name.lower()
    for suffix, kind in sorted(_SUFFIXES.items(), key=lambda item: -len(item[0])):
        if name.endswith(suffix) and (kind != "cloudevents" or about == "events"):
            return kind
        if name.endswith(suffix):
            break
    known = [suffix for suffix, kind in _SUFFIXES.items() if kind != "cloudevents" or about == "events"]
    raise DataError(f"{about} in a file of an unknown kind", where=path, hint=f"use {', '.join(known)}")


def blocks(
    path: Path, kind: Format, mapping: Mapping[str, str] | None, skip: int, about: About = "events"
) -> Iterator[Block]:
    """Yield the rows after the first ``skip``.

    Args:
        path: The file.
        kind: Its format.
        mapping: Our name to the file's column; columns that it does not name are passed over. None: our names, and a
            column of any other name is refused, since misspelt, ``valid_until`` would never end a grant.
        skip: Rows that were taken in before.
        about: What the rows are.

    Raises:
        DataError: The file is missing, not of its format, or lacks a column that every row has.
    """
    try:
        if kind == "csv":
            yield from _csv(path, mapping, skip, about)
        elif kind == "parquet":
            yield from _parquet(path, mapping, skip, about)
        else:
            yield from json_blocks(path, kind, mapping, skip, about, BLOCK)
    except FileNotFoundError:
        raise DataError("no such file", where=path, hint="check the path") from None
    except (gzip.BadGzipFile, EOFError):
        raise DataError("not a whole gzip file", where=path, hint="send it again") from None


def _placed(
    names: list[str], mapping: Mapping[str, str] | None, path: Path, about: About
) -> tuple[Table, dict[str, int]]:
    """Return which table the columns belong to, and where each of ours is."""
    for name in names:
        if names.count(name) > 1:
            raise DataError("two columns of one name", where=path, key=name, hint="keep one")
    ours = {SAME[about].get(name, name): name for name in names} if mapping is None else dict(mapping)
    if mapping is None and len(ours) < len(names):
        twice = next(name for our, name in SAME[about].items() if our in names and name in names)
        raise DataError("two columns of one name", where=path, key=twice, hint="keep one")
    table = tables_of(about, ours)
    known = COLUMNS[table]
    hint = f"{about} have {', '.join(known)}"
    for our, theirs in ours.items():
        if our not in known and not (mapping is None and our in PASSED_OVER):
            raise DataError("unknown column", where=path, key=our, hint=hint)
        if theirs not in names:
            mend = "check the mapping of columns"
            raise DataError("a column is missing", where=path, key=theirs, hint=mend)
    for need in NEEDED[table]:
        if need not in ours:
            raise DataError("a column is missing", where=path, key=need, hint=hint)
    return table, {our: names.index(theirs) for our, theirs in ours.items() if our in known}


def _csv(path: Path, mapping: Mapping[str, str] | None, skip: int, about: About) -> Iterator[Block]:
    """Yield a CSV's rows; a row with too many or too few values is broken."""
    gz = path.name.lower().endswith(".gz")
    how = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    opened = cast("IO[str]", gzip.open(path, "rt", **how) if gz else path.open(**how))  # type: ignore[call-overload]  # noqa: SIM115 -- closed below
    with opened as file:
        reader = csv.reader(file, strict=True)
        header = _page(reader, 1)[:1]
        if not header or not header[0]:
            raise DataError("no header", where=path, hint="name the columns in the first line")
        table, at = _placed(header[0], mapping, path, about)
        number = 0
        while page := _page(reader, BLOCK):
            first, number = number, number + len(page)
            if number > skip:
                fresh = max(skip - first, 0)
                yield _finished(first + fresh, page[fresh:], len(header[0]), table, at)


def _page(reader: Any, most: int) -> list[list[str] | None]:
    """Return the next rows, None for one that cannot be taken apart; an empty line is no row."""
    rows: list[list[str] | None] = []
    while (wanted := most - len(rows)) > 0:
        page: list[list[str] | None] = []
        try:
            page.extend(islice(reader, wanted))
            over = len(page) < wanted
        except csv.Error:  # what came before it is in the list
            page.append(None)
            over = False
        rows += page if [] not in page else [row for row in page if row != []]
        if over:
            break
    return rows


def _finished(
    first: int, rows: list[list[str] | None], width: int, table: Table, at: dict[str, int]
) -> Block:
    """Return a block with its rows turned into columns; an empty value is a null."""
    numbers = list(range(first + 1, first + len(rows) + 1))
    block = Block(first + len(rows))
    whole = [row is not None and len(row) == width for row in rows]
    if not all(whole):
        block.broken = [number for number, good in zip(numbers, whole, strict=True) if not good]
        numbers = [number for number, good in zip(numbers, whole, strict=True) if good]
        rows = [row for row, good in zip(rows, whole, strict=True) if good]
    if rows:
        turned = list(zip(*cast("list[list[str]]", rows), strict=True))
        columns: dict[str, list[Any] | pa.Array] = {
            name: [value or None for value in turned[place]] for name, place in at.items()
        }
        block.parts.append(Part(table, numbers, columns))
    return block


def _parquet(path: Path, mapping: Mapping[str, str] | None, skip: int, about: About) -> Iterator[Block]:
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
        table, at = _placed(list(file.schema_arrow.names), mapping, path, about)
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
