"""``retention sweep``: what is past its time is told, removed where it is ours to remove, and the evidence kept."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.api.due import sweep_records
from fedgen.errors import ConfigError
from fedgen.policy.calendar import microseconds_of, moment_of
from fedgen.policy.codes import Code
from fedgen.policy.remedy import Kind, Remedy
from fedgen.policy.retention import artefact_code, retain_until
from fedgen.runs.folder import open_run
from fedgen.runs.journal import read_run, write_run
from fedgen.runs.lock import locked
from fedgen.runs.register import born_releases, note_releases, on_hold, releases_in, remove
from fedgen.runs.rollback import finish_rollback, lineage

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from fedgen.api.due import Due
    from fedgen.api.rights import Desk
    from fedgen.runs.folder import RunFolder
    from fedgen.runs.register import Removed

PACKS: Final = ("gdpr", "ccpa")
_MAX_HEADER: Final = 2**20
_LENGTH: Final = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint or release that is there.

    Attributes:
        path: Where it lies.
        kind: What it is.
        round: The last round behind it.
        until: First instant at which it may no longer stay, microseconds since 1970.
    """

    path: Path
    kind: Kind
    round: int
    until: int


@dataclass(frozen=True, slots=True)
class RunSwept:
    """What a sweep found in one run folder.

    Attributes:
        run: The folder.
        removed: Evidence of what was removed now.
        due: Files that are past their time; in a dry run they are still there.
        held: Files that are past their time and stay because of a legal hold.
        next_end: When the next file is due, or None.
        revoked: What the run would need because of people whose data may no longer stay; None if nothing.
    """

    run: str
    removed: tuple[Removed, ...]
    due: tuple[str, ...]
    held: tuple[str, ...]
    next_end: datetime | None
    revoked: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what was found as JSON values."""
        return {
            "run": self.run,
            "removed": [it.to_json() for it in self.removed],
            "due": list(self.due),
            "held": list(self.held),
            "next_end": None if self.next_end is None else self.next_end.isoformat(),
            "revoked": self.revoked,
        }


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found and did.

    Attributes:
        at: The instant that was asked about.
        dry_run: Whether nothing was touched.
        due: Records that must go; fedgen cannot delete them from the site's own source.
        undecided: Records that nobody could decide on, by code.
        finished: Erasures that a legal hold had suspended and that were carried out now.
        runs: What was found in each run folder.
    """

    at: datetime
    dry_run: bool
    due: tuple[Due, ...]
    undecided: dict[str, int]
    finished: tuple[str, ...]
    runs: tuple[RunSwept, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "at": self.at.isoformat(),
            "dry_run": self.dry_run,
            "records": [asdict(it) for it in self.due],
            "undecided": self.undecided,
            "finished_erasures": list(self.finished),
            "runs": [it.to_json() for it in self.runs],
        }


