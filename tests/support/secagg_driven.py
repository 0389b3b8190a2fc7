"""Sites and a coordinator of secure aggregation behind their drivers, in memory, with sites that fall silent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.secagg import WEIGHTS, identities

from fedgen.coordinator.secure_round import PlainRounds, SecureRounds
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.secagg import wire
from fedgen.secagg.wire import Kind
from fedgen.site.secure import PlainSite, SecureSite, Work
from fedgen.site.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

    from fedgen.secagg.terms import Terms


@dataclass
class Kept:
    """A standing that outlives a site's restart."""

    standing: Standing = field(default_factory=Standing)

    def load(self) -> Standing:
        return self.standing

    def keep(self, standing: Standing) -> None:
        self.standing = standing


@dataclass
class Shelf:
    """A coordinator's store that outlives its restart."""

    setup: int = 0
    round: int = 0

    def next_setup(self) -> int:
        self.setup += 1
        return self.setup

    def opening(self, round_number: int) -> None:
        self.round = max(self.round, round_number)

    def opened(self) -> int:
        return self.round


class Fleet:
    """All sites of one run; ``share`` makes each site's vector of a round, ``silent`` says who does not answer."""

    def __init__(
        self,
        terms: Terms,
        share: Callable[[str, int], np.ndarray],
        *,
        masked: bool = True,
        silent: Callable[[str, str], bool] = lambda _name, _step: False,
    ) -> None:
        self.terms, self.share, self.masked, self.silent = terms, share, masked, silent
        self.kept = {name: Kept() for name, _ in terms.sites}
        self.sites: dict[str, SecureSite | PlainSite] = {}
        for name in self.kept:
            self.restart(name)
        self.charged: list[tuple[str, int, int]] = []
        self.steps: Counter[str] = Counter()
        self.noted: list[tuple[str, Code]] = []
        self.asked: tuple[int, int] = (0, 0)
        self.weights = WEIGHTS

    def restart(self, name: str) -> None:
        kept = self.kept[name]
        self.sites[name] = (
            SecureSite(self.terms, name, identities(len(self.terms.sites))[name], kept)
            if self.masked
            else PlainSite(self.terms, name, kept)
        )

    def work(self, name: str) -> Work:
        number, attempt = self.asked
        return Work(
            round=number,
            attempt=attempt,
            weights=self.weights,
            charge=lambda: self.charged.append((name, number, attempt)),
            share=lambda: self.share(name, number),
        )

    def deliver(self, name: str, frame: bytes) -> bytes:
        site = self.sites[name]
        if wire.kind_of(frame) is Kind.START:
            return site.contribute(frame, self.work(name))
        assert isinstance(site, SecureSite)
        return site.answer(frame)

    def ask(self, frames: Mapping[str, bytes], step: str) -> Iterator[tuple[str, bytes]]:
        self.steps[step] += 1
        for name, frame in frames.items():
            if self.silent(name, step):
                continue
            try:
                reply = self.deliver(name, frame)
            except (IntegrityError, Refused) as error:
                self.noted.append((name, error.code))
                continue
            yield name, reply

    def note(self, name: str, code: Code) -> None:
        self.noted.append((name, code))

    def rounds(self, store: Shelf | None = None, **more) -> SecureRounds | PlainRounds:
        if not self.masked:
            return PlainRounds(self.terms, self.ask, note=self.note, **more)
        return SecureRounds(self.terms, self.ask, store=store or Shelf(), note=self.note, **more)

    def run(self, rounds: SecureRounds | PlainRounds, number: int, attempt: int = 1):
        self.asked = number, attempt
        return rounds.round(number, attempt, self.weights)
