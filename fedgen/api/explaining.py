"""Why one record may be used or not: of a case, or of a person in a site's consent store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.api.consents import open_store
from fedgen.api.policies import DEFAULT, PathLike, load_laws, read_cases
from fedgen.errors import ConfigError, DataError, UsageError
from fedgen.policy.columns import Records, Request, Subjects
from fedgen.policy.explain import explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from fedgen.config.policy import Stated
    from fedgen.crypto.keys import VerifyKey
    from fedgen.policy.packs import LoadedPack
    from fedgen.policy.store import ConsentStore
    from fedgen.policy.store.view import AsKnown

_MOST: Final = 20  # records of one person that are explained in one answer


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the data: the store, the packs that decide there, and what is stated of rows and documents.

    Attributes:
        packs: By law.
        store: Address of the consent store.
        store_key: File of its secret, or None.
        stated: What holds for every row; None: the store's own facts of records say it.
        purpose: What is asked for where nobody says otherwise, or None.
    """

    packs: dict[str, LoadedPack]
    store: PathLike | None
    store_key: PathLike | None = None
    stated: Stated | None = None
    purpose: str | None = None


def explain_case(
    path: PathLike,
    name: str | None = None,
    packs: Sequence[PathLike] = DEFAULT,
    keys: Iterable[VerifyKey] = (),
) -> dict[str, Any]:
    """Return why a case of a file is decided as it is; see :func:`fedgen.policy.explain.explain`.

    Args:
        path: A file of cases.
        name: The ``id`` of the case; may be left out where the file holds one.
        packs: Packs by name or path.
        keys: Keys whose signatures count.

    Raises:
        ConfigError: There is no such case, or it cannot be understood.
    """
    from fedgen.policy.cases import laws_of, read_case
    from fedgen.policy.plain_values import Unreadable

    found = read_cases(path)
    cases = found if isinstance(found, list) else [found]
    fitting = [
        case for case in cases if isinstance(case, dict) and (name is None or str(case.get("id")) == name)
    ]
    if len(fitting) != 1:
        what = "no such case" if not fitting else f"{len(fitting)} cases fit"
        raise ConfigError(what, where=str(path), key="id", hint="name one with --case ID")
    try:
        case, laws = read_case(fitting[0]), laws_of(fitting[0])
    except (Unreadable, RecursionError) as error:
        field = str(error) if isinstance(error, Unreadable) else "case"
        hint = "it is quarantined, MALFORMED_RECORD: mend this field"
        raise ConfigError("the case cannot be understood", where=str(path), key=field, hint=hint) from None
    said = explain(
        case.records,
        0,
        case.consent,
        case.rights,
        case.subjects,
        case.request,
        load_laws(packs, keys),
        laws or None,
    )
    return {"id": fitting[0].get("id"), **said}


def site_holder(path: PathLike) -> Holder:
    """Return what a site's file says: its packs, its store, and what it states.

    Raises:
        ConfigError: The file is wrong, or names no packs.
    """
    from fedgen.config.site import load_site
    from fedgen.crypto.keys import VerifyKey

    place = Path(path)
    policy = load_site(place).policy
    if policy is None or not policy.packs:
        raise ConfigError("this site has no packs", where=place, key="policy.packs", hint="packs: [gdpr]")
    folder = place.parent
    keys = [VerifyKey(bytes.fromhex(text)) for text in policy.pack_keys or ()]
    packs = load_laws([_pack(folder, name) for name in policy.packs], keys)
    store = None if policy.store is None else _beside(folder, policy.store)
    key = None if policy.store_key is None else _beside(folder, policy.store_key)
    return Holder(packs, store, key, policy)


def run_holder(run: PathLike, site: str) -> Holder:
    """Return what held for one site of a simulated run: its packs, its rehearsed store, and what the study states.

    Raises:
        ConfigError: There is no such run or site, or the study has no packs.
    """
    from fedgen.api.replay import packs_of_run
    from fedgen.config.resolve import read_resolved
    from fedgen.runs.folder import RunFolder

    folder = RunFolder(Path(run))
    if not folder.study.is_file():
        raise ConfigError("no run here", where=str(run), hint="name the run folder")
    policy = read_resolved(folder.study).study.policy
    if not policy.packs:
        raise ConfigError("this run had no packs", where=folder.study, key="policy.packs")
    store = Path(run) / "sites" / site / "consent.db"
    if not store.is_file():
        raise ConfigError("this run has no such site, or it kept no store", where=store, hint="name a site")
    return Holder(packs_of_run(folder.root, policy), store, None, policy.stated(site), policy.purpose)


def _beside(folder: Path, name: str) -> str:
    return name if "://" in name else str(folder / name)


def _pack(folder: Path, name: str) -> str:
    from fedgen.policy.packs import SHIPPED

    return name if name in SHIPPED else str(folder / name)