def sweep(
    store: str | os.PathLike[str] | None = None,
    runs: Sequence[str | os.PathLike[str]] = (),
    *,
    at: datetime | None = None,
    dry_run: bool = False,
    packs: Sequence[str | Path] = PACKS,
    home: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> Swept:
    """Find what is past its time, and remove what is ours to remove.

    Guarantees:
        - A record that must go has one task, however often the sweep runs; the rules keep it from every round anyway.
        - A checkpoint or release past its time is removed, its absence seen, and both written down; killed in between,
          the next sweep finishes.
        - Nothing under a legal hold is removed: neither a file ``legal-hold`` in the run folder, nor a hold on somebody
          who was in its rounds.
        - Erasures that a hold had suspended are carried out on the day it is released.
        - Where somebody whose data may no longer stay is behind a model, a task says from which round; what is done
          about it is for a person to say, with :func:`fedgen.api.rollback.roll_back`.

    Args:
        store: The site's consent store; None sweeps run folders only.
        runs: Run folders.
        at: The instant to ask about; now if left out.
        dry_run: Touch nothing.
        packs: The rule packs that decide on records.
        home: The site's folder; beside a SQLite store if left out.
        key: File of the store's secret; beside a SQLite store if left out.

    Raises:
        ConfigError: A store, pack or run folder is not one, or another process holds a folder.
        Refused: The packs decide nothing, for nobody answers for one of them.
    """
    from fedgen.api.rights import held_numbers, open_desk

    now = datetime.now(UTC) if at is None else at
    instant = microseconds_of(now)
    if store is None:
        swept = tuple(_sweep_run(Path(run), instant, None, set(), dry_run=dry_run) for run in runs)
        return Swept(now, dry_run, (), {}, (), swept)
    with open_desk(store, home=home, key=key) as desk:
        records = sweep_records(desk.store, packs, instant, dry_run=dry_run)
        finished = () if dry_run else _finish_erasures(desk, runs)
        held = held_numbers(desk.store, instant)
        swept = tuple(
            replace(
                _sweep_run(Path(run), instant, desk, held, dry_run=dry_run),
                revoked=_revoked(desk, Path(run), records.revoked - held, dry_run=dry_run),
            )
            for run in runs
        )
    return Swept(now, dry_run, records.due, records.undecided, finished, swept)


def _revoked(desk: Desk, root: Path, people: frozenset[int], *, dry_run: bool) -> dict[str, Any] | None:
    """Return what a run needs because of people whose data may no longer stay, and open a task for it."""
    from fedgen.api.tracing import outlook_for

    if not people:
        return None
    seen = outlook_for(desk, root, people)
    if seen.remedy is Remedy.NONE_NEEDED:
        return None
    target, reason = f"run/{seen.study_hash}/from/{seen.first_use}", str(Code.ARTEFACT_LINEAGE_REVOKED)
    if not dry_run and not any(task["target"] == target for task in desk.store.tasks(open_only=True)):
        desk.store.open_task(target, reason)
    told = seen.to_json()
    return {
        name: told[name] for name in ("first_use", "back_to", "remedy", "rounds_needed", "rounds_that_fit")
    }


def _finish_erasures(desk: Desk, runs: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    from fedgen.api.erase import finish_suspended

    return finish_suspended(desk, runs)


# -- artefacts --------------------------------------------------------------------------------------------


def stored_in(folder: RunFolder) -> list[Stored]:
    """Return every checkpoint and release of a run, with the instant at which it must be gone.

    Edge cases:
        - What an earlier version made says nothing of its birth: it counts from the start of the run.
    """
    oldest = _until_at_the_latest(folder)
    born = born_releases(folder)
    found = []
    for path in folder.checkpoints_newest_first():
        said = checkpoint_header(path).get("retain_until")
        until = oldest if said is None else _instant(said, oldest)
        found.append(Stored(path, Kind.CHECKPOINT, folder.round_of(path), until))
    for path in releases_in(folder):
        known = born.get(path.relative_to(folder.root).as_posix())
        done = _rounds_done(folder) if known is None else known.round
        until = oldest if known is None else microseconds_of(known.retain_until)
        found.append(Stored(path, Kind.RELEASE, done, until))
    return found


def register_releases(folder: RunFolder, run: str, round_number: int) -> None:
    """Write down the releases that a run has just made, with the instant at which each must be gone."""
    now = datetime.now(UTC)
    until = moment_of(retain_until(microseconds_of(now)))
    note_releases(folder, releases_in(folder), run=run, round_number=round_number, at=now, until=until)


def checkpoint_header(path: Path) -> dict[str, str]:
    """Return what a checkpoint says of itself, without reading its weights; empty if it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError), path.open("rb") as file:
        size = int.from_bytes(file.read(_LENGTH), "little")
        if size <= _MAX_HEADER:
            header = json.loads(json.loads(file.read(size))["__metadata__"]["fedgen"])["header"]
            if isinstance(header, dict):
                return {str(name): str(value) for name, value in header.items()}
    return {}


def _sweep_run(root: Path, at: int, desk: Desk | None, held: set[int], *, dry_run: bool) -> RunSwept:
    """Remove what is past its time from one run folder."""
    folder, _study = open_run(root)
    if dry_run:
        due, kept, next_end = _judge(folder, at, desk, held)
        return RunSwept(str(root), (), _paths(folder, due), _paths(folder, kept), next_end)
    with locked(root):
        removed = finish_rollback(folder)
        due, kept, next_end = _judge(folder, at, desk, held)
        reason = str(Code.ARTEFACT_RETENTION_EXPIRED)
        removed += remove(folder, [it.path for it in due], reason=reason)
        forget_removed(folder)
    return RunSwept(str(root), tuple(removed), _paths(folder, due), _paths(folder, kept), next_end)


def _judge(
    folder: RunFolder, at: int, desk: Desk | None, held: set[int]
) -> tuple[list[Stored], list[Stored], datetime | None]:
    """Return what must go, what would have to but for a legal hold, and when the next file is due."""
    everything = stored_in(folder)
    covered = _covered(folder, desk, held)
    codes = [artefact_code(it.until, at, held=it.round >= covered) for it in everything]
    due = [it for it, code in zip(everything, codes, strict=True) if code is Code.ARTEFACT_RETENTION_EXPIRED]
    kept = [
        it
        for it, code in zip(everything, codes, strict=True)
        if code is Code.LEGAL_HOLD_RETAIN and it.until <= at
    ]
    later = [it.until for it in everything if it.until > at]
    return due, kept, moment_of(min(later)) if later else None


def _covered(folder: RunFolder, desk: Desk | None, held: set[int]) -> float:
    """Return the first round from which on a legal hold covers what was made; infinity if none does."""
    from fedgen.policy.lineage import first_touch
    from fedgen.site.uses import read_uses

    if on_hold(folder):
        return 0
    if desk is None or not held:
        return float("inf")
    uses = read_uses(desk.uses)
    done = max((it for it in map(folder.round_of, folder.checkpoints_newest_first())), default=0)
    first = first_touch(lineage(folder, max(done, _rounds_done(folder))), uses.rounds(held), uses.on_record)
    return float("inf") if first is None else first


def forget_removed(folder: RunFolder) -> None:
    """Take out of run.json what is no longer there, so that it names nothing that was removed."""
    with suppress(ConfigError):
        record = read_run(folder.record)
        left = tuple(it for it in record.artefacts if (folder.root / it.path).is_file())
        if left != record.artefacts:
            write_run(folder.record, record.model_copy(update={"artefacts": left}))


def _paths(folder: RunFolder, found: list[Stored]) -> tuple[str, ...]:
    return tuple(it.path.relative_to(folder.root).as_posix() for it in found)


def _rounds_done(folder: RunFolder) -> int:
    try:
        return read_run(folder.record).rounds_done
    except ConfigError:
        return 0


def _until_at_the_latest(folder: RunFolder) -> int:
    """Return when files must be gone of which nothing says when they were made: counted from the start of the run."""
    try:
        began = microseconds_of(read_run(folder.record).started_at)
    except ConfigError:
        began = int(folder.study.stat().st_mtime * 1e6)
    return retain_until(began)


def _instant(text: str, otherwise: int) -> int:
    try:
        return microseconds_of(datetime.fromisoformat(text))
    except ValueError:
        return otherwise
