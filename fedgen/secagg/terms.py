"""What every site and the server agreed on before anything was sent: the study's choices, the roster, and their digest.

Terms come from the resolved study and the roster that each site holds itself, never from a message. Their digest is
in every signature and every key, so a participant with other terms understands nobody.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from fedgen.crypto.derive import domain
from fedgen.crypto.keys import VerifyKey
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.messages import canonical
from fedgen.secagg.graph import FULL, MAX_SITES, degree

MIN_COHORT: Final = 3
MAX_DIMENSION: Final = 2**28
_HONEST: Final = 2  # a sum with one honest site in it is that site's update


class Recovery(StrEnum):
    """What happens to a turn from which a site drops out."""

    UNMASK = "unmask"  # the others open what is needed: two messages a turn, three when somebody dropped
    RESTART = "restart"  # the turn is void and begins again without it: one message a turn


def default_threshold(sites: int) -> int:
    """Return two thirds of the sites, rounded up."""
    return -(-2 * sites // 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One run's terms of secure aggregation.

    Guarantees:
        - Two different survivor sets cannot both be opened while at most ``colluders`` sites collude:
          ``2 threshold > sites + colluders``.
        - Every sum holds at least two honest sites and at least ``sites - dropouts`` shares of noise.

    Args:
        study: 64 hex digits.
        run: 64 hex digits.
        sites: Names and Ed25519 public keys, by name: the roster.
        dimension: Items of the vector.
        threshold: Sites that must agree, and shares that open a secret; more than half.
        dropouts: Sites that may be missing from a sum.
        colluders: Sites assumed to tell the server all they know.
        cohort: Fewest sites in a sum, whatever else is allowed.
        ring: Bits of the ring the sum is taken in.
        recovery: What happens to a turn from which a site drops out.

    Raises:
        ConfigError: The numbers do not fit together.
    """

    study: str
    run: str
    sites: tuple[tuple[str, bytes], ...]
    dimension: int
    threshold: int
    dropouts: int = 0
    colluders: int = 0
    cohort: int = MIN_COHORT
    ring: int = 32
    recovery: Recovery = Recovery.UNMASK

    def __post_init__(self) -> None:
        """Refuse terms under which somebody's update could be seen."""
        n, names = len(self.sites), [name for name, _ in self.sites]
        if names != sorted(set(names)):
            raise ConfigError("the roster must be sorted by name, each name once", key="sites")
        _require(MIN_COHORT <= n <= MAX_SITES, "sites", f"needs {MIN_COHORT} to {MAX_SITES} sites, not {n}")
        _require(1 <= self.dimension <= MAX_DIMENSION, "model", "the vector is empty or too long")
        _require(self.ring in {32, 64}, "ring", "is 32 or 64 bits")
        _require(self.dropouts >= 0, "dropouts", "must be at least zero")
        _require(self.colluders >= 0, "colluders", "must be at least zero")
        _require(self.cohort >= MIN_COHORT, "cohort", f"must be at least {MIN_COHORT}")
        _require(n // 2 < self.threshold <= n, "threshold", f"must be above half of {n} sites, at most all")
        _require(
            2 * self.threshold > n + self.colluders,
            "threshold",
            f"twice the threshold must be above sites and colluders together, {n + self.colluders}: "
            "otherwise two survivor sets could both be opened",
        )
        _require(
            self.dropouts <= n - max(self.threshold, self.cohort),
            "dropouts",
            f"at most {n - max(self.threshold, self.cohort)} of {n} sites may drop out at this threshold and cohort",
        )
        _require(
            self.least - self.colluders >= _HONEST,
            "colluders",
            f"a sum of {self.least} sites with {self.colluders} colluders would show an honest site's update",
        )
        if n > FULL:
            try:
                self.graph(n)
            except ValueError as error:
                raise ConfigError(str(error), key="secagg.colluders") from None

    @property
    def least(self) -> int:
        """The fewest sites a sum may hold: threshold, cohort and noise all allow it."""
        return max(self.threshold, self.cohort, len(self.sites) - self.dropouts)

    @property
    def believed(self) -> int:
        """How many sites may speak against one without being believed: as many as may lie, never fewer than one.

        These are the colluders that the protocol withstands, whether assumed or not.
        """
        n = len(self.sites)
        return max(1, self.colluders, 2 * self.threshold - n - 1 if n <= FULL else 0)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Items of the ring, little-endian."""
        return np.dtype("<u4" if self.ring == 32 else "<u8")  # noqa: PLR2004 - bits

    @property
    def digest(self) -> bytes:
        """SHA-256 of everything above, in one canonical form."""
        body = {
            "study": self.study,
            "run": self.run,
            "sites": [[name, public.hex()] for name, public in self.sites],
            "dimension": self.dimension,
            "threshold": self.threshold,
            "dropouts": self.dropouts,
            "colluders": self.colluders,
            "cohort": self.cohort,
            "ring": self.ring,
            "recovery": self.recovery.value,
        }
        return hashlib.sha256(domain("secagg/terms") + canonical(body)).digest()

    def index(self, name: str) -> int:
        """Return a site's place in the roster.

        Raises:
            IntegrityError: It has none (code ``unknown-sender``).
        """
        for index, (each, _) in enumerate(self.sites):
            if each == name:
                return index
        raise IntegrityError("the site is not in the roster", code=Code.UNKNOWN_SENDER)

    def name(self, index: int) -> str:
        """Return the name at a place of the roster."""
        return self.sites[index][0]

    def verify_key(self, index: int) -> VerifyKey:
        """Return the key that the site at a place of the roster signs with."""
        return VerifyKey(self.sites[index][1])

    def graph(self, members: int) -> tuple[int, int]:
        """Return the degree of the graph among so many members, and how many holders open a secret.

        Whoever is no member is missing already: of the members so many fewer may still drop out.
        """
        if len(self.sites) <= FULL:
            return members - 1, self.threshold
        missing = len(self.sites) - members
        return degree(
            members,
            self.colluders,
            max(0, self.dropouts - missing),
            opened=self.recovery is Recovery.UNMASK,
        )


def _require(holds: bool, key: str, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise a ``ConfigError`` about one key of the study's secagg section."""
    if not holds:
        raise ConfigError(
            f"{key} {what}" if not what.startswith(("a ", "at ", "twice", "the ")) else what,
            key=f"secagg.{key}",
            hint="see docs/spec/secagg.md",
        )
