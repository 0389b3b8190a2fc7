"""The file of a private key: one line, readable by its owner only.

``FEDGEN-SIGNING-KEY-1 <private bytes, hex> <check, hex>``. The check finds a damaged digit.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from fedgen._files import create
from fedgen.errors import ConfigError

MAX_FILE: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_LINE: Final = re.compile(rb"FEDGEN-([A-Z]+)-KEY-1 ([0-9a-f]+) ([0-9a-f]{32})\n?")


def write(path: str | os.PathLike[str], *, tag: str, secret: bytes, check: str) -> None:
    """Create the key file; inverse of :func:`read`.

    Guarantees:
        - The file is born with mode 0600 and holds the key only once it is on disk whole.
        - An existing file, or a symbolic link in its place, is never overwritten.

    Raises:
        ConfigError: The file exists, or its folder cannot be written.
    """
    place = Path(path)
    line = f"FEDGEN-{tag}-KEY-1 {secret.hex()} {check}\n".encode()
    try:
        create(place, line)  # not in place of another by a rename: a key that is lost is lost for good
    except FileExistsError:
        raise ConfigError(
            "a file is there already", where=place, hint="choose another path, or move the old key away"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write the key file: {error.strerror}", where=place) from None


def read(path: str | os.PathLike[str], *, tag: str) -> tuple[bytes, str]:
    """Return the private bytes and the check in a key file; inverse of :func:`write`.

    Guarantees:
        - Mode, type and size are checked on the open file, so nothing can change between check and use.
        - No byte of the file is ever part of an error.

    Raises:
        ConfigError: The file is missing, not a plain file, open to group or others, or not such a key.
    """
    place = Path(path)
    content = _content(place)
    found = _LINE.fullmatch(content)
    if found is None or len(found[2]) % 2:
        raise ConfigError("this is not a fedgen key file", where=place)
    if found[1].decode() != tag:
        raise ConfigError(
            f"this file holds a key of another type; a {tag.lower()} key is needed here", where=place
        )
    return bytes.fromhex(found[2].decode()), found[3].decode()


def _content(place: Path) -> bytes:
    """Return the bytes of a plain file that only its owner can open."""
    try:
        # Without O_NONBLOCK a named pipe in the place of the file would hang the site.
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot open the key file: {error.strerror}", where=place) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("the key file is not a plain file", where=place)
        if status.st_mode & _OTHERS:
            raise ConfigError(
                f"the key file is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
                where=place,
                hint=f"chmod 600 {place}",
            )
        # A longer file is no key; its first bytes then fail to parse, and the rest is never read.
        return os.read(descriptor, MAX_FILE)
    except OSError as error:
        raise ConfigError(f"cannot read the key file: {error.strerror}", where=place) from None
    finally:
        os.close(descriptor)
