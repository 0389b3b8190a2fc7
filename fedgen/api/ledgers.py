"""What an auditor does with a ledger: check it, read it, and compute every ε again. Offline, and without torch."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.crypto.keys import VerifyKey
from fedgen.errors import ConfigError, UsageError
from fedgen.ledger.address import Place, Server, ledgers_on, place_of
from fedgen.ledger.checkpoint import Checkpoint, beside
from fedgen.ledger.entries import Reserved, Settled
from fedgen.ledger.verify import Report, read, verify
from fedgen.privacy.events import to_json
from fedgen.runs.folder import RunFolder

if TYPE_CHECKING:
    import os

    from fedgen.api.budgets import Audit
    from fedgen.privacy.units import Relation

COORDINATOR: Final = "coordinator"
_BOOK: Final = "dataset.json"  # what fedgen.api.homes writes into a folder of ledgers
_KEY_MAX: Final = 4096
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of one ledger found.

    Attributes:
        name: ``coordinator`` or ``site NAME`` in a run folder; else the name of the file.
        path: The ledger: a file, or an address on a server, which shows no password.
        report: What was found.
        pinned: Whether the key came from elsewhere; else the one inside the ledger was believed.
        checkpoint: The checkpoint it was held against, or None.
    """

    name: str
    path: Place
    report: Report
    pinned: bool
    checkpoint: Path | None

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts an honest ledger."""
        return self.report.ok

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON values."""
        return {
            "name": self.name,
            "path": str(self.path),
            "ok": self.ok,
            "pinned": self.pinned,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            **asdict(self.report),
        }


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a ledger, as a person reads it: who spent what, when, for which study.

    Attributes:
        ledger: Name of the ledger, see :class:`Checked`.
        index: Position in it.
        time: ISO 8601, UTC.
        entry: Kind of entry.
        dataset: Identity of the data set, or None.
        study_hash: The study, hex, or None.
        run: The run, hex, or None.
        round: One-based, or None.
        attempt: One-based, or None.
        event: What one step did, as JSON values, or None.
        count: How many steps, or None.
        unit: What the event protects as a whole, or None.
        settled: Whether what was reserved left the site; None for other entries.
        note: What else the entry says: a code, an outcome, an origin.
    """

    ledger: str
    index: int
    time: str
    entry: str
    dataset: str | None = None
    study_hash: str | None = None
    run: str | None = None
    round: int | None = None
    attempt: int | None = None
    event: dict[str, Any] | None = None
    count: int | None = None
    unit: str | None = None
    settled: bool | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is set, as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def verify_ledger(
    path: str | os.PathLike[str],
    key: VerifyKey | str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tuple[Checked, ...]:
    """Return what a check of a ledger, or of every ledger of a run folder or a database, found.

    Guarantees:
        - Reads only, and needs nothing but the file, or the server that a URL names.
        - A checkpoint that lies beside a ledger, named like it with ``.checkpoint`` at the end, is held against it.

    Args:
        path: A ledger, its URL, or a run folder.
        key: The public key it must be signed with, or a file with it: 64 hex digits. Of one ledger only.
        checkpoint: A file with a checkpoint kept elsewhere. Of one ledger only.

    Raises:
        ConfigError: There is no ledger, or a file that was named cannot be read.
        UsageError: A key or checkpoint, which belongs to one ledger, was given for several.
        IntegrityError: The checkpoint is none.
    """
    ledgers = ledgers_in(path)
    if len(ledgers) > 1 and (key is not None or checkpoint is not None):
        raise UsageError("a key or a checkpoint belongs to one ledger", hint="name the ledger's own file")
    pinned = key if key is None or isinstance(key, VerifyKey) else read_key(key)
    found = []
    for name, place in ledgers.items():
        kept = _kept(place) if checkpoint is None else Path(checkpoint)
        promise = None if kept is None else Checkpoint.read(kept)
        report = verify(place, pinned, checkpoint=promise)
        found.append(Checked(name, place, report, pinned=pinned is not None, checkpoint=kept))
    return tuple(found)


def show_ledger(path: str | os.PathLike[str]) -> tuple[Line, ...]:
    """Return every entry of a ledger, or of every ledger of a run folder or a database, in order; checks nothing.

    Raises:
        ConfigError: There is no ledger.
        IntegrityError: A file cannot be read as a ledger.
    """
    return tuple(line for name, place in ledgers_in(path).items() for line in _lines(name, place))


def export_ledger(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Copy a ledger into a new file for an auditor; see :func:`fedgen.ledger.export.export`.

    Returns:
        How many entries it has.

    Raises:
        ConfigError: There is no ledger, or something lies at ``out`` already.
        IntegrityError: The ledger does not hold together.
        UsageError: There are several ledgers.
    """
    from fedgen.ledger.export import export

    ledgers = ledgers_in(path)
    if len(ledgers) > 1:
        raise UsageError("one ledger goes into one file", hint="name one of " + ", ".join(ledgers))
    (place,) = ledgers.values()
    return export(place, out)


