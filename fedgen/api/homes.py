"""Where simulated sites keep their keys and ledgers, and what makes sure that a ledger goes with its data.

By default that is the run folder. A study that names ``simulation.ledgers`` keeps them in a folder that outlives the
run and that other studies, also at the same time, may name too. Such a folder is about one cut of one table: it
remembers which data lie at which site, and refuses any other, for who moved to another site would be charged in
the wrong ledger (docs/adr/0008-data-set-identity.md).
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from pydantic import Field, ValidationError

from fedgen._files import new_private
from fedgen.config.base import Frozen
from fedgen.config.fields import MAX_SITES, OpenUnit, Positive
from fedgen.config.site import Ceilings
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.ledger.checkpoint import beside
from fedgen.messages import Hex32, SiteName
from fedgen.runs.atomic import replacing, storage, write_json, write_private
from fedgen.site.rules import SiteRules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedgen.api.prepare import Prepared
    from fedgen.runs.folder import RunFolder

LEDGER: Final = "ledger.db"
BOOK: Final = "dataset.json"
LIMITS: Final = "ceilings.json"
_KEY: Final = "identity.key"
_LOCK: Final = ".lock"
_MAX_BYTES: Final = 4 * 2**20
_BLOCK_ROWS: Final = 2**16
Form = TypeVar("Form", bound=Frozen)


class Book(Frozen):
    """``dataset.json``: which data a folder of ledgers is about.

    Attributes:
        format: Version of this file.
        salt: Random, hex; without it nobody can guess at who is behind an identity.
        sites: Name of each site to the identity of its data set, hex.
    """

    format: Literal[1] = 1
    salt: Hex32
    sites: Annotated[dict[SiteName, Hex32], Field(min_length=1, max_length=MAX_SITES)]


class Limits(Frozen):
    """``ceilings.json``: what may be spent on each site's data, whatever a later study says.

    Attributes:
        epsilon_per_study: Most that one study may spend, or None.
        epsilon_per_year: Most that all studies together may spend in any 365 days, or None.
        epsilon_life: Most that all studies together may spend, ever.
        delta: The δ at which all of them hold.
    """

    epsilon_per_study: Positive | None = None
    epsilon_per_year: Positive | None = None
    epsilon_life: Positive
    delta: OpenUnit

    def lowered_by(self, other: Limits | None) -> Limits:
        """Return the limits under which both hold; a smaller δ makes every ceiling stricter."""
        if other is None:
            return self
        return Limits(
            epsilon_per_study=_lower(self.epsilon_per_study, other.epsilon_per_study),
            epsilon_per_year=_lower(self.epsilon_per_year, other.epsilon_per_year),
            epsilon_life=min(self.epsilon_life, other.epsilon_life),
            delta=min(self.delta, other.delta),
        )


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of the sites' keys and ledgers.

    Guarantees:
        - :meth:`begin` and :meth:`datasets` refuse other rows and another cut than the folder was begun with.
        - Processes that begin at once find one set of identities, keys and ceilings.
        - The ceilings that the first study stated stay; a later study can lower them, never raise them.

    Attributes:
        root: The folder.
        shared: Whether it outlives the run.
    """

    root: Path
    shared: bool

    def site(self, name: str) -> Path:
        """Return the folder of one site."""
        return self.root / name

    def ledger(self, name: str) -> Path:
        """Return where one site's ledger lies."""
        return self.site(name) / LEDGER

    def key(self, name: str) -> SigningKey:
        """Return a site's signing key.

        Raises:
            ConfigError: It is not there, or open to others.
        """
        return SigningKey.load(self.site(name) / _KEY)

    def begin(self, prepared: Prepared) -> dict[str, str]:
        """Return the identity of each site's data set; what a first study leaves behind is made here.

        Raises:
            ConfigError: The folder was begun with other rows or another cut, or cannot be written.
            IntegrityError: A file of it has another form.
        """
        limits = stated(prepared)
        with self._alone():
            known = self.datasets(prepared)
            if known is None:
                book = _book(prepared, secrets.token_hex(32))
                known = book.sites
                _write(self.root / BOOK, book)
            if self.shared and limits is not None and not (self.root / LIMITS).exists():
                _write(self.root / LIMITS, limits)
            for name in known:
                self._make_key(name)
        return known

    def datasets(self, prepared: Prepared) -> dict[str, str] | None:
        """Return the identity of each site's data set, or None if no study has used the folder yet.

        Raises:
            ConfigError: The folder was begun with other rows or another cut.
            IntegrityError: Its memory of that is gone or has another form.
        """
        book = _read(self.root / BOOK, Book)
        if book is None:
            if any(self.root.glob(f"*/{LEDGER}")):
                raise IntegrityError(
                    "there are ledgers, and nothing says of which data",
                    code=Code.LEDGER,
                    where=self.root / BOOK,
                    hint="restore the file; ledgers of an earlier version cannot be gone on with",
                )
            return None
        now = _book(prepared, book.salt)
        if now != book:
            raise ConfigError(self._other(book, now), where=self.root, key=self._key, hint=self._hint)
        return book.sites

    def limits(self, prepared: Prepared) -> Limits | None:
        """Return the ceilings that hold for a study here: its own, and those of the folder where they are lower.

        Raises:
            IntegrityError: The file of the folder has another form.
        """
        own, kept = stated(prepared), _read(self.root / LIMITS, Limits) if self.shared else None
        return own if kept is None else kept.lowered_by(own)

    def copy_ledgers(self, folder: RunFolder, names: list[str]) -> None:
        """Put a copy of each site's ledger, as it is now, where the run folder promises one.

        Raises:
            ConfigError: The disk is full or the folder cannot be written.
        """
        for name in names if self.shared else []:
            if self.ledger(name).is_file():
                target = folder.site(name) / LEDGER
                with storage(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                kept = beside(self.ledger(name))
                if kept.is_file():  # first: a checkpoint may lag behind its ledger, never be ahead
                    write_private(beside(target), kept.read_bytes())
                _copy(self.ledger(name), target)

    @property
    def _key(self) -> str | None:
        return "simulation.ledgers" if self.shared else None

    @property
    def _hint(self) -> str:
        if self.shared:
            return (
                "keep source, limit, holdout and cut as they were, or name another folder and add up by hand"
            )
        return "restore the rows, or begin a new run with --out"

    def _other(self, book: Book, now: Book) -> str:
        """Return what is not as it was."""
        if set(book.sites) != set(now.sites):
            return f"was begun with {len(book.sites)} sites, this study cuts the rows into {len(now.sites)}"
        moved = sum(book.sites[name] != identity for name, identity in now.sites.items())
        return f"was begun with other data at {moved} of {len(now.sites)} sites: other rows, or another cut"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder while it is begun; others wait."""
        with storage(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_key(self, name: str) -> None:
        """Make a site's key if it has none; a file that a kill left half-written never has its name."""
        path = self.site(name) / _KEY
        if path.exists():
            return
        with storage(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as temporary:
            SigningKey.generate().save(temporary)


def home_of(prepared: Prepared, folder: RunFolder) -> Home:
    """Return where the sites of a study keep keys and ledgers: where it says, or in the run folder."""
    return shared_home(prepared) or Home(folder.root / "sites", shared=False)


def shared_home(prepared: Prepared) -> Home | None:
    """Return the folder of ledgers that a study names, or None.

    Raises:
        ConfigError: The study's noise comes from a seed: what it costs cannot be added to anything.
    """
    named = prepared.study.simulation.ledgers
    if named is None:
        return None
    if prepared.study.privacy.insecure_seed is not None:
        raise ConfigError(
            "a study with insecure_seed is not private, and ledgers that others share would not say so",
            key="simulation.ledgers",
            hint="leave one of the two out",
        )
    root = prepared.base / Path(named).expanduser()
    _check_place(root)
    return Home(root, shared=True)


def _check_place(root: Path) -> None:
    """Refuse a place where no folder of ledgers is or can be made, before anything is trained; makes nothing.

    Raises:
        ConfigError: A file is in the way, or the folder cannot be written.
    """
    near = next(place for place in (root, *root.absolute().parents) if place.exists())
    if not near.is_dir():
        what = "is no folder, so no ledgers can be kept in it"
    elif not os.access(near, os.R_OK | os.W_OK | os.X_OK):
        what = "cannot be written, so no ledgers can be kept in it"
    else:
        return
    raise ConfigError(what, key="simulation.ledgers", where=near, hint="name another folder")


def delta_of(root: Path) -> float | None:
    """Return the δ at which the ceilings of a folder of ledgers hold, or None where it has none.

    Raises:
        IntegrityError: The file has another form.
    """
    limits = _read(root / LIMITS, Limits)
    return None if limits is None else limits.delta


def rules_of(prepared: Prepared, limits: Limits | None, name: str) -> SiteRules:
    """Return one simulated site's own rules: what its study says of it, under the ceilings that hold."""
    return SiteRules(
        name=name,
        min_cohort=prepared.study.policy.min_cohort,
        consent_required=prepared.study.policy.consent is not None,
        epsilon_per_study=None if limits is None else limits.epsilon_per_study,
        epsilon_per_year=None if limits is None else limits.epsilon_per_year,
        epsilon_life=None if limits is None else limits.epsilon_life,
        delta=prepared.study.privacy.delta if limits is None else limits.delta,
        simulated=True,
    )


def stated(prepared: Prepared) -> Limits | None:
    """Return the ceilings in a study; a bare number is the ceiling for life, at the study's own δ."""
    ceiling = prepared.study.simulation.ceiling
    if ceiling is None:
        return None
    if isinstance(ceiling, Ceilings):
        return Limits.model_validate(ceiling.model_dump())
    return Limits(epsilon_life=ceiling, delta=prepared.study.privacy.delta)


def _book(prepared: Prepared, salt: str) -> Book:
    """Return which data lie at which site."""
    names = [entry.name for entry in prepared.resolved.roster]
    sites = {name: _identity(prepared, number, name, salt) for number, name in enumerate(names)}
    return Book(salt=salt, sites=sites)


def _identity(prepared: Prepared, number: int, name: str, salt: str) -> str:
    """Return the identity of one site's data set: its people, or its rows as codes where nobody is named.

    People, because then neither the columns of a schema, nor its bins, nor the order of the table, nor a further row
    of somebody who was there before make another data set of it. Where the schema names nobody, rows can be
    known again by their content only, and another schema makes another data set: refused, not charged anew.
    """
    mark = hmac.new(bytes.fromhex(salt), digestmod=sha256)
    rows, subjects = prepared.parts[number], prepared.table.subjects
    if subjects is not None:
        mark.update(f"people {name}\n".encode())
        for person in np.unique(subjects[rows]).tolist():
            mark.update(len(person).to_bytes(8, "big") + person)
        return mark.hexdigest()
    mark.update(f"rows {name} {prepared.schema.digest()}\n".encode())
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = prepared.table.codes[rows[start : start + _BLOCK_ROWS]]
        mark.update(np.ascontiguousarray(block, dtype="<i8").tobytes())
    return mark.hexdigest()


def _read(path: Path, form: type[Form]) -> Form | None:
    """Return what a small file of the folder holds, or None if it is not there.

    Raises:
        IntegrityError: It has another form.
    """
    try:
        with storage(path), path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        return form.model_validate(json.loads(text if len(text) <= _MAX_BYTES else b""))
    except (ValidationError, ValueError, RecursionError):
        raise IntegrityError(
            "does not have the form of this version", code=Code.LEDGER, where=path, hint="restore the file"
        ) from None


def _write(path: Path, form: Frozen) -> None:
    """Put a small file of the folder in place, for its owner only: the salt in it must not be known."""
    write_json(path, form.model_dump(mode="json", exclude_none=True), private=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a ledger as of one instant, while others may be writing to it."""
    with replacing(target) as temporary:
        new_private(temporary).close()
        try:
            with (
                closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as old,
                closing(sqlite3.connect(temporary)) as new,
            ):
                old.backup(new)
                new.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
        except sqlite3.Error as error:
            raise IntegrityError(
                "the ledger cannot be copied",
                code=Code.LEDGER,
                where=source,
                hint="run: fedgen ledger verify",
            ) from error


def _lower(left: float | None, right: float | None) -> float | None:
    """Return the smaller of two limits, either of which may not be there."""
    return min((limit for limit in (left, right) if limit is not None), default=None)
