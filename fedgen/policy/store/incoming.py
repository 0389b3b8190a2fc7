"""Bringing a file in: block by block, each with how far it got, so that a kill loses and doubles nothing.

A block's rows and the place it reaches are one transaction. A row that is no event is quarantined by file, row and
column, never by value; while a file has such rows it does not count as a sync, so that a store that may have missed a
withdrawal grows stale instead of answering.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import DataError
from fedgen.policy.store.database import driver_rows, insert_many, many_rows
from fedgen.policy.store.files import blocks, format_of
from fedgen.policy.store.judging import Fault, Judged, judge

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import sqlalchemy as sa

    from fedgen.policy.store.layout import About, Block, Format, Part
    from fedgen.policy.store.store import ConsentStore

_JOB: Final = ("job", "source", "rows_done", "added", "repeated", "suppressed", "quarantined", "finished_at")
_TOLD: Final = 20
_ONE: Final = {"events": "event", "profiles": "profile", "records": "record"}
_READ: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file.

    Attributes:
        job: Digest of the file and how it was read; the same file again goes on where it stopped.
        rows: Rows read, in this and earlier calls.
        added: Events that were new.
        repeated: Events that were there already.
        suppressed: Events of people who were erased.
        quarantined: Rows that are no events, or whose id stands for another event.
        clean: Whether nothing is in quarantine, or all of it was settled.
    """

    job: str
    rows: int
    added: int
    repeated: int
    suppressed: int
    quarantined: int
    clean: bool


