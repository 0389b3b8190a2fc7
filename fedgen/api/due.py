"""Which records may no longer stay: asked of the rules, told as tasks; fedgen does not write to a site's own source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.errors import Refused
from fedgen.policy.codes import CODES, NUMBER, Code, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedgen.policy.columns import Records
    from fedgen.policy.engine import Decision
    from fedgen.policy.store import ConsentStore

RECORD: Final = "record/"
# Codes after which a person must not be behind a model either; a record whose time is over says nothing of models.
_REVOKING: Final = (Code.CONSENT_WITHDRAWN_NO_OTHER_BASIS, Code.ERASURE_REQUESTED)


@dataclass(frozen=True, slots=True)
class Due:
    """A record that may no longer stay.

    Attributes:
        record: Its identifier; it stays at the site.
        code: The reason code.
        task: Number of its erasure task; None in a dry run.
    """

    record: str
    code: str
    task: int | None


@dataclass(frozen=True, slots=True)
class DueRecords:
    """What the rules say of all records of a store.

    Attributes:
        due: Records that must go.
        undecided: How many nobody could decide on, by code.
        revoked: Numbers of people who withdrew their only ground, or asked for erasure.
    """

    due: tuple[Due, ...]
    undecided: dict[str, int]
    revoked: frozenset[int]


def sweep_records(store: ConsentStore, packs: Sequence[str | Path], at: int, *, dry_run: bool) -> DueRecords:
    """Ask of every record whether it may stay; open a task for each that may not, once.

    Args:
        store: The site's store.
        packs: The rule packs that decide.
        at: The instant to ask about, microseconds since 1970.
        dry_run: Open no task.

    Raises:
        Refused: Nobody answers for a pack, so it decides nothing.
    """
    names, records, decision = _decided(store, packs, at)
    if decision is None:
        return DueRecords((), {}, frozenset())
    going = np.flatnonzero(decision.verdict == Verdict.ERASE).tolist()
    told = [(names[row], str(CODES[decision.code[row]])) for row in going]
    codes, counts = np.unique(decision.code[decision.verdict == Verdict.QUARANTINE], return_counts=True)
    undecided = {str(CODES[code]): int(n) for code, n in zip(codes.tolist(), counts.tolist(), strict=True)}
    tasks: dict[str, int] = {}
    if not dry_run:
        tasks = {task["target"]: task["seq"] for task in store.tasks() if task["target"].startswith(RECORD)}
        for record, code in told:
            if RECORD + record not in tasks:
                tasks[RECORD + record] = store.open_task(RECORD + record, code)
    due = tuple(Due(record, code, tasks.get(RECORD + record)) for record, code in told)
    return DueRecords(due, undecided, _revoked(store, records, decision))


def _decided(
    store: ConsentStore, packs: Sequence[str | Path], at: int
) -> tuple[tuple[str, ...], Records, Decision | None]:
    """Return every record with what the rules say of it; None if there are no records."""
    from fedgen.policy.columns import Request
    from fedgen.policy.engine import decide
    from fedgen.policy.packs import load_packs
    from fedgen.policy.standing import stand

    loaded = load_packs(packs)
    for law, pack in loaded.items():
        if not pack.trusted:
            hint = "name a signed pack with --pack"
            raise Refused("nobody answers for this pack, so it decides nothing", where=law, hint=hint)
    names, records = store.records(at)
    if not names:
        return names, records, None
    view = store.columns(at)
    request = Request(purpose="storage", operation="retain", time=at)
    standing = stand(records.people, view.consent, view.rights, view.subjects, request)
    return names, records, decide(records, standing, request, loaded)


def _revoked(store: ConsentStore, records: Records, decision: Decision) -> frozenset[int]:
    """Return the numbers of the people behind records that a withdrawal or a request made due."""
    from fedgen.policy.store.numbers import numbers

    hit = np.isin(decision.code, [NUMBER[code] for code in _REVOKING]) & (records.subject >= 0)
    people: Any = records.people[np.unique(records.subject[hit])]
    return frozenset(number for number in numbers(store).of(people).tolist() if number >= 0)
