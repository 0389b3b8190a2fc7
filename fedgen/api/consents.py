"""What a site does with its consent store: bring files in, write single events down, and see where it stands."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fedgen.errors import Code, ConfigError, DataError, IntegrityError, Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fedgen.policy.store import ConsentSaid, ConsentStore, Head, Imported, RightSaid
    from fedgen.policy.store.judging import Fault

PathLike = str | os.PathLike[str]
Kind = Literal["events", "profiles", "records"]
STORE: Final = "FEDGEN_CONSENT_STORE"
STORE_KEY: Final = "FEDGEN_CONSENT_STORE_KEY"
_HEADER: Final = 1 << 20


@contextmanager
def open_store(
    address: PathLike | None = None, *, key: PathLike | None = None, begin: bool = False
) -> Iterator[ConsentStore]:
    """Open a consent store for the length of the block.

    Args:
        address: A path or URL; what ``FEDGEN_CONSENT_STORE`` says if left out.
        key: File of its secret; what ``FEDGEN_CONSENT_STORE_KEY`` says, else beside a store that is a file.
        begin: Make a store where there is none; else that is an error, so that a misspelt path answers nothing.

    Raises:
        UsageError: No store is named.
        ConfigError: There is no such store, or it or its key may be read by others.
        IntegrityError: It is damaged, or the key is another store's.
    """
    from fedgen.api.rights import file_of
    from fedgen.policy.store import ConsentStore

    named = address if address is not None else os.environ.get(STORE)
    if not named:
        raise UsageError("no consent store is named", hint=f"give --store, or set {STORE}")
    file = file_of(named)
    if file is not None and not begin and not file.is_file():
        raise ConfigError("no such consent store", where=file, hint="`fedgen consent import` begins one")
    with ConsentStore.open(named, key=key or os.environ.get(STORE_KEY) or None) as store:
        yield store


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of a file of events.

    Attributes:
        imported: How many were added, were there already, are of erased people, or are kept out.
        faults: The rows that are kept out: number, column and reason, never a value.
        head: Where the store stands now.
        ambiguous: After profiles: how many identifiers of the store stand for two people.
    """

    imported: Imported
    faults: tuple[Fault, ...]
    head: Head
    ambiguous: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each reason keeps out, the most frequent first."""
        found = Counter(f"{fault.column or 'row'}: {fault.reason}" for fault in self.faults)
        return dict(found.most_common())

    def to_json(self, *, most: int = 1000) -> dict[str, Any]:
        """Return it as JSON has it, with the first ``most`` faults."""
        it = self.imported
        return {
            "job": it.job,
            "rows": it.rows,
            "added": it.added,
            "repeated": it.repeated,
            "suppressed": it.suppressed,
            "quarantined": it.quarantined,
            "clean": it.clean,
            "ambiguous": self.ambiguous,
            "reasons": self.counts,
            "quarantine": [fault._asdict() for fault in self.faults[:most]],
            "head": head_json(self.head),
        }


def bring_file(
    file: PathLike,
    store: PathLike | None = None,
    *,
    kind: Kind = "events",
    corrects: bool = False,
    key: PathLike | None = None,
    mapping: Mapping[str, str] | None = None,
    strict: bool = False,
    settle: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Brought:
    """Bring a file of events, profiles or records into a store, which is begun if there is none.

    Guarantees:
        - Stopped at any instant and called again, it goes on: nothing is lost, nothing is there twice.
        - A row that cannot be understood is kept out and told; until it is mended or settled, the file is no sync.

    Args:
        file: See :func:`fedgen.policy.store.import_file`.
        store: See :func:`open_store`.
        kind: What a row of it is; only events tell the store that it is up to date.
        corrects: Of profiles: another birth date corrects the one that is there.
        key: See :func:`open_store`.
        mapping: Our name to the file's column, where they differ; columns of neither name are passed over.
        strict: Refuse the whole file for one faulty row.
        settle: Somebody has dealt with every row that is kept out; the file counts as clean.
        progress: Told the rows that are behind.

    Raises:
        DataError: The file is missing or not of its format; with ``strict``, a row cannot be understood.
        UsageError: ``corrects`` without profiles.
        Interrupted: Somebody stopped it; the same call goes on.
    """
    from fedgen.policy.store import facts, import_file, incoming
    from fedgen.policy.store.files import format_of

    if corrects and kind != "profiles":
        raise UsageError("--corrects is for profiles", hint="give --kind profiles, or leave it out")
    ways: dict[Kind, Callable[..., Imported]] = {
        "events": import_file,
        "profiles": partial(facts.import_profiles, corrects=corrects),
        "records": facts.import_records,
    }
    bring = ways[kind]

    place = Path(file)
    form = format_of(place, kind)
    if not place.is_file():  # before a store is begun for it
        raise DataError("no such file", where=place, hint="check the path")
    whole = mapping and {**_own_columns(place, form, kind, mapping), **mapping}
    with open_store(store, key=key, begin=True) as opened:
        try:
            done = bring(opened, place, mapping=whole, strict=strict, progress=progress)
            if settle and not done.clean:
                incoming.settle(opened, done.job)
                done = bring(opened, place, mapping=whole)
        except KeyboardInterrupt:
            hint = "what was read is in the store; the same command goes on from there"
            raise Interrupted("interrupted", where=place, hint=hint) from None
        ambiguous = int(opened.columns().subjects.ambiguous.sum()) if kind == "profiles" else 0
        return Brought(done, tuple(incoming.quarantined(opened, done.job)), opened.head(), ambiguous)


def _own_columns(path: Path, form: str, kind: Kind, mapping: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of a file that have our names already: of its header, or of its first line of JSON."""
    from difflib import get_close_matches

    from fedgen.policy.store.layout import COLUMNS, tables_of

    if form == "parquet":
        from pyarrow import parquet

        names = list(parquet.read_schema(path).names)
    else:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            text = file.readline(_HEADER).decode("utf-8-sig", "replace")
        names = next(csv.reader([text]), []) if form == "csv" else _keys(text)
    ours = COLUMNS[tables_of(kind, {*mapping, *names})]
    for name in names:  # passed over, a misspelt valid_until would never end a grant
        if (
            name not in ours
            and name not in mapping.values()
            and (near := get_close_matches(name, ours, 1, 0.85))
        ):
            hint = f"map it, or rename it; did you mean {near[0]}?"
            raise DataError("a column that is nearly one of ours", where=path, key=name, hint=hint)
    return {name: name for name in names if name in ours and name not in mapping.values()}


