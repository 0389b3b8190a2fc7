"""One address for every kind of table: a path, a file, a database, an object store, or ``builtin:``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from fedgen.data.source import BATCH_ROWS, Source
from fedgen.data.store import FSSPEC, OBJECT_STORES, Store, open_store
from fedgen.errors import ConfigError
from fedgen.schema.explain import nearest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BATCH_ROWS", "SCHEMES", "Source", "open_source"]

_FILES: Final = ("csv", "parquet")
_SQL: Final = ("sqlite", "postgresql", "mysql", "mariadb")
SCHEMES: Final = (*_FILES, *_SQL, "mongodb", *OBJECT_STORES, "builtin")
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<rest>.*)", re.DOTALL)
_CSV_SUFFIX: Final = re.compile(r"\.(?P<kind>csv|tsv)(\.(gz|bz2|zst|lz4))?$", re.IGNORECASE)
_DELIMITERS: Final = frozenset(",;|\t ")


def open_source(url: str, *, base: Path, may_query: bool = False) -> Source:
    """Return the table at an address; nothing but its header or catalogue is read yet.

    =================================================  ======================================================
    ``csv://visits.csv.gz?delimiter=;``                a CSV file, plain or compressed; comma if not said
    ``parquet://visits.parquet`` or ``parquet://dir``  a file, or all Parquet files in a folder
    ``s3://bucket/visits``, ``gs://``, ``abfs://``     the same in an object store; ``.csv`` names a CSV file
    ``fsspec+webhdfs://host/visits``                   the same wherever fsspec reaches
    ``sqlite:///clinic.db?table=visits``               a table or view of a file
    ``postgresql://user@host/db?table=visits``         a table or view; ``&schema=`` names a schema
    ``mysql://user@host/db?table=visits``              the same; ``mariadb://`` too
    ``mongodb://user@host/db?collection=visits``       flat documents; ``mongodb+srv://`` too
    ``builtin:randhie``, ``builtin:digits``            see :mod:`fedgen.data.builtin`
    ``visits.csv``, ``visits.parquet``, ``dir``        a path, by its suffix
    =================================================  ======================================================

    Guarantees:
        - No message holds a password.

    Edge cases:
        A path is taken as written, without ``%``-escapes; it may not hold ``?`` after ``csv://``.

    Args:
        url: The address.
        base: Folder that relative paths are relative to.
        may_query: Whether the address is of a site's own file: a database's may then say ``?query=SELECT ...``.

    Raises:
        ConfigError: Unknown kind of address, or an option that it does not have.
        DataError: Nothing there, or not what its address says.
        MissingExtra: A driver or package is not installed.
    """
    address = url.strip()
    match = _SCHEME.fullmatch(address)
    if not address:
        raise ConfigError("no address of a table", hint="write a path, or csv://, parquet://, builtin:")
    if match is None:
        return _path(address, base)
    whole, rest = match["scheme"].lower(), match["rest"]
    through_fsspec = whole.startswith(FSSPEC)
    scheme = whole if through_fsspec else whole.split("+")[0]
    known = through_fsspec or scheme in SCHEMES
    if known and not rest.removeprefix("//").strip():
        what = f"nothing stands behind {scheme}:"
        raise ConfigError(
            what, hint="write builtin:NAME" if scheme == "builtin" else f"write {scheme}://NAME"
        )
    if scheme == "builtin":
        from fedgen.data.builtin import builtin_source

        return builtin_source(rest)
    if known and not rest.startswith("//"):
        what = f"an address of kind {scheme} begins with {scheme}://"
        raise ConfigError(what, hint=f"write {scheme}://NAME")
    if scheme in _FILES:
        return _file(scheme, rest[2:], base)
    if through_fsspec or scheme in OBJECT_STORES:
        return _in_store(open_store(address))
    if scheme in SCHEMES:
        return _database(scheme, address, base, may_query=may_query)
    guess = nearest(scheme, SCHEMES)
    hint = f"did you mean {guess}:?" if guess else f"known kinds: {', '.join(SCHEMES)}, or a path"
    raise ConfigError(f"unknown kind of source {scheme!r}", hint=hint)


def _file(scheme: str, rest: str, base: Path) -> Source:
    """Open what ``csv://`` or ``parquet://`` names."""
    if scheme == "csv":
        name, _, query = rest.partition("?")
        return _csv(name, query, base)
    from fedgen.data.parquet_source import ParquetSource

    return ParquetSource(base / rest)


def _in_store(store: Store) -> Source:
    """Open a file or folder of a store: CSV by its suffix, else Parquet."""
    if suffix := _CSV_SUFFIX.search(store.root):
        from fedgen.data.csv_source import CsvSource

        return CsvSource(store, delimiter=_delimiter(suffix))
    from fedgen.data.parquet_source import ParquetSource

    return ParquetSource(store)


def _database(scheme: str, address: str, base: Path, *, may_query: bool) -> Source:
    """Open a table, view, query or collection."""
    if scheme == "mongodb":
        from fedgen.data.mongo_source import MongoSource

        return MongoSource(address)
    from fedgen.data.sql_source import SqlSource

    return SqlSource(address, base=base, may_query=may_query)


def _delimiter(suffix: re.Match[str] | None) -> str:
    return "\t" if suffix and suffix["kind"].lower() == "tsv" else ","


def _csv(name: str, query: str, base: Path) -> Source:
    """Open a CSV file by its path and options."""
    from fedgen.data.csv_source import CsvSource

    path = base / name
    delimiter = _delimiter(_CSV_SUFFIX.search(name))
    options = parse_qs(query, keep_blank_values=True, separator="&")
    for option, values in options.items():
        if option != "delimiter" or len(values) != 1 or values[0] not in _DELIMITERS:
            hint = "csv:// has one option: delimiter=, one of , ; | space or %09 for a tab"
            raise ConfigError("an option that csv:// does not have", where=path, key=option, hint=hint)
        delimiter = values[0]
    return CsvSource(path, delimiter=delimiter)


def _path(name: str, base: Path) -> Source:
    """Open a plain path by its suffix; a folder is one of Parquet files."""
    from fedgen.data.parquet_source import ParquetSource

    path = base / name
    if _CSV_SUFFIX.search(name):
        return _csv(name, "", base)
    if name.lower().endswith(".parquet") or path.is_dir():
        return ParquetSource(path)
    hint = "name it .csv, .csv.gz, .tsv or .parquet, or write csv://, parquet://, sqlite:// before it"
    raise ConfigError("the suffix does not say what kind of table this is", where=path, hint=hint)
