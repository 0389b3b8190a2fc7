"""JSON Lines and CloudEvents as blocks of rows."""

from __future__ import annotations

import json
import re
from typing import IO, TYPE_CHECKING, Any, Final

from fedgen.errors import DataError
from fedgen.policy.store.layout import COLUMNS, PASSED_OVER, SAME, Block, Part, tables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from fedgen.policy.store.layout import About, Format, Table

_LINE: Final = 1 << 20
_DOCUMENT: Final = 64 << 20
_TYPE: Final = re.compile(r"org\.fedgen\.(consent|rights)\.([a-z_]+)\.v1")

Waiting = dict["Table", list[tuple[int, dict[str, Any]]]]


def json_blocks(
    path: Path, kind: Format, mapping: Mapping[str, str] | None, skip: int, about: About, size: int
) -> Iterator[Block]:
    """Yield objects after the first ``skip``: one a line, or a JSON array of CloudEvents (its batch format).

    Raises:
        DataError: A JSON document is too large.
        OSError: The file cannot be read.
    """
    unpack: Callable[[dict[str, Any]], tuple[Table, dict[str, Any]] | None]
    unpack = _cloudevent if kind == "cloudevents" else (lambda row: _mapped(row, mapping, about))
    with path.open("rb") as file:
        documents = _documents(file, path, whole=path.name.lower().endswith(".json"))
        block, seen = Block(0), 0
        waiting: Waiting = {}
        for seen, document in enumerate(documents, 1):
            if seen > skip:
                said = None if document is None else unpack(document)
                if said is None:
                    block.broken.append(seen)
                else:
                    waiting.setdefault(said[0], []).append((seen, said[1]))
                if seen % size == 0:
                    yield _gathered(block, seen, waiting)
                    block, waiting = Block(0), {}
        if seen > skip and (block.broken or waiting):
            yield _gathered(block, seen, waiting)


def _gathered(block: Block, upto: int, waiting: Waiting) -> Block:
    """Return a block with its objects turned into columns."""
    block.upto = upto
    for table, rows in waiting.items():
        columns: dict[str, list[Any] | pa.Array] = {
            n: [row.get(n) for _, row in rows] for n in COLUMNS[table]
        }
        block.parts.append(Part(table, [number for number, _ in rows], columns))
    return block


def _documents(file: IO[bytes], path: Path, *, whole: bool) -> Iterator[dict[str, Any] | None]:
    """Yield objects, None for what is none."""
    if whole:
        content = file.read(_DOCUMENT + 1)
        if len(content) > _DOCUMENT:
            raise DataError("over 64 MiB in one JSON document", where=path, hint="use one event a line")
        found = _object(content)
        items = found if isinstance(found, list) else [found]
        yield from (item if isinstance(item, dict) else None for item in items)
        return
    while line := file.readline(_LINE + 1):
        if len(line) > _LINE:
            while line and not line.endswith(b"\n"):
                line = file.readline(_LINE)
            yield None
        elif line.strip():
            found = _object(line)
            yield found if isinstance(found, dict) else None


def _object(content: bytes) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("repeated key")
    return result


def _mapped(
    row: dict[str, Any], mapping: Mapping[str, str] | None, about: About
) -> tuple[Table, dict[str, Any]] | None:
    """Return a plain object under our names, or None if it has a key that nobody knows."""
    if mapping is None:
        said = {SAME[about].get(n, n): value for n, value in row.items() if n not in PASSED_OVER}
        if len(said) < sum(n not in PASSED_OVER for n in row):  # one thing under two names
            return None
    else:
        said = {our: row.get(theirs) for our, theirs in mapping.items()}
    table = tables_of(about, said)
    return (table, said) if said.keys() <= set(COLUMNS[table]) else None


def _cloudevent(event: dict[str, Any]) -> tuple[Table, dict[str, Any]] | None:
    """Return a CloudEvent of ours under our names, or None.

    Source: CNCF CloudEvents 1.0.2, sections 3.1 and JSON format 3; ``expirytime`` and ``recordedtime`` are extension
    attributes.
    """
    kind, data = event.get("type"), event.get("data", {})
    found = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    if (
        found is None
        or event.get("specversion") != "1.0"
        or not isinstance(data, dict)
        or "source" not in event
    ):
        return None
    consent = found[1] == "consent"
    said = {**data, "event_id": event.get("id"), "effective_at": event.get("time")}
    said.setdefault("subject_id", event.get("subject"))
    said["action" if consent else "kind"] = found[2]
    if consent and "expirytime" in event:
        said["valid_until"] = event["expirytime"]
    table: Table = "consent_event" if consent else "rights_event"
    return (table, said) if said.keys() <= set(COLUMNS[table]) else None
