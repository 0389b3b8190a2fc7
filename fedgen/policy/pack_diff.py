"""What a new version of a pack would change, before anybody activates it: how many rows, by code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedgen.policy.codes import CODES, Code
from fedgen.policy.engine import decide

if TYPE_CHECKING:
    from fedgen.policy.columns import Records, Request
    from fedgen.policy.packs import LoadedPack
    from fedgen.policy.standing import Standing


@dataclass(frozen=True, slots=True)
class PackDiff:
    """What changes from one pack to another.

    Attributes:
        rows: How many rows were asked about.
        changed: How many are decided by another code.
        denied_more: How many were allowed and no longer are.
        allowed_more: How many were not allowed and now are.
        moves: How many went from one code to another.
        keys: The keys of the packs that differ.
    """

    rows: int
    changed: int
    denied_more: int
    allowed_more: int
    moves: dict[tuple[Code, Code], int]
    keys: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; the most frequent move first."""
        return {
            "rows": self.rows,
            "changed": self.changed,
            "denied_more": self.denied_more,
            "allowed_more": self.allowed_more,
            "moves": [{"from": str(a), "to": str(b), "rows": n} for (a, b), n in self.moves.items()],
            "keys": list(self.keys),
        }


def diff(
    old: LoadedPack,
    new: LoadedPack,
    records: Records | None = None,
    standing: Standing | None = None,
    request: Request | None = None,
) -> PackDiff:
    """Return what changes; with a table, in rows, else in keys only.

    A dry run: both packs speak as if somebody answered for them, and nothing is decided by the result.

    Args:
        old: In force.
        new: Proposed.
        records: Rows to try.
        standing: Where their people stand.
        request: What is asked.
    """
    keys = tuple(_keys(old.pack.model_dump(by_alias=True), new.pack.model_dump(by_alias=True)))
    if records is None or standing is None or request is None:
        return PackDiff(0, 0, 0, 0, {}, keys)
    before, after = (
        decide(records, standing, request, {"pack": replace(each, trusted=True)}) for each in (old, new)
    )
    differ = before.code != after.code
    moves = Counter(zip(before.code[differ].tolist(), after.code[differ].tolist(), strict=True))
    return PackDiff(
        rows=len(records),
        changed=int(np.count_nonzero(differ)),
        denied_more=int(np.count_nonzero(before.permitted & ~after.permitted)),
        allowed_more=int(np.count_nonzero(~before.permitted & after.permitted)),
        moves={(CODES[a], CODES[b]): n for (a, b), n in moves.most_common()},
        keys=keys,
    )


def _keys(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the dotted keys at which two values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            key
            for name in dict.fromkeys([*old, *new])
            for key in _keys(old.get(name), new.get(name), f"{path}.{name}" if path else str(name))
        ]
    return [] if old == new else [path]
