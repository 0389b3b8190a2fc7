"""Simulated sites: real sites in one process, each with its own rows, keys, consent log and ledger."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from fedgen.api.bench import Bench
from fedgen.api.rehearsal import RehearsedSite, late_or_lost
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.keys import SigningKey
from fedgen.dpsgd.noise import NoiseSource
from fedgen.ledger.entries import Reserved
from fedgen.ledger.store import Ledger
from fedgen.messages import canonical
from fedgen.policy.consent import ConsentLog
from fedgen.site.account import Account
from fedgen.site.incidents import IncidentLog
from fedgen.site.memory import Memory
from fedgen.site.rules import SiteRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fedgen.api.prepare import Prepared
    from fedgen.privacy.events import Counts
    from fedgen.runs.folder import RunFolder

_OPEN_LEDGERS: Final = 64


class SharedConsent:
    """One consent log read by many sites of a process; read again whenever its file changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: ConsentLog | None = None
        self._stamp: tuple[int, ...] = ()

    def __call__(self) -> ConsentLog:
        """Return the log as its file is now."""
        at = os.stat_result(self._path.stat()) if self._path.exists() else None
        stamp = () if at is None else (at.st_mtime_ns, at.st_ctime_ns, at.st_size, at.st_ino)
        if self._log is None or stamp != self._stamp:
            self._log = ConsentLog.read(self._path) if self._log is None else self._log.reread()
            self._stamp = stamp
        return self._log


class SimulatedSites:
    """The sites of a simulation, made when first asked for.

    Args:
        prepared: Study, rows and cut.
        folder: The run folder; a site's files lie in ``sites/<name>/``.
        coordinator: The coordinator's public signing key.
        many_processes: Whether the next message to a site may reach another process.
    """

    def __init__(
        self, prepared: Prepared, folder: RunFolder, coordinator: bytes, *, many_processes: bool = False
    ) -> None:
        self._prepared = prepared
        self._folder = folder
        self._coordinator = coordinator
        self._many_processes = many_processes
        self._bench = Bench()
        self._doors: dict[int, Callable[[bytes], bytes]] = {}
        self._sites: dict[int, RehearsedSite] = {}
        self._ledgers: OrderedDict[str, Ledger] = OrderedDict()
        path = prepared.consent_path()
        self._consent = None if path is None else SharedConsent(path)
        self._names = [entry.name for entry in prepared.resolved.roster]

    def roster_keys(self) -> dict[str, bytes]:
        """Return each site's public key; keys that do not exist yet are made, at the site."""
        return {name: _identity(self._folder.site(name)).public for name in self._names}

    def door(self, number: int) -> Callable[[bytes], bytes]:
        """Return the ``handle`` of site ``number``."""
        if number not in self._doors:
            site = self._site(number)
            faults = site.faults
            door: Callable[[bytes], bytes] = site.handle
            if faults:
                door = late_or_lost(door, faults, self._prepared.study.training.timeout_s)
            self._sites[number] = site
            self._doors[number] = door
        return self._doors[number]

    def spent(self) -> dict[str, Counts]:
        """Return what each site's own ledger says was charged to its data in this study, settled or not."""
        study = self._prepared.resolved.study_hash
        charged: dict[str, Counts] = {}
        for name in self._names:
            folder = self._folder.site(name)
            if (folder / "ledger.db").exists():
                with self._ledger_of(name, _identity(folder))() as ledger:
                    charged[name] = ledger.spent(dataset_of(self._prepared, name), study)
            else:
                charged[name] = ()
        return charged

    def charged_rounds(self) -> dict[str, tuple[int, ...]]:
        """Return for each site every round its own ledger was charged for in this study, in order."""
        study = self._prepared.resolved.study_hash
        charged: dict[str, tuple[int, ...]] = {}
        for name in self._names:
            folder = self._folder.site(name)
            charged[name] = ()
            if (folder / "ledger.db").exists():
                with self._ledger_of(name, _identity(folder))() as ledger:
                    entries = (recorded.entry for recorded in ledger.entries())
                    charged[name] = tuple(
                        e.round for e in entries if isinstance(e, Reserved) and e.study_hash == study
                    )
        return charged

    def close(self) -> None:
        """Close what is open."""
        for ledger in self._ledgers.values():
            ledger.close()
        self._ledgers.clear()

    # -- the parts of a site ------------------------------------------------------------------------

    def _site(self, number: int) -> RehearsedSite:
        prepared, name = self._prepared, self._names[number]
        folder = self._folder.site(name)
        identity = _identity(folder)
        rules = SiteRules(
            name=name,
            min_cohort=prepared.study.policy.min_cohort,
            consent_required=self._consent is not None,
            epsilon_life=prepared.study.simulation.ceiling,
            delta=prepared.study.privacy.delta,
            simulated=True,
        )
        site = RehearsedSite(
            rules=rules,
            identity=identity,
            coordinator=self._coordinator,
            table=functools.cache(lambda: prepared.site_table(number)),
            consent=self._consent,
            account=Account(self._ledger_of(name, identity), dataset_of(prepared, name), rules),
            bench=self._bench.lend,
            noise=self._noise(name),
            clock=self._clock(),
            incidents=IncidentLog(folder / "incidents.jsonl"),
            memory=Memory(
                folder / "invitation" if self._many_processes else None, folder / "answer", durable=False
            ),
        )
        site.faults = self._faults(name)
        return site

    def _faults(self, name: str) -> Mapping[int, str]:
        faults = self._prepared.study.simulation.faults
        return {fault.round: fault.kind for fault in faults if fault.site == name}

    def _noise(self, name: str) -> NoiseSource:
        seed = self._prepared.study.privacy.insecure_seed
        if seed is None:
            return NoiseSource.secure()
        return NoiseSource.insecure(int(sha256_hex(f"{seed}/{name}".encode())[:15], 16))

    def _clock(self) -> Callable[[int], datetime]:
        simulation = self._prepared.study.simulation
        start, step = simulation.clock_start, simulation.clock_step_s
        if start is None:
            return lambda _round: datetime.now(UTC)
        return lambda round_number: start + timedelta(seconds=step * round_number)

    def _ledger_of(self, name: str, identity: SigningKey) -> Callable[[], AbstractContextManager[Ledger]]:
        path = self._folder.site(name) / "ledger.db"

        @contextmanager
        def lend() -> Iterator[Ledger]:
            ledger = self._ledgers.pop(name, None)
            if ledger is None:
                ledger = Ledger.open(
                    path, origin=f"fedgen/simulated/{name}", signing_key=identity, durable=False
                )
            try:
                yield ledger
            finally:
                # A site that answers late may hold a second connection: one is kept.
                if self._ledgers.setdefault(name, ledger) is not ledger:
                    ledger.close()
                while len(self._ledgers) > _OPEN_LEDGERS:
                    self._ledgers.popitem(last=False)[1].close()

        return lend


def dataset_of(prepared: Prepared, name: str) -> str:
    """Return the identity of one simulated site's data set, hex."""
    data = prepared.study.data.model_dump(mode="json", by_alias=True)
    return sha256_hex(canonical({"data": data, "schema": prepared.schema.digest(), "site": name}))


def _identity(folder: Path) -> SigningKey:
    """Return a site's signing key, made at the site when it does not exist."""
    path = folder / "identity.key"
    if path.exists():
        return SigningKey.load(path)
    folder.mkdir(parents=True, exist_ok=True)
    key = SigningKey.generate()
    key.save(path)
    return key
