"""SDV's metadata, in and out, so that a table described for SDV need not be described again.

SDV knows kinds but neither bounds nor categories, so what comes in is a draft for a person to complete.

Source: sdv-dev/SDV, ``sdv/metadata/metadata.py`` (``METADATA_SPEC_VERSION = 'V1'``) and ``single_table.py``
(sdtypes and their keywords; ``SINGLE_TABLE_V1``), as of 2026-08.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import ConfigError
from fedgen.schema.columns import Boolean, Categorical, Column, Continuous, Date, Integer, Ordinal
from fedgen.schema.draft import KINDS, Draft, Proposal, compose

if TYPE_CHECKING:
    from fedgen.schema.table import TableSchema

_VERSION: Final = "METADATA_SPEC_VERSION"
_ISO: Final = "%Y-%m-%d"


def to_sdv(schema: TableSchema, table: str = "table") -> dict[str, Any]:
    """Return SDV metadata ``V1`` for the released columns of a schema; :func:`from_sdv` reads it back.

    Guarantees:
        - The subject is not in it: that column is never released.

    Args:
        schema: A table's schema.
        table: SDV's name for the table.
    """
    columns = {column.name: _out(column) for column in schema.columns}
    return {_VERSION: "V1", "tables": {table: {"columns": columns}}, "relationships": []}


def from_sdv(metadata: Mapping[str, Any], table: str | None = None) -> Draft:
    """Return a draft schema from SDV metadata ``V1`` or ``SINGLE_TABLE_V1``.

    Guarantees:
        - Kind, name and order of each column that :func:`to_sdv` wrote come back, and the levels of ordinals.
        - Bounds and categories are marked ``FILL-IN``: SDV's metadata does not hold them.

    Edge cases:
        ==============================  ============================================
        identifiers, personal data      left out, as a comment
        several tables                  ``table`` says which
        ==============================  ============================================

    Args:
        metadata: What SDV's ``to_dict`` or JSON file holds.
        table: The table, if there is more than one.

    Raises:
        ConfigError: Another version, or a table that is not there.
    """
    columns = _table(metadata, table).get("columns")
    if not isinstance(columns, Mapping) or not columns:
        raise ConfigError("SDV metadata without columns", key="columns")
    proposals = [_in(str(name), column) for name, column in columns.items()]
    if not any(proposal.kinds for proposal in proposals):
        raise ConfigError("no column that can be modelled", key="columns")
    return compose(proposals, "SDV metadata alone")


def _table(metadata: Mapping[str, Any], table: str | None) -> Mapping[str, Any]:
    match metadata:
        case {"METADATA_SPEC_VERSION": "SINGLE_TABLE_V1"}:
            return metadata
        case {"METADATA_SPEC_VERSION": "V1", "tables": {**tables}}:
            name = next(iter(tables)) if table is None and len(tables) == 1 else table
            if isinstance(found := tables.get(name), Mapping):
                return found
            raise ConfigError("name one of the tables", key="tables", hint=", ".join(map(str, tables)))
        case _:
            raise ConfigError("not SDV metadata", key=_VERSION, hint="V1 or SINGLE_TABLE_V1 is read")


def _out(column: Column) -> dict[str, Any]:
    match column:
        case Continuous():
            return {"sdtype": "numerical", "computer_representation": "Float"}
        case Integer():
            return {"sdtype": "numerical", "computer_representation": "Int64"}
        case Date():
            return {"sdtype": "datetime", "datetime_format": _ISO}
        case Categorical():
            return {"sdtype": "categorical"}
        case Ordinal():
            return {"sdtype": "categorical", "order": list(column.levels)}
        case Boolean():
            return {"sdtype": "boolean"}


def _in(name: str, column: Any) -> Proposal:
    """Return what SDV says of a column; a kind it does not name is a choice."""
    kinds: tuple[str, ...] = ()
    note = "left out: an identifier or personal data"
    match column:
        case {"sdtype": "categorical", "order": [*levels]}:
            return _ordinal(name, levels)
        case {"sdtype": "numerical", "computer_representation": str(stored)}:
            kinds, note = ("continuous" if stored.startswith("Float") else "integer",), ""
        case {"sdtype": "numerical"}:
            kinds, note = ("continuous", "integer"), ""
        case {"sdtype": "datetime"}:
            iso = column.get("datetime_format", _ISO) == _ISO
            kinds, note = ("date",), "" if iso else "write the source's dates as 2026-01-31"
        case {"sdtype": "categorical" | "boolean" as kind}:
            kinds, note = (kind,), ""
        case {"sdtype": "unknown"}:
            kinds, note = KINDS, ""
    return Proposal(name, kinds, note)


def _ordinal(name: str, levels: Sequence[Any]) -> Proposal:
    """Return an ordinal; a level that is no text, such as a number or None, is left to a person."""
    named = tuple(level for level in levels if isinstance(level, str) and level)
    if len(named) < len(levels):
        return Proposal(name, ("ordinal",), "SDV's levels are not all text: write them in quotes")
    return Proposal(name, ("ordinal",), levels=named)
