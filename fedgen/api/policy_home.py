"""Policy in a simulation: packs by name, and for each site a consent store of its own, rehearsed from a file."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from fedgen.api.replay import PACKS, PEOPLE, STORE, write_people
from fedgen.config.plan import plan_of
from fedgen.crypto.keys import VerifyKey
from fedgen.errors import Code, ConfigError, Refused
from fedgen.policy.calendar import moment_of
from fedgen.policy.packs import SHIPPED, load_pack, load_packs, signature_path
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.rehearsal import Script, bring, read_profiles, read_script
from fedgen.site.admit import Admission
from fedgen.site.policy import PolicyDesk
from fedgen.site.uses import UseBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from fedgen.api.prepare import Prepared
    from fedgen.config.study import Study
    from fedgen.policy.lineage import Use
    from fedgen.policy.packs import LoadedPack
    from fedgen.policy.store.rehearsal import Profile
    from fedgen.runs.folder import RunFolder


def packs_of(study: Study, base: Path) -> dict[str, LoadedPack]:
    """Return the packs a study names, by law.

    Raises:
        ConfigError: There is no such pack, it is none, or two are for one law.
    """
    policy = study.policy
    keys = [VerifyKey(bytes.fromhex(text)) for text in policy.pack_keys or ()]
    names = [name if name in SHIPPED else base / Path(name).expanduser() for name in policy.packs]
    return load_packs(names, keys)


def pinned(study: Study, base: Path) -> Study:
    """Return a study that names the digest of each of its packs; one without packs is unchanged.

    Raises:
        ConfigError: As :func:`packs_of`; or a digest that the study names already is another one.
    """
    if not study.policy.packs:
        return study
    pins = {it.pack.id: it.sha256 for it in packs_of(study, base).values()}
    if study.policy.pins is not None and study.policy.pins != pins:
        raise ConfigError(
            "the packs are not those the study was pinned to",
            key="policy.pins",
            hint="leave pins out, or take those packs",
        )
    return study.model_copy(update={"policy": study.policy.model_copy(update={"pins": pins})})


def check_files(prepared: Prepared) -> None:
    """Hold the files that packs decide from against their form, before anybody relies on them.

    Raises:
        ConfigError: The schema names no subject, or the study says nothing of the rows.
        DataError: A file is missing, or a row of it is not understood.
    """
    policy = prepared.study.policy
    if policy.records is None:
        hint = "say at least legal_basis and collected_at; in a deployment each site's file does"
        raise ConfigError(
            "packs must be told what holds for the rows of the simulated sites",
            key="policy.records",
            hint=hint,
        )
    if prepared.table.subjects is None:
        raise ConfigError(
            "the schema does not say which column names the person, so no pack can decide",
            key="policy.packs",
            hint="name the column as `subject` in the schema",
        )
    if policy.consent is not None:
        read_script(prepared.base / policy.consent)
    if policy.subjects is not None:
        read_profiles(prepared.base / policy.subjects)


def refuse_missing_documents(prepared: Prepared) -> None:
    """Refuse a study whose run gate would keep so many sites out that no round could count.

    Raises:
        Refused: With the code, and what to file.
    """
    if not prepared.study.policy.packs:
        return
    simulation = prepared.study.simulation
    now = simulation.clock_start or datetime.now(UTC)
    packs, refused = packs_of(prepared.study, prepared.base), []
    for entry in prepared.resolved.roster:
        desk = PolicyDesk(_no_store, packs, prepared.study.policy.stated(entry.name))
        admission = Admission(prepared.resolved, plan_of(prepared.resolved), "", b"", entry.sampled)
        try:
            desk.check_run(admission, now)
        except Refused as error:
            refused.append((entry.name, error))
    if len(prepared.resolved.roster) - len(refused) < prepared.resolved.quorum:
        site, first = refused[0]
        raise Refused(
            f"{first.what} (at {len(refused)} sites, {site} first)",
            code=Code.STUDY_REFUSED,
            key="policy.documents",
            hint=f"{first.key}, {first.hint}; not legal advice" if first.hint else None,
        )


class SimulatedPolicy:
    """The consent stores of simulated sites, and who decides from them.

    Args:
        prepared: Study, rows and cut.
        folder: The run folder; a store lies at ``sites/<name>/consent.db``.
    """

    def __init__(self, prepared: Prepared, folder: RunFolder) -> None:
        self._prepared, self._folder = prepared, folder
        self._packs = packs_of(prepared.study, prepared.base)
        self._file = _Files(prepared)
        self._open: dict[str, _SiteStore] = {}
        self._keep_packs()

    def desk(self, number: int) -> PolicyDesk:
        """Return who decides at site ``number``."""
        site = self._store(number)
        stated = self._prepared.study.policy.stated(site.name)
        return PolicyDesk(
            site.lend, self._packs, stated, head=site.path.with_name("store-head"), bring=site.bring
        )

    def uses(self, number: int) -> LazyUses:
        """Return what writes down who was permitted in a round at site ``number``."""
        return LazyUses(self._store(number))

    def close(self) -> None:
        """Close every store."""
        for site in self._open.values():
            site.close()
        self._open.clear()

    def _keep_packs(self) -> None:
        """Keep the packs that do not come with fedgen, by digest, so that a replay has them."""
        for name in self._prepared.study.policy.packs:
            if name not in SHIPPED:
                place = self._prepared.base / Path(name).expanduser()
                loaded = load_pack(place)
                kept = self._folder.root / PACKS / f"{loaded.sha256}.yaml"
                kept.parent.mkdir(parents=True, exist_ok=True)
                for source, target in ((place, kept), (signature_path(place), signature_path(kept))):
                    if source.is_file():
                        target.write_bytes(source.read_bytes())

    def _store(self, number: int) -> _SiteStore:
        name = self._prepared.resolved.roster[number].name
        if name not in self._open:
            subjects = self._prepared.site_table(number).subjects
            people = set() if subjects is None else {it.decode() for it in set(subjects.tolist())}
            path = self._folder.site(name) / STORE
            if subjects is not None:
                write_people(path.with_name(PEOPLE), subjects)
            simulated = self._prepared.study.simulation.clock_start is not None
            self._open[name] = _SiteStore(name, path, people, self._file, simulated=simulated)
        return self._open[name]


class LazyUses:
    """A :class:`fedgen.site.uses.UseBook` whose store is opened when the first round is noted."""

    def __init__(self, site: _SiteStore) -> None:
        self._site = site
        self._book: UseBook | None = None

    def note(
        self,
        study: str,
        run: str,
        round_number: int,
        attempt: int,
        subjects: NDArray[np.bytes_],
        permitted: NDArray[np.bool_] | None = None,
    ) -> Use:
        """As :meth:`fedgen.site.uses.UseBook.note`."""
        with self._site.lend() as store:
            if self._book is None or self._book.store is not store:
                self._book = UseBook(store, self._site.path.with_name(f"{STORE}.d") / "used", self._site.name)
            return self._book.note(study, run, round_number, attempt, subjects, permitted)


class _Files:
    """The study's files of events and profiles; read again whenever the first one changed."""

    def __init__(self, prepared: Prepared) -> None:
        policy, base = prepared.study.policy, prepared.base
        self._path = None if policy.consent is None else base / policy.consent
        self._script = Script(())
        self.profiles: Mapping[str, Profile] = {}
        if policy.subjects is not None:
            self.profiles = read_profiles(base / policy.subjects)
        self._stamp: tuple[int, ...] = ()

    def script(self) -> tuple[tuple[int, ...], Script]:
        """Return a mark of the file as it is now, and its events."""
        if self._path is None:
            return (), self._script
        at = self._path.stat()
        stamp = (at.st_mtime_ns, at.st_ctime_ns, at.st_size, at.st_ino)
        if stamp != self._stamp:
            self._script, self._stamp = read_script(self._path), stamp
        return self._stamp, self._script


