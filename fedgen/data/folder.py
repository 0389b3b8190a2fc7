"""A folder of Parquet files as one table: which files are part of it, and what its folder names say.

Engines such as Spark write a table as many files. What a folder holds besides them decides whether the table may be
read at all: rows of a job that has not finished are half a table, and rows that a lakehouse has deleted are still in
its files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.data.store import Stat, Store

_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
_UNFINISHED: Final = ("_temporary", "__magic", ".spark-staging")
_LAKES: Final = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
MAX_FILES: Final = 100_000


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table.

    Attributes:
        stat: Path, size and time.
        shown: Its place for a person; values in folder names are left out, for they are values of rows.
        keys: Name and value of each folder above it that is called ``name=value``.
    """

    stat: Stat = field(repr=False)
    shown: str
    keys: tuple[tuple[str, str | None], ...] = field(default=(), repr=False)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The columns that its folders' names bring."""
        return tuple(name for name, _ in self.keys)


def table_files(store: Store) -> list[TableFile]:
    """Return the files that make the table at ``store``, in the order of their paths.

    Guarantees:
        - A folder of an unfinished job, or of a lakehouse whose log says which rows are gone, is refused.
        - All files lie under the same keys (``year=2026/``), or none does.

    Edge cases:
        ================================================  =====================================================
        names that begin with ``.`` or ``_``              not part of the table (``_SUCCESS``, checksums)
        ``_temporary`` beside ``_SUCCESS``                refused: a job is adding to the table, or died doing so
        a folder ``name=__HIVE_DEFAULT_PARTITION__``      no value
        a file of no bytes                                refused: no engine writes one, a broken copy does
        ================================================  =====================================================

    Raises:
        DataError: Nothing there, or as above; at most 100,000 files make a table.
    """
    kind = store.kind()
    if kind == "nothing":
        raise DataError("no such file", where=store.shown, hint="check the path")
    if kind == "file":
        stat = store.stat(store.root)
        if stat is None:
            raise DataError("no such file", where=store.shown, hint="check the path")
        return [TableFile(stat, store.shown)]
    return _in_folder(store)


def _in_folder(store: Store) -> list[TableFile]:
    found: list[TableFile] = []
    prefix = store.root.rstrip("/") + "/"
    stats = store.tree()
    _refuse_unfit(store, [_inner(stat.path, prefix) for stat in stats])
    for stat in stats:
        parts = _inner(stat.path, prefix)
        if not parts or stat.size < 0 or any(part[0] in "._" and "=" not in part for part in parts):
            continue
        if parts[-1].lower().endswith(".parquet"):
            found.append(_file(store, stat, parts))
    if not found:
        raise DataError("no Parquet file in this folder", where=store.shown, hint="files end in .parquet")
    if len(found) > MAX_FILES:
        raise DataError(
            f"more than {MAX_FILES} files", where=store.shown, hint="write the table in fewer files"
        )
    for file in found[1:]:
        if file.key_names != found[0].key_names:
            hint = "name=value folders must be the same for each file"
            raise DataError("this file lies under other keys than the first one", where=file.shown, hint=hint)
    names = found[0].key_names
    if len(set(names)) < len(names):
        raise DataError("two folders above one file have the same key", where=found[0].shown, hint="keep one")
    return found


def _inner(path: str, prefix: str) -> tuple[str, ...]:
    """Return the parts of a path below the root."""
    below = (
        path[len(prefix) :] if path.startswith(prefix) else path.lstrip("/").removeprefix(prefix.lstrip("/"))
    )
    return tuple(part for part in below.split("/") if part)


def _refuse_unfit(store: Store, paths: Sequence[tuple[str, ...]]) -> None:
    """Refuse a folder whose Parquet files are not the table's rows."""
    names = {part for parts in paths for part in parts}
    if any(name.startswith(_UNFINISHED) for name in names):
        what = "a job that has not finished left its files here"
        raise DataError(
            what, where=store.shown, hint="run it again to its end, or remove what it left (_temporary)"
        )
    lake = next((kind for name, kind in _LAKES.items() if name in names), None)
    if any(
        len(parts) > 1 and parts[-2] == "metadata" and parts[-1].endswith(".metadata.json") for parts in paths
    ):
        lake = "Iceberg"
    if lake:
        what = f"a {lake} table: its files still hold rows that were deleted"
        raise DataError(what, where=store.shown, hint="write what the table holds now as plain Parquet")


def _file(store: Store, stat: Stat, parts: tuple[str, ...]) -> TableFile:
    keys: list[tuple[str, str | None]] = []
    shown: list[str] = []
    for part in parts[:-1]:
        name, is_key, value = part.partition("=")
        if is_key and name:
            keys.append((unquote(name), None if value == _NO_VALUE else unquote(value)))
        shown.append(f"{name}=*" if is_key else part)
    place = "/".join((store.shown.rstrip("/"), *shown, parts[-1]))
    if stat.size == 0:
        raise DataError("a file of no bytes is not Parquet", where=place, hint="copy it again, or remove it")
    return TableFile(stat, place, tuple(keys))
