"""Connections to a database that can only read, see one moment, give up in time and write no log of rows."""

from __future__ import annotations

import logging
import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from fedgen.errors import ConfigError, DataError, MissingExtra

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

DIALECTS: Final = ("sqlite", "postgresql", "mysql", "mariadb")

_CONNECT_SECONDS: Final = 10
_SILENT_SECONDS: Final = 300  # an ORDER BY without an index may sort this long before its first row
_LOCK_SECONDS: Final = 30
_LOG: Final = "fedgen-source"
_WORD: Final = re.compile(r"[a-z_]{1,32}")
_READ_POSTGRES: Final = {
    "postgresql_readonly": True,
    "isolation_level": "REPEATABLE READ",
}
_READ_MYSQL: Final = (
    f"SET SESSION lock_wait_timeout = {_LOCK_SECONDS}",
    f"SET SESSION net_write_timeout = {_SILENT_SECONDS}",  # the server waits while rows are encoded
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET SESSION TRANSACTION READ ONLY",
)
_READ_SQLITE: Final = ("PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF")
# What an address may set. Not among them: statements to begin with, and files of this machine that the server may ask
# for (MySQL's init_command, local_infile, read_default_file) or that are written to (libpq's sslkeylogfile).
_OPTIONS: Final = {
    "postgresql": frozenset((
        "application_name", "channel_binding", "client_encoding", "connect_timeout", "gssencmode", "host", "hostaddr",
        "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts",
        "options", "passfile", "port", "require_auth", "requirepeer", "service", "ssl_max_protocol_version",
        "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcrl", "sslcrldir", "sslkey", "sslmode",
        "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "target_session_attrs", "tcp_user_timeout",
    )),
    "mysql": frozenset((
        "bind_address", "charset", "collation", "connect_timeout", "max_allowed_packet", "read_timeout", "ssl_ca",
        "ssl_capath", "ssl_cert", "ssl_check_hostname", "ssl_cipher", "ssl_key", "ssl_verify_cert",
        "ssl_verify_identity", "unix_socket", "use_unicode", "write_timeout",
    )),
}  # fmt: skip
_BEGIN: Final = {
    "mysql": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "mariadb": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "sqlite": "BEGIN",
}


def engine_of(url: sa.URL, base: Path, where: str) -> sa.Engine:
    """Return an engine whose every connection reads only and is closed after use; :func:`begun` opens one.

    Guarantees:
        - PostgreSQL: read only, repeatable read, server-side cursors, a statement that nothing is heard of for
          300 s is ended by the server, a lock is waited for 30 s.
        - MySQL and MariaDB: read only, a consistent snapshot, unbuffered cursors, 300 s of silence end it.
        - SQLite: the file is opened for reading, and read in one transaction; functions in its schema are not trusted.
        - Connecting gives up after 10 s. A setting in the address wins, but none makes the session writable.
        - An address sets what is known here to be harmless, brings no statement, and lends the server no file.
        - SQLAlchemy's log of statements and rows is off, whatever the level of the root logger.

    Raises:
        ConfigError: The address names no file, is not one, or sets what none may.
        DataError: No such SQLite file.
        MissingExtra: The driver is not installed.
    """
    logging.getLogger(f"sqlalchemy.engine.Engine.{_LOG}").setLevel(logging.WARNING)
    backend = url.get_backend_name()
    if backend == "sqlite":
        return _sqlite(url, base, where)
    kind = "postgresql" if backend == "postgresql" else "mysql"
    _check_options(url, _OPTIONS[kind], where)
    return _postgresql(url, where) if kind == "postgresql" else _mysql(url, where)


def _check_options(url: sa.URL, known: frozenset[str], where: str) -> None:
    """Refuse an address that sets what is not known to be harmless; no value is named, and no name that is no word."""
    for name in url.query:
        if name not in known:
            hint = f"an address may set: {', '.join(sorted(known))}"
            shown = name if _WORD.fullmatch(name) else None
            raise ConfigError("an option that an address may not set", where=where, key=shown, hint=hint)


def begun(engine: sa.Engine) -> sa.Connection:
    """Return a connection in a transaction that sees one moment; PostgreSQL begins its own."""
    connection = engine.connect()
    statement = _BEGIN.get(engine.dialect.name)
    if statement is not None:
        connection.exec_driver_sql(statement)
    return connection


def _made(url: sa.URL | str, where: str, extra: str, **settings: Any) -> sa.Engine:
    import sqlalchemy as sa

    fault: ConfigError | MissingExtra
    try:
        return sa.create_engine(
            url, poolclass=sa.NullPool, hide_parameters=True, logging_name=_LOG, **settings
        )
    except ImportError:
        fault = MissingExtra(extra, needed_for=f"a {where.partition(':')[0]}:// source")
    except (TypeError, ValueError, sa.exc.ArgumentError):
        fault = ConfigError("not a database address", where=where, hint="check its options")
    raise fault


def _postgresql(url: sa.URL, where: str) -> sa.Engine:
    defaults = {
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "options": f"-c statement_timeout={_SILENT_SECONDS}s -c lock_timeout={_LOCK_SECONDS}s",
    }
    missing = {name: str(value) for name, value in defaults.items() if name not in url.query}
    url = url.set(drivername="postgresql+psycopg").update_query_dict(missing)
    return _made(url, where, "sql", execution_options=_READ_POSTGRES)


def _mysql(url: sa.URL, where: str) -> sa.Engine:
    import sqlalchemy as sa

    defaults = {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _SILENT_SECONDS,
        "write_timeout": _SILENT_SECONDS,
        "charset": "utf8mb4",
    }
    missing = {name: str(value) for name, value in defaults.items() if name not in url.query}
    url = url.set(drivername="mysql+pymysql").update_query_dict(missing)
    engine = _made(url, where, "mysql")
    _on_connect(sa, engine, _READ_MYSQL)
    return engine


def _sqlite(url: sa.URL, base: Path, where: str) -> sa.Engine:
    """Return an engine over an existing file, opened for reading: SQLite would make a missing one."""
    import sqlalchemy as sa

    if not url.database or url.database == ":memory:":
        raise ConfigError("the address names no file", where=where, hint="write sqlite:///file.db?table=NAME")
    path = base / url.database
    if not path.is_file():
        hint = "sqlite:///name is relative, sqlite:////name is absolute"
        raise DataError("no such file", where=path, hint=hint)
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None)
        connection.text_factory = _text
        return connection

    engine = _made("sqlite://", where, "sql", creator=connect)
    _on_connect(sa, engine, _READ_SQLITE)
    return engine


def _text(raw: bytes) -> str:
    """Return text; what is not UTF-8 is told by row and column later, and not by SQLite, which quotes it."""
    return raw.decode("utf-8", "surrogateescape")


def _on_connect(sa: Any, engine: sa.Engine, statements: tuple[str, ...]) -> None:
    """Run statements on each new connection, before anything else."""

    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement)
        finally:
            cursor.close()

    sa.event.listen(engine, "connect", prepare)