def _keys(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return list(found) if isinstance(found, dict) else []


@dataclass(frozen=True, slots=True)
class Said:
    """What became of one event.

    Attributes:
        event_id: What it is known by.
        added: Whether it is new.
        erased: Whether its person was erased, so that nothing is kept.
        stranger: Whether the store had never heard of its person: perhaps the identifier is misspelt.
        head: Where the store stands now.
    """

    event_id: str
    added: bool
    erased: bool
    stranger: bool
    head: Head

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; without the person."""
        return {
            "event_id": self.event_id,
            "added": self.added,
            "erased": self.erased,
            "stranger": self.stranger,
            "head": head_json(self.head),
        }


def say_event(
    event: ConsentSaid | RightSaid, store: PathLike | None = None, *, key: PathLike | None = None
) -> Said:
    """Write one event down; a store is begun if there is none.

    Raises:
        DataError: A field is wrong, or the id stands for another event; nothing was written.
    """
    from fedgen.policy.store.people import look_up

    with open_store(store, key=key, begin=True) as opened:
        with opened.database.reading() as connection:
            known = look_up(connection, opened.secret, [event.subject_id])
        taken = opened.record(event, source="cli")
        stranger = event.subject_id not in known.refs and not taken.suppressed
        return Said(event.event_id, bool(taken.added), bool(taken.suppressed), stranger, taken.head)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a store stands.

    Attributes:
        head: Keep it elsewhere; a store that does not go on from it was rolled back.
        last_sync: When it was last known to be up to date.
        people: How many people it knows.
        ambiguous: How many identifiers stand for two people; all of these are quarantined.
        trouble: The code for which nobody may be used now, or None.
        verified: Whether the whole chain was recomputed.
    """

    head: Head
    last_sync: datetime | None
    people: int
    ambiguous: int
    trouble: str | None
    verified: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "head": head_json(self.head),
            "last_sync": None if self.last_sync is None else self.last_sync.isoformat(),
            "people": self.people,
            "ambiguous": self.ambiguous,
            "trouble": self.trouble,
            "verified": self.verified,
        }


