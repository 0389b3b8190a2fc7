"""What one person means for one run folder: which rounds may have used them, and taking these back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fedgen.api.erasure_state import save
from fedgen.api.rights import held_numbers
from fedgen.api.rollback import finish, outlook, roll_back
from fedgen.errors import ConfigError
from fedgen.ledger.entries import Reserved
from fedgen.ledger.verify import read
from fedgen.policy.codes import Code
from fedgen.policy.lineage import Stretch, first_touch
from fedgen.policy.remedy import Remedy
from fedgen.runs.folder import open_run
from fedgen.runs.register import on_hold
from fedgen.runs.rollback import lineage, rollbacks, run_id
from fedgen.site.uses import read_uses

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from fedgen.api.erasure_state import State
    from fedgen.api.rights import Desk
    from fedgen.api.rollback import Outlook
    from fedgen.runs.folder import RunFolder
    from fedgen.runs.register import Method
    from fedgen.site.uses import Uses


def remedy_run(desk: Desk, state: State, root: Path) -> State:
    """Roll one run back, if the person is behind it; what was found is on the disk before anything is removed."""
    folder, _study = open_run(root)
    finish(root)  # of an erasure that was killed half-way
    known = state.results.get(str(root))
    seen = outlook_for(desk, root, None if state.number is None else [state.number])
    if known is None or (known["remedy"] == Remedy.NONE_NEEDED and seen.remedy is not Remedy.NONE_NEEDED):
        known = seen.to_json()
        state = replace(state, results={**state.results, str(root): known})
        save(desk.erasures, state)
    if seen.first_use is not None and seen.remedy is not Remedy.UNSUPPORTED:
        method: Method = "withheld" if _is_covered(desk, folder, seen.done) else "deleted"
        reason = str(Code.ARTEFACT_LINEAGE_REVOKED)
        roll_back(root, seen.first_use, reason=reason, method=method, count_rounds=False)
    return state


def outlook_for(desk: Desk, root: Path, numbers: Collection[int] | None) -> Outlook:
    """Return what a run needs because of some people; None: somebody who has no number yet.

    Raises:
        ConfigError: It is not a run folder.
    """
    folder, study = open_run(root)
    uses = read_uses(desk.uses)
    try:
        behind = lineage(folder, _done(folder))
    except ConfigError:
        return outlook(root, None)  # no round was ever asked
    if not behind:
        return outlook(root, None)
    if not {of for of, _round in uses.on_record} & {it.run for it in behind}:
        return outlook(root, 1, lineage_known=False)
    strangers = {
        (use.run, use.round) for use in uses.lines if use.strangers
    }  # who got no number was one of them
    touched = strangers if numbers is None else uses.rounds(numbers)
    shared = study.study.simulation.ledgers is not None
    accounted = uses.on_record if shared else _accounted(folder, uses, behind)
    return outlook(root, first_touch(behind, touched, accounted))


def _accounted(folder: RunFolder, uses: Uses, behind: tuple[Stretch, ...]) -> set[tuple[str, int]]:
    """Return the rounds of which it is known who was in them: on record, or charged at no site of the folder.

    A site that is not charged computes nothing, so a round no ledger knows has used nobody. Not so where the ledgers
    lie elsewhere, since a copy may be older than the round.
    """
    charged = {
        (it.entry.run, it.entry.round)
        for ledger in folder.root.glob("sites/*/ledger.db")
        for it in read(ledger)
        if isinstance(it.entry, Reserved)
    }
    if not charged:
        return uses.on_record
    every = {(it.run, number) for it in behind for number in range(it.first, it.last + 1)}
    return uses.on_record | (every - charged)


def _is_covered(desk: Desk, folder: RunFolder, done: int) -> bool:
    """Return whether a legal hold on anybody covers the run, so that its files are kept where nothing uses them."""
    if on_hold(folder):
        return True
    held = held_numbers(desk.store, desk.store.now())
    if not held:
        return False
    touched = read_uses(desk.uses).rounds(held)
    return any(
        (it.run, number) in touched for it in lineage(folder, done) for number in range(it.first, it.last + 1)
    )


def _done(folder: RunFolder) -> int:
    return max(map(folder.round_of, folder.checkpoints_newest_first()), default=0)


def identities(root: Path) -> set[str]:
    """Return every identity that a run folder's run has had."""
    folder, _study = open_run(root)
    try:
        return {run_id(folder), *(it.run for it in rollbacks(folder))}
    except ConfigError:
        return set()
