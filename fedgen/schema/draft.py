"""A first schema for a table, from its header and stored types alone; no value is ever read.

What a header cannot tell is marked ``FILL-IN``, and :func:`fedgen.schema.table.load_schema` refuses the file
until a person has replaced each mark by what is publicly known. A bound looked up in the rows would be a leak
that no accountant sees.
"""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from fedgen.errors import ConfigError
from fedgen.schema.columns import FILL_IN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedIOBase

MAX_HEADER: Final = 2**20

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_ .()-]*[A-Za-z0-9_)]|[A-Za-z_]")
_RESERVED: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_VALUE: Final = re.compile(
    r"\s*([-+]?[\d.,]+([eE][-+]?\d+)?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*|nan|na|true|false)?\s*", re.IGNORECASE
)
_KEYS: Final = {
    "continuous": ("min", "max"),
    "integer": ("min", "max"),
    "date": ("min", "max"),
    "categorical": ("categories",),
    "ordinal": ("levels",),
    "boolean": (),
}
KINDS: Final = tuple(_KEYS)
_HEAD: Final = f"""\
# A draft of what is publicly known of this table. It was made from {{origin}}; no value was read.
#
# 1. Replace each {FILL_IN} by what the form, the standard or the law says; never by what the rows say.
# 2. Remove the columns that must not be modelled: identifiers, names, addresses, free text.
#
# type          also needs
# continuous    min, max       optional: bins (32), or edges: [0.0, 0.5, 2.0, 10.0] from min to max
# integer       min, max       bins, if there are more than 256 values; or edges
# date          min, max       as 2026-01-31; optional: bins
# categorical   categories     [a, b, c]: every name that can occur; write numbers in quotes
# ordinal       levels         [low, middle, high]: the same, lowest first
# boolean       nothing
# Any of them may say `nullable: true`: a value may be missing. A value outside the bounds is clamped.

kind: table
description: ""
subject: {FILL_IN}  # the column that says whose row it is, or null; it is never modelled and never released
label: null  # the column to condition on, if there is one
missing: [""]  # the texts that mean "no value", for example ["", "NA", "?"]
columns:
"""