def standing_of(
    store: PathLike | None = None,
    *,
    key: PathLike | None = None,
    seen: Head | None = None,
    verify: bool = False,
    stale_after: timedelta = timedelta(minutes=15),
) -> Standing:
    """Return where a store stands.

    Args:
        store: See :func:`open_store`.
        key: See :func:`open_store`.
        seen: A head that was kept elsewhere.
        verify: Recompute the whole chain.
        stale_after: How old the last sync may be.

    Raises:
        IntegrityError: The store does not go on from ``seen``, or an event was changed behind its back.
    """
    with open_store(store, key=key) as opened:
        head = opened.verify() if verify else opened.head()
        if seen is not None and not opened.extends(seen):
            hint = "an old copy was put back: find out who did, then import what is missing"
            what = "the store was rolled back (STORE_ROLLBACK)"
            raise IntegrityError(what, code=Code.STORAGE, where=opened.name, hint=hint)
        subjects = opened.columns().subjects
        trouble = opened.trouble(seen=seen, stale_after=stale_after)
        people, ambiguous = len(subjects), int(subjects.ambiguous.sum())
        return Standing(head, opened.last_sync(), people, ambiguous, trouble, verify)


def head_json(head: Head) -> dict[str, Any]:
    """Return a head as JSON has it."""
    return {**head._asdict(), "digest": head.digest.hex()}


def read_head(path: PathLike) -> Head:
    """Return a head that was kept: what ``fedgen consent status --json`` printed, or its ``head``.

    Raises:
        ConfigError: The file holds none.
    """
    from fedgen.policy.store import Head
    from fedgen.schema.yamlsource import load_yaml

    data, _ = load_yaml(Path(path))
    said: Any = data.get("head", data) if isinstance(data, dict) else None
    try:
        numbers = {name: int(said[name]) for name in ("size", "recorded_at", "consent", "rights")}
        digest = bytes.fromhex(said["digest"])
    except (KeyError, TypeError, ValueError):
        hint = "keep what `fedgen consent status --json` prints"
        raise ConfigError("not a head of a consent store", where=str(path), hint=hint) from None
    return Head(digest=digest, **numbers)


def instant(text: str | None, option: str) -> datetime | None:
    """Return an RFC 3339 instant that somebody typed.

    Raises:
        UsageError: It is none, or has no offset.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} is not a time", hint="write 2026-05-04T11:00:00+02:00") from None
    if moment.tzinfo is None:
        raise UsageError(f"{option} has no offset", hint="write 2026-05-04T11:00:00+02:00")
    return moment


def now() -> datetime:
    """Return the present, with its zone."""
    return datetime.now(UTC)


def mapping_of(pairs: Sequence[str]) -> dict[str, str] | None:
    """Return ``ours=theirs`` pairs as a mapping.

    Raises:
        UsageError: One is no pair, or names one of ours twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        ours, sign, theirs = pair.partition("=")
        if not (ours and sign and theirs) or ours in found:
            raise UsageError("--map takes OURS=THEIRS, each of ours once", hint="--map subject_id=patient")
        found[ours] = theirs
    return found or None


def consent_said(**fields: Any) -> ConsentSaid:
    """Return a consent event; see :class:`fedgen.policy.store.ConsentSaid`."""
    from fedgen.policy.store import ConsentSaid

    return ConsentSaid(**fields)


def right_said(**fields: Any) -> RightSaid:
    """Return a rights event; see :class:`fedgen.policy.store.RightSaid`."""
    from fedgen.policy.store import RightSaid

    return RightSaid(**fields)
