"""How the coordinator's state is opened, and what its errors mean; nothing here knows what a run is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedgen.coordinator.state.tables import HEAD_REVISION, VERSION_TABLE
from fedgen.databases.kind import Kind
from fedgen.databases.opened import Opened
from fedgen.databases.words import Words, postgresql_code, sqlite_code
from fedgen.errors import Code, ConfigError, FedgenError, IntegrityError

if TYPE_CHECKING:
    import os

_FULL: Final = "53100"
_BROKEN_RULES: Final = ("22", "23", "42")  # data, integrity constraints, syntax or rights


class StateBusy(FedgenError):
    """Another process held the state for longer than half a minute; nothing was written."""

    site_code = Code.STORAGE


_WORDS: Final = Words(short="state", full="state", busy=StateBusy)


class Database(Opened):
    """An open state; see :class:`fedgen.databases.opened.Opened`.

    Guarantees:
        - Two who write at once in PostgreSQL do not wait for each other: a run has one holder already.

    Args:
        address: A path, ``sqlite:///path`` or ``postgresql://…``.

    Raises:
        ConfigError: The address is not one, the file may be read by others, a later version wrote it, or the server is
            gone.
        IntegrityError: The file is damaged or no state, or the rules of the tables were broken.
        OSError: The disk is full, broken, or not to be written to.
        StateBusy: Another process holds the state.
        MissingExtra: The PostgreSQL driver is not installed.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        super().__init__(address, _KIND)


def _meaning(cause: BaseException, where: str) -> Exception:
    """Return the error that says what the database meant."""
    primary, code = sqlite_code(cause), postgresql_code(cause)
    if primary is not None:
        return _WORDS.of_sqlite(primary, where) or _WORDS.damaged(where)
    if code == _FULL:
        return _WORDS.no_space(where)
    known = _WORDS.of_postgresql(code, where)
    if known is not None:
        return known
    if code.startswith(_BROKEN_RULES):
        return IntegrityError("the state breaks its own rules", code=Code.STORAGE, where=where)
    return ConfigError(
        f"the state's server does not answer {code}".strip(),
        where=where,
        hint="check its address and that it runs; a run goes on with --resume",
    )


_KIND: Final = Kind(
    words=_WORDS,
    name="a coordinator's state",
    no_address="not the address of a state",
    addresses="a path, sqlite:///path or postgresql://user@host/database",
    meaning=_meaning,
    migrations=Path(__file__).with_name("migrations"),
    revision=HEAD_REVISION,
    version_table=VERSION_TABLE,
    lock=0x66656467_65AE,
    one_writer=False,
    pings=True,
)
