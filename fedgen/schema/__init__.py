"""What is publicly known of the data, and the codec that follows from it.

Public names are imported when they are first used, so that a command that only reads a schema never loads
Arrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fedgen.schema.codec import Codec, Encoded
    from fedgen.schema.columns import Boolean, Categorical, Column, Continuous, Date, Integer, Ordinal
    from fedgen.schema.draft import Draft, draft_schema
    from fedgen.schema.layout import ImageLayout, Layout, TableLayout, layout_of
    from fedgen.schema.sdv import from_sdv, to_sdv
    from fedgen.schema.table import ImageSchema, Schema, TableSchema, load_schema, parse_schema
    from fedgen.schema.yamlsource import Lines, explain, load_yaml

__all__ = [
    "Boolean",
    "Categorical",
    "Codec",
    "Column",
    "Continuous",
    "Date",
    "Draft",
    "Encoded",
    "ImageLayout",
    "ImageSchema",
    "Integer",
    "Layout",
    "Lines",
    "Ordinal",
    "Schema",
    "TableLayout",
    "TableSchema",
    "draft_schema",
    "explain",
    "from_sdv",
    "layout_of",
    "load_schema",
    "load_yaml",
    "parse_schema",
    "to_sdv",
]

_HOMES: Final = {
    "codec": ("Codec", "Encoded"),
    "columns": ("Boolean", "Categorical", "Column", "Continuous", "Date", "Integer", "Ordinal"),
    "draft": ("Draft", "draft_schema"),
    "layout": ("ImageLayout", "Layout", "TableLayout", "layout_of"),
    "sdv": ("from_sdv", "to_sdv"),
    "table": ("ImageSchema", "Schema", "TableSchema", "load_schema", "parse_schema"),
    "yamlsource": ("Lines", "explain", "load_yaml"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"fedgen.schema.{module}"), name)
    raise AttributeError(f"module 'fedgen.schema' has no attribute {name!r}")
