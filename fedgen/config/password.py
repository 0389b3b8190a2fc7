"""A database's password, apart from the address that needs it: a file names where it lies, and never what it is.

``env:NAME`` is an environment variable, ``file:PATH`` a file of one line, as systemd's credentials and Kubernetes's
secrets deliver it. It is read when a connection is made, so a password that was changed needs no change here.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote, unquote

from pydantic import AfterValidator

from fedgen.config.fields import Text
from fedgen.errors import ConfigError
from fedgen.schema.yamlsource import Flaw

MAX_BYTES: Final = 1024
_WITH_LOGIN: Final = ("postgresql", "mysql", "mariadb", "mongodb")
_REFERENCE: Final = re.compile(r"env:(?P<variable>[A-Za-z_][A-Za-z0-9_]{0,127})|file:(?P<path>.+)")
# As a study's source is looked at, too: what could be a password is one.
_LOGIN: Final = re.compile(
    r"(?<![a-z0-9+.])(?!csv:|parquet:|sqlite:)[a-z][a-z0-9+.-]*://[^/@:]*:(?P<password>[^@]*)@",
    re.IGNORECASE | re.DOTALL,
)
_OPTION: Final = re.compile(
    r"pass(word|wd|phrase)|\bpwd|token|secret|(account|access|api)_?key|\bsig\b|credential", re.IGNORECASE
)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_GROUP_READS: Final = stat.S_IRGRP


def _reference(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise Flaw("must say where the password lies, not what it is", hint="write env:NAME or file:PATH")
    return text


Reference = Annotated[Text, AfterValidator(_reference)]


def has_password(address: str) -> bool:
    """Return whether an address holds a password, a token or a key, or a text such an address.

    Guarantees:
        - What could be one counts: an ``@`` behind a port that is not percent-encoded makes what is before it one.

    Edge cases:
        - The path of a file that holds one (``passfile=``, ``sslkey=``) is none.
    """
    return bool(passwords_in(address))


def passwords_in(text: str) -> tuple[str, ...]:
    """Return what :func:`has_password` finds, as it is written there; where it is empty, that as well."""
    logins = tuple(match["password"] for match in _LOGIN.finditer(text))
    pairs = [pair.partition("=") for pair in text.partition("?")[2].split("&")]
    options = ((unquote(name), value) for name, _, value in pairs)
    return logins + tuple(value for name, value in options if _is_secret(name, value))


def _is_secret(name: str, value: str) -> bool:
    return bool(_OPTION.search(unquote(value) if name.lower() == "authmechanismproperties" else name))


def check_takes_password(address: str, reference: str | None, *, where: str | Path | None, key: str) -> None:
    """Return unless a password is named for an address that has no place for one.

    Args:
        address: Of a database, or of anything else.
        reference: Where its password lies, or None.
        where: The file that holds the reference, for errors.
        key: The key that holds it.

    Raises:
        ConfigError: The address is not of a database, names no user, or holds a password itself.
    """
    if reference is None:
        return
    if has_password(address):
        hint = "take it out of the address"
        raise ConfigError("the address holds a password already", where=where, key=key, hint=hint)
    if _parts(address) is None:
        what = "the address has no place for a password"
        hint = f"write a database's, as postgresql://user@host/database; known: {', '.join(_WITH_LOGIN)}"
        raise ConfigError(what, where=where, key=key, hint=hint)


def with_password(address: str, password: str) -> str:
    """Return an address with a password in it, percent-encoded.

    Raises:
        ValueError: It has no place for one.
    """
    parts = _parts(address)
    if parts is None:
        raise ValueError("the address has no place for a password")
    scheme, user, rest = parts
    return f"{scheme}://{user}:{quote(password, safe='')}@{rest}"


def address_of(address: str, reference: str | None, *, base: Path, where: Path, key: str) -> str:
    """Return an address as its driver takes it, with the password in it where one is named.

    Args:
        address: As it is written.
        reference: Where its password lies, or None: then the address is returned as it is.
        base: Folder that a relative path starts from.
        where: The file that holds the reference, for errors.
        key: The key that holds it.

    Raises:
        ConfigError: As :func:`check_takes_password` and :func:`password_at`.
    """
    if reference is None:
        return address
    check_takes_password(address, reference, where=where, key=key)
    return with_password(address, password_at(reference, base=base, where=where, key=key))


def variable_of(reference: str | None) -> str | None:
    """Return the environment variable that a reference names, if it names one."""
    match = None if reference is None else _REFERENCE.fullmatch(reference)
    return None if match is None else match["variable"]


def password_at(
    reference: str, *, base: Path, where: str | Path | None = None, key: str | None = None
) -> str:
    """Return the password that a reference names.

    Guarantees:
        - No byte of it is part of an error.
        - Of a file: it belongs to this user or to root, and nobody else may read it. A file of root's may be readable
          by its group, which is how systemd and Kubernetes hand a secret to a service that is not root.

    Edge cases:
        - A line break at the end of a file is not part of it; any other control character is refused.

    Args:
        reference: ``env:NAME`` or ``file:PATH``.
        base: Folder that a relative path starts from.
        where: The file that holds the reference, for errors.
        key: The key that holds it.

    Raises:
        ConfigError: There is none, it is no password, or others may read it.

    Source:
        PostgreSQL manual, "SSL Support", on the mode of libpq's key files: the same rule.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(
            "must say where the password lies", where=where, key=key, hint="env:NAME or file:PATH"
        )
    if match["variable"] is not None:
        name = match["variable"]
        value = os.environ.get(name)
        if value is None:
            hint = "set it where this process is started, or name a file: file:PATH"
            raise ConfigError(f"the environment has no {name}", where=where, key=key, hint=hint)
        return _checked(value, f"${name}")
    path = base / Path(match["path"]).expanduser()
    data = _read(path)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    return _checked(text.removesuffix("\n").removesuffix("\r"), path)