def explain_person(
    subject: str,
    holder: Holder,
    *,
    purpose: str | None = None,
    operation: str = "train",
    request: Request | None = None,
    at: datetime | None = None,
    known_at: datetime | None = None,
    record: str | None = None,
) -> list[dict[str, Any]]:
    """Return why a person's records may be used or not, one explanation for each record that differs.

    Guarantees:
        - Only events of this person are read, and the answer names them by their identifiers in the store.
        - What was recorded after K is not shown.

    Edge cases:
        - Facts stated for all rows of a site: one explanation, since all rows of a person are decided alike.
        - More than twenty records: the first twenty by identifier.

    Args:
        subject: The person, as in the table.
        holder: Who holds the data.
        purpose: What is asked for; the holder's if left out.
        operation: ``train``, ``share_update``, ``release``, ``decide`` or ``retain``.
        request: Its other fields: destination and flags; of the stated documents if left out.
        at: T; now if left out.
        known_at: K; as T if left out.
        record: One record by its identifier in the store.

    Raises:
        UsageError: No purpose is known.
        DataError: The store knows no record of the person, or they were erased.
    """
    from fedgen.policy.calendar import microseconds_of

    asked = purpose or holder.purpose
    if not asked:
        raise UsageError("no purpose is asked for", hint="--purpose train_generator")
    with open_store(holder.store, key=holder.store_key) as store:
        who = np.array([subject.encode()], dtype=np.bytes_)
        horizon = known_at or at
        view = store.columns(horizon, subjects=who)
        time = view.known_at if at is None else microseconds_of(at)
        view = _named(store, subject, view)
        rows = _rows(store, subject, holder.stated, view, record)
        full = _request(holder, request, asked, operation, time, view.known_at)
        return [
            {
                "record_id": name,
                **explain(records, row, view.consent, view.rights, view.subjects, full, holder.packs),
            }
            for name, records, row in rows
        ]


def _request(
    holder: Holder, request: Request | None, purpose: str, operation: str, time: int, known_at: int
) -> Request:
    """Return what is asked, with the destination and flags of the stated documents where nobody says otherwise."""
    from fedgen.site.facts import request_of

    if request is None and holder.stated is not None:
        return replace(request_of(holder.stated, purpose, time, known_at, None), operation=operation)
    whole = request or Request(purpose=purpose, operation=operation, time=time)
    return replace(whole, purpose=purpose, operation=operation, time=time, known_at=known_at)


def _rows(
    store: ConsentStore, subject: str, stated: Stated | None, view: AsKnown, record: str | None
) -> list[tuple[str | None, Records, int]]:
    """Return the person's records: as stated for every row, or as the store has them."""
    if stated is not None:
        from fedgen.site.facts import records_of

        return [(None, records_of(stated, np.array([subject.encode()], dtype=np.bytes_)), 0)]
    names, records = store.records(view.known_at)
    mine = np.flatnonzero(_is_of(records, subject, view.subjects))
    found: list[tuple[str | None, Records, int]] = [
        (names[row], records, int(row)) for row in mine if record in {None, names[row]}
    ]
    if not found:
        hint = "name the site's file with --site, or a record that the store has"
        raise DataError(
            "the store has no such record of this person", where=store.name, key="record", hint=hint
        )
    return found[:_MOST]


def _is_of(records: Records, subject: str, subjects: Subjects) -> Any:
    """Return which records are of a person, by their identifier or another name of theirs."""
    wanted = {subject.encode()}
    place = np.searchsorted(subjects.alias, subject.encode())
    if place < len(subjects.alias) and subjects.alias[place] == subject.encode():
        wanted.add(bytes(subjects.people[subjects.alias_of[place]]))
    places = np.flatnonzero(np.isin(records.people, np.array(sorted(wanted), dtype=np.bytes_)))
    return np.isin(records.subject, places)


def _named(store: ConsentStore, subject: str, view: AsKnown) -> AsKnown:
    """Return the view with the identifiers of the person's events, which the engine does not need and a reader does."""
    from fedgen.policy.store.database import driver_rows
    from fedgen.policy.store.people import look_up

    with store.database.reading() as connection:
        known = look_up(connection, store.secret, [subject])
        if subject in known.erased:
            raise DataError("the person was erased", where=store.name, hint="nothing but a tombstone is kept")
        ref = known.refs.get(subject)
        ids = {
            table: dict(
                driver_rows(connection, f"SELECT seq, event_id FROM {table} WHERE subject_ref = ?", (ref,))  # noqa: S608 -- names are constants
            )
            for table in ("consent_event", "rights_event")
            if ref is not None
        }

    def of(table: str, seq: Any) -> Any:
        return np.array([ids.get(table, {}).get(int(n), "").encode() for n in seq] or [], dtype="S")

    return replace(
        view,
        consent=replace(view.consent, event_id=of("consent_event", view.consent.seq)),
        rights=replace(view.rights, event_id=of("rights_event", view.rights.seq)),
    )
