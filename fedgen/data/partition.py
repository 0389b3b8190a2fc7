"""Cutting one table into simulated sites, and holding rows out for evaluation.

For simulations only: real sites have the rows they have. The cut is a function of a public seed and plays
no part in privacy, so it uses NumPy's PCG64 and not the noise source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from fedgen._validate import positive
from fedgen.errors import ConfigError
from fedgen.schema.explain import nearest

if TYPE_CHECKING:
    import numpy.typing as npt

    from fedgen.schema.codec import Codes
    from fedgen.schema.table import ImageSchema, TableSchema

    Rows = npt.NDArray[np.int64]

_HOLDOUT, _SITES = 0, 1  # streams of one seed that have nothing to do with each other
_ALPHA_RANGE: Final = (1e-4, 1e6)  # beyond, shares are one-hot or even, and may leave the floats on the way


class Split(Protocol):
    """What a study says of its simulated sites."""

    @property
    def count(self) -> int:
        """Number of sites, positive."""

    @property
    def split(self) -> str:
        """How: ``iid``, ``dirichlet`` (a column's values spread unevenly) or ``by`` (values to a site each)."""

    @property
    def by(self) -> str | None:
        """The column of ``dirichlet`` and ``by``; None means the schema's label."""

    @property
    def alpha(self) -> float | None:
        """Concentration of ``dirichlet``, positive: small is uneven, large is even."""


def split_holdout(
    n: int, fraction: float, seed: int, *, subjects: npt.NDArray[np.bytes_] | None = None
) -> tuple[Rows, Rows]:
    """Return row numbers to train on, and row numbers held out.

    Guarantees:
        - Every row is in exactly one of the two, each in ascending order; the same arguments give the same
          answer.
        - With ``subjects``, no person is in both.

    Edge cases:
        ====================================  =============================
        ``fraction`` = 0                      nothing is held out
        a fraction of less than one person    one is held out, if two exist
        ====================================  =============================

    Args:
        n: Number of rows.
        fraction: Share held out, in [0, 1); of persons if ``subjects`` is given, else of rows.
        seed: At least zero.
        subjects: The person of each row, shape ``(n,)``.

    Raises:
        ValueError: ``fraction`` or ``seed`` is out of range, or ``subjects`` is of other rows.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), not {fraction}")
    unit, first = _units(n, subjects)
    held = round(len(first) * fraction)
    held = min(max(held, 1 if fraction else 0), max(len(first) - 1, 0))
    is_held = np.zeros(len(first), dtype=bool)
    is_held[_generator(seed, _HOLDOUT).permutation(len(first))[:held]] = True
    return np.flatnonzero(~is_held[unit]), np.flatnonzero(is_held[unit])


def partition(
    codes: Codes,
    schema: TableSchema | ImageSchema,
    spec: Split,
    seed: int,
    *,
    subjects: npt.NDArray[np.bytes_] | None = None,
) -> tuple[Rows, ...]:
    """Return the row numbers of each site.

    Guarantees:
        - Every row is at exactly one site, no site is empty, and each site's rows are in ascending order.
        - The same arguments give the same cut.
        - With ``subjects``, all rows of a person are at one site (by the person's first row).
        - ``iid`` sizes differ by at most one row (or person).

    Edge cases:
        ====================================  ==========================================================
        ``by`` with fewer sites than values   neighbouring values share a site, rows as even as they come
        ``dirichlet`` leaves a site empty     it gets one row (or person) of the largest site
        ====================================  ==========================================================

    Args:
        codes: Shape ``(n, width)``.
        schema: Names the columns of ``codes``.
        spec: How to cut.
        seed: At least zero.
        subjects: The person of each row, shape ``(n,)``.

    Raises:
        ConfigError: More sites than rows, persons or values; an unknown or missing column; no ``alpha``.
        ValueError: ``seed``, ``alpha`` or ``subjects`` does not fit.

    Source: Hsu, Qi and Brown (2019), arXiv:1909.06335, for cuts by a Dirichlet distribution.
    """
    unit, first = _units(len(codes), subjects)
    what = "rows" if subjects is None else "persons"
    _refuse_if_few(len(first), what, spec.count)
    rng = _generator(seed, _SITES)
    if spec.split == "iid":
        site = np.empty(len(first), dtype=np.int64)
        site[rng.permutation(len(first))] = np.arange(len(first)) % spec.count
    elif spec.split == "dirichlet":
        if spec.alpha is None:
            raise ConfigError("split: dirichlet needs alpha", key="data.sites.alpha", hint="0.5 is uneven")
        positive(alpha=spec.alpha)
        site = _dirichlet(codes[first, _column(schema, spec.by)], spec.alpha, spec.count, rng)
    elif spec.split == "by":
        site = _runs(codes[first, _column(schema, spec.by)], spec.count)
    else:
        hint = "iid, dirichlet or by"
        raise ConfigError(f"unknown split {spec.split!r}", key="data.sites.split", hint=hint)
    site_of_row = site[unit]
    order = np.argsort(site_of_row, kind="stable")
    return tuple(np.split(order, np.cumsum(np.bincount(site_of_row, minlength=spec.count))[:-1]))


def declared_size(n: int) -> int:
    """Return ``n`` to two significant digits: the public figure that a roster states for a site.

    Edge cases:
        ===========  ==================================
        ``n`` < 100  ``n`` itself: two digits are exact
        a half       rounded up
        ===========  ==================================

    Raises:
        ValueError: ``n`` is negative.
    """
    if n < 0:
        raise ValueError(f"n must be at least zero, not {n}")
    step: int = 10 ** max(len(str(n)) - 2, 0)
    return (n + step // 2) // step * step


def _generator(seed: int, stream: int) -> np.random.Generator:
    """Return a generator of its own for each use of a seed."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))))


def _units(n: int, subjects: npt.NDArray[np.bytes_] | None) -> tuple[Rows, Rows]:
    """Return the unit (person or row) of each row, and the first row of each unit."""
    if subjects is None:
        return np.arange(n), np.arange(n)
    if len(subjects) != n:
        raise ValueError(f"{n} rows but {len(subjects)} subjects")
    _, first, unit = np.unique(subjects, return_index=True, return_inverse=True)
    return unit, first


def _refuse_if_few(there: int, what: str, sites: int) -> None:
    if sites < 1:
        raise ConfigError("at least one site is needed", key="data.sites.count", hint="ask for one or more")
    if sites > there:
        hint = f"ask for at most {there}"
        raise ConfigError(f"{sites} sites but only {there} {what}", key="data.sites.count", hint=hint)


def _column(schema: TableSchema | ImageSchema, name: str | None) -> int:
    """Return the position of the column to cut by."""
    wanted = name if name is not None else schema.label
    if wanted is None:
        hint = "name a column of the schema, or give the schema a label"
        raise ConfigError("no column to cut by", key="data.sites.by", hint=hint)
    if wanted not in schema.names:
        guess = nearest(wanted, schema.names)
        hint = f"did you mean {guess!r}?" if guess else "name a column of the schema"
        raise ConfigError(f"no such column {wanted!r}", key="data.sites.by", hint=hint)
    return schema.names.index(wanted)


def _dirichlet(values: npt.NDArray[Any], alpha: float, sites: int, rng: np.random.Generator) -> Rows:
    """Return a site for each unit: the units of each value are spread in Dirichlet shares."""
    site = np.empty(len(values), dtype=np.int64)
    concentration = np.full(sites, np.clip(alpha, *_ALPHA_RANGE))
    for value in np.unique(values):
        units = rng.permutation(np.flatnonzero(values == value))
        cuts = np.cumsum(rng.dirichlet(concentration))[:-1] * len(units)
        site[units] = np.searchsorted(cuts, np.arange(len(units)) + 0.5)
    sizes = np.bincount(site, minlength=sites)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        site[np.flatnonzero(site == largest)[-1]] = empty
        sizes[largest] -= 1
        sizes[empty] += 1
    return site


def _runs(values: npt.NDArray[Any], sites: int) -> Rows:
    """Return a site for each unit: runs of neighbouring values, as even as they come."""
    _, rank, sizes = np.unique(values, return_inverse=True, return_counts=True)
    _refuse_if_few(len(sizes), "values to cut by", sites)
    reached = np.cumsum(sizes)
    site_of_rank = np.empty(len(sizes), dtype=np.int64)
    start = 0
    for number in range(sites):
        latest = len(sizes) - (sites - number - 1)  # leave a value for each site to come
        goal = reached[-1] * (number + 1) / sites
        end = int(np.clip(np.searchsorted(reached, goal) + 1, start + 1, latest))
        site_of_rank[start:end] = number
        start = end
    return site_of_rank[rank]