def ledgers_in(path: str | os.PathLike[str]) -> dict[str, Place]:
    """Return the ledgers at a path, by name: the file itself, or the coordinator's and each site's of a folder.

    Raises:
        ConfigError: There is none.
    """
    place = place_of(path)
    if isinstance(place, Server):
        found_there = {str(it.ledger): it for it in ledgers_on(place)}
        if not found_there:
            raise ConfigError("no ledger here", where=str(place))
        return dict(found_there)
    if not place.is_dir():
        if not place.is_file():
            raise ConfigError("no ledger here", where=place)
        return {place.name: place}
    folder = RunFolder(place)
    found: dict[str, Place] = {COORDINATOR: folder.ledger} if folder.ledger.is_file() else {}
    for ledger in sorted(place.glob("*/ledger.db" if is_home(place) else "sites/*/ledger.db")):
        found[f"site {ledger.parent.name}"] = ledger
    if not found:
        raise ConfigError(
            "no ledger in this folder",
            where=place,
            hint="name a run folder, a folder of ledgers or a ledger file",
        )
    return found


def is_home(folder: Path) -> bool:
    """Return whether a folder is one of ledgers that studies share, and not one run's."""
    return not RunFolder(folder).study.exists() and (folder / _BOOK).is_file()


def read_key(path: str | os.PathLike[str]) -> VerifyKey:
    """Return the public key in a file: 64 hex digits, as ``ledger verify`` prints it.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(_KEY_MAX).decode("ascii", "replace").strip()
    except OSError as error:
        raise ConfigError(f"cannot read the key: {error.strerror}", where=str(path)) from None
    if not _HEX.fullmatch(text):
        raise ConfigError("a public key is 64 lower-case hex digits", where=str(path))
    return VerifyKey(bytes.fromhex(text))


def _kept(place: Place) -> Path | None:
    """Return the checkpoint that lies beside a ledger's file, if there is one."""
    found = beside(place) if isinstance(place, Path) else None
    return found if found is not None and found.is_file() else None


def _lines(name: str, place: Place) -> list[Line]:
    """Return the entries of one ledger as lines."""
    recorded = list(read(place))
    settled = {it.entry.reservation for it in recorded if isinstance(it.entry, Settled)}
    lines = []
    for it in recorded:
        said = {field: getattr(it.entry, field) for field in it.entry.__slots__}
        notes = [said[field] for field in ("origin", "code", "outcome") if field in said]
        common = ("dataset", "study_hash", "run", "round", "attempt", "count", "unit")
        lines.append(
            Line(
                ledger=name,
                index=it.index,
                time=it.time.isoformat(),
                entry=it.entry.kind,
                event=to_json(it.entry.event) if isinstance(it.entry, Reserved) else None,
                settled=it.index in settled if isinstance(it.entry, Reserved) else None,
                note=str(notes[0]) if notes else None,
                **{field: said[field] for field in common if field in said},
            )
        )
    return lines


def audit_budget(
    path: str | os.PathLike[str], *, delta: float | None = None, relation: Relation | None = None
) -> Audit:
    """Return every ε computed again from recorded events; see :func:`fedgen.api.budgets.audit_budget`.

    Raises:
        IntegrityError: A ledger contradicts a claim or itself (exit 6).
        ConfigError: There is no ledger.
    """
    from fedgen.api import budgets

    return budgets.audit_budget(path, delta=delta, relation=relation)
