"""The RAND Health Insurance Experiment: what is publicly known of the table that travels with statsmodels.

One row is one person in one year: 20,190 rows of 5,912 persons, 1974 to 1982. Persons are numbered in the
order of the file; ``randhie_persons.txt`` holds, for each, the number of rows (one digit, 1 to 5), from the
identifier ``zper`` of the original file, which not every release of statsmodels brings.

Bounds and edges come from the experiment's design and the codebook, never from the rows. Amounts of the
design are frequent, so each has a narrow bin of its own; decoding draws inside it and so gives the amount
back almost exactly.

- ``mdvis``: face-to-face visits to a physician in the year; 100 is a generous bound.
- ``lncoins``: ``ln(coinsurance + 1)``; rates of 0, 25, 50, 95 and 100 percent.
- ``idp``: on the plan with an individual deductible.
- ``lpi``: ``ln(max(1, participation incentive))``, in dollars a year; up to the greatest possible loss of
  $1,000, bounded at $1,500 for families that were paid more.
- ``fmde``: ``ln(max(1, MDE / (0.01 coinsurance)))``, 0 on the deductible plan; MDE is the maximum dollar
  expenditure: $1,000 or $750 (5, 10 or 15 percent of income if less), or $150 a person up to $450 a family.
- ``physlm``: physical limitation at baseline: 0 or 1, or in between where it was imputed by a group's mean.
- ``disea``: chronic diseases at baseline, as an index from 0 to 100; fractions, partly imputed.
- ``hlthg``, ``hlthf``, ``hlthp``: self-rated health good, fair or poor; excellent is the rest.

The label is ``hlthg``: 36 percent of the rows, told by the other columns neither trivially nor not at all.
``idp`` would be trivial (it follows from plan amounts), ``physlm`` is not a class, and ``hlthp`` is too
rare to learn under privacy.

Source: statsmodels, ``datasets/randhie`` (public domain); Cameron and Trivedi (2005), "Microeconometrics",
    chapter 20; Manning et al. (1987), American Economic Review 77(3), 251-277.
"""

from __future__ import annotations

from functools import cache
from math import log
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fedgen.schema.columns import Boolean, Continuous, Integer
from fedgen.schema.table import TableSchema

SUBJECT: Final = "person"
_NARROW: Final = 0.001
_VISITS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 100)
_RATES: Final = (25, 50, 95, 100)
_INCENTIVES: Final = (150, 300, 450, 750, 1000)
_EXPENDITURES: Final = (
    *(amount / 0.95 for amount in (150, 300, 450, 1000)),
    1000 / 0.5,
    750 / 0.25,
    1000 / 0.25,
)


def _around(points: tuple[float, ...], between: tuple[float, ...] = ()) -> tuple[float, ...]:
    """Return edges from 0 on: a narrow bin at 0 and around each point, plain edges in between."""
    edges = {0.0, _NARROW, *between}
    for point in points:
        edges |= {point - _NARROW, point + _NARROW}
    return tuple(sorted(round(edge, 6) for edge in edges))


def _logs(*amounts: float) -> tuple[float, ...]:
    return tuple(log(amount) for amount in amounts)


def randhie_schema() -> TableSchema:
    """Return the public schema; see the table in :mod:`fedgen.data.randhie`."""
    lncoins = _around(_logs(*(rate + 1 for rate in _RATES)))
    lpi = _around(_logs(*_INCENTIVES), _logs(50, 100, 200, 375, 525, 600, 675, 875, 1500))
    fmde = _around(_logs(*_EXPENDITURES), _logs(100, 200, 400, 700, 1400, 2500, 3500))
    disea = (0.0, _NARROW, *(2.5 * step for step in range(1, 15)), 40.0, 50.0, 60.0, 100.0)
    physlm = (0.0, _NARROW, 0.5, 1.0 - _NARROW, 1.0)
    return TableSchema(
        columns=(
            Integer(name="mdvis", min=0, max=100, edges=_VISITS),
            _continuous("lncoins", lncoins),
            Boolean(name="idp"),
            _continuous("lpi", lpi),
            _continuous("fmde", fmde),
            _continuous("physlm", physlm),
            _continuous("disea", disea),
            Boolean(name="hlthg"),
            Boolean(name="hlthf"),
            Boolean(name="hlthp"),
        ),
        label="hlthg",
        subject=SUBJECT,
        description="RAND Health Insurance Experiment, one row for each person and year (public domain)",
    )


def _continuous(name: str, edges: tuple[float, ...]) -> Continuous:
    return Continuous(name=name, min=edges[0], max=edges[-1], edges=edges)


@cache
def persons() -> npt.NDArray[np.int64]:
    """Return the number of the person in each row, from 1, shape ``(20190,)``, read-only."""
    digits = Path(__file__).with_name("randhie_persons.txt").read_text(encoding="ascii")
    years = np.array([int(digit) for digit in digits if digit.isdigit()])
    numbers = np.repeat(np.arange(1, len(years) + 1), years)
    numbers.setflags(write=False)
    return numbers