class _SiteStore:
    """One site's rehearsed store, opened when first asked for."""

    def __init__(self, name: str, path: Path, people: set[str], file: _Files, *, simulated: bool) -> None:
        self.name, self.path, self._people, self._file = name, path, people, file
        self._simulated = simulated
        self._present = 0
        self._store: ConsentStore | None = None
        self._stamp: tuple[int, ...] | None = None
        self._mine = Script(())
        self._done = 0

    @contextmanager
    def lend(self) -> Iterator[ConsentStore]:
        """Lend the store."""
        if self._store is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._store = ConsentStore.open(self.path, clock=self._clock())
            _without_waiting(self._store)
        yield self._store

    def bring(self, store: ConsentStore, at: int) -> None:
        """Bring in what has been learned by ``at``, and set the store's clock to it."""
        stamp, script = self._file.script()
        if stamp != self._stamp:
            self._mine, self._stamp, self._done = script.of(self._people), stamp, 0
        upto = self._mine.upto(at)
        if self._present == 0:
            # People are known before anything is learned of them, also when the first event lies in the run.
            self._present = min([at, *(line.at for line in self._mine.lines[:1])])
            self._put_profiles(store)
        self._present = max(self._present, at)
        if upto > self._done:
            bring(store, self._mine.lines[self._done : upto])
            self._done = upto

    def close(self) -> None:
        """Close the store, if it is open."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _put_profiles(self, store: ConsentStore) -> None:
        """Write down the profiles of the site's people, once."""
        people = store.columns().subjects
        known = {name.decode() for name in people.people[people.residence >= 0].tolist()}
        wanted = [
            self._file.profiles[who] for who in sorted(self._people - known) if who in self._file.profiles
        ]
        if wanted:
            store.put_profiles(wanted)

    def _clock(self) -> Callable[[], datetime] | None:
        return (lambda: moment_of(self._present)) if self._simulated else None


def _without_waiting(store: ConsentStore) -> None:
    """Let a rehearsed store not wait for the disk, as a simulated ledger does not; a kill still loses nothing."""
    engine = store.database.engine
    sa.event.listen(engine, "connect", lambda raw, _record: raw.execute("PRAGMA synchronous=OFF"))
    engine.dispose()


def _no_store() -> AbstractContextManager[ConsentStore]:
    raise RuntimeError("the run gate asks no store")
