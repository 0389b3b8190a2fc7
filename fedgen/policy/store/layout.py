"""What a file of events, profiles or records looks like: its columns, and the blocks in which it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from fedgen.policy.store.tables import CONSENT_SAID, RECORD, RIGHTS_SAID

if TYPE_CHECKING:
    from collections.abc import Container

    import pyarrow as pa

Format = Literal["csv", "parquet", "jsonl", "cloudevents"]
About = Literal["events", "profiles", "records"]
Table = Literal["consent_event", "rights_event", "subject_profile", "record_meta"]
_THEIRS: Final = {"subject_ref": "subject_id"}  # a file knows people by name
COLUMNS: Final[dict[Table, tuple[str, ...]]] = {
    "consent_event": tuple(_THEIRS.get(name, name) for name in CONSENT_SAID),
    "rights_event": tuple(_THEIRS.get(name, name) for name in RIGHTS_SAID),
    "subject_profile": ("subject_id", "birth_date", "residence", "timezone", "aliases"),
    "record_meta": tuple(_THEIRS.get(n, n) for n in RECORD if n not in {"seq", "recorded_at"}),
}
NEEDED: Final[dict[Table, tuple[str, ...]]] = {
    "consent_event": ("event_id", "subject_id", "effective_at", "action", "purpose"),
    "rights_event": ("event_id", "subject_id", "effective_at", "kind"),
    "subject_profile": ("subject_id",),
    "record_meta": ("record_id", "subject_id", "collected_at", "collected_for", "special_categories"),
}
SAME: Final[dict[About, dict[str, str]]] = {
    "events": {},
    "profiles": {"subject": "subject_id"},
    "records": {"subject": "subject_id"},
}
PASSED_OVER: Final = ("recorded_at",)  # a sender's record time is read by nobody: the store sets its own


@dataclass(slots=True)
class Part:
    """Rows of one table: their one-based numbers in the file, and their values by our names."""

    table: Table
    rows: list[int]
    columns: dict[str, list[Any] | pa.Array]


@dataclass(slots=True)
class Block:
    """What a reader gives at a time.

    Attributes:
        upto: Rows of the file that are behind us after this block.
        parts: Rows that could be taken apart.
        broken: Numbers of rows that could not.
    """

    upto: int
    parts: list[Part] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)


def tables_of(about: About, names: Container[str]) -> Table:
    """Return the table that rows with these columns belong to."""
    if about == "profiles":
        return "subject_profile"
    if about == "records":
        return "record_meta"
    return "rights_event" if "kind" in names else "consent_event"
