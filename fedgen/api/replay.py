"""Replay: every past decision of a site's packs made again, as it was known then, and held against its evidence.

The ledger says which rows might be used, by digest, and on what that rests: T, K, where the consent store stood,
packs and engine. The same store, packs and rows must give the same digest.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen._files import new_private
from fedgen.config.resolve import read_resolved
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.ledger.entries import Decided
from fedgen.ledger.verify import read
from fedgen.policy.codes import SYSTEM
from fedgen.policy.engine import ENGINE, decide
from fedgen.policy.evidence import mask_sha256
from fedgen.policy.packs import SHIPPED, load_pack
from fedgen.policy.standing import stand
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.chain import Head
from fedgen.policy.store.database import driver_rows
from fedgen.policy.subjects import MAX_SUBJECT_BYTES
from fedgen.runs.atomic import replacing
from fedgen.runs.folder import RunFolder
from fedgen.site.facts import records_of, request_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fedgen.config.policy import Stated
    from fedgen.config.sections import PolicySpec
    from fedgen.policy.columns import Records
    from fedgen.policy.packs import LoadedPack

SAME: Final = "same"
STORE: Final = "consent.db"
PEOPLE: Final = "people.bin"
PACKS: Final = "packs"
_PEOPLE: Final = re.compile(rb"([0-9]{1,3}) ([0-9]{1,12})")
_DENIED: Final = frozenset(str(code) for code in SYSTEM)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One past decision, made again.

    Attributes:
        site: Whose.
        run: Identity of the run, hex.
        round: One-based.
        attempt: One-based.
        check: ``load``, ``commit`` or ``sum``.
        recorded: Digest in the ledger, hex.
        recomputed: Digest now, hex; None if it could not be made again.
        allowed: Rows that might be used, by the ledger.
        why: ``same``, or why it is not.
    """

    site: str
    run: str
    round: int
    attempt: int
    check: str
    recorded: str
    recomputed: str | None
    allowed: int
    why: str

    @property
    def same(self) -> bool:
        """Whether the same rows come out."""
        return self.why == SAME

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "same": self.same}


def replay(
    run: str | os.PathLike[str], round_number: int | None = None, *, site: str | None = None
) -> list[Replayed]:
    """Make every past decision of a simulated run again, site by site.

    Guarantees:
        - The study is read as it was, from the run folder; so are each site's rows, store and ledger.
        - A decision that cannot be made again is in the result, with the reason; none is left out.

    Edge cases:
        - Somebody was erased since: their identifier is gone, so a round that used them is not the same any more, and
          ``why`` says so.

    Args:
        run: The run folder.
        round_number: One round only.
        site: One site only.

    Raises:
        ConfigError: There is no such run or site, or its study has no packs.
        IntegrityError: A store or ledger is damaged, or study.yaml was changed.
    """
    folder = RunFolder(Path(run))
    if not folder.study.is_file():
        raise ConfigError("no run here", where=folder.root, hint="name the run folder")
    resolved = read_resolved(folder.study)
    policy = resolved.study.policy
    if not policy.packs:
        raise ConfigError("this run had no packs", where=folder.study, key="policy.packs")
    names = [entry.name for entry in resolved.roster if site in {None, entry.name}]
    if not names:
        raise ConfigError("this run has no such site", where=folder.study, hint="see its roster")
    packs, found = packs_of_run(folder.root, policy), []
    for name in names:
        home = folder.site(name)
        entries = _entries(home / "ledger.db", resolved.study_hash, round_number)
        if entries:
            with ConsentStore.open(home / STORE) as store:
                people = read_people(home / PEOPLE)
                stated = policy.stated(name)
                found += replay_site(
                    entries, site=name, store=store, packs=packs, stated=stated, subjects=people
                )
    return found


def replay_site(
    entries: Sequence[Decided],
    *,
    site: str,
    store: ConsentStore,
    packs: Mapping[str, LoadedPack],
    stated: Stated,
    subjects: NDArray[np.bytes_],
) -> list[Replayed]:
    """Make decisions of one site again from its own store, packs and rows.

    Args:
        entries: What its ledger says.
        site: Its name.
        store: Its consent store.
        packs: By law, as they were.
        stated: What it stated of its rows.
        subjects: Whose each row is, shape ``(n,)``, in the order of the table.
    """
    records = records_of(stated, subjects)
    return [_judged(entry, site, store, packs, stated, records) for entry in entries]