def import_file(
    store: ConsentStore,
    path: str | os.PathLike[str],
    *,
    form: Format | None = None,
    mapping: Mapping[str, str] | None = None,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Bring the events of a file into the store.

    Guarantees:
        - Killed at any instant and called again, it goes on after the last block that was committed: no event is lost,
          none is there twice.
        - Memory does not grow with the file.
        - No message, and no row of the quarantine, holds a value of the file.

    Edge cases:
        ===============================================  ========================================
        a file that was brought in before                nothing happens but, if clean, a sync
        an event that is there with other content        quarantined, ``event-id-conflict``
        a time without an offset, a missing field        quarantined
        effective more than five minutes from now        quarantined
        a sender's ``recorded_at``                       not used: the store sets its own
        ===============================================  ========================================

    Args:
        store: An open store.
        path: ``.csv``, ``.csv.gz``, ``.parquet``, ``.jsonl``, ``.cloudevents.json`` or ``.cloudevents.jsonl``.
        form: The format, if the name does not say it.
        mapping: Our name to the file's column.
        strict: Refuse the file as a whole if a single row would be quarantined; it is then read twice.
        progress: Told the rows that are behind after each block.

    Raises:
        DataError: The file is missing, not of its format, or, with ``strict``, has a faulty row.
        StoreBusy: Another process holds the store.
    """
    return bring_in(store, path, EVENTS, form=form, mapping=mapping, strict=strict, progress=progress)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is brought in, and how.

    Attributes:
        about: What a row is.
        judge: Tells good rows from faulty ones.
        take: Adds a block inside the caller's transaction and says what became of it.
        syncs: Whether a clean file means that the store has missed nothing.
        how: What else tells one import of the same file from another.
    """

    about: About
    judge: Callable[[Part, int], Judged]
    take: Callable[[ConsentStore, sa.Connection, str, Block], Outcome]
    syncs: bool
    how: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of a block's rows."""

    faults: list[Fault]
    added: int = 0
    repeated: int = 0
    suppressed: int = 0


def bring_in(
    store: ConsentStore,
    path: str | os.PathLike[str],
    kind: Kind,
    *,
    form: Format | None = None,
    mapping: Mapping[str, str] | None = None,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Bring a file in, as :func:`import_file` has it for events.

    Raises:
        DataError: As :func:`import_file`.
        StoreBusy: Another process holds the store.
    """
    where = Path(path)
    form = form or format_of(where, kind.about)
    job = _job(where, form, mapping, kind.about + kind.how)
    if strict:
        _all_good(store, where, kind, form, mapping)
    with store.database.writing() as connection:
        done = _begun(connection, job, where.name)
    for block in () if done is None else blocks(where, form, mapping, done, kind.about):
        with many_rows(), store.lock, store.database.writing() as connection:
            if (
                driver_rows(connection, "SELECT rows_done FROM import_job WHERE job = ?", (job,))[0][0]
                >= block.upto
            ):
                continue  # another process has brought it in meanwhile
            _bring(store, connection, job, where.name, block, kind)
        if progress is not None:
            progress(block.upto)
    return _finish(store, job, where.name, syncs=kind.syncs)


def settle(store: ConsentStore, job: str) -> None:
    """Say that somebody has looked at a file's quarantine and dealt with every row: the file counts as clean.

    Raises:
        DataError: There is no such import.
    """
    with store.database.writing() as connection:
        if not _update(connection, "settled_at = ?", (store.now(),), job):
            raise DataError("no such import", key="job", hint="take the job from the import's report")


def quarantined(store: ConsentStore, job: str) -> list[Fault]:
    """Return the rows of a file that were kept out, and why."""
    with store.database.reading() as connection:
        query = 'SELECT "row", column_name, reason FROM quarantine WHERE job = ? ORDER BY "row"'
        return [Fault(*row) for row in driver_rows(connection, query, (job,))]


def _job(path: Path, form: str, mapping: Mapping[str, str] | None, about: str) -> str:
    """Return a digest of the file and of how it is read."""
    digest = hashlib.sha256(json.dumps([about, form, sorted((mapping or {}).items())]).encode())
    try:
        with path.open("rb") as file:
            while part := file.read(_READ):
                digest.update(part)
    except FileNotFoundError:
        raise DataError("no such file", where=path, hint="check the path") from None
    except OSError as error:
        raise DataError("the file cannot be read", where=path, hint=str(error.strerror)) from None
    return digest.hexdigest()


def _begun(connection: sa.Connection, job: str, source: str) -> int | None:
    """Return the rows that are behind, beginning the import if need be; None if it is finished."""
    found = driver_rows(connection, "SELECT rows_done, finished_at FROM import_job WHERE job = ?", (job,))
    if not found:
        insert_many(connection, "import_job", _JOB, [(job, source, 0, 0, 0, 0, 0, None)])
        return 0
    return None if found[0][1] is not None else int(found[0][0])


def _bring(
    store: ConsentStore, connection: sa.Connection, job: str, source: str, block: Block, kind: Kind
) -> None:
    """Add a block and say how far it got, in one transaction."""
    done = kind.take(store, connection, source, block)
    done.faults += [Fault(row, "", "broken-row") for row in block.broken]
    insert_many(
        connection,
        "quarantine",
        ("job", '"row"', "column_name", "reason"),
        [(job, *fault) for fault in done.faults],
    )
    _update(
        connection,
        "rows_done = ?, added = added + ?, repeated = repeated + ?, suppressed = suppressed + ?, "
        "quarantined = quarantined + ?",
        (block.upto, done.added, done.repeated, done.suppressed, len(done.faults)),
        job,
    )


def _take_events(store: ConsentStore, connection: sa.Connection, source: str, block: Block) -> Outcome:
    """Add a block's events."""
    faults: list[Fault] = []
    said: dict[str, list[tuple[Any, ...]]] = {"consent_event": [], "rights_event": []}
    rows: dict[str, list[int]] = {"consent_event": [], "rights_event": []}
    for part in block.parts:
        judged = judge(part, store.now())
        said[part.table], rows[part.table] = judged.said, judged.rows
        faults += judged.faults
    taken = store.take(connection, source, said["consent_event"], said["rights_event"])
    for table, places in taken.conflicts.items():
        faults += [Fault(rows[table][place], "event_id", "event-id-conflict") for place in places]
    return Outcome(faults, taken.added, taken.repeated, taken.suppressed)


EVENTS: Final = Kind("events", judge, _take_events, syncs=True)


def _finish(store: ConsentStore, job: str, source: str, *, syncs: bool) -> Imported:
    """Close the import; a clean file of events counts as a sync."""
    with store.database.writing() as connection:
        _update(connection, "finished_at = COALESCE(finished_at, ?)", (store.now(),), job)
        row = driver_rows(
            connection,
            "SELECT rows_done, added, repeated, suppressed, quarantined, settled_at FROM import_job WHERE job = ?",
            (job,),
        )[0]
        clean = row[4] == 0 or row[5] is not None
        if clean and syncs:
            store.mark_synced(connection, source)
    rows, added, repeated, suppressed, kept_out = map(int, row[:5])
    return Imported(job, rows, added, repeated, suppressed, kept_out, clean)


def _update(connection: sa.Connection, what: str, values: tuple[Any, ...], job: str) -> int:
    statement = f"UPDATE import_job SET {what} WHERE job = ?"  # noqa: S608 -- names are constants
    if connection.dialect.name == "postgresql":
        statement = statement.replace("?", "%s")
    return int(connection.exec_driver_sql(statement, (*values, job)).rowcount)


def _all_good(
    store: ConsentStore, path: Path, kind: Kind, form: Format, mapping: Mapping[str, str] | None
) -> None:
    """Refuse a file that has a faulty row, naming the first ones."""
    faults: list[Fault] = []
    for block in blocks(path, form, mapping, 0, kind.about):
        faults += [Fault(row, "", "broken-row") for row in block.broken]
        for part in block.parts:
            faults += kind.judge(part, store.now()).faults
        if len(faults) >= _TOLD:
            break
    if faults:
        first = min(faults)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        hint = "mend the file; nothing was brought in"
        what = f"row {first.row} is no {_ONE[kind.about]}: {first.reason}{more}"
        raise DataError(what, where=path, key=first.column or None, hint=hint)