def check_closed(config: Path, *addresses: str | None) -> None:
    """Return unless an address in a file holds a password and others may read the file.

    Raises:
        ConfigError: They may.
    """
    if not any(address is not None and has_password(address) for address in addresses):
        return
    mode = stat.S_IMODE(config.stat().st_mode)
    if mode & _OTHERS:
        what = f"holds a password and is open to others (mode {mode:04o})"
        raise ConfigError(what, where=config, hint=f"chmod 600 {config}, or keep the password elsewhere")


def _parts(address: str) -> tuple[str, str, str] | None:
    """Return scheme, user and the rest of a database's address that names a user."""
    scheme, _, rest = address.strip().partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if (
        scheme.lower().partition("+")[0] not in _WITH_LOGIN
        or not user
        or not at
        or "@" in user
        or ":" in user
    ):
        return None
    return scheme, user, rest[len(user) + 1 :]


def _read(path: Path) -> bytes:
    """Return the bytes of a file that holds a secret, which may be a link, as Kubernetes makes them."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        what = f"the password cannot be read: {(error.strerror or '').lower()}"
        raise ConfigError(what, where=path) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("a password lies in a plain file", where=path)
        if status.st_uid not in {0, os.geteuid()}:
            raise ConfigError(f"the password belongs to another user (uid {status.st_uid})", where=path)
        closed_to = _OTHERS & ~_GROUP_READS if status.st_uid == 0 else _OTHERS
        if status.st_mode & closed_to:
            mode = stat.S_IMODE(status.st_mode)
            what = f"others may read or write the password (mode {mode:04o})"
            raise ConfigError(what, where=path, hint=f"chmod 600 {path}")
        return os.read(descriptor, MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _checked(value: str, where: str | Path) -> str:
    """Return a password that is one."""
    if (
        not value
        or len(value.encode(errors="replace")) > MAX_BYTES
        or any(ord(it) < ord(" ") for it in value)
    ):
        what = "is no password: one line of UTF-8, not empty, at most 1024 bytes"
        raise ConfigError(what, where=where)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError("is no password: not UTF-8", where=where) from None
    return value
