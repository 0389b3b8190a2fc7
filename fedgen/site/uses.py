"""The site's own memory of who may have been in which round; it never leaves the site, and answers one question.

Each round is a line in ``rounds-<site>.jsonl``, and each set of persons a file ``<sha256>.bits`` that many rounds
share. Both are on the disk before anything is computed: a kill leaves a round on record that never was, not the
other way round.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from fedgen.crypto.digest import same_digest
from fedgen.errors import IntegrityError
from fedgen.policy.lineage import Span, Use, may_have_used, name_of, pack, spans
from fedgen.policy.store.numbers import numbers, version
from fedgen.runs.atomic import storage, write_private
from fedgen.runs.lines import append_line, read_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from fedgen.policy.store.store import ConsentStore

_NAME: Final = re.compile(r"rounds-[A-Za-z0-9._-]{1,128}\.jsonl")
_SET: Final = re.compile(r"[0-9a-f]{64}")
_MOST_SET: Final = 2**26
_FIELDS: Final = {
    "study": str,
    "run": str,
    "round": int,
    "attempt": int,
    "used": str,
    "upto": int,
    "strangers": bool,
}


def record_use(
    folder: Path,
    site: str,
    *,
    study: str,
    run: str,
    round_number: int,
    attempt: int,
    used: NDArray[np.integer],
    upto: int,
    strangers: bool = False,
) -> Use:
    """Write down who may be used in a round; on the disk before this returns.

    Guarantees:
        - Equal sets are kept once.
        - Files can be read by their owner only.

    Args:
        folder: Where the site keeps its sets; made if missing.
        site: Its name; each site writes a file of its own.
        study: Hash of the study, hex.
        run: Identity of the run, hex.
        round_number: One-based.
        attempt: One-based.
        used: The store's numbers of the permitted persons, in any order, repetitions allowed.
        upto: The greatest number the store had given by then.
        strangers: Whether a permitted person has no number.

    Raises:
        ConfigError: The disk is full or cannot be written.
    """
    bits = pack(used)
    use = Use(study, run, round_number, attempt, name_of(bits), int(upto), bool(strangers))
    with storage(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = folder / f"{use.used}.bits"
    if not place.exists():
        write_private(place, bits)
    journal = folder / f"rounds-{site}.jsonl"
    append_line(journal, use._asdict(), private=True)
    return use


@dataclass(frozen=True, slots=True)
class Uses:
    """Everything the sites of a folder have on record.

    Attributes:
        folder: Where the sets lie.
        lines: Every round, in the order written, site by site.
    """

    folder: Path
    lines: tuple[Use, ...]

    def spans(self, number: int) -> tuple[Span, ...]:
        """Return, for each run that may have used a person, the first and the last round that did."""
        return spans(self.lines, lambda use: self._used(use, number))

    def rounds(self, person_numbers: Collection[int]) -> set[tuple[str, int]]:
        """Return the runs and rounds that may have used any of some persons."""
        return {
            (use.run, use.round)
            for use in self.lines
            if any(self._used(use, number) for number in person_numbers)
        }

    @property
    def on_record(self) -> set[tuple[str, int]]:
        """Runs and rounds that a site has a set of."""
        return {(use.run, use.round) for use in self.lines}

    def touches(self, person_numbers: Collection[int], run: str, first: int, last: int) -> bool:
        """Answer the coordinator: does any of these persons touch rounds ``first`` to ``last`` of a run?"""
        return any(of == run and first <= number <= last for of, number in self.rounds(person_numbers))

    def _used(self, use: Use, number: int) -> bool:
        return may_have_used(use, _read_set(self.folder, use.used), number)


def read_uses(folder: Path) -> Uses:
    """Return what the sites of a folder have on record.

    Edge cases:
        - No folder: nothing is on record.

    Raises:
        IntegrityError: A line does not have its form.
    """
    lines: list[Use] = []
    for path in sorted(folder.glob("rounds-*.jsonl")) if folder.is_dir() else ():
        if _NAME.fullmatch(path.name):
            lines += [_use(value, path) for value in read_lines(path)]
    return Uses(folder, tuple(lines))


def rounds_used(folder: Path, number: int) -> tuple[Span, ...]:
    """Return, for each run that may have used the person with this number, its first and last such round."""
    return read_uses(folder).spans(number)


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """Numbers of a table's rows, as of one version of the store."""

    version: tuple[int, ...]
    subjects: NDArray[np.bytes_]
    numbers: NDArray[np.int64]
    upto: int


class NotesUse(Protocol):
    """Whoever writes down who was permitted in a round; see :class:`UseBook`."""

    def note(
        self,
        study: str,
        run: str,
        round_number: int,
        attempt: int,
        subjects: NDArray[np.bytes_],
        permitted: NDArray[np.bool_] | None = None,
    ) -> Use:
        """Write down that the persons behind these rows may be used now."""
        ...


@dataclass(slots=True)
class UseBook:
    """Writes down the persons of each round of one site, by their numbers in the consent store.

    Guarantees:
        - A round is on record before :meth:`note` returns, with everybody who was permitted in it.
        - Whose a row is is looked up once for as long as table and store know the same people.

    Attributes:
        store: Whose numbers they are.
        folder: Where the sets lie.
        site: The site's name.
    """

    store: ConsentStore
    folder: Path
    site: str
    _known: _Looked | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(
        self,
        study: str,
        run: str,
        round_number: int,
        attempt: int,
        subjects: NDArray[np.bytes_],
        permitted: NDArray[np.bool_] | None = None,
    ) -> Use:
        """Write down that the persons behind these rows may be used now.

        Args:
            study: Hash of the study, hex.
            run: Identity of the run, hex.
            round_number: One-based.
            attempt: One-based.
            subjects: Whose each row of the table is, shape ``(n,)``, bytes; not changed afterwards.
            permitted: Which rows are permitted, shape ``(n,)``; None is all of them.
        """
        with self._lock:
            now = version(self.store)
            known = self._known
            if known is None or known.version != now or known.subjects is not subjects:
                everybody = numbers(self.store)
                known = self._known = _Looked(now, subjects, everybody.of(subjects), everybody.upto)
        used = known.numbers if permitted is None else known.numbers[permitted]
        return record_use(
            self.folder,
            self.site,
            study=study,
            run=run,
            round_number=round_number,
            attempt=attempt,
            used=used[used >= 0],
            upto=known.upto,
            strangers=bool((used < 0).any()),
        )


def _read_set(folder: Path, name: str) -> bytes | None:
    """Return a set, or None if it is lost or not what its name says."""
    if not _SET.fullmatch(name):
        return None
    try:
        with (folder / f"{name}.bits").open("rb") as file:
            bits = file.read(_MOST_SET + 1)
    except OSError:
        return None
    return bits if same_digest(name_of(bits), name) else None


def _use(value: object, path: Path) -> Use:
    """Return a line as a :class:`Use`."""
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        raise _malformed(path)
    for name, kind in _FIELDS.items():
        if type(value[name]) is not kind:
            raise _malformed(path)
    return Use(**value)


def _malformed(path: Path) -> IntegrityError:
    hint = "restore the file; without it every round counts as having used everybody"
    return IntegrityError("a round that does not have its form", where=path, hint=hint)


def first_rounds(found: Iterable[Span], study: str) -> Mapping[str, int]:
    """Return, for each run of a study, the first round that may have used somebody."""
    return {span.run: span.first for span in found if span.study == study}
