"""Contribution bounding for the privacy unit ``person``: however many rows she has, she moves a sum by at most C.

Persons are Poisson-sampled, not rows. Of each sampled person at most k rows are used, chosen anew in every step, and
each of her n used rows is clipped to C / n. By the triangle inequality she moves the clipped sum by at most C, so the
accountant of single rows serves unchanged, with persons in their place::

    index = PersonIndex.of(person_of_row)
    drawn = poisson_indices(index.persons, q, noise)
    used = bounded_rows(index, drawn, k=4, clip=engine.clip, stream=noise)
    engine.clipped_sum_(out, loss, rows[used.rows], bounds=torch.from_numpy(used.bounds))

Source: Bentley and Floyd, "A sample of brilliance" (1987), for the choice of k out of m in k draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from fedgen._validate import positive
from fedgen.dpsgd.noise import NoiseSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedgen.crypto.stream import KeyStream

MOST_PERSONS: Final = 2**31
MOST_ROWS_EACH: Final = 2**20  # n times a float32 bound is exact in float64


@dataclass(frozen=True, slots=True, eq=False)
class PersonIndex:
    """Which rows are whose; made once for a permitted table, then only read.

    Attributes:
        order: Row numbers, person by person, ascending within each; shape ``(rows,)``.
        offsets: Where each person's rows begin in ``order``, and where the last one's end; shape ``(persons + 1,)``.
    """

    order: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, person: NDArray[np.int64], *, persons: int | None = None) -> Self:
        """Return the index of a table.

        Guarantees:
            - Every row occurs once, with its person.
            - The arrays cannot be written to.

        Edge cases:
            ===========================  ==========================================================
            no rows                      an index without rows
            a person without rows        may be sampled, and contributes none
            ===========================  ==========================================================

        Args:
            person: For each row, a number from 0 to ``persons - 1``; shape ``(rows,)``, of an integer type.
            persons: How many persons there are; by default, as many as the largest number says.

        Raises:
            ValueError: ``person`` is not as described, or there are more than 2^31 persons.
        """
        if person.ndim != 1 or person.dtype.kind not in "iu":
            raise ValueError("person must be one-dimensional and of an integer type")
        largest = int(person.max(initial=-1))
        count = largest + 1 if persons is None else persons
        if person.min(initial=0) < 0 or not largest < count <= MOST_PERSONS:
            raise ValueError(
                f"persons must be numbered from 0 to one below their count, at most {MOST_PERSONS}"
            )
        order = np.argsort(person, kind="stable").astype(np.int64)
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(person.astype(np.int64), minlength=count), out=offsets[1:])
        for array in (order, offsets):
            array.setflags(write=False)
        return cls(order, offsets)

    @property
    def persons(self) -> int:
        """How many persons there are."""
        return len(self.offsets) - 1

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.order)


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """The rows of one step, person by person. They come from rows, and must stay where the rows are.

    Attributes:
        rows: Row numbers, shape ``(B,)``.
        bounds: The norm bound of each of them, shape ``(B,)``, float32.
    """

    rows: NDArray[np.int64]
    bounds: NDArray[np.float32]


def bounded_rows(
    index: PersonIndex, drawn: NDArray[np.int64], *, k: int, clip: float, stream: KeyStream | NoiseSource
) -> Contributions:
    """Return at most ``k`` rows of each drawn person, and bounds that add up to at most ``clip`` for each.

    Guarantees:
        - Of a person with m > k rows every set of k is equally likely, up to m 2^-53, whatever the other persons do;
          of one with m <= k rows all are used.
        - The bounds of a person's n used rows are ``clip / n`` rounded down, so that n of them never exceed ``clip``.
        - A person who was not drawn contributes nothing.
        - Bytes come from ``stream`` only, eight for each of k rows of a person who has more.

    Edge cases:
        ======================  =====
        nobody drawn            empty
        a person without rows   none of her
        ======================  =====

    Args:
        index: Whose rows are whose.
        drawn: Persons in ascending order, each once, as :func:`fedgen.dpsgd.sampler.poisson_indices` returns them.
        k: The most rows of one person in a step, 1 to 2^20; public, from the study.
        clip: How far a person may move the sum.
        stream: The source of uniforms.

    Raises:
        ValueError: An argument is out of range, or a person was drawn twice.
    """
    positive(clip=clip)
    if not 1 <= k <= MOST_ROWS_EACH:
        raise ValueError(f"k must be from 1 to {MOST_ROWS_EACH}, not {k}")
    _check_drawn(index, drawn)
    first = index.offsets[drawn]
    size = index.offsets[drawn + 1] - first
    used = np.minimum(size, k)
    begins = np.cumsum(used) - used
    # A row's position among its person's: all of them in turn, or a random subset where there are too many.
    position = np.arange(int(used.sum())) - np.repeat(begins, used)
    many = np.flatnonzero(size > k)
    if len(many):
        source = stream if isinstance(stream, NoiseSource) else NoiseSource(stream)
        position[begins[many, None] + np.arange(k)] = _subsets(size[many], k, source)
    rows = index.order[np.repeat(first, used) + position]
    return Contributions(rows, np.repeat(_shares(clip, used), used))


def _check_drawn(index: PersonIndex, drawn: NDArray[np.int64]) -> None:
    """Raise ``ValueError`` unless ``drawn`` holds persons of the index, each at most once."""
    if drawn.ndim != 1 or drawn.dtype != np.int64:
        raise ValueError("drawn must be a one-dimensional array of int64")
    if len(drawn) and (drawn[0] < 0 or drawn[-1] >= index.persons or not (np.diff(drawn) > 0).all()):
        raise ValueError("drawn must hold persons of the index in ascending order, each at most once")


def _subsets(size: NDArray[np.int64], k: int, source: NoiseSource) -> NDArray[np.int64]:
    """Return a uniform set of k numbers below each size, shape ``(len(size), k)``, by Floyd's method.

    The step for the j-th number takes any t <= j, or j itself where t is already in the set.
    """
    uniforms = 1.0 - source.uniforms(len(size) * k).reshape(k, len(size))  # in [0, 1)
    chosen = np.empty((len(size), k), np.int64)
    for step in range(k):
        j = size - k + step
        t = np.minimum((uniforms[step] * (j + 1)).astype(np.int64), j)
        taken = (chosen[:, :step] == t[:, None]).any(axis=1)
        chosen[:, step] = np.where(taken, j, t)
    return chosen


def _shares(clip: float, used: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the largest float32 of which ``used`` together are at most ``clip``."""
    parts = np.maximum(used, 1)
    share = (clip / parts).astype(np.float32)
    over = share.astype(np.float64) * parts > clip  # exact: 24 bits times at most 21
    return np.where(over, np.nextafter(share, np.float32(0)), share)