def write_people(path: Path, subjects: NDArray[np.bytes_]) -> None:
    """Keep whose each row is, in the order of the site's table: what a digest of permitted rows is about.

    One line ``width rows``, then ``rows`` identifiers of ``width`` bytes, filled with zeros.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, new_private(temporary) as file:
        file.write(f"{subjects.dtype.itemsize} {len(subjects)}\n".encode())
        file.write(np.ascontiguousarray(subjects).tobytes())


def read_people(path: Path) -> NDArray[np.bytes_]:
    """Return whose each row is; inverse of :func:`write_people`.

    Raises:
        ConfigError: The file is missing.
        IntegrityError: It is not what was written.
    """
    try:
        head, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise ConfigError("the site's rows are not known any more", where=path) from None
    found = _PEOPLE.fullmatch(head)
    width, rows = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < width <= MAX_SUBJECT_BYTES or len(body) != width * rows:
        raise IntegrityError("not a list of whose each row is", code=Code.STORAGE, where=path)
    return np.frombuffer(body, dtype=f"S{width}")


def _judged(
    entry: Decided,
    site: str,
    store: ConsentStore,
    packs: Mapping[str, LoadedPack],
    stated: Stated,
    records: Records,
) -> Replayed:
    """Make one decision again and compare."""
    why, mask = _impossible(entry, store, packs, records), None
    if why is None:
        mask = _mask(entry, store, packs, stated, records)
        why = SAME if mask == entry.mask else _difference(entry, store)
    return Replayed(
        site=site,
        run=entry.run,
        round=entry.round,
        attempt=entry.attempt,
        check=entry.check,
        recorded=entry.mask,
        recomputed=mask,
        allowed=entry.allowed,
        why=why,
    )


def _impossible(
    entry: Decided, store: ConsentStore, packs: Mapping[str, LoadedPack], records: Records
) -> str | None:
    """Return why a decision cannot be made again at all, or None."""
    if entry.engine != ENGINE:
        return f"decided by {entry.engine}; this is {ENGINE}"
    if entry.considered != len(records):
        return "the table has another number of rows"
    have = {law: (law, it.pack.id, it.pack.version, it.sha256) for law, it in packs.items()}
    for pack in entry.packs:
        if have.get(pack[0]) != pack:
            return f"the pack {pack[1]} {pack[2]} is not here"
    if len(have) != len(entry.packs):
        return "other packs decided"
    if not store.extends(_head(entry)):
        return "the consent store does not go on from where it stood"
    return None


def _mask(
    entry: Decided, store: ConsentStore, packs: Mapping[str, LoadedPack], stated: Stated, records: Records
) -> str:
    """Return the digest of who might be used, as known then."""
    codes = {code for code, rows in entry.reasons if rows}
    if codes and codes <= _DENIED:  # the site did not trust its own footing, and denied every row
        return mask_sha256(np.zeros(len(records), dtype=bool))
    view = store.columns(entry.known_at, subjects=records.people, upto=_head(entry))
    request = request_of(stated, entry.purpose, entry.asked_at, entry.known_at, entry.round)
    standing = stand(records.people, view.consent, view.rights, view.subjects, request)
    return mask_sha256(decide(records, standing, request, packs).permitted)


def _difference(entry: Decided, store: ConsentStore) -> str:
    """Return what can explain that other rows come out."""
    query = "SELECT count(*) FROM suppression WHERE erased_at > ?"
    with store.database.reading() as connection:
        erased = driver_rows(connection, query, (entry.known_at,))[0][0]
    return "people were erased since, and their identifiers are gone" if erased else "other rows come out"


def _head(entry: Decided) -> Head:
    return Head(
        entry.store_batches,
        bytes.fromhex(entry.store_digest),
        entry.known_at,
        entry.store_consent,
        entry.store_rights,
    )


def _entries(ledger: Path, study: str, round_number: int | None) -> list[Decided]:
    """Return what a site's ledger says of a study."""
    if not ledger.is_file():
        return []
    entries = (recorded.entry for recorded in read(ledger))
    return [
        it
        for it in entries
        if isinstance(it, Decided) and it.study_hash == study and round_number in {None, it.round}
    ]


def packs_of_run(root: Path, policy: PolicySpec) -> dict[str, LoadedPack]:
    """Return the packs of a run: shipped ones, and those that the run kept, by digest."""
    from fedgen.crypto.keys import VerifyKey

    keys = [VerifyKey(bytes.fromhex(text)) for text in policy.pack_keys or ()]
    pins = policy.pins or {}
    found = [
        load_pack(name if name in SHIPPED else root / PACKS / f"{digest}.yaml", keys)
        for name, digest in pins.items()
    ]
    return {it.pack.law: it for it in found}
