"""What a site of secure aggregation must not forget, however often it restarts: what it joined, began and revealed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Protocol

from fedgen.errors import Code, IntegrityError
from fedgen.runs.atomic import write_json

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_FILE: Final = 4096
_MOST: Final = 2**32  # a frame holds no larger number


@dataclass(frozen=True, slots=True)
class Standing:
    """What a site must remember of a run.

    Attributes:
        setup: The last setup it sent a key for.
        round: The last round it began.
        attempt: The last attempt of that round.
        revealed: The last round in which it revealed anything.
    """

    setup: int = 0
    round: int = 0
    attempt: int = 0
    revealed: int = 0


class Keeper(Protocol):
    """Keeps a standing; what was kept outlives the process that kept it."""

    def load(self) -> Standing:
        """Return what was kept last."""
        ...

    def keep(self, standing: Standing) -> None:
        """Keep a standing before what it is about leaves."""
        ...


class StandingFile:
    """A standing in a file of its own, whole or absent, one for each run.

    Guarantees:
        - A file that is damaged, or belongs to another run, is refused: a site that cannot know what it did does
          nothing.

    Args:
        path: The file; its folder exists.
        run: Identity of the run, hex.
        durable: Whether it is on the disk before :meth:`keep` returns; False only in a simulation.

    Raises:
        IntegrityError: By :meth:`load`, as above.
    """

    def __init__(self, path: Path, run: str, *, durable: bool = True) -> None:
        self._path, self._run, self._durable = path, run, durable

    def load(self) -> Standing:
        """Return what was kept last; nothing yet where there is no file."""
        try:
            with self._path.open("rb") as file:
                data = file.read(_LARGEST_FILE)
        except FileNotFoundError:
            return Standing()
        standing = _read(data, self._run)
        if standing is None:
            raise IntegrityError(
                "what this site did in the run cannot be read back",
                code=Code.STORAGE,
                where=self._path,
                hint="restore the file, or sit out this run",
            )
        return standing

    def keep(self, standing: Standing) -> None:
        """Replace the file whole."""
        write_json(self._path, {"run": self._run, **asdict(standing)}, durable=self._durable)


def check_ahead(standing: Standing, round_number: int, attempt: int) -> None:
    """Return if a round and attempt were not begun before, and nothing was revealed in the round.

    Raises:
        IntegrityError: They were (code ``stale-round``).
    """
    if (round_number, attempt) <= (standing.round, standing.attempt) or round_number <= standing.revealed:
        raise IntegrityError("the round or attempt is not ahead", code=Code.STALE_ROUND)


def _read(data: bytes, run: str) -> Standing | None:
    """Return the standing in a file of this run, or None if it is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.pop("run", None) != run or set(value) != set(asdict(Standing())):
        return None
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _MOST for n in value.values())
    return Standing(**value) if whole else None
