"""How far an erasure got: one small private file, so that a kill at any instant loses nothing.

Its name is a part of the tombstone's tag, so that the same person's file is found again once their salt is gone.
The opening of the commitment is in it until the certificate is signed, and not after.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fedgen.api.rights import read_json
from fedgen.errors import IntegrityError
from fedgen.runs.atomic import write_json

if TYPE_CHECKING:
    from pathlib import Path


class Stage(StrEnum):
    """Where an erasure stands."""

    OPEN = "open"
    SUSPENDED = "suspended"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class State:
    """An erasure.

    Attributes:
        mark: The first half of the tombstone's tag, 32 hex digits.
        id: Of the erasure.
        event_id: Of the request in the consent store.
        requested_at: RFC 3339.
        exception: The provision that keeps the records, or None.
        commitment: What stands for the person in the certificate.
        opening: Of the commitment; None once the certificate is signed.
        ref: The person's pseudonym, hex; None until the store has the request.
        number: The person's number in the store.
        runs: Run folders that were named.
        records: Identifiers of the person's records; None until they were looked up.
        results: What each run needed, by its folder, as found before anything was removed.
        elsewhere: Runs whose folder was not named; None until they were looked up.
        identity: When salt and profile were seen gone, RFC 3339, or None.
        stage: Where it stands.
    """

    mark: str
    id: str
    event_id: str
    requested_at: str
    exception: str | None
    commitment: str
    opening: str | None
    ref: str | None = None
    number: int | None = None
    runs: tuple[str, ...] = ()
    records: tuple[str, ...] | None = None
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    elsewhere: tuple[dict[str, Any], ...] | None = None
    identity: str | None = None
    stage: Stage = Stage.OPEN


def save(folder: Path, state: State) -> None:
    """Put an erasure's file in place; inverse of :func:`load_all`."""
    write_json(_path(folder, state), asdict(state), private=True)


def load_all(folder: Path) -> list[State]:
    """Return every erasure, by person and then by the order of requests.

    Raises:
        IntegrityError: A file does not have its form.
    """
    return [_load(path) for path in sorted(folder.glob("*.json"))]


def latest(folder: Path, mark: str) -> State | None:
    """Return a person's latest erasure, or None."""
    found = sorted((_load(path) for path in folder.glob(f"{mark}-*.json")), key=lambda it: it.requested_at)
    return found[-1] if found else None


def _path(folder: Path, state: State) -> Path:
    return folder / f"{state.mark}-{state.id}.json"


def _load(path: Path) -> State:
    value = read_json(path)
    try:
        state = State(**value)
        return replace(
            state,
            runs=tuple(state.runs),
            records=None if state.records is None else tuple(state.records),
            elsewhere=None if state.elsewhere is None else tuple(state.elsewhere),
            stage=Stage(state.stage),
        )
    except (TypeError, ValueError):
        raise IntegrityError(
            "an erasure that does not have its form", where=path, hint="restore it"
        ) from None