class Draft(NamedTuple):
    """A schema to be completed by a person.

    Attributes:
        text: YAML with ``FILL-IN`` marks.
        todo: What a person must fill in, one clause for each column and key.
    """

    text: str
    todo: list[str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is known of one column before a person has looked at it.

    Args:
        name: Its name.
        kinds: The kinds it may be; one if that is known, none if it cannot be modelled.
        note: Why it is left out, or what to mind.
        levels: Its declared names in order, where the origin says them.
    """

    name: str
    kinds: tuple[str, ...]
    note: str = ""
    levels: tuple[str, ...] = ()


def draft_schema(path: str | Path) -> Draft:
    """Return a draft for a CSV (``.csv``, ``.csv.gz``) or Parquet file.

    Guarantees:
        - Equal headers and types give equal drafts, whatever the rows hold: of a CSV file the first record is
          read, of a Parquet file its stored schema, never its statistics.
        - The draft is valid YAML, and is refused by ``load_schema`` until it is filled in.

    Edge cases:
        ===============================  ==========================================================
        CSV                              no types: each column is a choice a person makes
        a first line that holds values   refused: its names would be a row
        list, struct, binary             left out, as a comment
        ===============================  ==========================================================

    Args:
        path: The file.

    Raises:
        ConfigError: No such file, another format, or a header that is none.
    """
    path = Path(path)
    name = path.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz")):
            proposals, origin = _csv_columns(path), "the header alone"
        elif name.endswith((".parquet", ".pq")):
            proposals, origin = _parquet_columns(path), "the header and the stored types alone"
        else:
            raise ConfigError(
                "no format a draft is made from", where=path, hint="use .csv, .csv.gz or .parquet"
            )
    except FileNotFoundError:
        raise ConfigError("no such file", where=path) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or 'not a whole file'}", where=path) from None
    if not any(proposal.kinds for proposal in proposals):
        raise ConfigError("no column that can be modelled", where=path)
    return compose(proposals, origin)


def compose(proposals: Sequence[Proposal], origin: str) -> Draft:
    """Return the draft that says what is known of each column and marks what is not.

    Args:
        proposals: The columns, in the order of the table.
        origin: What they were made from, for the first line.
    """
    todo = ["subject: the column that says whose row it is, or null"]
    text = _HEAD.format(origin=origin)
    for proposal in proposals:
        block, needed = _block(proposal)
        text += block
        if needed:
            todo.append(f"{proposal.name}: {needed}")
    return Draft(text, todo)


def _block(proposal: Proposal) -> tuple[str, str]:
    """Return a column's YAML and what is left to fill in."""
    name = _scalar(proposal.name)
    note = f"  # {proposal.note}" if proposal.note else ""
    if not proposal.kinds:
        return f"  # - name: {name}{note or '  # left out'}\n", ""
    if len(proposal.kinds) > 1:
        choice = " | ".join(proposal.kinds)
        keys = dict.fromkeys(key for kind in proposal.kinds for key in _KEYS[kind])
        blanks = "".join(f"    # {key}: \n" for key in keys).replace(" \n", "\n")
        return f"  - name: {name}{note}\n    type: {FILL_IN}  # {choice}\n{blanks}", "type, and what it needs"
    kind = proposal.kinds[0]
    block = f"  - name: {name}{note}\n    type: {kind}\n"
    if proposal.levels:
        return block + f"    {_KEYS[kind][0]}: [{', '.join(map(_scalar, proposal.levels))}]\n", ""
    return block + "".join(f"    {key}: {FILL_IN}\n" for key in _KEYS[kind]), ", ".join(_KEYS[kind])


def _scalar(text: str) -> str:
    """Return ``text`` as a YAML scalar that is read back as this very text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=2**30)
    return quoted.strip()


def _csv_columns(path: Path) -> list[Proposal]:
    """Return a choice for each name in the first record; nothing behind that record is parsed."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as stream:
        try:
            names = next(csv.reader(_lines(stream, path), strict=True), [])
        except UnicodeDecodeError:
            raise ConfigError("not UTF-8 text", where=path, hint="save the file as UTF-8") from None
        except csv.Error:
            raise ConfigError("the header is not a CSV record", where=path, line=1) from None
    _check_header(names, path)
    return [Proposal(name, KINDS) for name in names]


def _lines(stream: BufferedIOBase, path: Path) -> Iterator[str]:
    """Yield the lines of the first MiB, decoded one by one: bytes behind the header play no part."""
    left, encoding = MAX_HEADER, "utf-8-sig"
    while left > 0 and (line := stream.readline(left)):
        left -= len(line)
        yield line.decode(encoding)
        encoding = "utf-8"
    if left <= 0:
        raise ConfigError("no header in the first MiB", where=path, hint="is this a CSV file?")


def _check_header(names: Sequence[str], path: Path) -> None:
    """Refuse what is not a header, by position only: a cell of a first row must not get into a message."""
    if not names:
        raise ConfigError("the file has no header", where=path, line=1)
    if len(names) == 1 and (found := next((c for c in ";\t|" if c in names[0]), None)):
        raise ConfigError(f"columns seem to be separated by {found!r}", where=path, line=1, hint="use commas")
    for position, name in enumerate(names, start=1):
        if _VALUE.fullmatch(name):
            raise ConfigError(
                f"column {position} of the first line is empty or a value, not a name",
                where=path,
                line=1,
                hint="give the file a header line",
            )
    if len(set(names)) < len(names):
        first, second = next((names.index(n), i) for i, n in enumerate(names) if n in names[:i])
        what = f"columns {first + 1} and {second + 1} of the header have the same name"
        raise ConfigError(what, where=path, line=1)


def _parquet_columns(path: Path) -> list[Proposal]:
    """Return what the stored types say; the footer's statistics and pandas' notes are not looked at."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_schema(path)
    except pa.ArrowInvalid:
        raise ConfigError("not a Parquet file", where=path) from None
    names = list(stored.names)
    if len(set(names)) < len(names):
        raise ConfigError("two columns have the same name", where=path)
    return [_typed(field.name, field.type) for field in stored]


def _typed(name: str, kind: Any) -> Proposal:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return Proposal(name, ("boolean",))
    if types.is_integer(kind):
        return Proposal(name, ("integer",))
    if types.is_floating(kind) or types.is_decimal(kind):
        return Proposal(name, ("continuous",))
    if types.is_date(kind) or types.is_timestamp(kind):
        return Proposal(
            name, ("date",), "the time of day is not modelled" if types.is_timestamp(kind) else ""
        )
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind) or kind == "string_view":
        return Proposal(name, KINDS, "stored as text")
    return Proposal(name, (), f"left out: stored as {str(kind).partition('<')[0]}")
