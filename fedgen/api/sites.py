"""Simulated sites: real sites in one process, each with its own rows, keys, consent log and ledger."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from fedgen.api.allowance import budgets_of
from fedgen.api.bench import Bench
from fedgen.api.homes import home_of, rules_of
from fedgen.api.policy_home import SimulatedPolicy
from fedgen.api.rehearsal import RehearsedSite, late_or_lost
from fedgen.api.seeds import seeded_noise
from fedgen.dpsgd.noise import NoiseSource
from fedgen.ledger.entries import Reserved
from fedgen.ledger.store import Ledger
from fedgen.policy.consent import ConsentLog
from fedgen.site.account import Account
from fedgen.site.incidents import IncidentLog
from fedgen.site.memory import Memory
from fedgen.site.standing import StandingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fedgen.api.prepare import Prepared
    from fedgen.privacy.events import Counts
    from fedgen.report.model import SiteBudget
    from fedgen.runs.folder import RunFolder

_OPEN_LEDGERS: Final = 64
_RUN_DIGITS: Final = 16  # of a run's identity, in the name of a file that says all of it


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
        folder: The run folder; a site's files lie in ``sites/<name>/``, its key and ledger where its study says.
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
        packs = prepared.study.policy.packs
        self._consent = None if path is None or packs else SharedConsent(path)
        self._policy = SimulatedPolicy(prepared, folder) if packs else None
        self._names = [entry.name for entry in prepared.resolved.roster]
        self._home = home_of(prepared, folder)
        self._limits = self._home.limits(prepared)
        self._known: dict[str, str] = {}
        self._keys: dict[str, bytes] = {}

    def roster_keys(self) -> dict[str, bytes]:
        """Return each site's public key; keys that do not exist yet are made, at the site.

        It is what every site knows of the others, too: in a simulation nobody has to be asked for a key.
        """
        if not self._keys:
            self._keys = {name: self._home.key(name).public for name in self._datasets}
        return dict(self._keys)

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
            charged[name] = ()
            if self._home.ledger(name).exists():
                with self._ledger_of(name)() as ledger:
                    charged[name] = ledger.spent(self._datasets[name], study)
        return charged

    def budgets(self) -> tuple[SiteBudget, ...]:
        """Return what each site's data have spent over all studies, where the ledgers outlive the run."""
        return budgets_of(self._prepared, self._home) if self._home.shared else ()

    def copy_ledgers(self) -> None:
        """Put a copy of each ledger that outlives the run into the run folder, as it is now."""
        self._home.copy_ledgers(self._folder, self._names)

    def charged_rounds(self) -> dict[str, tuple[int, ...]]:
        """Return for each site every round its own ledger was charged for in this study, in order."""
        study = self._prepared.resolved.study_hash
        charged: dict[str, tuple[int, ...]] = {}
        for name in self._names:
            charged[name] = ()
            if self._home.ledger(name).exists():
                with self._ledger_of(name)() as ledger:
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
        if self._policy is not None:
            self._policy.close()

    # -- the parts of a site ------------------------------------------------------------------------

    def _site(self, number: int) -> RehearsedSite:
        prepared, name = self._prepared, self._names[number]
        dataset, folder = self._datasets[name], self._folder.site(name)
        folder.mkdir(parents=True, exist_ok=True)
        rules = rules_of(prepared, self._limits, name)
        site = RehearsedSite(
            rules=rules,
            identity=self._home.key(name),
            coordinator=self._coordinator,
            table=functools.cache(lambda: prepared.site_table(number)),
            consent=self._consent,
            account=Account(self._ledger_of(name), dataset, rules),
            bench=self._bench.lend,
            noise=self._noise(name),
            clock=self._clock(),
            incidents=IncidentLog(folder / "incidents.jsonl"),
            memory=Memory(
                folder / "invitation" if self._many_processes else None,
                folder / "answer",
                released=folder / "released" if self._many_processes else None,
                durable=False,
            ),
            uses=None if self._policy is None else self._policy.uses(number),
            policy=None if self._policy is None else self._policy.desk(number),
            peers=self.roster_keys,
            standing=lambda run: StandingFile(
                folder / f"standing-{run[:_RUN_DIGITS]}.json", run, durable=False
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
        return seeded_noise(seed, name)

    def _clock(self) -> Callable[[int], datetime]:
        simulation = self._prepared.study.simulation
        start, step = simulation.clock_start, simulation.clock_step_s
        if start is None:
            return lambda _round: datetime.now(UTC)
        return lambda round_number: start + timedelta(seconds=step * round_number)

    @property
    def _datasets(self) -> dict[str, str]:
        """Identity of each site's data set; keys, and what the folder remembers, are made when first asked for."""
        if not self._known:
            self._known = self._home.begin(self._prepared)
        return self._known

    def _ledger_of(self, name: str) -> Callable[[], AbstractContextManager[Ledger]]:
        home = self._home
        path, origin = home.ledger(name), f"fedgen/simulated/{name}"
        key = functools.cache(lambda: home.key(name))

        @contextmanager
        def lend() -> Iterator[Ledger]:
            ledger = self._ledgers.pop(name, None)
            if ledger is None:
                # What outlives its run must outlive a power cut too.
                ledger = Ledger.open(path, origin=origin, signing_key=key(), durable=home.shared)
            try:
                yield ledger
            finally:
                # A site that answers late may hold a second connection: one is kept.
                if self._ledgers.setdefault(name, ledger) is not ledger:
                    ledger.close()
                while len(self._ledgers) > _OPEN_LEDGERS:
                    self._ledgers.popitem(last=False)[1].close()

        return lend
