"""What erasing and sweeping share: a store with the folder beside it, who is under a legal hold, private files."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen._files import sweep
from fedgen.crypto.keys import SigningKey
from fedgen.errors import ConfigError, IntegrityError
from fedgen.policy.columns import Request
from fedgen.policy.standing import Flag, Standing, stand
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.numbers import numbers
from fedgen.runs.atomic import replacing, storage
from fedgen.runs.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

SUFFIX: Final = ".d"
_KEY: Final = "signing.key"
_MAX_JSON: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Desk:
    """An open consent store, and the site's own folder beside it.

    Attributes:
        store: The consent store.
        home: Sets of used persons, erasures, certificates and the key that signs them; mode 0700.
    """

    store: ConsentStore
    home: Path

    @property
    def uses(self) -> Path:
        """Where the sets of used persons lie."""
        return self.home / "used"

    @property
    def erasures(self) -> Path:
        """Where erasures are written down while they go on."""
        return self.home / "erasures"

    @property
    def certificates(self) -> Path:
        """Where certificates lie."""
        return self.home / "certificates"

    def key(self) -> SigningKey:
        """Return the key that signs certificates; made when there is none."""
        path = self.home / _KEY
        if not path.exists():
            with replacing(path) as temporary:
                SigningKey.generate().save(temporary)
        return SigningKey.load(path)


@contextmanager
def open_desk(
    address: str | os.PathLike[str],
    *,
    home: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Iterator[Desk]:
    """Open a consent store with the site's folder for the length of the block.

    Args:
        address: A path or URL of the store, which must exist.
        home: The site's folder; ``STORE.d`` beside a SQLite file if left out.
        key: File of the store's secret; beside a SQLite file if left out.
        clock: Gives the time; the machine's if left out.

    Raises:
        ConfigError: There is no such store, another process holds its folder, or a store in a server without ``home``.
    """
    place = home_of(address) if home is None else Path(home)
    file = file_of(address)
    if file is not None and not file.is_file():
        raise ConfigError("no such consent store", where=file, hint="name the file that fedgen consent made")
    with ConsentStore.open(address, key=key, clock=clock) as store:
        own = (place / "erasures", place / "certificates")
        for folder in (place, *own, place / "used"):
            with storage(folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(place):
            for folder in own:  # not the used sets: a site may be writing one
                sweep(folder)
            sweep(place, _KEY)  # nor what else a site may be writing in a folder that is its own, too
            yield Desk(store, place)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the folder: two erasures of one person at once would each be half of one."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place))
        except ConfigError as error:
            if "another run" not in error.what:
                raise
            raise ConfigError(
                "another erasure or sweep is at work on this store", where=place, hint="wait for it to end"
            ) from None
        yield


def home_of(address: str | os.PathLike[str]) -> Path:
    """Return the site's folder beside a SQLite store.

    Raises:
        ConfigError: The store is not a file.
    """
    file = file_of(address)
    if file is None:
        raise ConfigError("a store in a server has no folder beside it", hint="name one with --home")
    return file.with_name(file.name + SUFFIX)


def file_of(address: str | os.PathLike[str]) -> Path | None:
    """Return the file of a SQLite store, or None for a store in a server."""
    text = os.fspath(address)
    if text.startswith("sqlite:///"):
        return Path(text.removeprefix("sqlite:///"))
    return None if "://" in text else Path(text)


def standing_of(store: ConsentStore, people: np.ndarray[Any, np.dtype[np.bytes_]], at: int) -> Standing:
    """Return where people stand when somebody asks whether their data may stay stored."""
    view = store.columns(at)
    request = Request(purpose="storage", operation="retain", time=at)
    return stand(people, view.consent, view.rights, view.subjects, request)


def is_held(store: ConsentStore, name: str, at: int) -> bool:
    """Return whether a legal hold stands for a person."""
    return bool(_flags(store, name, at) & Flag.HOLD)


def asked_for_erasure(store: ConsentStore, name: str, at: int) -> bool:
    """Return whether a person's request for erasure stands."""
    return bool(_flags(store, name, at) & Flag.ERASURE)


def _flags(store: ConsentStore, name: str, at: int) -> int:
    return int(standing_of(store, np.array([name.encode()], dtype=np.bytes_), at).flags[0])


def held_numbers(store: ConsentStore, at: int) -> set[int]:
    """Return the numbers of everybody for whom a legal hold stands."""
    known = numbers(store)
    people = np.unique(known.names)
    if not len(people):
        return set()
    held = people[(standing_of(store, people, at).flags[: len(people)] & Flag.HOLD) != 0]
    return set(known.of(held).tolist())


def read_json(path: Path) -> Any:
    """Return the JSON value in a file of ours.

    Raises:
        ConfigError: It is not there.
        IntegrityError: It is too large or not JSON.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_JSON + 1)
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else "failed").lower()
        raise ConfigError(f"cannot be read: {reason}", where=path, hint="check the path") from None
    try:
        if len(text) <= _MAX_JSON:
            return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise IntegrityError("is not JSON", where=path, hint="restore it")
