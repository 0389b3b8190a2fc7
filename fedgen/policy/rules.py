"""What a rule is, and the registry: data-less, pure questions about every row at once.

A rule is a function ``(view, facts) -> mask``: which rows it hits. The view is the table (rows, where people stand, the
request); the facts are a pack compiled for this request. A rule holds no fact of its own: which country is
adequate, which age counts, from when, stands in the pack. **A null in any operand hits.** Precedence (S7) decides
which hit names the decision; all hits are kept.

The rules themselves are in :mod:`fedgen.policy.rules_shared`, ``rules_gdpr`` and ``rules_ccpa``; those of the run
gate in :mod:`fedgen.policy.run_gate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.columns import Destination, Records, Request, Type
from fedgen.policy.standing import OPERATIVE, Flag, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fedgen.policy.calendar import CutOff
    from fedgen.policy.codes import Code
    from fedgen.policy.pack import Pack

    Mask = NDArray[np.bool_]
    Test = Callable[["View", "Facts"], Mask]


@dataclass(frozen=True, slots=True)
class Facts:
    """A pack compiled for one request: cut-offs and small tables, so that a row only compares numbers.

    Attributes:
        pack: The pack.
        cut_offs: By place in the table's retention rules; None: this pack has no such rule.
        min_notice: The purpose's minimum notice version; None: the pack does not know the purpose or states none.
        direct_marketing: Whether the purpose is.
        research: Whether the purpose is.
        known_purpose: Whether the pack knows the purpose.
        sensitive_permitted: Whether the purpose may not be limited.
        stays_in: Whether the destination is no transfer.
        adequate: Whether it is adequate at T for this importer.
        safeguarded: Whether an accepted tool of Art. 46 is there.
        admt_applies: Whether an opt-out of automated decisions counts at T.
        minor_days: By place in the table's zones: the latest birth days of a grown-up and of a teenager, at T.
    """

    pack: Pack
    cut_offs: tuple[CutOff | None, ...]
    min_notice: int | None
    direct_marketing: bool
    research: bool
    known_purpose: bool
    sensitive_permitted: bool
    stays_in: bool
    adequate: bool
    safeguarded: bool
    admt_applies: bool
    minor_days: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A table of rows, where its people stand, and what is asked."""

    records: Records
    standing: Standing
    request: Request
    flags: NDArray[np.uint32] = field(init=False)
    consent: NDArray[np.uint8] = field(init=False)
    is_record: Mask = field(init=False)
    is_artefact: Mask = field(init=False)

    def __post_init__(self) -> None:
        place = self.records.subject
        # NULL is -1, and the last place of every column of people belongs to nobody.
        object.__setattr__(self, "flags", self.standing.flags[place])
        object.__setattr__(self, "consent", self.standing.consent[place])
        object.__setattr__(self, "is_record", self.records.type == Type.RECORD)
        object.__setattr__(
            self,
            "is_artefact",
            (self.records.type == Type.CHECKPOINT) | (self.records.type == Type.SYNTHETIC_RELEASE),
        )

    @property
    def retains(self) -> bool:
        """Whether the request asks if things may stay stored."""
        return self.request.operation == "retain"

    @property
    def goes_to(self) -> Destination:
        """The destination; an undescribed one has no country."""
        return self.request.destination or Destination()

    def has(self, flag: Flag) -> Mask:
        """Return which rows' people have a flag."""
        return np.asarray((self.flags & np.uint32(flag)) != 0)

    def each(self, of_people: NDArray[np.bool_]) -> Mask:
        """Return, per row, what is true of its person."""
        return of_people[self.records.subject]

    def none(self) -> Mask:
        """Return no row."""
        return np.zeros(len(self.records), dtype=bool)

    def every(self) -> Mask:
        """Return all rows."""
        return np.ones(len(self.records), dtype=bool)

    def collected_for(self, test: Callable[[frozenset[str] | None], bool]) -> Mask:
        """Return the rows whose set of purposes passes a test; there are few sets."""
        return np.array([test(each) for each in self.records.purpose_sets] or [True], dtype=bool)[
            self.records.collected_for
        ]

    def categories(self, test: Callable[[frozenset[str] | None, frozenset[str] | None], bool]) -> Mask:
        """Return the rows whose pair of ordinary and special categories passes a test."""
        return np.array([test(*each) for each in self.records.category_sets] or [True], dtype=bool)[
            self.records.categories
        ]

    def consent_holds(self) -> Mask:
        """Return the rows whose person has an operative consent that is not over."""
        held = (self.standing.consent == OPERATIVE) & (self.standing.valid_until > self.request.time)
        return self.each(held)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the registry.

    Attributes:
        id: As in the tables of the specification, such as ``G-7.3a``.
        code: What a hit says.
        law: The family it belongs to.
        citation: Where the law says so.
        precedence: Less comes first.
        test: The question.
    """

    id: str
    code: Code
    law: str
    citation: str
    precedence: int
    test: Test


RULES: Final[dict[str, Rule]] = {}


def rule(id_: str, code: Code, law: str, citation: str, precedence: int) -> Callable[[Test], Test]:
    """Register a rule under its identifier."""

    def register(test: Test) -> Test:
        if id_ in RULES:
            raise ValueError(f"two rules are called {id_}")
        RULES[id_] = Rule(id_, code, law, citation, precedence, test)
        return test

    return register
