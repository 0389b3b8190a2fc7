"""A home on disk: a folder of mode 0700 that belongs to who runs the process, and files of mode 0600 in it."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fedgen.enrolment.signed import read_bounded
from fedgen.errors import ConfigError
from fedgen.runs.atomic import storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK: Final = ".enrolment.lock"
_MAX_PRIVATE: Final = 8192
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def make_folder(path: Path) -> None:
    """Make a folder of mode 0700, or hold the one that is there to :func:`check_folder`.

    Raises:
        ConfigError: It cannot be made, or what is there is not a folder of ours alone.
    """
    with storage(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            check_folder(path)


def check_folder(path: Path) -> None:
    """Return if ``path`` is a folder that belongs to who runs this process, and that nobody else may enter.

    Raises:
        ConfigError: It is missing, a link, somebody else's, or open to group or others.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        hint = "check the path; it starts from the folder in which the command is given"
        raise ConfigError("there is no such folder", where=path, hint=hint) from None
    except OSError as error:
        what = f"cannot be read: {(error.strerror or '').lower()}"
        raise ConfigError(what, where=path, hint="give the command as the user whose folder it is") from None
    if stat.S_ISLNK(status.st_mode):
        raise ConfigError("is a symbolic link, and none is followed here", where=path)
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError("is not a folder", where=path, hint="choose another one")
    if status.st_uid != os.geteuid():
        hint = f"give the command as that user: sudo -u '#{status.st_uid}' fedgen ..."
        raise ConfigError(f"belongs to another user (uid {status.st_uid})", where=path, hint=hint)
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"is open to others (mode {mode:04o})", where=path, hint=f"chmod 700 {path}")


def check_home(config: Path, whose: str, made_by: str) -> None:
    """Return if the folder of ``config`` is a home that this process may use, as :func:`check_folder`.

    Raises:
        ConfigError: There is no such folder, it is no home, or it is not ours alone.
    """
    if os.path.isdir(config.parent) and not os.path.lexists(config):  # noqa: PTH112 - False where it is out of reach
        variable = "FEDGEN_SITE" if whose == "site" else "FEDGEN_SERVER"
        option = "--home" if whose == "site" else "--home, or --server of train"
        hint = f"name its folder, or set ${variable} (some commands want {option}); or make one: fedgen {made_by}"
        raise ConfigError(f"is no home of a {whose}", where=config.parent, hint=hint)
    check_folder(config.parent)


def read_private(path: Path) -> bytes:
    """Return the bytes of a private file: plain, small, no link, and closed to group and others.

    Guarantees:
        - No byte of it is ever part of an error.

    Raises:
        ConfigError: It is missing, something else, or open to others.
        IntegrityError: It is too long for a key.
    """
    data = read_bounded(path, most=_MAX_PRIVATE, follow=False)
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & _OTHERS:
        raise ConfigError(
            f"the key file is open to others (mode {mode:04o})", where=path, hint=f"chmod 600 {path}"
        )
    return data


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold a home for the length of the block, so that two commands never change it at once; the second waits.

    Raises:
        ConfigError: The home is not a folder of ours alone.
    """
    check_folder(root)
    with storage(root):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(root / _LOCK, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
