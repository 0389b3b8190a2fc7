"""Which rounds may have used a person: sets of persons as bitmaps, and the rounds that led to a model.

A site alone keeps, for each round, the set of persons who were permitted: whoever a Poisson sample can have drawn
is in it, so it errs towards "used". A set is a bitmap over the consent store's own numbers of persons, and is known
by its digest; a set that does not change is kept once. What leaves the site is an answer to one question, yes or
no: does any revoked person touch these rounds?

A model goes back to stretches of rounds, each of one run: a run that was rolled back goes on under a new identity, from
an earlier round (docs/adr/0014-rollback-is-a-new-run.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fedgen.crypto.digest import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from numpy.typing import NDArray

MAX_NUMBER: Final = 2**29 - 1  # a set is at most 64 MiB


class Use(NamedTuple):
    """One round of one run at one site, as the site keeps it.

    Attributes:
        study: Hash of the study, hex.
        run: Identity of the run, hex.
        round: One-based.
        attempt: One-based.
        used: Digest of the set of persons, hex.
        upto: The greatest number that any person had then; zero if there were none.
        strangers: Whether somebody without a number was permitted too.
    """

    study: str
    run: str
    round: int
    attempt: int
    used: str
    upto: int
    strangers: bool


class Span(NamedTuple):
    """The first and the last round of a run that may have used somebody."""

    study: str
    run: str
    first: int
    last: int


class Stretch(NamedTuple):
    """Rounds ``first`` to ``last`` of one run, both included."""

    run: str
    first: int
    last: int


def pack(numbers: NDArray[np.integer] | Sequence[int]) -> bytes:
    """Return a set of numbers as a bitmap; equal sets have equal bytes, whatever the order and repetitions.

    Bit ``n % 8`` of byte ``n // 8``, the least significant first, is number ``n``; the last byte is not zero.

    Edge cases:
        - No numbers: no bytes.

    Raises:
        ValueError: A number is negative or over 2**29 - 1.
    """
    wanted = np.asarray(numbers, dtype=np.int64)
    if wanted.size == 0:
        return b""
    if wanted.min() < 0 or wanted.max() > MAX_NUMBER:
        raise ValueError(f"numbers of persons are 0 to {MAX_NUMBER}")
    member = np.zeros(int(wanted.max()) + 1, dtype=bool)
    member[wanted] = True
    return np.packbits(member, bitorder="little").tobytes()


def unpack(bits: bytes) -> NDArray[np.int64]:
    """Return the numbers in a bitmap, in order; inverse of :func:`pack`."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little"))


def holds(bits: bytes, number: int) -> bool:
    """Return whether ``number`` is in a bitmap."""
    place = number >> 3
    return 0 <= place < len(bits) and bool(bits[place] >> (number & 7) & 1)


def name_of(bits: bytes) -> str:
    """Return the digest that names a set, hex."""
    return sha256_hex(bits)


def may_have_used(use: Use, bits: bytes | None, number: int) -> bool:
    """Return whether a round may have used the person with this number.

    Guarantees:
        - Never False for a person who was permitted in the round.

    Edge cases:
        ===================================================  =============================
        the set is lost, or not what its name says           yes
        the person got a number after the round              yes, if strangers were in it
        ===================================================  =============================

    Args:
        use: The round.
        bits: Its set; None if it cannot be read.
        number: Of the person, positive.
    """
    if bits is None:
        return True
    if number > use.upto:
        return use.strangers
    return holds(bits, number)


def spans(uses: Iterable[Use], used: Callable[[Use], bool]) -> tuple[Span, ...]:
    """Return, for each run that may have used somebody, the first and the last round that did."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for use in uses:
        if used(use):
            first, last = found.get((use.study, use.run), (use.round, use.round))
            found[use.study, use.run] = (min(first, use.round), max(last, use.round))
    return tuple(Span(study, run, *rounds) for (study, run), rounds in sorted(found.items()))


def first_touch(
    lineage: Iterable[Stretch], touched: Collection[tuple[str, int]], on_record: Collection[tuple[str, int]]
) -> int | None:
    """Return the first round behind a model that may have used somebody, or None.

    A round that no site has on record may have used anybody.

    Args:
        lineage: The stretches behind the model, in order of rounds.
        touched: Runs and rounds that may have used the person.
        on_record: Runs and rounds that the site has a set of.
    """
    for run, first, last in lineage:
        for number in range(first, last + 1):
            if (run, number) in touched or (run, number) not in on_record:
                return number
    return None


def stretches(runs: Sequence[str], back_to: Sequence[int], done: int) -> tuple[Stretch, ...]:
    """Return the rounds behind a model of a folder whose run was rolled back, perhaps repeatedly.

    Args:
        runs: Identities of the runs of the folder, oldest first.
        back_to: For each run but the last, the round from which the next one went on: what is left of it.
        done: Rounds in the model.

    Raises:
        ValueError: There is not one rollback between any two runs.
    """
    if len(back_to) != len(runs) - 1:
        raise ValueError("one rollback lies between two runs")
    found: list[Stretch] = []
    begins = 1
    for run, ends in zip(runs, (*back_to, done), strict=True):
        # A later rollback may reach back behind an earlier one.
        found = [Stretch(it.run, it.first, min(it.last, ends)) for it in found if it.first <= ends]
        if begins <= ends:
            found.append(Stretch(run, begins, ends))
        begins = ends + 1
    return tuple(found)
