"""What a coordinator of secure aggregation must not forget: which setups were used, and which round was opened."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Protocol

from fedgen.errors import Code, IntegrityError
from fedgen.runs.atomic import write_json

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_FILE: Final = 4096


class Store(Protocol):
    """What the coordinator must not forget, whichever process goes on."""

    def next_setup(self) -> int:
        """Return a setup number that was never used, having written down that it is used now."""
        ...

    def opening(self, round_number: int) -> None:
        """Write down that sites are asked to open this round."""
        ...

    def opened(self) -> int:
        """Return the last round that sites were asked to open; zero if none."""
        ...


class SetupFile:
    """Setups and opened rounds in one file of the run folder, on the disk before a message leaves.

    Args:
        path: The file; its folder exists and is locked by this process.
        run: Identity of the run, hex.

    Raises:
        IntegrityError: The file is damaged or belongs to another run: whoever goes on would ask the wrong questions.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run
        self._setup, self._opened = self._read()

    def next_setup(self) -> int:
        """See :class:`Store`."""
        self._write(self._setup + 1, self._opened)
        return self._setup

    def opening(self, round_number: int) -> None:
        """See :class:`Store`."""
        self._write(self._setup, max(self._opened, round_number))

    def opened(self) -> int:
        """See :class:`Store`."""
        return self._opened

    def _write(self, setup: int, opened: int) -> None:
        write_json(self._path, {"run": self._run, "setup": setup, "opened": opened})
        self._setup, self._opened = setup, opened

    def _read(self) -> tuple[int, int]:
        try:
            with self._path.open("rb") as file:
                data = file.read(_LARGEST_FILE)
        except FileNotFoundError:
            return 0, 0
        numbers = _numbers(data, self._run)
        if numbers is None:
            raise IntegrityError(
                "which setups and rounds were used cannot be read back",
                code=Code.STORAGE,
                where=self._path,
                hint="restore the file; without it the run cannot go on",
            )
        return numbers


def first_open_round(done: int, store: Store) -> int:
    """Return the next round that can be asked after ``done``: what was opened and lost is passed over."""
    return max(done, store.opened()) + 1


def _numbers(data: bytes, run: str) -> tuple[int, int] | None:
    """Return the two numbers in a file of this run, or None if it is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    if not isinstance(value, dict) or set(value) != {"run", "setup", "opened"} or value["run"] != run:
        return None
    numbers = value["setup"], value["opened"]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
    return numbers if whole else None
