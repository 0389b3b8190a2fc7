"""Rolling a run back: what came of later rounds goes, and the run goes on from an earlier checkpoint as a new run.

A new identity, because sites refuse a round of a run that is over, and rightly so. Under the new one they answer it
afresh and charge it again, to the same study (docs/adr/0014-rollback-is-a-new-run.md).

In order, each step on the disk before the next: the rollback is announced in ``rollbacks.jsonl`` with everything
decided; files go, with evidence; the run gets its new identity; the rollback is signed off. Whoever is killed in
between, the next process that claims the folder finishes. From the announcement on, the rounds that are undone no
longer count.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AwareDatetime, Field, ValidationError

from fedgen._files import flush_folder
from fedgen.config.base import Frozen
from fedgen.config.fields import Whole
from fedgen.errors import ConfigError, IntegrityError
from fedgen.messages import Hex32
from fedgen.policy.lineage import Stretch, stretches
from fedgen.runs.atomic import storage, write_text
from fedgen.runs.lines import append_line, read_lines
from fedgen.runs.register import Method, finish_removals, releases_in, remove

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedgen.runs.folder import RunFolder
    from fedgen.runs.register import Removed

JOURNAL: Final = "rollbacks.jsonl"


class Rollback(Frozen):
    """One rollback, as decided.

    Attributes:
        run: The run that is rolled back.
        next_run: The identity under which it goes on.
        back_to: The last round that stays; zero for a run that begins anew.
        done: Rounds that were in the model before.
        lines: Lines of metrics.jsonl by then; those of undone rounds no longer count.
        reason: A reason code.
        method: What happens to the files: see :mod:`fedgen.runs.register`.
        at: When.
    """

    kind: Literal["begun"] = "begun"
    run: Hex32
    next_run: Hex32
    back_to: Whole
    done: Whole
    lines: Whole
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    method: Method = "deleted"
    at: AwareDatetime


class _Ended(Frozen):
    kind: Literal["ended"] = "ended"
    next_run: Hex32
    at: AwareDatetime


def run_file(folder: RunFolder) -> Path:
    """Return where the identity of a run lies."""
    return folder.root / "coordinator" / "run"


def run_id(folder: RunFolder) -> str:
    """Return the identity of a folder's run.

    Raises:
        ConfigError: It has none yet.
    """
    try:
        return run_file(folder).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        hint = "it is made when the run starts"
        raise ConfigError("the run has no identity yet", where=folder.root, hint=hint) from None


def decide(
    folder: RunFolder, *, back_to: int, done: int, lines: int, reason: str, method: Method = "deleted"
) -> Rollback:
    """Return a rollback of a folder's run with a fresh identity to go on under; nothing is touched yet."""
    return Rollback(
        run=run_id(folder),
        next_run=secrets.token_hex(32),
        back_to=back_to,
        done=done,
        lines=lines,
        reason=reason,
        method=method,
        at=datetime.now(UTC),
    )


def roll_back(folder: RunFolder, rollback: Rollback) -> list[Removed]:
    """Carry out a rollback in a folder that this process holds; return the evidence.

    Raises:
        ConfigError: The disk is full, or a file cannot be removed; whoever claims the folder next goes on.
    """
    append_line(folder.root / JOURNAL, rollback.model_dump(mode="json"))
    return finish_rollback(folder)


def finish_rollback(folder: RunFolder) -> list[Removed]:
    """Finish what a killed process began; return the evidence of what was removed now.

    Edge cases:
        - Nothing was begun: nothing happens.
    """
    begun, ended = _journal(folder)
    open_ = [it for it in begun if it.next_run not in ended]
    removed = finish_removals(folder)
    for rollback in open_:
        gone = [
            path for path in folder.checkpoints_newest_first() if folder.round_of(path) > rollback.back_to
        ]
        removed += remove(
            folder, [*gone, *releases_in(folder)], reason=rollback.reason, method=rollback.method
        )
        _forget(folder, rollback)
        write_text(run_file(folder), rollback.next_run + "\n")
        done = _Ended(next_run=rollback.next_run, at=datetime.now(UTC))
        append_line(folder.root / JOURNAL, done.model_dump(mode="json"))
    return removed


def rollbacks(folder: RunFolder) -> tuple[Rollback, ...]:
    """Return every rollback of a run, oldest first; one that was announced counts.

    Raises:
        IntegrityError: The journal does not have its form.
    """
    return tuple(_journal(folder)[0])


def unfinished(folder: RunFolder) -> Rollback | None:
    """Return a rollback that was announced and not signed off, or None: what it undoes must not be used meanwhile."""
    begun, ended = _journal(folder)
    return next((it for it in begun if it.next_run not in ended), None)


def lineage(folder: RunFolder, done: int) -> tuple[Stretch, ...]:
    """Return the rounds behind the model after ``done`` rounds, with the run each was asked in."""
    known = rollbacks(folder)
    runs = [it.run for it in known] + ([known[-1].next_run] if known else [run_id(folder)])
    return stretches(runs, [it.back_to for it in known], done)


def undone(round_number: int, place: int, known: Sequence[Rollback]) -> bool:
    """Return whether the round in line ``place`` (from zero) of metrics.jsonl was undone later."""
    return any(place < it.lines and round_number > it.back_to for it in known)


def _forget(folder: RunFolder, rollback: Rollback) -> None:
    """Remove what must not be used again: a mark on a checkpoint that is gone, sites' answers, rounds they opened."""
    mark = folder.checkpoints / "best"
    with storage(folder.root):
        with suppress(FileNotFoundError):
            text = mark.read_text(encoding="utf-8").strip()
            if not text.isdecimal() or int(text) > rollback.back_to:
                mark.unlink()
        for answer in (folder.root / "sites").glob("*/answer"):
            answer.unlink(missing_ok=True)
        folder.setups.unlink(missing_ok=True)
        if folder.checkpoints.is_dir():
            flush_folder(folder.checkpoints)


def _journal(folder: RunFolder) -> tuple[list[Rollback], set[str]]:
    path = folder.root / JOURNAL
    begun, ended = [], set()
    for value in read_lines(path):
        try:
            if isinstance(value, dict) and value.get("kind") == "ended":
                ended.add(_Ended.model_validate(value).next_run)
            else:
                begun.append(Rollback.model_validate(value))
        except ValidationError:
            raise IntegrityError(
                "a rollback that does not have its form", where=path, hint="restore it"
            ) from None
    return begun, ended
